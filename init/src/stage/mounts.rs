//! Turns a bare root into one with the kernel's filesystems where programs expect them.
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use anyhow::{Context, Result};

use crate::log;
use crate::run::cgroup;
use crate::sys::{Flag, Mount, Sys};

const SAFE: &[Flag] = &[Flag::NoSuid, Flag::NoDev, Flag::NoExec];

/// One row: source and type, place, options.
type Row = (&'static str, &'static str, &'static [Flag], &'static str);

/// What both stages need, and what moves from the initramfs to the root.
const EARLY: &[Row] = &[
    ("devtmpfs", "dev", &[Flag::NoSuid], "mode=0755"),
    ("proc", "proc", SAFE, ""),
    ("sysfs", "sys", SAFE, ""),
    ("tmpfs", "run", &[Flag::NoSuid, Flag::NoDev], "mode=0755"),
];

/// What only the root needs. No `noexec` on `/run` and `/tmp`: runtimes keep root filesystems and helpers there.
const LATE: &[Row] = &[
    ("devpts", "dev/pts", &[Flag::NoSuid, Flag::NoExec], "gid=5,mode=0620,ptmxmode=0666"),
    ("tmpfs", "dev/shm", &[Flag::NoSuid, Flag::NoDev], "mode=1777"),
    ("mqueue", "dev/mqueue", SAFE, ""),
    ("tmpfs", "tmp", &[Flag::NoSuid, Flag::NoDev], "mode=1777"),
];

/// R16: kubelet refuses cgroup v1.
const CGROUPS: Row = ("cgroup2", "sys/fs/cgroup", SAFE, "nsdelegate,memory_recursiveprot");
/// The cgroup of all services.
pub const SERVICES: &str = "sys/fs/cgroup/kscratch";

/// What docker, runc and kubelet use where the kernel has it, and the kernel's own last words; a kernel without is no error.
const OPTIONAL: &[Row] = &[
    ("securityfs", "sys/kernel/security", SAFE, ""),
    ("bpf", "sys/fs/bpf", SAFE, "mode=0700"),
    ("pstore", "sys/fs/pstore", SAFE, ""),
];

/// Links that devtmpfs does not make (Linux, Documentation/admin-guide/devices.rst, "Compulsory links").
const DEVICE_LINKS: &[(&str, &str)] = &[
    ("/proc/self/fd", "dev/fd"),
    ("/proc/self/fd/0", "dev/stdin"),
    ("/proc/self/fd/1", "dev/stdout"),
    ("/proc/self/fd/2", "dev/stderr"),
];

/// Mounts `/dev`, `/proc`, `/sys` and `/run` where they are not mounted yet.
///
/// # Errors
/// A mount fails.
pub fn early(sys: &dyn Sys, root: &Path) -> Result<()> {
    all(sys, root, EARLY)
}

/// Mounts what programs of the root expect besides, makes `/` shared and gives all cgroup controllers to child groups.
///
/// # Errors
/// A mount fails that kubelet or docker cannot do without.
pub fn late(sys: &dyn Sys, root: &Path) -> Result<()> {
    all(sys, root, LATE)?;
    for row in OPTIONAL {
        if let Err(error) = one(sys, root, row) {
            log::debug(format_args!("{error:#}"));
        }
    }
    for (target, link) in DEVICE_LINKS {
        match symlink(target, root.join(link)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("linking /{link} to {target}"));
            }
            _ => {}
        }
    }
    cgroups(sys, root)?;
    sys.share(root).context("making the mounts below / shared")
}

/// Mounts cgroup2, gives all controllers to child groups and makes the group of all services.
///
/// To be done before anything else is going on: with the first memory cgroup the kernel patches its own running code (the static key
/// `memcg_kmem_online_key`), and QEMU's emulation of several processors has been seen to run such code half patched (7.2: `Oops: int3` in
/// `kmem_cache_alloc`).
///
/// # Errors
/// The mount fails.
pub fn cgroups(sys: &dyn Sys, root: &Path) -> Result<()> {
    one(sys, root, &CGROUPS)?;
    controllers(&root.join("sys/fs/cgroup"))?;
    // The event loop asks again, and tells what is missing.
    cgroup::prepare(&root.join(SERVICES)).map(drop)
}

/// Moves the early mounts below a new root.
///
/// # Errors
/// The new root lacks a folder, or the kernel refuses.
pub fn hand_over(sys: &dyn Sys, root: &Path, new_root: &Path) -> Result<()> {
    for (_, place, _, _) in EARLY {
        sys.move_mount(&root.join(place), &new_root.join(place))
            .with_context(|| format!("moving /{place} to the new root"))?;
    }
    Ok(())
}

/// Every controller of the hierarchy is given to the groups below it: kubelet's `kubepods` and the services' own.
fn controllers(cgroup: &Path) -> Result<()> {
    let file = cgroup.join("cgroup.controllers");
    let offered = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    for controller in offered.split_whitespace() {
        // One by one: a controller that cannot be given (rdma on some machines) must not keep back the others.
        let wanted = format!("+{controller}");
        if let Err(error) = fs::write(cgroup.join("cgroup.subtree_control"), wanted) {
            log::line(format_args!("cgroup controller {controller} is not available to services: {error}"));
        }
    }
    Ok(())
}

fn all(sys: &dyn Sys, root: &Path, rows: &[Row]) -> Result<()> {
    rows.iter().try_for_each(|row| one(sys, root, row))
}

fn one(sys: &dyn Sys, root: &Path, (kind, place, flags, data): &Row) -> Result<()> {
    let target = root.join(place);
    if is_mounted(&target) {
        return Ok(());
    }
    // The root is read-only and has its folders; those below /dev and in the initramfs do not exist yet.
    if !target.is_dir() {
        fs::create_dir_all(&target).with_context(|| format!("making /{place}"))?;
    }
    let mount = Mount { source: kind, target: &target, kind, flags, data };
    sys.mount(&mount).with_context(|| format!("mounting {kind} on /{place}"))
}

/// Whether something is mounted there: it lies on another device than the folder above.
#[must_use]
pub fn is_mounted(target: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    match target.parent() {
        Some(parent) => device(target).is_some() && device(target) != device(parent),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{early, hand_over, is_mounted, late};
    use crate::sys::Recording;

    /// What was called, with the temporary root's name taken out.
    fn calls(sys: &Recording, root: &Path) -> Vec<String> {
        sys.calls().iter().map(|line| line.replace(root.to_str().unwrap(), "R")).collect()
    }

    #[test]
    fn early_mounts_in_order() {
        let root = tempfile::tempdir().unwrap();
        let sys = Recording::new();
        early(&sys, root.path()).unwrap();
        assert_eq!(
            calls(&sys, root.path()),
            [
                "mount devtmpfs R/dev devtmpfs nosuid mode=0755",
                "mount proc R/proc proc nosuid,nodev,noexec",
                "mount sysfs R/sys sysfs nosuid,nodev,noexec",
                "mount tmpfs R/run tmpfs nosuid,nodev mode=0755",
            ]
        );
    }

    #[test]
    fn late_mounts_give_all_controllers_and_share_the_root() {
        let root = tempfile::tempdir().unwrap();
        let cgroup = root.path().join("sys/fs/cgroup");
        fs::create_dir_all(&cgroup).unwrap();
        fs::write(cgroup.join("cgroup.controllers"), "cpuset cpu io memory pids\n").unwrap();
        let sys = Recording::new().failing("mount bpf", std::io::ErrorKind::NotFound);
        late(&sys, root.path()).unwrap();
        let calls = calls(&sys, root.path());
        assert_eq!(calls.last().unwrap(), "share R");
        assert!(calls.iter().any(|line| line.starts_with("mount cgroup2 R/sys/fs/cgroup cgroup2")), "{calls:?}");
        assert_eq!(fs::read_to_string(cgroup.join("cgroup.subtree_control")).unwrap(), "+pids");
        assert_eq!(fs::read_link(root.path().join("dev/fd")).unwrap(), Path::new("/proc/self/fd"));
        late(&sys, root.path()).expect("a second time changes nothing");
    }

    #[test]
    fn a_mount_that_fails_is_named() {
        let root = tempfile::tempdir().unwrap();
        let sys = Recording::new().failing("mount proc", std::io::ErrorKind::PermissionDenied);
        let error = early(&sys, root.path()).unwrap_err();
        assert_eq!(format!("{error:#}"), "mounting proc on /proc: permission denied");
    }

    #[test]
    fn mounts_move_to_the_new_root() {
        let sys = Recording::new();
        hand_over(&sys, Path::new("/"), Path::new("/sysroot")).unwrap();
        assert_eq!(
            sys.calls(),
            ["move /dev /sysroot/dev", "move /proc /sysroot/proc", "move /sys /sysroot/sys", "move /run /sysroot/run"]
        );
    }

    #[test]
    fn mounted_is_told_from_not_mounted() {
        assert!(is_mounted(Path::new("/proc")));
        assert!(is_mounted(Path::new("/")));
        assert!(!is_mounted(&std::env::temp_dir().join("not there")));
    }
}
