//! Turns what the kernel tells of a block device in /sys and /proc into facts: what it is, how large, and who uses it.
mod contents;
mod uses;

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

pub use contents::Contents;
pub use uses::Use;

/// Where the kernel tells: other folders in tests.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// `/sys`.
    pub sys: PathBuf,
    /// `/proc`.
    pub proc: PathBuf,
    /// `/dev`.
    pub dev: PathBuf,
}

impl Default for Kernel {
    fn default() -> Self {
        Kernel { sys: "/sys".into(), proc: "/proc".into(), dev: "/dev".into() }
    }
}

/// What a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A whole disk.
    Disk,
    /// A partition of one.
    Partition,
    /// A file that is seen as a disk.
    Loop,
    /// Made of others by the device mapper: LVM, encryption, multipath.
    Mapper,
    /// Made of others by the md driver.
    Raid,
    /// Memory that is seen as a disk: ram, zram.
    Memory,
    /// A CD or DVD drive.
    Optical,
}

/// A block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BlockDevice {
    /// Its name, such as `sda`.
    pub name: String,
    /// Its node, such as `/dev/sda`.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// Length in bytes; 0 without a medium.
    pub bytes: u64,
    /// Bytes of a logical block.
    pub block: u64,
    /// What its maker calls it.
    pub model: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
    /// Its World Wide Name, or what NVMe has for that (EUI-64, NGUID).
    pub wwn: Option<String>,
    /// How it is reached: `usb`, `nvme`, `sata`, `virtio`...
    pub transport: Option<&'static str>,
    /// Whether its medium can be taken out.
    pub removable: bool,
    /// Whether the kernel writes nothing to it.
    pub read_only: bool,
    /// Who uses it, or a part of it.
    pub uses: Vec<Use>,
    /// Which of the disks that have come since the kernel started, where it counts them (since Linux 5.15): another disk under the same name has
    /// another number.
    pub sequence: Option<u64>,
}

impl BlockDevice {
    /// The device of a node, or of a link to one such as those of `/dev/disk/by-id`; none for a plain file or nothing at all.
    ///
    /// # Errors
    /// It is a folder or a pipe; the kernel does not tell of it.
    pub fn at(path: &Path, kernel: &Kernel) -> Result<Option<BlockDevice>> {
        let action = || format!("looking at {}", path.display());
        let node = match fs::canonicalize(path) {
            Ok(node) => node,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(action),
        };
        let kind = fs::metadata(&node).with_context(action)?.file_type();
        if kind.is_file() {
            return Ok(None);
        }
        ensure!(kind.is_block_device(), "{} is neither a block device nor a file", path.display());
        let name = node.file_name().and_then(|name| name.to_str()).with_context(action)?;
        Self::named(name, kernel).map(Some).with_context(action)
    }

    /// The device that an open file leads to.
    ///
    /// # Errors
    /// It is none, or the kernel does not tell of it any more.
    pub fn behind(file: &File, kernel: &Kernel) -> Result<BlockDevice> {
        let metadata = file.metadata().context("asking what is open")?;
        ensure!(metadata.file_type().is_block_device(), "it is no block device any more");
        let (major, minor) = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
        let told = kernel.sys.join(format!("dev/block/{major}:{minor}"));
        let folder = fs::canonicalize(&told).context("the kernel tells of it no more")?;
        let name = folder.file_name().and_then(|name| name.to_str()).context("the kernel gives it no name")?;
        Self::named(name, kernel)
    }

    /// Whether it is the same device still, with the same medium in it.
    #[must_use]
    pub fn is_still(&self, before: &BlockDevice) -> bool {
        let who = |device: &BlockDevice| {
            let words = (device.serial.clone(), device.wwn.clone(), device.model.clone());
            (device.name.clone(), words, device.bytes, device.block, device.read_only, device.sequence)
        };
        who(self) == who(before)
    }

    /// All whole devices, by name.
    ///
    /// # Errors
    /// The kernel does not tell of them.
    pub fn all(kernel: &Kernel) -> Result<Vec<BlockDevice>> {
        let folder = kernel.sys.join("block");
        let entries = fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let mut names = names.collect::<Result<Vec<String>>>()?;
        names.sort();
        // A device may be gone by now.
        Ok(names.iter().filter_map(|name| Self::named(name, kernel).ok()).collect())
    }

    fn named(name: &str, kernel: &Kernel) -> Result<BlockDevice> {
        let folder = fs::canonicalize(kernel.sys.join("class/block").join(name))
            .with_context(|| format!("the kernel tells of no block device {name}"))?;
        let text = |file: &str| read(&folder.join(file));
        let kind = match name {
            _ if folder.join("partition").exists() => Kind::Partition,
            _ if name.starts_with("loop") => Kind::Loop,
            _ if name.starts_with("dm-") => Kind::Mapper,
            _ if name.starts_with("md") => Kind::Raid,
            _ if name.starts_with("ram") || name.starts_with("zram") => Kind::Memory,
            _ if name.starts_with("sr") => Kind::Optical,
            _ => Kind::Disk,
        };
        // In units of 512 bytes, whatever the device's blocks are (Documentation/ABI/stable/sysfs-block).
        let sectors: u64 = text("size").and_then(|text| text.parse().ok()).unwrap_or_default();
        let block = text("queue/logical_block_size").and_then(|text| text.parse().ok()).unwrap_or(512);
        let device = folder.join("device");
        let vendor = read(&device.join("vendor")).filter(|vendor| !vendor.starts_with("0x") && vendor != "ATA");
        let model = first(&[
            device.join("model"),
            device.join("name"),
            folder.join("dm/name"),
            folder.join("loop/backing_file"),
        ]);
        let model = match (vendor, model) {
            (Some(vendor), Some(model)) => Some(format!("{vendor} {model}")),
            (_, model) => model,
        };
        Ok(BlockDevice {
            name: name.to_owned(),
            // A name with a slash, as cciss has, is written with `!` in /sys.
            path: kernel.dev.join(name.replace('!', "/")),
            kind,
            bytes: sectors.saturating_mul(512),
            block,
            model,
            serial: first(&[folder.join("serial"), device.join("serial")])
                .or_else(|| scsi_serial(&device))
                .or_else(|| usb_serial(&device)),
            wwn: first(&[folder.join("wwid"), device.join("wwid")]).or_else(|| read(&folder.join("dm/uuid"))),
            transport: transport(&folder),
            removable: text("removable").is_some_and(|text| text == "1"),
            read_only: text("ro").is_some_and(|text| text == "1"),
            uses: uses::of(&folder, kernel)?,
            // A partition has that of its disk.
            sequence: first(&[folder.join("diskseq"), folder.join("../diskseq")]).and_then(|text| text.parse().ok()),
        })
    }
}

/// A file's words, if it has any.
fn read(file: &Path) -> Option<String> {
    let bytes = fs::read(file).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    // Makers fill fields with blanks; nothing that a terminal would obey is passed on.
    let text: String = text.chars().filter(|char| !char.is_control()).collect();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    (!text.is_empty()).then_some(text)
}

fn first(files: &[PathBuf]) -> Option<String> {
    files.iter().find_map(|file| read(file))
}

/// The Unit Serial Number page (SPC-4, 7.8.18): behind four bytes, of which the last two are its length.
fn scsi_serial(device: &Path) -> Option<String> {
    let page = fs::read(device.join("vpd_pg80")).ok()?;
    let text = String::from_utf8_lossy(page.get(4..)?).into_owned();
    let text: String = text.chars().filter(char::is_ascii_graphic).collect();
    (!text.is_empty()).then_some(text)
}

/// The serial number of the USB device that a disk is in: many sticks have no other.
fn usb_serial(device: &Path) -> Option<String> {
    let device = fs::canonicalize(device).ok()?;
    let usb = device.ancestors().find(|folder| folder.join("idVendor").exists())?;
    read(&usb.join("serial"))
}

fn transport(folder: &Path) -> Option<&'static str> {
    let known = [
        ("/usb", "usb"),
        ("/nvme", "nvme"),
        ("/mmc", "mmc"),
        ("/ata", "sata"),
        ("/virtio", "virtio"),
        ("/session", "iscsi"),
        ("/fc", "fc"),
    ];
    let path = folder.to_string_lossy();
    known.iter().find(|(part, _)| path.contains(part)).map(|(_, name)| *name)
}
