//! A plain Debian with systemd that runs a node image's kubelet, with the same versions of all packages, configured to do the same.
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kscratch_formats::ext4::Reader;
use kscratch_image::dockerstore::PAUSE;
use kscratch_image::inspect::Opened;
use kscratch_image::lock::{Lock, Origin};

use crate::boots::{DISK, Kernel};
use crate::contents::read;
use crate::images;
use crate::kscratch::Kscratch;
use crate::measure::debian::{Repository, Tools};
use crate::measure::node::Node;
use crate::measure::program::{self, BOUND};

/// What a Debian machine needs besides the packages of the image's lock: its init, devices, modules, the power button (logind is reached
/// over dbus), and docker's client, which loads the images.
const BESIDES: [&str; 6] = ["apt", "systemd-sysv", "udev", "kmod", "dbus", "docker-cli"];

/// The programs that are no Debian packages, where both have them.
const PROGRAMS: [&str; 3] = ["/usr/bin/kubelet", "/usr/bin/kube-proxy", "/usr/bin/cri-dockerd"];

/// The static pod of a node without a cluster.
const POD: &str = "/usr/share/kscratch/manifests/hello.yaml";

/// Units that are started at boot.
const UNITS: [&str; 7] =
    ["slices", "systemd-networkd", "nftables", "load-images", "cri-dockerd", "kubelet", "tell-healthy"];

/// A Debian that was made.
#[derive(Debug)]
pub struct Debian {
    /// The disk: an ext4 filesystem without partitions.
    pub image: PathBuf,
    /// The same to be read.
    pub root: Reader<Opened>,
    /// What its `/boot` has.
    pub kernel: Kernel,
    /// The suite.
    pub suite: String,
    /// How many packages it has.
    pub packages: usize,
}

/// Whether a path is one of the files that are booted, which a node image does not have in its root.
pub fn is_booted(path: &str) -> bool {
    path.starts_with("/boot/vmlinuz-") || path.starts_with("/boot/initrd.img-")
}

impl Debian {
    /// Makes it in `folder`.
    ///
    /// # Errors
    /// No network where packages are missing, or a mirror that does not have the lock's versions any more; what the tools say.
    pub fn made(node: &Node, kscratch: &Kscratch, tools: &Tools, folder: &Path) -> Result<Debian> {
        let packages = packages(&Lock::read(&node.lock)?);
        let repository = Repository::of(&packages, "systemd-packages", node, tools).context(
            "fetching the packages of the image's lock for a Debian beside it (an old lock is to be removed)",
        )?;
        let files = folder.join("files");
        lay_out(kscratch, &files).context("laying out the files that Debian gets besides")?;
        let (root, image) = (folder.join("root"), folder.join("debian.ext4"));
        let names: Vec<&str> = packages.iter().filter_map(|package| package.split('=').next()).collect();
        let mut tree = tools.tree("minbase", &names.join(","), &root);
        tree.arg(format!("--customize-hook=sync-in '{}' /", files.display()));
        // Empty: the machine gets its own at the first boot, which asks nothing.
        tree.arg("--customize-hook=: > \"$1/etc/machine-id\"");
        tree.arg(format!("--customize-hook=chroot \"$1\" systemctl --quiet enable {}", UNITS.join(" ")));
        tree.arg(&repository.suite).arg(&root).arg(repository.source());
        program::run(tree, BOUND)?;
        let mut filesystem = tools.filesystem(&root, &image, &format!("{}M", DISK >> 20));
        // Nothing is left for the machine to do in its first minutes.
        filesystem.args(["-E", "lazy_itable_init=0,lazy_journal_init=0"]);
        program::run(filesystem, BOUND)?;
        tools.remove(&root)?;
        let root = Reader::open(Opened::open(&image)?).context("opening Debian's root")?;
        let booted = |start: &str| -> Result<Vec<u8>> {
            let all = root.walk()?;
            let path = all.keys().find(|path| path.starts_with(start));
            read(&root, path.with_context(|| format!("Debian has no {start}"))?)
        };
        // The consoles of the other one.
        let words = kscratch.kernel.cmdline.split(' ').filter(|word| !word.starts_with("kscratch."));
        let cmdline = format!("root=/dev/vda ro {}", words.collect::<Vec<_>>().join(" "));
        let kernel = Kernel { kernel: booted("/boot/vmlinuz-")?, initramfs: booted("/boot/initrd.img-")?, cmdline };
        Ok(Debian { image, root, kernel, suite: repository.suite, packages: repository.packages })
    }
}

/// The lock's packages in its versions, but for the stub of the boot file.
fn packages(lock: &Lock) -> Vec<String> {
    let of_debian = lock.artifacts.iter().filter(|artifact| matches!(artifact.origin, Origin::DebianPackage { .. }));
    let pinned = of_debian.filter(|artifact| artifact.name != "systemd-boot-efi");
    let pinned = pinned.map(|artifact| format!("{}={}", artifact.name, artifact.version));
    pinned.chain(BESIDES.map(str::to_owned)).collect()
}

/// The files that are put into the root: those beside this one, and the image's own programs, pod and container images.
fn lay_out(kscratch: &Kscratch, files: &Path) -> Result<()> {
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/systemd/debian"), files)?;
    for program in PROGRAMS {
        write(files, program, &read(&kscratch.root, program)?, 0o755)?;
    }
    write(files, "/etc/kubernetes/manifests/hello.yaml", &read(&kscratch.root, POD)?, 0o600)?;
    write(files, "/etc/default/cri-dockerd", format!("PAUSE={PAUSE}\n").as_bytes(), 0o644)?;
    write(files, "/usr/lib/bench/images.tar", &images::archive(&kscratch.root)?, 0o644)
}

fn write(root: &Path, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
    let file = root.join(path.trim_start_matches('/'));
    fs::create_dir_all(file.parent().unwrap_or(root))?;
    fs::write(&file, bytes).with_context(|| format!("writing {path}"))?;
    Ok(fs::set_permissions(&file, fs::Permissions::from_mode(mode))?)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        let place = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &place)?;
        } else {
            fs::copy(entry.path(), &place).with_context(|| format!("copying {}", entry.path().display()))?;
        }
    }
    Ok(())
}
