//! Disks that are files: which one is found, and what is done and left alone on it. Real devices are in init/tests/disks.rs.
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use kscratch_metadata::{Disk, Purpose};

use super::{first_use, mount_all};
use crate::stage::block::Devices;
use crate::sys::Recording;

fn wanted(purpose: Purpose, serial: &str) -> Disk {
    Disk { purpose, serial: Some(serial.to_owned()), wwn: None, path: None, replaces: None }
}

/// A machine with disks of these names and serial numbers, of 64 MiB each.
fn machine(folder: &Path, disks: &[(&str, &str)]) -> Devices {
    let devices = Devices { sysfs: folder.join("sys/block"), dev: folder.join("dev"), first: None };
    fs::create_dir_all(&devices.dev).unwrap();
    for (name, serial) in disks {
        let sysfs = devices.sysfs.join(name);
        fs::create_dir_all(&sysfs).unwrap();
        fs::write(sysfs.join("size"), "131072\n").unwrap();
        fs::write(sysfs.join("serial"), serial).unwrap();
        File::create(devices.dev.join(name)).unwrap().set_len(64 << 20).unwrap();
    }
    devices
}

/// What is said of a disk that is not used; none of it changes.
#[track_caller]
fn refused(devices: &Devices, disks: &[&Disk], root: &Path, want: &str) {
    let read = || -> Vec<Vec<u8>> {
        let all = devices.disks();
        all.iter().map(|disk| fs::read(&disk.device).unwrap_or_default()).collect()
    };
    let (before, sys) = (read(), Recording::new());
    let (mounted, result) = mount_all(&sys, root, devices, disks, Duration::ZERO);
    assert!(mounted.is_empty());
    assert_eq!(format!("{:#}", result.unwrap_err()), want);
    assert_eq!(sys.calls(), Vec::<String>::new());
    assert!(before == read(), "something was written");
}

#[test]
fn a_disk_that_is_not_the_one_or_not_ours_has_one_message_and_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let mut devices = machine(root, &[("vdb", "S1"), ("vdc", "S1"), ("vdd", "S2"), ("vde", "S3")]);
    let docker = |serial| wanted(Purpose::Docker, serial);
    refused(
        &devices,
        &[&docker("S9")],
        root,
        "docker's disk: no disk has serial S9; there are: vdb of 64 MiB (serial S1); vdc of 64 MiB (serial S1); \
         vdd of 64 MiB (serial S2); vde of 64 MiB (serial S3)",
    );
    refused(
        &devices,
        &[&docker("S1")],
        root,
        "docker's disk: more than one disk has serial S1: vdb, vdc; give its path too",
    );
    // Far behind what filesystems write first.
    let file = File::options().write(true).open(devices.dev.join("vdd")).unwrap();
    file.write_all_at(b"photo", (64 << 20) - 5).unwrap();
    refused(
        &devices,
        &[&docker("S2"), &wanted(Purpose::Etcd, "S9")],
        root,
        "docker's disk, vdd,: is not blank: there are data at byte 67108859; nothing was written to it\n\
         etcd's disk: no disk has serial S9; there are: vdb of 64 MiB (serial S1); vdc of 64 MiB (serial S1); \
         vdd of 64 MiB (serial S2); vde of 64 MiB (serial S3)",
    );
    devices.first = Some("vde".to_owned());
    refused(&devices, &[&docker("S3")], root, "docker's disk, vde, is the disk that the machine runs from");
    fs::remove_file(devices.dev.join("vdd")).unwrap();
    refused(
        &devices,
        &[&docker("S2")],
        root,
        "docker's disk, vdd,: opening it: No such file or directory (os error 2)",
    );
    // etcd has data elsewhere.
    fs::create_dir_all(root.join("var/lib/etcd/member/wal")).unwrap();
    devices.first = None;
    refused(
        &devices,
        &[&wanted(Purpose::Etcd, "S3")],
        root,
        "etcd's disk, vde,: etcd's data are on state, and this disk is blank; take it out of the metadata, or write \
         replaces = \"state\" to give them up",
    );
}

#[test]
fn a_disk_that_comes_late_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let devices = machine(folder.path(), &[("vdb", "S1")]);
    fs::rename(devices.sysfs.join("vdb"), folder.path().join("vdb")).unwrap();
    let (from, to) = (folder.path().join("vdb"), devices.sysfs.join("vdb"));
    let late = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        fs::rename(from, to).unwrap();
    });
    let end = crate::log::monotonic() + Duration::from_secs(30);
    let found = super::find(&devices, &wanted(Purpose::Docker, "S1"), end).unwrap();
    assert_eq!(found.name, "vdb");
    late.join().unwrap();
}

#[test]
fn both_ends_and_places_between_are_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let used = |size: u64, at: Option<u64>| {
        let file = File::options().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
        file.set_len(size).unwrap();
        if let Some(at) = at {
            file.write_all_at(b"x", at).unwrap();
        }
        first_use(&file, size).unwrap()
    };
    let gib = 1 << 30;
    for at in [0, (16 << 20) - 1, gib - 1, gib - (16 << 20), gib / 2, 100 * (gib / 256) + 5000] {
        assert_eq!(used(gib, Some(at)), Some(at));
    }
    for size in [0, 1, 4096, 10 << 20, gib, gib + 512] {
        assert_eq!(used(size, None), None, "{size}");
    }
}
