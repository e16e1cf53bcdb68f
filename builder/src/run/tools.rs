//! Finds QEMU on this machine, or unpacks Debian's into the cache, so that nothing has to be installed and nobody has to be root.
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kscratch_qemu::Toolset;
use kscratch_qemu::toolset::Program;

use crate::console::Console;
use crate::debian::keyring::Keyring;
use crate::debian::mirror::Mirrors;
use crate::http::Http;
use crate::spec::ImageSpec;
use crate::store::{Store, Stored, sync_filesystem, sync_folder};
use crate::unpack::{self, Entry, EntryKind, Unpacked};
use crate::{fetch, resolve};

/// What QEMU needs besides libraries, which follow from dependencies.
const PACKAGES: [&str; 7] =
    ["qemu-system-x86", "qemu-system-common", "qemu-system-data", "qemu-utils", "seabios", "ovmf", "libc6"];

/// The TPM in software, which few machines want: unpacked by itself.
const TPM: [&str; 3] = ["swtpm", "swtpm-libs", "libc6"];

/// Which QEMU is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Qemu {
    /// The one that is installed here
    Installed,
    /// Debian trixie's, unpacked into the cache
    Unpacked,
}

/// The first release whose emulation does not lose a kernel that changes its own code while another processor runs it: before, a boot ended in
/// `Oops: int3` now and then (mended by QEMU's commit "accel/tcg: Always lock pages before translation").
const SOUND: (u32, u32) = (8, 1);

/// The machine's own QEMU and OVMF, those of an earlier unpacking, or Debian's packages unpacked now. Without a wish, the machine's own where it is complete
/// and not too old, or where there are no others to be had.
///
/// # Errors
/// There is no QEMU, and it cannot be fetched.
pub fn find_or_unpack(wish: Option<Qemu>, store: &Store, console: &Console) -> Result<Toolset> {
    match wish {
        Some(Qemu::Installed) => Toolset::find().context("looking for the QEMU that is installed here"),
        Some(Qemu::Unpacked) => unpacked("", store, console),
        None => match Toolset::find() {
            Ok(tools) if tools.ovmf.is_some() => match tools.release().filter(|release| *release < SOUND) {
                None => Ok(tools),
                Some((major, minor)) => {
                    let why =
                        format!("QEMU {major}.{minor} is installed here, under which kernels crash now and then: ");
                    unpacked(&why, store, console).or_else(|error| {
                        console.warn(format_args!("{error:#}; taking QEMU {major}.{minor}"));
                        Ok(tools)
                    })
                }
            },
            _ => unpacked("QEMU or OVMF is not installed here: ", store, console),
        },
    }
}

fn unpacked(why: &str, store: &Store, console: &Console) -> Result<Toolset> {
    let root = store.root().with_file_name("qemu");
    unpack_once(&root, &PACKAGES, why, store, console).context("getting QEMU from Debian's packages")?;
    Toolset::below(&root)
        .with_context(|| format!("looking for QEMU in {} (remove it to have it made anew)", root.display()))
}

/// swtpm, the TPM of machines in QEMU: the machine's own, that of an earlier unpacking, or Debian's unpacked now, by the same wish as QEMU.
///
/// # Errors
/// There is none, and it cannot be fetched.
pub fn swtpm(wish: Option<Qemu>, store: &Store, console: &Console) -> Result<Program> {
    let installed = if wish == Some(Qemu::Unpacked) { None } else { Program::installed("swtpm") };
    match (installed, wish) {
        (Some(program), _) => return Ok(program),
        (None, Some(Qemu::Installed)) => bail!("swtpm is not installed here (Debian has it in the package swtpm)"),
        (None, _) => {}
    }
    // It is started in another folder.
    let root = std::path::absolute(store.root().with_file_name("swtpm")).context("finding the cache")?;
    let why = if wish.is_none() { "swtpm is not installed here: " } else { "a TPM wants swtpm: " };
    unpack_once(&root, &TPM, why, store, console).context("getting swtpm from Debian's packages")?;
    // Its own library is looked for where the package would be at home.
    Program::below(&root, "usr/bin/swtpm", "swtpm", &["usr/lib/x86_64-linux-gnu/swtpm"])
        .with_context(|| format!("looking for swtpm in {} (remove it to have it made anew)", root.display()))
}

/// Lays packages out below `root`, where that was not done before; `why` is told.
fn unpack_once(root: &Path, packages: &[&str], why: &str, store: &Store, console: &Console) -> Result<()> {
    if root.exists() {
        return Ok(());
    }
    let _alone = store.lock(console)?;
    // Another one may have unpacked it while this one waited.
    if !root.exists() {
        console.say(format_args!("{why}unpacking Debian's into the cache"));
        unpack_packages(root, packages, store, console)?;
    }
    Ok(())
}

/// Lays Debian's QEMU out below `root`.
///
/// # Errors
/// A mirror, a signature or a digest is not right, or the cache cannot be written.
pub fn unpack_into(root: &Path, store: &Store, console: &Console) -> Result<()> {
    unpack_packages(root, &PACKAGES, store, console)
}

/// Fetches packages, verified as those of an image are, and lays their files out below `root`.
fn unpack_packages(root: &Path, packages: &[&str], store: &Store, console: &Console) -> Result<()> {
    let spec = ImageSpec::defaults()?;
    let mirrors = Mirrors::find(&spec.debian, Path::new("/etc/apt"))?;
    let (keyring, http) = (Keyring::find(spec.debian.keyring.as_deref())?, Http::new()?);
    let source = resolve::Source { mirrors: &mirrors, keyring: &keyring, http: &http, store, now: resolve::now()? };
    let names: Vec<String> = packages.iter().copied().map(str::to_owned).collect();
    let lock = resolve::packages(&names, &spec, &source, console)?;
    fetch::just_resolved(&lock, store, &mirrors, &http, console)?;
    let unpacked = unpack::all(store, &lock, console)?;
    // Beside its place, then named: a folder of that name is always a whole one, after a power cut too.
    let parent = root.parent().context("the cache is a folder in a folder")?;
    let folder = tempfile::tempdir_in(parent).with_context(|| format!("making a folder in {}", parent.display()))?;
    for package in unpacked.values() {
        lay_out(package, store, folder.path())?;
    }
    sync_filesystem(folder.path())?;
    fs::rename(folder.path(), root).with_context(|| format!("naming {}", root.display()))?;
    drop(folder.keep());
    sync_folder(root)
}

fn lay_out(package: &Unpacked, store: &Store, root: &Path) -> Result<()> {
    for (path, entry) in &package.entries {
        place(path, entry, store, root).with_context(|| format!("laying out {path}"))?;
    }
    Ok(())
}

fn place(path: &str, entry: &Entry, store: &Store, root: &Path) -> Result<()> {
    // Archive paths are absolute and without `..`: unpacking has refused others.
    let to: PathBuf = root.join(path.trim_start_matches('/'));
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    match &entry.kind {
        EntryKind::Directory => fs::create_dir_all(&to)?,
        EntryKind::File(stored) => {
            copy(stored, store, &to)?;
            fs::set_permissions(&to, Permissions::from_mode(u32::from(entry.mode & 0o755)))?;
        }
        // A target from the root would lead out of the folder.
        EntryKind::Symlink(target) => match target.strip_prefix('/') {
            Some(inside) => symlink(root_relative(path, inside), &to)?,
            None => symlink(target, &to)?,
        },
        EntryKind::Skipped { .. } => {}
        EntryKind::CharDevice { .. } | EntryKind::BlockDevice { .. } => bail!("a package of programs has a device"),
    }
    Ok(())
}

/// A link's target that is counted from the root, as one counted from the link: `/usr/bin/x -> /etc/x` becomes `../../etc/x`.
fn root_relative(link: &str, inside: &str) -> PathBuf {
    let depth = link.trim_start_matches('/').matches('/').count();
    PathBuf::from("../".repeat(depth)).join(inside)
}

fn copy(stored: &Stored, store: &Store, to: &Path) -> Result<()> {
    let mut from = File::open(store.root().join(&stored.file))?;
    from.seek(SeekFrom::Start(stored.offset))?;
    let mut to = File::create(to)?;
    let copied = io::copy(&mut from.take(stored.len), &mut to)?;
    if copied != stored.len {
        bail!("the store's {} ends after {copied} of {} bytes", stored.file, stored.len);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_in_the_folder() {
        assert_eq!(root_relative("/usr/bin/x", "etc/x"), Path::new("../../etc/x"));
        assert_eq!(root_relative("/x", "etc/x"), Path::new("etc/x"));
    }
}
