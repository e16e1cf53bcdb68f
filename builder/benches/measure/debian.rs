//! What Debian's own tools need to make a tree and a filesystem: packages fetched before, as a mirror in a folder, and the commands.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use kscratch_image::debian::mirror::Mirrors;
use kscratch_image::spec::ImageSpec;
use kscratch_image::store::Digest;

use super::node::Node;
use super::program::{self, BOUND};

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

    /// A folder to work in, which goes with the value.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn folder(&self, parent: &Path) -> Result<tempfile::TempDir> {
        let folder = tempfile::tempdir_in(parent).context("making a folder for mmdebstrap")?;
        // mmdebstrap without root works as another user, who must get in here.
        let everyone = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(folder.path(), everyone).context("opening the folder to others")?;
        Ok(folder)
    }

    /// mmdebstrap that makes a tree beside other files; suite, `root` and source are still to be added.
    pub fn tree(&self, variant: &str, packages: &str, root: &Path) -> Command {
        let mut tree = Command::new(&self.mmdebstrap);
        tree.args(["--quiet", "--format=directory", "--architectures=amd64"]);
        tree.arg(format!("--variant={variant}"));
        tree.arg(format!("--mode={}", if is_root() { "root" } else { "unshare" }));
        tree.arg(format!("--include={packages}"));
        // apt's own user may not get at the build's folder.
        tree.arg("--aptopt=APT::Sandbox::User \"root\"");
        tree.env("TMPDIR", root.parent().unwrap_or(root));
        tree
    }

    /// mke2fs that makes an ext4 filesystem of a tree.
    pub fn filesystem(&self, root: &Path, image: &Path, size: &str) -> Command {
        let mut filesystem = self.as_root(&self.mke2fs);
        filesystem.args(["-q", "-t", "ext4", "-d"]).arg(root).arg(image).arg(size);
        filesystem
    }

    /// Removes a tree, whose files may be another user's.
    ///
    /// # Errors
    /// As for [`program::run`].
    pub fn remove(&self, root: &Path) -> Result<()> {
        let mut remove = self.as_root(Path::new("/bin/rm"));
        remove.args(["-rf", "--one-file-system"]).arg(root);
        program::run(remove, BOUND)
    }

    /// A command with root's rights, real or within a user namespace of mmdebstrap's.
    fn as_root(&self, program: &Path) -> Command {
        if is_root() {
            return Command::new(program);
        }
        let mut command = Command::new(&self.mmdebstrap);
        command.arg("--unshare-helper").arg(program);
        command
    }
}

/// Whether this process may make any file of any owner.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A folder that apt takes packages from as from a mirror.
#[derive(Debug)]
pub struct Repository {
    folder: PathBuf,
    /// The suite that the packages are of.
    pub suite: String,
    /// How many they are.
    pub packages: usize,
}

impl Repository {
    /// Fetches packages (`NAME` or `NAME=VERSION`) and all that they need, Debian's essential ones included, into the folder `name` beside
    /// the image; kept until the image's lock or the list is another one.
    ///
    /// # Errors
    /// No network where packages are missing; what the tools say.
    pub fn of(packages: &[String], name: &str, node: &Node, tools: &Tools) -> Result<Repository> {
        let spec = ImageSpec::defaults()?;
        let suite = spec.debian.suite.clone();
        let mut inputs = fs::read(&node.lock).context("reading the lock")?;
        inputs.extend_from_slice(packages.join(" ").as_bytes());
        let folder = node.folder.join(name);
        let (stamp, text) = (folder.join("complete"), Digest::of(&inputs).to_string());
        if fs::read_to_string(&stamp).is_ok_and(|found| found == text) {
            let packages = fs::read_dir(folder.join("pool"))?.count();
            return Ok(Repository { folder, suite, packages });
        }
        drop(fs::remove_dir_all(&folder));
        let pool = folder.join("pool");
        fs::create_dir_all(&pool).with_context(|| format!("making {}", pool.display()))?;
        fetch(&spec, tools, packages, &folder)?;
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

    /// The line of apt's configuration that names it.
    pub fn source(&self) -> String {
        format!("deb [trusted=yes] copy:{} {} main", self.folder.display(), self.suite)
    }
}

/// Downloads with this machine's apt, in folders of its own, so that neither its lists nor its packages change.
fn fetch(spec: &ImageSpec, tools: &Tools, packages: &[String], folder: &Path) -> Result<()> {
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
    install.extend(packages.iter().map(String::as_str));
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
