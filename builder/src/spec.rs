//! `image.toml` laid over the defaults becomes an [`ImageSpec`]: what the user wants in the image, not yet which versions.
//!
//! The defaults are a file of the same form, [`DEFAULT`]; `kscratch-image config` prints it. Tables are merged key by key;
//! plain lists replace the default's; `[[program]]`, `[[file]]` and `[[bundle]]` are added to the default's entries, and `drop`
//! takes default entries out by their path.
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

mod hardware;
mod keys;
mod merge;
mod sector;
mod source;
mod state;

pub use hardware::{Flavour, Hardware};
pub use sector::SectorSize;
pub use source::{CriDockerdSource, KubernetesSource};
pub use state::{State, WORD as STATE_ELSEWHERE};

/// The commented defaults.
pub const DEFAULT: &str = include_str!("spec/default.toml");

/// Everything that an image is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageSpec {
    /// Where image.toml is. Relative sources of Kubernetes and cri-dockerd are taken from there and stay as they are written, as locks
    /// hold them: a lock fits from wherever it is looked at.
    #[serde(skip)]
    pub folder: PathBuf,
    /// Version of this format: 1.
    pub version: u32,
    /// Paths of default `[[program]]`, `[[file]]` and `[[bundle]]` entries that are left out.
    #[serde(default)]
    pub drop: Vec<String>,
    /// Where Debian packages come from.
    pub debian: Debian,
    /// The kernel, its modules and its command line.
    pub kernel: Kernel,
    /// What the kernel has drivers for, and what those need besides.
    pub hardware: Hardware,
    /// What the builder itself needs to make the boot file; not in the root tree.
    pub boot: Boot,
    /// Where Kubernetes comes from.
    pub kubernetes: Kubernetes,
    /// Which cri-dockerd goes with it.
    pub cri_dockerd: CriDockerd,
    /// The store of a master's API server.
    pub etcd: Etcd,
    /// The cluster's DNS server.
    pub coredns: CoreDns,
    /// Sizes of partitions.
    pub disk: Disk,
    /// Container images that are in docker's store at first boot, besides the pause image.
    pub images: Images,
    /// Static pod manifests.
    pub manifests: Manifests,
    /// Files of one's own in the root.
    pub overlays: Overlays,
    /// Programs, each with the libraries it needs.
    #[serde(rename = "program", default)]
    pub programs: Vec<Program>,
    /// Data files.
    #[serde(rename = "file", default)]
    pub files: Vec<DataFile>,
    /// Files joined into one.
    #[serde(rename = "bundle", default)]
    pub bundles: Vec<Bundle>,
}

/// `[debian]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Debian {
    /// Codename of the release, e.g. `trixie`.
    pub suite: String,
    /// Whether `SUITE-updates` is looked at too.
    pub updates: bool,
    /// Whether `SUITE-security` of the security archive is looked at too.
    pub security: bool,
    /// Base URL of the archive; without it, the machine's apt configuration tells.
    pub mirror: Option<String>,
    /// Base URL of the security archive; without it, the machine's apt configuration tells.
    pub security_mirror: Option<String>,
    /// Components of the archive; those after the first are asked only for packages that it lacks.
    pub components: Vec<String>,
    /// Keys that the archive is verified with; without it, the machine's Debian keyring or else the keys in the program.
    pub keyring: Option<PathBuf>,
    /// Packages fetched besides those that declarations name (for tools of one's own on the unpacked index).
    #[serde(default)]
    pub packages: Vec<String>,
}

/// `[kernel]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// Which of Debian's kernels.
    pub flavour: Flavour,
    /// Consoles in the kernel's form (`ttyS0,115200`); the last one is `/dev/console`.
    pub console: Vec<String>,
    /// Further words of the kernel command line.
    pub cmdline: Vec<String>,
    /// Modules in the root: names (`overlay`), or globs of paths below `kernel/` (`drivers/net/ethernet/intel/**`).
    pub modules: Vec<String>,
    /// Modules in the initramfs, in the same form.
    pub initramfs: Vec<String>,
    /// Modules that are in it besides where the root comes over the network.
    pub netboot: Vec<String>,
    /// Modules loaded at boot without any hardware asking for them.
    pub load: Vec<String>,
}

/// `[boot]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boot {
    /// Package that holds the EFI stub.
    pub stub_package: String,
    /// Path of the EFI stub in it.
    pub stub: String,
}

/// `[kubernetes]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kubernetes {
    /// Version without `v`, e.g. `1.37.2`.
    pub version: String,
    /// How it is got.
    pub source: KubernetesSource,
}

/// `[cri_dockerd]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CriDockerd {
    /// Version without `v`, e.g. `0.4.3`.
    pub version: String,
    /// How it is got.
    pub source: CriDockerdSource,
}

/// `[etcd]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Etcd {
    /// Version without `v`; without it, the one that goes with the version of Kubernetes.
    pub version: Option<String>,
}

/// `[coredns]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoreDns {
    /// Version without `v`.
    pub version: String,
}

/// `[disk]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// The EFI system partition.
    pub esp: ByteSize,
    /// Each of the two root slots.
    pub root: ByteSize,
    /// The state partition as written, which grows to the disk's end at first boot; or that there is none.
    pub state: State,
    /// The sectors that the disk has.
    pub sector_size: SectorSize,
}

/// A number of bytes, written with a binary unit: `512MiB`, `1GiB`. Always whole MiB: partitions are aligned to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize(pub u64);

const MIB: u64 = 1 << 20;

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("the size `{text}` is not a number with a unit, such as `512MiB` or `1GiB`");
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let number: u64 = text[..digits].parse().map_err(|_| form())?;
        let unit = match text[digits..].trim() {
            "MiB" => MIB,
            "GiB" => MIB << 10,
            "TiB" => MIB << 20,
            _ => return Err(form()),
        };
        match number.checked_mul(unit) {
            Some(0) => Err(format!("the size `{text}` is nothing")),
            Some(bytes) if bytes <= MIB << 24 => Ok(ByteSize(bytes)),
            _ => Err(format!("the size `{text}` is beyond 16 TiB")),
        }
    }
}

impl TryFrom<String> for ByteSize {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ByteSize> for String {
    fn from(size: ByteSize) -> String {
        size.to_string()
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 / MIB {
            mib if mib % 1024 == 0 => write!(f, "{}GiB", mib / 1024),
            mib => write!(f, "{mib}MiB"),
        }
    }
}

/// `[images]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Images {
    /// `docker save` archives, relative to image.toml.
    pub load: Vec<PathBuf>,
}

/// `[manifests]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifests {
    /// YAML files of static pods, relative to image.toml.
    pub files: Vec<PathBuf>,
}

/// `[overlays]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overlays {
    /// Folders that stand for `/`, relative to image.toml.
    pub folders: Vec<PathBuf>,
}

/// What a machine is in its cluster, as declarations name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Runs pods.
    Node,
    /// Runs the control plane too.
    Master,
}

/// `[[program]]`: an executable of a package, with the libraries that it needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// Debian package that holds it.
    pub package: String,
    /// Absolute path in the package; a link is followed, and both are taken.
    pub path: String,
    /// Absolute path in the image, where it differs.
    #[serde(rename = "as")]
    pub target: Option<String>,
    /// Absolute paths of further symbolic links to it.
    #[serde(default)]
    pub links: Vec<String>,
    /// Roles that have it; empty means every role.
    #[serde(default)]
    pub roles: Vec<Role>,
}

impl Program {
    /// Absolute path in the image.
    pub fn destination(&self) -> &str {
        self.target.as_deref().unwrap_or(&self.path)
    }
}

/// `[[file]]`: data files of a package, taken as they are (a library among them brings its own libraries).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataFile {
    /// Debian package that holds them.
    pub package: String,
    /// Absolute path, or a glob (`*`, `**`, `?`, `{a,b}`; a `*` stays within one folder).
    pub path: String,
    /// Absolute path in the image, where it differs; a folder where `path` is a glob.
    #[serde(rename = "as")]
    pub target: Option<String>,
    /// Roles that have it; empty means every role.
    #[serde(default)]
    pub roles: Vec<Role>,
}

/// `[[bundle]]`: files of a package joined into one, in the order of their paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// Debian package that holds them.
    pub package: String,
    /// Absolute path or glob of the parts.
    pub path: String,
    /// Absolute path of the whole in the image.
    #[serde(rename = "as")]
    pub target: String,
    /// Roles that have it; empty means every role.
    #[serde(default)]
    pub roles: Vec<Role>,
}

impl ImageSpec {
    /// The defaults alone.
    pub fn defaults() -> Result<ImageSpec> {
        ImageSpec::parse("", Path::new("image.toml"))
    }

    /// Lays the text of an `image.toml` over the defaults. `file` is named in errors, and relative paths in it are taken from its folder.
    pub fn parse(text: &str, file: &Path) -> Result<ImageSpec> {
        let mut spec = merge::parse(text, file)?;
        if let Some(folder) = file.parent() {
            spec.anchor(folder);
        }
        Ok(spec)
    }

    /// Reads an `image.toml` and lays it over the defaults.
    pub fn read(file: &Path) -> Result<ImageSpec> {
        let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        ImageSpec::parse(&text, file)
    }

    /// The Debian packages that declarations name, sorted, each once; the kernel's by its flavour's package.
    pub fn packages(&self) -> Vec<String> {
        let mut names: Vec<String> = vec![self.kernel.flavour.package().into(), self.boot.stub_package.clone()];
        names.extend(self.debian.packages.iter().cloned());
        names.extend(self.firmware_packages().iter().chain(self.microcode_packages()).cloned());
        names.extend(self.programs.iter().map(|program| program.package.clone()));
        names.extend(self.files.iter().map(|file| file.package.clone()));
        names.extend(self.bundles.iter().map(|bundle| bundle.package.clone()));
        names.sort();
        names.dedup();
        names
    }

    /// Takes the sources' relative paths from where this program runs, as the other paths are: for settings that are printed.
    pub fn anchor_sources(&mut self) {
        let folder = std::mem::take(&mut self.folder);
        if let KubernetesSource::Path(path) = &mut self.kubernetes.source {
            *path = folder.join(&path);
        }
        if let CriDockerdSource::Path(path) = &mut self.cri_dockerd.source {
            *path = folder.join(&path);
        }
    }

    /// Makes relative paths relative to the folder of image.toml, but for those that locks hold.
    fn anchor(&mut self, folder: &Path) {
        let anchored = |path: &mut PathBuf| *path = folder.join(&path);
        self.images.load.iter_mut().for_each(anchored);
        self.manifests.files.iter_mut().for_each(anchored);
        self.overlays.folders.iter_mut().for_each(anchored);
        if let Some(keyring) = &mut self.debian.keyring {
            anchored(keyring);
        }
        folder.clone_into(&mut self.folder);
    }
}

#[cfg(test)]
mod tests;
