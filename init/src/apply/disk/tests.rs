//! State partitions of every kind, on a disk that is a file.
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use super::fsck::first_copy;
use super::whereabouts::Whereabouts;
use super::{Growing, State, mount_state};
use crate::partition::Table;
use crate::stage::block::Devices;
use crate::stage::block::tests::{ROOT, machine};
use crate::sys::Recording;

/// The machine with the state partition's device being a file made by `make`.
fn with_state(folder: &Path, megabytes: u64, make: impl FnOnce(&Path)) -> Devices {
    let devices = machine(folder, megabytes);
    let device = devices.dev.join("vda4");
    File::create(&device).unwrap().set_len(16 << 20).unwrap();
    make(&device);
    devices
}

fn tool(program: &str, args: &[&str], path: &Path) {
    let output = Command::new(program).args(args).arg(path).output();
    let output = output.unwrap_or_else(|_| panic!("{program} is needed: apt-get install gdisk e2fsprogs dosfstools"));
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn ours(path: &Path) {
    tool("mke2fs", &["-q", "-t", "ext4", "-b", "4096", "-L", "kscratch-state"], path);
}

/// As after a power cut: the state was not unmounted.
fn ours_unclean(path: &Path) {
    ours(path);
    ours_is_unclean(path);
}

fn ours_is_unclean(path: &Path) {
    tool("debugfs", &["-w", "-R", "set_super_value state 0"], path);
}

fn run(sys: &Recording, folder: &Path, devices: &Devices) -> (State, Vec<String>) {
    let state = mount_state(sys, folder, devices, Whereabouts::BesideRoot(ROOT.parse().unwrap())).unwrap();
    (state, sys.calls().iter().map(|line| line.replace(folder.to_str().unwrap(), "R")).collect())
}

#[test]
fn a_clean_state_is_mounted_and_another_is_checked_first() {
    let folder = tempfile::tempdir().unwrap();
    let devices = with_state(folder.path(), 40, ours);
    let (state, calls) = run(&Recording::new(), folder.path(), &devices);
    let State::Partition { device, made: false, written: Some(_) } = state else { panic!("{state:?}") };
    assert_eq!(device, devices.dev.join("vda4"));
    assert!(calls.iter().all(|line| !line.contains("e2fsck")), "{calls:?}");
    assert_eq!(calls.last().unwrap(), "mount R/dev/vda4 R/var ext4 noatime");

    ours_unclean(&devices.dev.join("vda4"));
    let (_, calls) = run(&Recording::new(), folder.path(), &devices);
    assert_eq!(calls[calls.len() - 2..], ["run /usr/sbin/e2fsck -p R/dev/vda4", "mount R/dev/vda4 R/var ext4 noatime"]);
}

#[test]
fn state_grows_with_its_disk_and_its_filesystem_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let devices = with_state(folder.path(), 100, |path| {
        ours(path);
        // What the kernel would show after the partition grew.
        File::options().write(true).open(path).unwrap().set_len(82 << 20).unwrap();
    });
    let (_, calls) = run(&Recording::new(), folder.path(), &devices);
    assert_eq!(calls, ["mount R/dev/vda4 R/var ext4 noatime"], "it is of use before it grows");
    let growing = Growing { device: devices.dev.join("vda4"), devices: devices.clone() };
    let grow = || -> Vec<String> {
        let sys = Recording::new();
        growing.grow(&sys, Path::new("/var")).unwrap();
        sys.calls().iter().map(|line| line.replace(folder.path().to_str().unwrap(), "R")).collect()
    };
    let filesystem = format!("resize-ext4 /var {}", (82 << 20) / 4096);
    assert_eq!(grow(), [format!("resize-partition R/dev/vda 4 {} {}", 17 << 20, 82 << 20), filesystem.clone()]);
    tool("sgdisk", &["-v"], &devices.dev.join("vda"));
    assert_eq!(grow(), [filesystem], "the partition has its size now");
}

#[test]
fn a_blank_partition_gets_a_filesystem() {
    let folder = tempfile::tempdir().unwrap();
    let devices = with_state(folder.path(), 40, |_| {});
    let (state, calls) = run(&Recording::new(), folder.path(), &devices);
    assert_eq!(state, State::Partition { device: devices.dev.join("vda4"), made: true, written: None });
    assert!(calls.iter().any(|line| line.starts_with("run /usr/sbin/mkfs.ext4 -q -F -L kscratch-state")), "{calls:?}");
}

/// Name of the state partition.
fn name(devices: &Devices) -> String {
    let table = Table::read(&mut File::open(devices.dev.join("vda")).unwrap()).unwrap();
    table.partitions.into_iter().find(|one| one.number == 4).unwrap().name
}

/// What a power cut leaves of a filesystem that was being made is anything, even state by its label.
#[test]
fn a_filesystem_that_was_not_finished_is_made_again() {
    let rests: [&dyn Fn(&Path); 3] = [&|_| {}, &|path| std::fs::write(path, "half of it").unwrap(), &|path| {
        tool("mke2fs", &["-q", "-L", "kscratch-state"], path)
    }];
    for rest in rests {
        let folder = tempfile::tempdir().unwrap();
        let devices = with_state(folder.path(), 40, |_| {});
        let sys = Recording::new().answering("run /usr/sbin/mkfs.ext4", 1, "the power is gone\n");
        let (state, _) = run(&sys, folder.path(), &devices);
        assert!(matches!(state, State::Memory { reason } if reason.contains("the power is gone")));
        assert_eq!(name(&devices), "state-unfinished");
        rest(&devices.dev.join("vda4"));
        let (state, calls) = run(&Recording::new(), folder.path(), &devices);
        assert_eq!(state, State::Partition { device: devices.dev.join("vda4"), made: true, written: None });
        assert!(calls[0].starts_with("run /usr/sbin/mkfs.ext4 -q -F"), "{calls:?}");
        assert_eq!(name(&devices), "state");
        tool("sgdisk", &["-v"], &devices.dev.join("vda"));
    }
}

/// Runs a case that must end on a tmpfs, with nothing made, checked or mounted from the disk.
#[track_caller]
fn refused(sys: Recording, make: impl FnOnce(&Path), want: &str) {
    let folder = tempfile::tempdir().unwrap();
    let devices = with_state(folder.path(), 40, make);
    let untouched = std::fs::read(devices.dev.join("vda")).unwrap();
    let (state, calls) = run(&sys, folder.path(), &devices);
    let State::Memory { reason } = state else { panic!("{state:?}") };
    assert!(reason.contains(want), "{reason}");
    assert_eq!(calls.last().unwrap(), "mount tmpfs R/var tmpfs nosuid,nodev mode=0755");
    assert!(!calls.iter().any(|line| line.contains("mkfs")), "{calls:?}");
    let table = std::fs::read(devices.dev.join("vda")).unwrap();
    assert!(
        untouched == table || want.contains("e2fsck"),
        "the partition table was changed for a partition that is not ours"
    );
}

#[test]
fn what_is_not_ours_is_left_alone_and_the_machine_goes_on() {
    refused(
        Recording::new(),
        |path| tool("mke2fs", &["-q", "-t", "ext4", "-L", "photos"], path),
        "partition 4 of vda should be state, but holds an ext4 labelled \"photos\"",
    );
    refused(
        Recording::new(),
        |path| tool("mkfs.fat", &["-n", "STICK"], path),
        "partition 4 of vda should be state, but holds vfat",
    );
    refused(Recording::new(), |path| std::fs::write(path, "LUKS").unwrap(), "something that is no ext4");
}

#[test]
fn damage_that_e2fsck_cannot_put_right_is_told() {
    let sys = Recording::new().answering("run /usr/sbin/e2fsck", 4, "UNEXPECTED INCONSISTENCY; RUN fsck MANUALLY.\n");
    refused(sys, ours_unclean, "is damaged and e2fsck -p cannot put it right: UNEXPECTED INCONSISTENCY");
}

/// A partition that is large enough for a copy of the superblock.
fn ours_large(path: &Path) {
    File::options().write(true).open(path).unwrap().set_len(256 << 20).unwrap();
    ours(path);
}

/// What is done where the kernel refuses to mount a state that says of itself that it is clean, and e2fsck its superblock.
#[track_caller]
fn refused_by_the_kernel(make: impl FnOnce(&Path), reason: &str, copy_is_taken: bool) {
    let folder = tempfile::tempdir().unwrap();
    let devices = with_state(folder.path(), 40, make);
    let device = devices.dev.join("vda4").display().to_string();
    let sys = Recording::new().failing(&format!("mount {device}"), std::io::ErrorKind::InvalidData);
    let sys = sys.answering(&format!("run /usr/sbin/e2fsck -pf {device}"), 8, "Superblock checksum does not match\n");
    let (state, calls) = run(&sys, folder.path(), &devices);
    let State::Memory { reason: told } = state else { panic!("{state:?}") };
    assert!(told.contains(reason), "{told}");
    let again = "run /usr/sbin/e2fsck -pf R/dev/vda4";
    let mut want = vec!["mount R/dev/vda4 R/var ext4 noatime", again];
    if copy_is_taken {
        want.extend(["run /usr/sbin/e2fsck -pf -b 32768 -B 4096 R/dev/vda4", "mount R/dev/vda4 R/var ext4 noatime"]);
    }
    want.push("mount tmpfs R/var tmpfs nosuid,nodev mode=0755");
    assert_eq!(calls, want);
}

#[test]
fn what_cannot_be_mounted_is_checked() {
    refused_by_the_kernel(ours_large, "mounting ", true);
    refused_by_the_kernel(ours, "reading the copy of it in block 32768", false);
    let foreign = |path: &Path| {
        ours_large(path);
        File::options().write(true).open(path).unwrap().write_all_at(&[0x55; 1024], 32768 * 4096).unwrap();
    };
    refused_by_the_kernel(foreign, "there is no copy of it in block 32768", false);
    let grown = |path: &Path| {
        ours_large(path);
        File::options().write(true).open(path).unwrap().set_len(300 << 20).unwrap();
    };
    refused_by_the_kernel(grown, "its copy is of 65536 blocks, and the partition has 76800", false);
}

/// The copies of a filesystem that has grown were written while it was mounted: e2fsck plays the journal, and wants to be started anew.
#[test]
fn a_copy_of_a_mounted_filesystem_is_taken_in_two_steps() {
    let folder = tempfile::tempdir().unwrap();
    let devices = with_state(folder.path(), 40, |path| {
        ours_large(path);
        ours_is_unclean(path);
    });
    let device = devices.dev.join("vda4").display().to_string();
    let sys = Recording::new()
        .answering(&format!("run /usr/sbin/e2fsck -p {device}"), 8, "Superblock checksum does not match\n")
        .answering("run /usr/sbin/e2fsck -p -b", 12, "unable to set superblock flags\n");
    let (_, calls) = run(&sys, folder.path(), &devices);
    let (plain, copy) = ("run /usr/sbin/e2fsck -p R/dev/vda4", "run /usr/sbin/e2fsck -p -b 32768 -B 4096 R/dev/vda4");
    assert_eq!(calls[..3], [plain, copy, plain]);
}

/// Of a filesystem that was unmounted in order: the real e2fsck puts it right from the copy that it is told of.
#[test]
fn the_copy_of_a_superblock_is_where_it_is_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    for block_size in [1024, 4096] {
        let path = folder.path().join(block_size.to_string());
        File::create(&path).unwrap().set_len(256 << 20).unwrap();
        tool("mke2fs", &["-q", "-t", "ext4", "-b", &block_size.to_string(), "-L", "kscratch-state"], &path);
        let disk = File::options().write(true).open(&path).unwrap();
        disk.write_all_at(&[0x55; 8], 1024 + 4).unwrap();
        let run = |args: &[&str]| Command::new("e2fsck").args(args).arg(&path).output().unwrap();
        let said = run(&["-p"]);
        assert!(String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).contains("uperblock"));
        assert_eq!(said.status.code(), Some(8));
        let e2fsck = |args: &[&str]| run(args).status.code();
        let copy = first_copy(block_size).to_string();
        assert_eq!(e2fsck(&["-p", "-b", &copy, "-B", &block_size.to_string()]), Some(1));
        assert_eq!(e2fsck(&["-p"]), Some(0));
    }
}

#[test]
fn a_disk_without_state_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let devices = machine(folder.path(), 40);
    tool("sgdisk", &["-d4"], &devices.dev.join("vda"));
    let (state, _) = run(&Recording::new(), folder.path(), &devices);
    assert!(matches!(state, State::Memory { reason } if reason.contains("has no partition of the type 4d21b016")));
}
