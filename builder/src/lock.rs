//! `kscratch.lock` is a [`Lock`]: exactly which artifacts an image is made of, by version, place, size and digest.
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use crate::console::Hint;
use crate::kubernetes::version;
use crate::spec::{CriDockerdSource, ImageSpec, Role};
use crate::store::{Digest, sync_folder};

/// Every artifact of an image, and what was asked for when they were chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Version of this format: 1.
    pub version: u32,
    /// What the spec asked for.
    pub inputs: Inputs,
    /// The Debian releases that packages were chosen from.
    #[serde(rename = "release")]
    pub releases: Vec<DebianRelease>,
    /// The artifacts, sorted by name, which is unique.
    #[serde(rename = "artifact")]
    pub artifacts: Vec<Artifact>,
}

/// The part of an image spec that decides which artifacts there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inputs {
    /// Debian suites, e.g. `trixie`, `trixie-updates`, `trixie-security`.
    pub suites: Vec<String>,
    /// Debian packages that were declared.
    pub packages: Vec<String>,
    /// Kubernetes version.
    pub kubernetes: String,
    /// Where Kubernetes comes from (`auto`, `tarball`, `compile` or a path).
    pub kubernetes_source: String,
    /// cri-dockerd version.
    pub cri_dockerd: String,
    /// Where cri-dockerd comes from (`compile` or a path); locks from before there was a choice were for compiling.
    #[serde(default = "compiled")]
    pub cri_dockerd_source: String,
    /// What masters need besides; none in a lock that was made for nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_plane: Option<ControlPlane>,
}

/// What was asked for of a master's artifacts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlPlane {
    /// Version of etcd; without it, the one that goes with Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd: Option<String>,
    /// Version of CoreDNS.
    pub coredns: String,
}

fn compiled() -> String {
    CriDockerdSource::Compile.to_string()
}

/// A Debian release file as it was when packages were chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DebianRelease {
    /// Which archive.
    pub archive: Archive,
    /// Name below `dists/`, e.g. `trixie-security`.
    pub suite: String,
    /// Its `Date:`, seconds since 1970.
    pub date: u64,
    /// Digest of the InRelease file.
    pub sha256: Digest,
}

/// Debian's archives, by what they are: which mirror serves them is the machine's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Archive {
    /// Releases and their updates.
    Main,
    /// Security updates.
    Security,
}

/// One thing that is fetched or made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// Name, unique: the package's name, `kubernetes`, `cri-dockerd`.
    pub name: String,
    /// Version, as its origin writes it.
    pub version: String,
    /// Length in bytes; none for what is compiled and has not been yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Digest; none for what is compiled and has not been yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where an artifact comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Origin {
    /// A package of Debian's archive.
    DebianPackage {
        /// Which archive.
        archive: Archive,
        /// Path below the archive's base URL, `pool/main/d/docker.io/docker.io_….deb`.
        path: String,
    },
    /// A program compiled from a Go module.
    GoBuild {
        /// Module path.
        module: String,
        /// Module version with its `v`.
        module_version: String,
        /// Programs (package paths) that are built.
        programs: Vec<String>,
        /// SHA-256 of the committed go.mod and go.sum that pin every module.
        go_sum: Digest,
        /// Go version, e.g. `1.26.1`.
        go: String,
        /// Flags of `go build`.
        flags: Vec<String>,
    },
    /// An archive at a URL.
    Tarball {
        /// Where.
        url: String,
        /// The published SHA-512, in hex.
        sha512: String,
    },
    /// A file or folder of this machine.
    LocalFile {
        /// Where.
        path: String,
    },
}

const HEADER: &str = "# Made by `kscratch-image lock`: what exactly an image is made of. Keep it with image.toml.\n";

impl Lock {
    /// Reads the text of a lock file.
    pub fn parse(text: &str) -> Result<Lock> {
        let lock: Lock = toml::from_str(text).map_err(|error| anyhow!("{}", error.to_string().trim_end()))?;
        if lock.version != 1 {
            bail!("it is of version {}; this program reads version 1", lock.version);
        }
        for artifact in &lock.artifacts {
            if let Origin::DebianPackage { path, .. } = &artifact.origin
                && (path.starts_with('/') || path.split('/').any(|part| part == ".." || part.is_empty()))
            {
                bail!("the path `{path}` of {} leads out of the archive", artifact.name);
            }
            if let Origin::GoBuild { go, .. } = &artifact.origin {
                version::go(go).with_context(|| format!("reading the artifact {}", artifact.name))?;
            }
            if artifact.sha256.is_some() != artifact.size.is_some() {
                bail!("{} has one of size and sha256 without the other", artifact.name);
            }
        }
        for pair in lock.artifacts.windows(2) {
            if pair[0].name >= pair[1].name {
                bail!("the artifacts {} and {} are not in order, or there twice", pair[0].name, pair[1].name);
            }
        }
        Ok(lock)
    }

    /// Reads a lock file.
    pub fn read(file: &Path) -> Result<Lock> {
        let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        Lock::parse(&text).with_context(|| format!("reading {}", file.display()))
    }

    /// The text of the lock file: the same lock always gives the same text.
    pub fn print(&self) -> Result<String> {
        Ok(format!("{HEADER}{}", toml::to_string(self).context("printing the lock")?))
    }

    /// Writes the lock file, whole or not at all.
    pub fn write(&self, file: &Path) -> Result<()> {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let context = || format!("writing {}", file.display());
        let mut part = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(folder)
            .with_context(context)?;
        part.write_all(self.print()?.as_bytes()).with_context(context)?;
        part.as_file().sync_all().with_context(context)?;
        part.persist(file).with_context(context)?;
        sync_folder(file).with_context(context)
    }

    /// An artifact by its name.
    pub fn get(&self, name: &str) -> Option<&Artifact> {
        self.artifacts.iter().find(|artifact| artifact.name == name)
    }

    /// The package of the kernel itself.
    pub fn kernel(&self) -> Result<&Artifact> {
        let kernel = self.artifacts.iter().find(|artifact| is_kernel(&artifact.name));
        kernel.context("the lock has no kernel package (linux-image-...)")
    }

    /// The time that files of an image bear, seconds since 1970: the newest date of the Debian releases.
    pub fn source_date(&self) -> u64 {
        self.releases.iter().map(|release| release.date).max().unwrap_or(0)
    }

    /// Refuses a lock that was made for another spec, saying what differs. A node needs nothing of what a lock has for masters.
    pub fn matches(&self, spec: &ImageSpec, role: Role) -> Result<()> {
        if role == Role::Master && self.inputs.control_plane.is_none() {
            return Err(anyhow!("the lock has no control plane: it was made for nodes").context(Hint(
                "kscratch-image lock --role master makes it anew; build without --locked adds what is missing".into(),
            )));
        }
        let differences = self.inputs.differences(&Inputs::of(spec, role));
        if differences.is_empty() {
            return Ok(());
        }
        Err(anyhow!("{}", differences.join("; "))
            .context(Hint("kscratch-image lock makes it anew; build without --locked does so too".into()))
            .context("the lock was made for other settings"))
    }
}

/// Whether a package is a kernel with its modules.
pub(crate) fn is_kernel(package: &str) -> bool {
    package.strip_prefix("linux-image-").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

impl Inputs {
    /// What a spec asks for. What is for masters is enough for nodes too.
    pub fn of(spec: &ImageSpec, role: Role) -> Inputs {
        let suite = &spec.debian.suite;
        let mut suites = vec![suite.clone()];
        suites.extend(spec.debian.updates.then(|| format!("{suite}-updates")));
        suites.extend(spec.debian.security.then(|| format!("{suite}-security")));
        Inputs {
            suites,
            packages: spec.packages(),
            kubernetes: spec.kubernetes.version.clone(),
            kubernetes_source: spec.kubernetes.source.to_string(),
            cri_dockerd: spec.cri_dockerd.version.clone(),
            cri_dockerd_source: spec.cri_dockerd.source.to_string(),
            control_plane: (role == Role::Master)
                .then(|| ControlPlane { etcd: spec.etcd.version.clone(), coredns: spec.coredns.version.clone() }),
        }
    }

    /// Whether an artifact of this name was chosen by the same settings in both.
    pub(crate) fn same_settings(&self, other: &Inputs, name: &str) -> bool {
        let kubernetes = (&self.kubernetes, &self.kubernetes_source) == (&other.kubernetes, &other.kubernetes_source);
        let asked = |ask: fn(&ControlPlane) -> Option<&String>| {
            self.control_plane.as_ref().and_then(ask) == other.control_plane.as_ref().and_then(ask)
        };
        match name {
            "kubernetes" | "kubernetes-control-plane" | "kubectl" => kubernetes,
            // Unless it is said, it follows from Kubernetes.
            "etcd" => asked(|inputs| inputs.etcd.as_ref()) && kubernetes,
            "coredns" => asked(|inputs| Some(&inputs.coredns)),
            "cri-dockerd" => {
                (&self.cri_dockerd, &self.cri_dockerd_source) == (&other.cri_dockerd, &other.cri_dockerd_source)
            }
            _ => self.suites == other.suites,
        }
    }

    fn differences(&self, spec: &Inputs) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |what: &str, locked: &str, wanted: &str| {
            if locked != wanted {
                found.push(format!("{what}: the lock has {locked}, the settings say {wanted}"));
            }
        };
        compare("Debian suites", &self.suites.join(", "), &spec.suites.join(", "));
        compare("Kubernetes", &self.kubernetes, &spec.kubernetes);
        compare("source of Kubernetes", &self.kubernetes_source, &spec.kubernetes_source);
        compare("cri-dockerd", &self.cri_dockerd, &spec.cri_dockerd);
        compare("source of cri-dockerd", &self.cri_dockerd_source, &spec.cri_dockerd_source);
        if let (Some(locked), Some(wanted)) = (&self.control_plane, &spec.control_plane) {
            let etcd =
                |inputs: &ControlPlane| inputs.etcd.clone().unwrap_or("the one that goes with Kubernetes".into());
            compare("etcd", &etcd(locked), &etcd(wanted));
            compare("CoreDNS", &locked.coredns, &wanted.coredns);
        }
        found.extend(
            spec.packages
                .iter()
                .filter(|name| !self.packages.contains(name))
                .map(|name| format!("the package {name} is not in the lock")),
        );
        found.extend(
            self.packages
                .iter()
                .filter(|name| !spec.packages.contains(name))
                .map(|name| format!("the package {name} is no longer asked for")),
        );
        found
    }
}

#[cfg(test)]
mod tests;
