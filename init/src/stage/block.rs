//! Turns sysfs and the disks' tables into the partition that is looked for ([`Found`]), or into what there is instead.
mod bypath;
pub mod usb;
pub mod words;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::partition::{Guid, Partition, Table};

/// Where block devices are told and stand; tests give folders of their own.
#[derive(Debug, Clone)]
pub struct Devices {
    /// `/sys/block`
    pub sysfs: PathBuf,
    /// `/dev`
    pub dev: PathBuf,
    /// The disk that comes before all others: the one that the machine runs from.
    pub first: Option<String>,
}

/// A whole disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The kernel's name, `vda`.
    pub name: String,
    /// Its device file.
    pub device: PathBuf,
    /// Bytes.
    pub size: u64,
    /// Partitions that the kernel knows: number to name.
    pub partitions: BTreeMap<u32, String>,
}

/// A partition with its disk and table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The disk.
    pub disk: Disk,
    /// Its table.
    pub table: Table,
    /// The entry.
    pub partition: Partition,
}

impl Found {
    /// The partition's device file, where the kernel knows the partition.
    #[must_use]
    pub fn device(&self) -> Option<PathBuf> {
        let name = self.disk.partitions.get(&self.partition.number)?;
        Some(self.disk.device.with_file_name(name))
    }

    /// The partition of a type on the same disk.
    #[must_use]
    pub fn beside(&self, kind: Guid) -> Option<Found> {
        let partition = self.table.partitions.iter().find(|one| one.kind == kind)?.clone();
        Some(Found { partition, ..self.clone() })
    }
}

impl Devices {
    /// The running machine's.
    #[must_use]
    pub fn of_machine() -> Self {
        Self { sysfs: "/sys/block".into(), dev: "/dev".into(), first: None }
    }

    /// These with the disk first that a mounted folder is on: where two disks carry the same image, root, state and ESP must be one's.
    #[must_use]
    pub fn led_by_disk_of(mut self, folder: &Path) -> Self {
        let number = fs::metadata(folder).map(|found| found.dev()).unwrap_or_default();
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        // `/sys/dev/block/254:2` leads to `…/block/vda/vda2` (Linux, Documentation/ABI/stable/sysfs-dev).
        let link = self.sysfs.with_file_name("dev").join("block").join(format!("{major}:{minor}"));
        let disk = fs::canonicalize(link).ok().and_then(|path| Some(path.parent()?.file_name()?.to_str()?.to_owned()));
        self.first = disk;
        self
    }

    /// All disks with contents, the [`Devices::first`] one before the others, which come by name. Loop and memory devices are nobody's disk.
    #[must_use]
    pub fn disks(&self) -> Vec<Disk> {
        let mut disks: Vec<Disk> = names(&self.sysfs).into_iter().filter_map(|name| self.disk(name)).collect();
        disks.sort_by_key(|disk| (Some(&disk.name) != self.first.as_ref(), disk.name.clone()));
        disks
    }

    /// The disk of this name, as it is now.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<Disk> {
        self.disk(name.to_owned())
    }

    /// Bytes of a disk's sectors.
    #[must_use]
    pub fn sector(&self, name: &str) -> u64 {
        number(&self.sysfs.join(name).join("queue/logical_block_size")).unwrap_or(512)
    }

    fn disk(&self, name: String) -> Option<Disk> {
        if ["loop", "ram", "zram"].iter().any(|prefix| name.starts_with(prefix)) {
            return None;
        }
        let folder = self.sysfs.join(&name);
        // One of several ways to an NVMe disk has no device file of its own.
        if number(&folder.join("hidden")) == Some(1) {
            return None;
        }
        // Always in units of 512 bytes, whatever the disk's sectors (Linux, Documentation/ABI/stable/sysfs-block).
        let size = number(&folder.join("size"))? * 512;
        let partition =
            |child: String| Some((u32::try_from(number(&folder.join(&child).join("partition"))?).ok()?, child));
        let partitions = names(&folder).into_iter().filter_map(partition).collect();
        (size > 0).then(|| Disk { device: self.dev.join(&name), name, size, partitions })
    }

    /// Every disk with a sound table.
    #[must_use]
    pub fn tables(&self) -> Vec<(Disk, Table)> {
        let table =
            |disk: Disk| Some((File::open(&disk.device).ok().and_then(|mut file| Table::read(&mut file).ok())?, disk));
        self.disks().into_iter().filter_map(table).map(|(table, disk)| (disk, table)).collect()
    }

    /// The partitions with this unique GUID; more than one where two disks carry the same image.
    #[must_use]
    pub fn find(&self, guid: Guid) -> Vec<Found> {
        let find = |(disk, table): (Disk, Table)| {
            let partition = table.partitions.iter().find(|one| one.guid == guid)?.clone();
            Some(Found { disk, table, partition })
        };
        self.tables().into_iter().filter_map(find).collect()
    }

    /// What disks and partitions there are, for a person who misses one.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for disk in self.disks() {
            text.push_str(&format!("disk {} of {} MiB", disk.name, disk.size >> 20));
            let table = File::open(&disk.device).map_err(Into::into).and_then(|mut file| Table::read(&mut file));
            match table {
                Ok(table) => {
                    for one in &table.partitions {
                        text.push_str(&format!("\n  partition {} {} PARTUUID={}", one.number, one.name, one.guid));
                    }
                }
                Err(error) => text.push_str(&format!(": {error}")),
            }
            text.push('\n');
        }
        if text.is_empty() { "no disk at all\n".to_owned() } else { text }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;
    use std::process::Command;

    use super::Devices;

    pub(crate) const ROOT: &str = "0b2d1f5e-93c4-8a7b-9f10-5a6c7d8e9f01";

    /// A machine with the disk `vda` of `megabytes` that carries an image of ours, whose partitions the kernel knows.
    pub(crate) fn machine(folder: &Path, megabytes: u64) -> Devices {
        let devices = Devices { sysfs: folder.join("sys/block"), dev: folder.join("dev"), first: None };
        fs::create_dir_all(&devices.dev).unwrap();
        let disk = devices.dev.join("vda");
        File::create(&disk).unwrap().set_len(40 << 20).unwrap();
        let guid = format!("-u2:{ROOT}");
        let args = [
            "-n1:1M:+8M",
            "-t1:ef00",
            "-c1:esp",
            "-n2:9M:+8M",
            "-t2:8304",
            "-c2:root-a",
            &guid,
            "-n4:17M:+16M",
            "-t4:8310",
            "-c4:state",
        ];
        let output =
            Command::new("sgdisk").args(args).arg(&disk).output().expect("sgdisk is needed: apt-get install gdisk");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        File::options().write(true).open(&disk).unwrap().set_len(megabytes << 20).unwrap();
        for (name, number) in [("vda1", 1), ("vda2", 2), ("vda4", 4)] {
            fs::create_dir_all(devices.sysfs.join("vda").join(name)).unwrap();
            fs::write(devices.sysfs.join("vda").join(name).join("partition"), format!("{number}\n")).unwrap();
        }
        fs::write(devices.sysfs.join("vda/size"), format!("{}\n", megabytes << 11)).unwrap();
        devices
    }

    #[test]
    fn a_partition_is_found_by_its_guid() {
        let folder = tempfile::tempdir().unwrap();
        let devices = machine(folder.path(), 40);
        let found = devices.find(ROOT.parse().unwrap());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].device().unwrap(), devices.dev.join("vda2"));
        assert_eq!(found[0].disk.size, 40 << 20);
        assert!(devices.find("00000000-0000-0000-0000-000000000001".parse().unwrap()).is_empty());
    }

    #[test]
    fn of_two_disks_with_the_same_image_the_one_that_runs_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        let devices = machine(folder.path(), 40);
        let twin = |name: &str| {
            fs::copy(devices.dev.join("vda"), devices.dev.join(name)).unwrap();
            fs::create_dir_all(devices.sysfs.join(name)).unwrap();
            fs::copy(devices.sysfs.join("vda/size"), devices.sysfs.join(name).join("size")).unwrap();
        };
        twin("sda");
        let names = |devices: &Devices| -> Vec<String> {
            devices.find(ROOT.parse().unwrap()).into_iter().map(|found| found.disk.name).collect()
        };
        assert_eq!(names(&devices), ["sda", "vda"]);
        // The folder stands for the root: what it is on is partition 2 of vda, as sysfs tells it.
        let number = fs::metadata(folder.path()).unwrap().dev();
        let links = folder.path().join("sys/dev/block");
        fs::create_dir_all(&links).unwrap();
        let link = format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number));
        std::os::unix::fs::symlink("../../block/vda/vda2", links.join(link)).unwrap();
        let led = devices.led_by_disk_of(folder.path());
        assert_eq!((led.first.as_deref(), names(&led)), (Some("vda"), vec!["vda".into(), "sda".into()]));
    }

    #[test]
    fn what_is_there_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let devices = machine(folder.path(), 40);
        fs::create_dir_all(devices.sysfs.join("sdb")).unwrap();
        fs::write(devices.sysfs.join("sdb/size"), "2048\n").unwrap();
        File::create(devices.dev.join("sdb")).unwrap().set_len(1 << 20).unwrap();
        fs::create_dir_all(devices.sysfs.join("loop0")).unwrap();
        fs::write(devices.sysfs.join("loop0/size"), "2048\n").unwrap();
        let text = devices.describe();
        assert!(
            text.starts_with("disk sdb of 1 MiB: the disk has no GPT\ndisk vda of 40 MiB\n  partition 1 esp PARTUUID="),
            "{text}"
        );
        assert!(text.contains(&format!("partition 2 root-a PARTUUID={ROOT}")), "{text}");
        let nothing = Devices { sysfs: folder.path().join("none"), dev: folder.path().join("none"), first: None };
        assert_eq!(nothing.describe(), "no disk at all\n");
    }
}
