//! Performs the steps that write files: whole files at once, directories, sysctls, and folders rid of what is stale.
use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, fchown, lchown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::log;

/// The place of an absolute path below `root`.
#[must_use]
pub fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// Writes `value` to `/proc/sys/<key>`.
///
/// # Errors
/// The kernel lacks the key or refuses the value.
pub fn sysctl(root: &Path, key: &str, value: &str) -> Result<()> {
    let file = root.join("proc/sys").join(key);
    // Opened without creating: a key that is not there is an error also on a test's plain folder.
    let opened = File::options().write(true).truncate(true).open(&file);
    opened
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .with_context(|| format!("setting the sysctl {key} to {value}"))
}

/// Makes a directory and its parents, and gives the last one its permission bits and its owner (user and group). Files directly in it that
/// belong to root become the owner's: an earlier version's service was root.
///
/// # Errors
/// What the kernel says.
pub fn directory(root: &Path, path: &str, mode: u32, owner: u32) -> Result<()> {
    let folder = below(root, path);
    let made = fs::create_dir_all(&folder)
        .and_then(|()| fs::set_permissions(&folder, Permissions::from_mode(mode)))
        .and_then(|()| chown(&folder, Some(owner), Some(owner)))
        .and_then(|()| if owner == 0 { Ok(()) } else { give_away(&folder, owner) });
    made.with_context(|| format!("making the directory {path}"))
}

/// Whoever owns the folder chooses what stands in it: a link to a file of root's does not make that one his.
fn give_away(folder: &Path, owner: u32) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let (path, is) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?)))?;
        if is.is_file() && is.uid() == 0 && is.nlink() == 1 {
            lchown(&path, Some(owner), Some(owner))?;
        }
    }
    Ok(())
}

/// Writes a whole file: under another name first, then renamed, so that nobody ever reads half of it. Parents are made.
///
/// # Errors
/// What the kernel says.
pub fn file(root: &Path, path: &str, contents: &[u8], mode: u32) -> Result<()> {
    file_of(root, path, contents, mode, 0)
}

/// [`file`] of an owner (user and group).
///
/// # Errors
/// What the kernel says.
pub fn file_of(root: &Path, path: &str, contents: &[u8], mode: u32, owner: u32) -> Result<()> {
    put_of(&below(root, path), contents, mode, owner, Sync::Now).with_context(|| format!("writing {path}"))
}

/// When a file's bytes must be on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// Before its name is: a rename must not survive a power cut that its bytes do not.
    Now,
    /// Some time: it is looked at and put right at every boot.
    Later,
}

/// [`file`] for a path as it stands.
///
/// # Errors
/// What the kernel says.
pub fn put(path: &Path, contents: &[u8], mode: u32, sync: Sync) -> io::Result<()> {
    put_of(path, contents, mode, 0, sync)
}

fn put_of(path: &Path, contents: &[u8], mode: u32, owner: u32, sync: Sync) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(folder)?;
    // Hidden, because kubelet reads every file of its manifests' folder that has no leading dot.
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".new");
    let fresh = folder.join(hidden);
    let written = write_new(&fresh, contents, mode, owner, sync).and_then(|()| fs::rename(&fresh, path));
    if written.is_err() {
        // The error of the write is the one to tell.
        let _ = fs::remove_file(&fresh);
    }
    written
}

/// The mode is set before there is anything to read: secrets never stand open for a moment.
fn write_new(path: &Path, contents: &[u8], mode: u32, owner: u32, sync: Sync) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).open(path)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    // Whoever is not root (a test) may not give files away, and has nobody to give them to.
    if owner != 0 {
        fchown(&file, Some(owner), Some(owner))?;
    }
    file.write_all(contents)?;
    match sync {
        Sync::Now => file.sync_all(),
        Sync::Later => Ok(()),
    }
}

/// Removes the files directly in a directory whose absolute paths are not in `keep`.
///
/// # Errors
/// What the kernel says; a directory that is not there has nothing stale.
pub fn prune(root: &Path, path: &str, keep: &BTreeSet<&str>) -> Result<()> {
    let folder = below(root, path);
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("reading the directory {path}"))?,
    };
    for entry in entries {
        let entry = entry.with_context(|| format!("reading the directory {path}"))?;
        let name = format!("{}/{}", path.trim_end_matches('/'), entry.file_name().to_string_lossy());
        if keep.contains(name.as_str()) || entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        fs::remove_file(entry.path()).with_context(|| format!("removing the stale {name}"))?;
    }
    Ok(())
}

/// Removes a certificate and its key where one of them is missing or has no contents, and the other is there.
///
/// # Errors
/// What the kernel says.
pub fn half_pair(root: &Path, certificate: &str, key: &str) -> Result<()> {
    let pair = [certificate, key];
    let lengths = pair.map(|path| fs::metadata(below(root, path)).map(|found| found.len()).ok());
    if lengths == [None, None] || lengths.iter().all(|len| len.is_some_and(|len| len > 0)) {
        return Ok(());
    }
    log::line(format_args!("{certificate} or its key is empty or missing (power was cut?): both are made anew"));
    for (path, _) in pair.iter().zip(lengths).filter(|(_, len)| len.is_some()) {
        fs::remove_file(below(root, path)).with_context(|| format!("removing {path}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::{directory, file, half_pair, prune, sysctl};

    #[test]
    fn half_a_pair_goes_and_a_whole_one_stays() {
        let root = tempfile::tempdir().unwrap();
        let [certificate, key] = ["/pki/kubelet.crt", "/pki/kubelet.key"];
        let there = || [certificate, key].map(|path| root.path().join(&path[1..]).exists());
        half_pair(root.path(), certificate, key).unwrap();
        for (one, other, want) in [("c", "k", true), ("", "k", false), ("c", "", false), ("", "", false)] {
            file(root.path(), certificate, one.as_bytes(), 0o644).unwrap();
            file(root.path(), key, other.as_bytes(), 0o600).unwrap();
            half_pair(root.path(), certificate, key).unwrap();
            assert_eq!(there(), [want, want], "{one:?} {other:?}");
        }
        file(root.path(), key, b"k", 0o600).unwrap();
        half_pair(root.path(), certificate, key).unwrap();
        assert_eq!(there(), [false, false]);
    }

    #[test]
    fn a_file_is_replaced_whole_with_its_mode_and_leaves_nothing_behind() {
        let root = tempfile::tempdir().unwrap();
        file(root.path(), "/run/kscratch/secret", b"one", 0o600).unwrap();
        file(root.path(), "/run/kscratch/secret", b"two", 0o640).unwrap();
        let path = root.path().join("run/kscratch/secret");
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("run"), "a file").unwrap();
        let error = file(root.path(), "/run/x", b"", 0o600).unwrap_err();
        assert!(format!("{error:#}").starts_with("writing /run/x: "), "{error:#}");
    }

    #[test]
    fn directories_and_sysctls() {
        let root = tempfile::tempdir().unwrap();
        directory(root.path(), "/var/lib/kubelet", 0o750, 0).unwrap();
        assert_eq!(fs::metadata(root.path().join("var/lib/kubelet")).unwrap().permissions().mode() & 0o7777, 0o750);
        directory(root.path(), "/proc/sys/net/ipv4", 0o755, 0).unwrap();
        let error = sysctl(root.path(), "net/ipv4/ip_forward", "1").unwrap_err();
        assert!(
            format!("{error:#}").starts_with("setting the sysctl net/ipv4/ip_forward to 1: No such file"),
            "{error:#}"
        );
        fs::write(root.path().join("proc/sys/net/ipv4/ip_forward"), "0000").unwrap();
        sysctl(root.path(), "net/ipv4/ip_forward", "1").unwrap();
        assert_eq!(fs::read(root.path().join("proc/sys/net/ipv4/ip_forward")).unwrap(), b"1");
    }

    /// Needs root, who alone can give files away.
    #[test]
    fn what_root_left_in_a_directory_becomes_its_owners() {
        assert!(rustix::process::geteuid().is_root(), "giving files away needs root: run the tests as root");
        let root = tempfile::tempdir().unwrap();
        file(root.path(), "/var/lib/routes/nodes.json", b"", 0o600).unwrap();
        file(root.path(), "/var/lib/routes/sub/other", b"", 0o600).unwrap();
        file(root.path(), "/secret", b"", 0o600).unwrap();
        let at = |path: &str| root.path().join(path);
        fs::hard_link(at("secret"), at("var/lib/routes/hard")).unwrap();
        std::os::unix::fs::symlink(at("secret"), at("var/lib/routes/soft")).unwrap();
        let owner = |path: &str| fs::metadata(at(path)).unwrap().uid();
        directory(root.path(), "/var/lib/routes", 0o700, 905).unwrap();
        assert_eq!(owner("var/lib/routes"), 905);
        assert_eq!(owner("var/lib/routes/nodes.json"), 905);
        assert_eq!(owner("var/lib/routes/sub/other"), 0, "directly in it");
        assert_eq!(owner("secret"), 0, "a link makes it nobody else's");
        directory(root.path(), "/var/lib/routes", 0o700, 0).unwrap();
        assert_eq!(owner("var/lib/routes/nodes.json"), 905, "root needs no files given");
    }

    #[test]
    fn what_is_stale_goes_and_what_is_kept_stays() {
        let root = tempfile::tempdir().unwrap();
        for name in ["old.yaml", "new.yaml", ".half.new"] {
            file(root.path(), &format!("/run/kscratch/manifests/{name}"), b"", 0o600).unwrap();
        }
        prune(root.path(), "/run/kscratch/manifests/", &BTreeSet::from(["/run/kscratch/manifests/new.yaml"])).unwrap();
        let left: Vec<_> = fs::read_dir(root.path().join("run/kscratch/manifests"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["new.yaml"]);
        prune(root.path(), "/nothing", &BTreeSet::new()).unwrap();
    }
}
