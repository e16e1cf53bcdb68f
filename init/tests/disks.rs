//! Makes, finds, checks, fills and spoils real disks (loop devices) as a boot does that metadata name them to.
//!
//! The test runs itself again below `unshare`, which needs root. Needs util-linux, e2fsprogs, gdisk and iproute2.
#[path = "../agent/tests/namespace/mod.rs"]
mod namespace;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use kscratch_init::apply::disk::further::{self, Further};
use kscratch_init::stage::block::Devices;
use kscratch_init::sys::Linux;
use kscratch_metadata::{Disk, Purpose};
use namespace::run;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

/// A loop device that a machine sees as the disk `vdb`.
struct Machine {
    folder: TempDir,
    device: String,
    devices: Devices,
}

impl Machine {
    fn with(megabytes: u64, sector: u32) -> Machine {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        File::create(&file).unwrap().set_len(megabytes * MIB).unwrap();
        let device = run(&format!("losetup --find --show --partscan --sector-size {sector} {}", file.display()));
        let device = device.trim().trim_start_matches("/dev/").to_owned();
        let devices = Devices { sysfs: folder.path().join("sys/block"), dev: folder.path().join("dev"), first: None };
        fs::create_dir_all(&devices.sysfs).unwrap();
        fs::create_dir_all(&devices.dev).unwrap();
        symlink(format!("/sys/block/{device}"), devices.sysfs.join("vdb")).unwrap();
        symlink(format!("/dev/{device}"), devices.dev.join("vdb")).unwrap();
        symlink(format!("/dev/{device}p1"), devices.dev.join(format!("{device}p1"))).unwrap();
        Machine { folder, device, devices }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn place(&self, purpose: Purpose) -> PathBuf {
        self.root().join("var/lib").join(purpose.word())
    }

    fn mounted(&self, purpose: Purpose, replaces: Option<&str>) -> Result<Further, String> {
        fs::create_dir_all(self.root()).unwrap();
        let wanted =
            Disk { purpose, serial: Some("S1".into()), wwn: None, path: None, replaces: replaces.map(str::to_owned) };
        let disk = self.devices.named("vdb").unwrap();
        further::mount(&Linux, &self.root(), &self.devices, &wanted, disk).map_err(|error| format!("{error:#}"))
    }

    #[track_caller]
    fn refused(&self, purpose: Purpose, want: &str) {
        let before = fs::read(self.folder.path().join("file")).unwrap();
        let error = self.mounted(purpose, None).unwrap_err();
        assert!(error.contains(want), "{error}");
        run(&format!("blockdev --flushbufs /dev/{}", self.device));
        assert!(before == fs::read(self.folder.path().join("file")).unwrap(), "something was written");
    }

    fn unmount(&self, purpose: Purpose) {
        run(&format!("umount {}", self.place(purpose).display()));
    }

    /// Has the kernel forget and read the disk's table again, as a boot does.
    fn boot(&self) {
        run(&format!("blockdev --rereadpt /dev/{}", self.device));
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        let disk = File::options().write(true).open(format!("/dev/{}", self.device)).unwrap();
        disk.write_all_at(bytes, at).unwrap();
        disk.sync_all().unwrap();
    }

    fn guid(&self) -> String {
        let said = run(&format!("sgdisk -i 1 {}/file", self.folder.path().display()));
        let line = said.lines().find(|line| line.starts_with("Partition unique GUID")).unwrap();
        line.rsplit(' ').next().unwrap().to_ascii_lowercase()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--recursive").arg(self.root().join("var/lib/docker")).output();
        let _ = Command::new("umount").arg("--recursive").arg(self.root().join("var/lib/etcd")).output();
        let _ = Command::new("losetup").args(["--detach", &format!("/dev/{}", self.device)]).status();
    }
}

/// `CAP_SYS_RESOURCE`, capability 24 of linux/capability.h.
fn may_grow() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(effective.trim(), 16).unwrap() & 1 << 24 != 0
}

fn is_mounted(folder: &Path) -> bool {
    fs::metadata(folder).unwrap().dev() != fs::metadata(folder.parent().unwrap()).unwrap().dev()
}

#[test]
fn a_blank_disk_becomes_dockers_and_stays_so() {
    namespace::of_its_own("a_blank_disk_becomes_dockers_and_stays_so", || {
        for sector in [512, 4096] {
            let machine = Machine::with(96, sector);
            let place = machine.place(Purpose::Docker);
            machine.mounted(Purpose::Docker, None).unwrap();
            assert!(is_mounted(&place) && fs::read_dir(&place).unwrap().next().is_none(), "it is not empty");
            fs::write(place.join("layer"), "kept").unwrap();
            machine.unmount(Purpose::Docker);
            if sector == 512 {
                let said = run(&format!("sgdisk -v -p {}/file", machine.folder.path().display()));
                assert!(said.contains("No problems found") && said.contains(" docker\n"), "{said}");
            }
            machine.boot();
            let further = machine.mounted(Purpose::Docker, None).unwrap();
            assert_eq!(fs::read_to_string(place.join("layer")).unwrap(), "kept");
            // A larger disk, while it is in use.
            let file = File::options().write(true).open(machine.folder.path().join("file")).unwrap();
            file.set_len(192 * MIB).unwrap();
            run(&format!("losetup --set-capacity /dev/{}", machine.device));
            drop(further);
            machine.unmount(Purpose::Docker);
            let further = machine.mounted(Purpose::Docker, None).unwrap();
            match further.grow(&Linux, &machine.root()) {
                Ok(()) => {
                    let space = rustix::fs::statvfs(&place).unwrap();
                    assert!(space.f_blocks * space.f_frsize > 150 * MIB, "{} blocks", space.f_blocks);
                }
                // The kernel lets nobody else grow a mounted ext4: there are containers whose root is not allowed to.
                Err(error) => {
                    assert!(!may_grow() && format!("{error:#}").contains("Operation not permitted"), "{error:#}")
                }
            }
            let partition = fs::read_to_string(format!("/sys/block/{0}/{0}p1/size", machine.device)).unwrap();
            assert_eq!(partition.trim().parse(), Ok((190 * MIB) / 512));
            machine.unmount(Purpose::Docker);
            run(&format!("e2fsck -fn /dev/{}p1", machine.device));
        }
    });
}

#[test]
fn a_power_cut_at_any_step_is_mended_and_damage_is_told() {
    namespace::of_its_own("a_power_cut_at_any_step_is_mended_and_damage_is_told", || {
        let machine = Machine::with(96, 512);
        let place = machine.place(Purpose::Docker);
        machine.mounted(Purpose::Docker, None).unwrap();
        machine.unmount(Purpose::Docker);
        let whole = fs::read(machine.folder.path().join("file")).unwrap();
        // Between the table and the end of mkfs: the name says so, whatever is in the partition.
        let half = whole.clone();
        machine.write(0, &half);
        run(&format!("sgdisk -c 1:docker-unfinished /dev/{}", machine.device));
        machine.write(MIB + 1024, &[0x55; 4096]);
        machine.boot();
        machine.mounted(Purpose::Docker, None).unwrap();
        fs::write(place.join("layer"), "kept").unwrap();
        machine.unmount(Purpose::Docker);
        // Only the second copy of the table is sound: the kernel does not know the partition by itself.
        machine.write(512, &[0; 512]);
        machine.boot();
        machine.mounted(Purpose::Docker, None).unwrap();
        assert_eq!(fs::read_to_string(place.join("layer")).unwrap(), "kept");
        machine.unmount(Purpose::Docker);
        // A finished one is not made again, whatever became of it.
        machine.write(MIB, &vec![0; MIB as usize]);
        machine.refused(Purpose::Docker, "is damaged: its partition holds zeros, and not an ext4 labelled");
        machine.write(0, &whole);
        machine.boot();
        machine.refused(Purpose::Etcd, "vdb, is docker's disk of a machine like this one");
        for at in [512, 96 * MIB - 512] {
            machine.write(at + 20, b"damage");
        }
        machine.refused(Purpose::Docker, "vdb, has a damaged partition table");
    });
}

#[test]
fn what_is_somebody_elses_or_in_use_is_left_alone() {
    namespace::of_its_own("what_is_somebody_elses_or_in_use_is_left_alone", || {
        let machine = Machine::with(96, 512);
        run(&format!("mke2fs -q -t ext4 -L photos /dev/{}", machine.device));
        machine.refused(Purpose::Docker, "docker's disk, vdb, is somebody else's: it holds ext4 labelled \"photos\"");
        // Also what has lost its beginning and its end.
        machine.write(0, &vec![0; (17 * MIB) as usize]);
        machine.write(95 * MIB, &vec![0; MIB as usize]);
        machine.write(42 * MIB + 4096, b"photo");
        machine.refused(Purpose::Docker, "is not blank: there are data at byte");
        let blank = Machine::with(96, 512);
        run(&format!("sgdisk -n 1:1M:+8M -c 1:home /dev/{}", blank.device));
        blank.refused(Purpose::Docker, "is somebody else's: it has the partition home");
    });
}

#[test]
fn etcd_goes_on_where_its_data_are() {
    namespace::of_its_own("etcd_goes_on_where_its_data_are", || {
        let machine = Machine::with(96, 512);
        let (place, wal) = (machine.place(Purpose::Etcd), "member/wal");
        machine.mounted(Purpose::Etcd, None).unwrap();
        assert_eq!(fs::metadata(&place).unwrap().mode() & 0o777, 0o755, "the plan gives it to etcd");
        fs::create_dir_all(place.join(wal)).unwrap();
        let first = machine.guid();
        machine.unmount(Purpose::Etcd);
        assert_eq!(fs::read_to_string(place.join("kscratch-disk")).unwrap().trim(), first);
        machine.boot();
        machine.mounted(Purpose::Etcd, None).unwrap();
        machine.unmount(Purpose::Etcd);
        // The same place with another disk in it.
        machine.write(0, &vec![0; (96 * MIB) as usize]);
        machine.boot();
        machine.refused(Purpose::Etcd, &format!("etcd's data are on partition {first}, and this disk is blank"));
        machine.mounted(Purpose::Etcd, Some(&first)).unwrap();
        assert!(!place.join(wal).exists());
        let second = machine.guid();
        machine.unmount(Purpose::Etcd);
        assert!(second != first && fs::read_to_string(place.join("kscratch-disk")).unwrap().trim() == second);
    });
}
