//! A tree like a node's made the usual way, by mmdebstrap and `mke2fs -d`, from packages that were fetched before.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kscratch_image::debian::mirror::Mirrors;
use kscratch_image::lock::Lock;
use kscratch_image::spec::ImageSpec;
use kscratch_image::store::{Digest, Store};

use crate::measure::node::Node;
use crate::measure::program::{self, BOUND};
use crate::measure::{settle, timed};
use crate::packages::{cold_cache, give};

/// What an image's programs come from, and a kernel: its package has a boot with an initramfs made, as ours has one.
const PACKAGES: [&str; 15] = [
    "linux-image-cloud-amd64",
    "docker.io",
    "containerd",
    "runc",
    "tini",
    "containernetworking-plugins",
    "iptables",
    "nftables",
    "conntrack",
    "ethtool",
    "iproute2",
    "mount",
    "util-linux",
    "e2fsprogs",
    "ca-certificates",
];

/// The programs that this takes.
#[derive(Debug)]
pub struct Tools {
    mmdebstrap: PathBuf,
    mke2fs: PathBuf,
    apt_get: PathBuf,
    dpkg_deb: PathBuf,
}

impl Tools {
    /// Finds them.
    ///
    /// # Errors
    /// One is missing: with the way to get it.
    pub fn find() -> Result<Tools> {
        Ok(Tools {
            mmdebstrap: program::tool("mmdebstrap", "mmdebstrap")?,
            mke2fs: program::tool("mke2fs", "e2fsprogs")?,
            apt_get: program::tool("apt-get", "apt")?,
            dpkg_deb: program::tool("dpkg-deb", "dpkg")?,
        })
    }
}

/// A folder that apt takes packages from as from a mirror.
#[derive(Debug)]
struct Repository {
    folder: PathBuf,
    suite: String,
    packages: usize,
}

/// Fetches the packages, and then makes the tree and its filesystem, which alone is timed. Also tells what was made.
///
/// # Errors
/// No network where packages are missing; what the tools say.
pub fn build(node: &Node, tools: &Tools) -> Result<(Duration, String)> {
    let repository = repository(node, tools).context("fetching the packages for mmdebstrap")?;
    let folder = tempfile::tempdir_in(&node.folder).context("making a folder for mmdebstrap")?;
    // mmdebstrap without root works as another user, who must get in here.
    let everyone = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(folder.path(), everyone).context("opening the folder to others")?;
    let programs = programs(node, folder.path())?;
    let (root, image) = (folder.path().join("root"), folder.path().join("root.ext4"));
    let make = commands(tools, &repository, &programs, &root, &image);
    settle();
    let took = timed(|| make.into_iter().try_for_each(|command| program::run(command, BOUND)))?;
    let bytes = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&image)?) * 512;
    remove(tools, &root)?;
    let what = format!(
        "for comparison: {} packages of {} installed by mmdebstrap (variant essential, none recommended, the kernel's initramfs made), \
         the same Kubernetes programs copied in, all as ext4 of {} MB",
        repository.packages,
        repository.suite,
        bytes / 1_000_000
    );
    Ok((took, what))
}

/// Whether this process may make any file of any owner.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A command with root's rights, real or within a user namespace of mmdebstrap's.
fn as_root(tools: &Tools, program: &Path) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut command = Command::new(&tools.mmdebstrap);
    command.arg("--unshare-helper").arg(program);
    command
}

fn commands(tools: &Tools, from: &Repository, programs: &[PathBuf], root: &Path, image: &Path) -> Vec<Command> {
    let mut tree = Command::new(&tools.mmdebstrap);
    tree.args(["--quiet", "--variant=essential", "--format=directory", "--architectures=amd64"]);
    tree.arg(format!("--mode={}", if is_root() { "root" } else { "unshare" }));
    tree.arg(format!("--include={}", PACKAGES.join(",")));
    // apt's own user may not get at the build's folder.
    tree.arg("--aptopt=APT::Sandbox::User \"root\"");
    let names: Vec<String> = programs.iter().map(|program| format!("'{}'", program.display())).collect();
    tree.arg(format!("--customize-hook=copy-in {} /usr/bin", names.join(" ")));
    tree.arg(&from.suite).arg(root).arg(format!(
        "deb [trusted=yes] copy:{} {} main",
        from.folder.display(),
        from.suite
    ));
    tree.env("TMPDIR", root.parent().unwrap_or(root));
    let mut filesystem = as_root(tools, &tools.mke2fs);
    filesystem.args(["-q", "-t", "ext4", "-d"]).arg(root).arg(image).arg("2G");
    vec![tree, filesystem]
}

fn remove(tools: &Tools, root: &Path) -> Result<()> {
    let mut remove = as_root(tools, Path::new("/bin/rm"));
    remove.args(["-rf", "--one-file-system"]).arg(root);
    program::run(remove, BOUND)
}

/// Kubernetes' programs under their own names, as the image has them.
fn programs(node: &Node, folder: &Path) -> Result<Vec<PathBuf>> {
    let cache = cold_cache(node)?;
    let lock = Lock::read(&node.lock)?;
    let silent = kscratch_image::console::Console::silent();
    let store = Store::open(cache.path())?;
    let release = kscratch_image::kubernetes::obtain(&lock, kscratch_image::spec::Role::Node, &store, true, &silent)?;
    let named = |(name, program): (&String, &kscratch_image::kubernetes::Program)| {
        let place = folder.join(name);
        give(&store.root().join(&program.file.file), &place)?;
        Ok(place)
    };
    release.programs.iter().map(named).collect()
}

/// The packages and all that they need as a mirror in a folder; kept until the image's lock is another one.
fn repository(node: &Node, tools: &Tools) -> Result<Repository> {
    let spec = ImageSpec::defaults()?;
    let suite = spec.debian.suite.clone();
    let lock = fs::read(&node.lock).context("reading the lock")?;
    let folder = node.folder.join("mmdebstrap-packages");
    let (stamp, text) = (folder.join("complete"), Digest::of(&lock).to_string());
    if fs::read_to_string(&stamp).is_ok_and(|found| found == text) {
        let packages = fs::read_dir(folder.join("pool"))?.count();
        return Ok(Repository { folder, suite, packages });
    }
    drop(fs::remove_dir_all(&folder));
    let pool = folder.join("pool");
    fs::create_dir_all(&pool).with_context(|| format!("making {}", pool.display()))?;
    fetch(&spec, tools, &folder)?;
    let archives = folder.join("apt/archives");
    for entry in fs::read_dir(&archives).with_context(|| format!("reading {}", archives.display()))? {
        let file = entry?;
        if file.path().extension().is_some_and(|extension| extension == "deb") {
            fs::rename(file.path(), pool.join(file.file_name()))?;
        }
    }
    fs::remove_dir_all(folder.join("apt"))?;
    let packages = index(tools, &folder, &suite)?;
    fs::write(&stamp, text)?;
    Ok(Repository { folder, suite, packages })
}

/// Downloads with this machine's apt, in folders of its own, so that neither its lists nor its packages change.
fn fetch(spec: &ImageSpec, tools: &Tools, folder: &Path) -> Result<()> {
    let apt = folder.join("apt");
    for inner in ["lists/partial", "archives/partial", "none"] {
        fs::create_dir_all(apt.join(inner))?;
    }
    let mirrors = Mirrors::find(&spec.debian, Path::new("/etc/apt"))?;
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("keys");
    let keys: Vec<String> = ["automatic", "security-automatic", "stable"]
        .map(|name| keys.join(format!("debian-archive-trixie-{name}.gpg")).display().to_string())
        .into();
    let suite = &spec.debian.suite;
    let line = |base: &str, suite: &str| format!("deb [signed-by={}] {base} {suite} main\n", keys.join(","));
    let mut sources = line(&mirrors.main, suite) + &line(&mirrors.main, &format!("{suite}-updates"));
    if let Some(security) = &mirrors.security {
        sources += &line(security, &format!("{suite}-security"));
    }
    fs::write(apt.join("sources.list"), sources)?;
    fs::write(apt.join("status"), "")?;
    let apt_get = |words: &[&str]| {
        let mut command = Command::new(&tools.apt_get);
        let place = |key: &str, name: &str| format!("{key}={}", apt.join(name).display());
        let options = [
            place("Dir::Etc::sourcelist", "sources.list"),
            place("Dir::Etc::sourceparts", "none"),
            place("Dir::Etc::preferences", "no-preferences"),
            place("Dir::Etc::preferencesparts", "none"),
            place("Dir::State", ""),
            place("Dir::State::lists", "lists"),
            place("Dir::State::status", "status"),
            place("Dir::Cache", ""),
            place("Dir::Cache::archives", "archives"),
            "APT::Architecture=amd64".into(),
            "APT::Install-Recommends=false".into(),
            "APT::Sandbox::User=root".into(),
            "Acquire::Languages=none".into(),
        ];
        command.args(options.iter().flat_map(|option| ["-o", option])).arg("--quiet").args(words);
        program::run(command, BOUND)
    };
    apt_get(&["update"])?;
    let mut install = vec!["install", "--yes", "--download-only", "--no-install-recommends", "?essential"];
    install.extend(PACKAGES);
    apt_get(&install)
}

/// Writes the tables of a mirror (Debian's "RepositoryFormat"): `Packages` out of the packages' own fields, and `Release`.
fn index(tools: &Tools, folder: &Path, suite: &str) -> Result<usize> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder.join("pool"))?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    let mut packages = String::new();
    for file in &files {
        let fields = Command::new(&tools.dpkg_deb).arg("--field").arg(file).output().context("starting dpkg-deb")?;
        ensure!(fields.status.success(), "dpkg-deb --field {} ended with {}", file.display(), fields.status);
        let bytes = fs::read(file)?;
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        packages += String::from_utf8_lossy(&fields.stdout).trim_end();
        packages += &format!("\nFilename: pool/{name}\nSize: {}\nSHA256: {}\n\n", bytes.len(), Digest::of(&bytes));
    }
    let dist = folder.join("dists").join(suite);
    let tables = dist.join("main/binary-amd64");
    fs::create_dir_all(&tables)?;
    fs::write(tables.join("Packages"), &packages)?;
    let (digest, len) = (Digest::of(packages.as_bytes()), packages.len());
    let release = format!(
        "Suite: {suite}\nCodename: {suite}\nArchitectures: amd64\nComponents: main\nSHA256:\n {digest} {len} main/binary-amd64/Packages\n"
    );
    fs::write(dist.join("Release"), release)?;
    Ok(files.len())
}
