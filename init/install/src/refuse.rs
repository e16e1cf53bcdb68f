//! Turns the facts of a device into the reasons not to write to it.
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use kscratch_formats::bytes::ReadAt;
use kscratch_formats::gpt;

use crate::blockdevice::{BlockDevice, Contents, Kind, Use};
use crate::plain::Plain;
use crate::words::human_bytes;

/// What is going to be overwritten.
#[derive(Debug)]
pub struct Victim {
    /// The device; none for a plain file.
    pub device: Option<BlockDevice>,
    /// What is on it; none where nothing is there.
    pub contents: Option<Contents>,
    /// Where it is.
    pub path: PathBuf,
    /// Whether somebody writes to it, or has it for himself alone.
    pub busy: bool,
}

impl Victim {
    /// What stands at `path`, where `device` is, or a plain file. `busy` as the field.
    #[must_use]
    pub fn of(path: &Path, device: Option<BlockDevice>, busy: bool) -> Victim {
        let contents = path.exists().then(|| match Plain::open(path) {
            Ok(disk) => Contents::of(&disk, disk.len()),
            Err(error) => Contents::Unreadable { reason: error.to_string() },
        });
        Victim { device, contents, path: path.to_owned(), busy }
    }

    /// Its serial number, or what a person types instead to say that this one is meant.
    #[must_use]
    pub fn name_to_type(&self) -> String {
        let device = self.device.as_ref();
        device.and_then(|device| device.serial.clone()).unwrap_or_else(|| self.path.display().to_string())
    }
}

/// A refusal that the user says does not count, in its exact words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Override {
    /// `mounted:/media/usb`: what is mounted there.
    Mounted(String),
    /// `held:dm-0`: what is a part of that.
    Held(String),
    /// `partition:sda3`: it is a partition.
    Partition(String),
    /// `exists:FILE`: a plain file that is there.
    Exists(String),
}

impl FromStr for Override {
    type Err = String;

    fn from_str(text: &str) -> Result<Override, String> {
        match text.split_once(':') {
            Some(("mounted", at)) if !at.is_empty() => Ok(Override::Mounted(at.to_owned())),
            Some(("held", by)) if !by.is_empty() => Ok(Override::Held(by.to_owned())),
            Some(("partition", name)) if !name.is_empty() => Ok(Override::Partition(name.to_owned())),
            Some(("exists", file)) if !file.is_empty() => Ok(Override::Exists(file.to_owned())),
            _ => Err("it is one of mounted:PLACE, held:DEVICE, partition:NAME, exists:FILE, as the refusal says it"
                .to_owned()),
        }
    }
}

impl fmt::Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Override::Mounted(at) => write!(f, "mounted:{at}"),
            Override::Held(by) => write!(f, "held:{by}"),
            Override::Partition(name) => write!(f, "partition:{name}"),
            Override::Exists(file) => write!(f, "exists:{file}"),
        }
    }
}

/// A reason not to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It is shorter than the image.
    TooSmall {
        /// Its length in bytes.
        bytes: u64,
        /// The image's.
        image: u64,
    },
    /// There is no medium in it.
    NoMedium,
    /// The kernel does not write to it.
    ReadOnly,
    /// Its blocks are of another size than the image's tables are made for.
    Blocks {
        /// Its own, in bytes.
        bytes: u64,
        /// The image's.
        image: u64,
    },
    /// It is no disk that a machine boots from.
    NoDisk(Kind),
    /// This machine runs from it.
    System(Use),
    /// Somebody uses it.
    InUse(Use),
    /// Somebody has it, and the kernel does not tell who.
    Busy,
    /// It is a partition.
    Partition(String),
    /// It is a file that is there.
    Exists(String),
    /// The image comes from it.
    Medium,
    /// It is the image that is to be written.
    Itself,
    /// Something is on it, and nobody is there who could say that it may go.
    Holds {
        /// What, for people.
        what: String,
        /// The word for just this (see [`Contents::name`]); none where it is not known what it is.
        name: Option<String>,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::TooSmall { bytes, image } => {
                // Disks that are called alike differ by some sectors.
                let told = |bytes: u64| format!("{bytes} bytes ({})", human_bytes(bytes));
                write!(f, "it has {}, and the image needs {}", told(*bytes), told(*image))
            }
            Refusal::NoMedium => f.write_str("there is no medium in it"),
            Refusal::ReadOnly => f.write_str("it is read-only"),
            Refusal::Blocks { bytes, image } => {
                write!(f, "its blocks are {bytes} bytes long, and the image is made for blocks of {image}")
            }
            Refusal::NoDisk(kind) => {
                let what = match kind {
                    Kind::Optical => "an optical drive",
                    Kind::Memory => "this machine's memory",
                    _ => "no disk",
                };
                write!(f, "it is {what}")
            }
            Refusal::System(used) => write!(f, "this machine runs from it: {used}"),
            Refusal::InUse(used) => write!(f, "{used}"),
            Refusal::Busy => f.write_str("somebody has it open for himself alone"),
            Refusal::Partition(name) => write!(f, "{name} is a partition, and the image is a whole disk"),
            Refusal::Exists(file) => write!(f, "{file} is a file that is there already"),
            Refusal::Medium => f.write_str("it is the medium that is installed from"),
            Refusal::Itself => f.write_str("it is the image itself"),
            Refusal::Holds { what, .. } => write!(f, "something is on it: {what}"),
        }
    }
}

impl Refusal {
    /// What would make it not count, if anything does.
    pub fn overridden_by(&self) -> Option<Override> {
        match self {
            Refusal::InUse(Use::Mounted { at, .. }) => Some(Override::Mounted(at.clone())),
            Refusal::InUse(Use::Held { by, .. }) => Some(Override::Held(by.clone())),
            Refusal::Partition(name) => Some(Override::Partition(name.clone())),
            Refusal::Exists(file) => Some(Override::Exists(file.clone())),
            _ => None,
        }
    }

    /// What helps.
    pub fn way(&self) -> Option<String> {
        let instead =
            self.overridden_by().map(|by| format!(", or say that this does not count with `--override {by}`"));
        let instead = instead.unwrap_or_default();
        match self {
            Refusal::InUse(Use::Mounted { at, .. }) => Some(format!("`umount {at}`{instead}")),
            Refusal::InUse(Use::Held { by, .. }) => Some(format!("take {by} apart first{instead}")),
            Refusal::Partition(_) => Some(format!("name the whole disk{instead}")),
            Refusal::Exists(_) => Some(format!("name another file{instead}")),
            Refusal::Busy => {
                Some("look for a virtual machine, or for what has it mounted in a namespace of its own: `fuser -v` may tell who".to_owned())
            }
            Refusal::TooSmall { .. } => Some("`kscratch-image devices` lists what there is".to_owned()),
            Refusal::Blocks { bytes: bytes @ (512 | 4096), .. } => {
                Some(format!("`kscratch-image build --sector-size {bytes}` makes one for this disk"))
            }
            _ => None,
        }
    }
}

/// What an image wants of the disk that it is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Its length in bytes.
    pub bytes: u64,
    /// Bytes of the sectors that its tables count in; none where nothing is known of them yet.
    pub sector: Option<u64>,
}

impl Needs {
    /// Those of an image of `len` bytes. One without tables is as good for one disk as for another.
    pub fn of(disk: &impl ReadAt, len: u64) -> Needs {
        let sector = gpt::read(disk, len).ok().map(|table| table.sector);
        Needs { bytes: len, sector }
    }
}

/// Every reason not to write an image with these needs to it, but those that the user named.
pub fn refusals(victim: &Victim, needs: &Needs, overrides: &[Override]) -> Vec<Refusal> {
    let image = needs.bytes;
    let mut all = Vec::new();
    if victim.busy && victim.device.as_ref().is_none_or(|device| device.uses.is_empty()) {
        all.push(Refusal::Busy);
    }
    match &victim.device {
        None if victim.contents.is_some() => all.push(Refusal::Exists(victim.path.display().to_string())),
        None => {}
        Some(device) => {
            match device.kind {
                Kind::Optical | Kind::Memory => all.push(Refusal::NoDisk(device.kind)),
                Kind::Partition => all.push(Refusal::Partition(device.name.clone())),
                Kind::Disk | Kind::Loop | Kind::Mapper | Kind::Raid => {}
            }
            match device.bytes {
                0 => all.push(Refusal::NoMedium),
                bytes if bytes < image => all.push(Refusal::TooSmall { bytes, image }),
                _ => {}
            }
            if device.read_only {
                all.push(Refusal::ReadOnly);
            }
            if let Some(image) = needs.sector.filter(|sector| *sector != device.block) {
                all.push(Refusal::Blocks { bytes: device.block, image });
            }
            let system = device.uses.iter().any(Use::is_system);
            let uses = device.uses.iter().filter(|used| !system || used.is_system());
            all.extend(uses.cloned().map(if system { Refusal::System } else { Refusal::InUse }));
        }
    }
    all.retain(|refusal| refusal.overridden_by().is_none_or(|by| !overrides.contains(&by)));
    all
}

/// Every reason not to write where nobody can be asked: besides [`refusals`], of which none is overridden, whatever is on the disk, unless metadata name
/// it in its exact word. `medium` says whether the image comes from this disk.
#[must_use]
pub fn unattended(victim: &Victim, needs: &Needs, medium: bool, replaces: Option<&str>) -> Vec<Refusal> {
    let mut all = refusals(victim, needs, &[]);
    if medium {
        all.push(Refusal::Medium);
    }
    let contents = victim.contents.as_ref().filter(|contents| **contents != Contents::Empty);
    let holds = contents.map(|contents| Refusal::Holds { what: contents.to_string(), name: contents.name() });
    all.extend(holds.filter(|holds| match holds {
        Refusal::Holds { name: Some(name), .. } => replaces != Some(name.as_str()),
        _ => true,
    }));
    all
}

#[cfg(test)]
mod tests {
    use super::{Needs, Override, Victim, refusals, unattended};
    use crate::blockdevice::{BlockDevice, Contents, Kind, Use};

    fn disk() -> BlockDevice {
        BlockDevice {
            name: "sdb".into(),
            path: "/dev/sdb".into(),
            kind: Kind::Disk,
            bytes: 8 << 30,
            block: 512,
            model: None,
            serial: Some("S1".into()),
            wwn: None,
            transport: Some("usb"),
            removable: true,
            read_only: false,
            uses: Vec::new(),
            sequence: None,
        }
    }

    fn victim(device: Option<BlockDevice>) -> Victim {
        Victim { device, contents: Some(Contents::Empty), path: "/dev/sdb".into(), busy: false }
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut BlockDevice), overrides: &[&str], want: &[&str]) {
        let mut device = disk();
        change(&mut device);
        told(&victim(Some(device)), overrides, want);
    }

    #[track_caller]
    fn told(victim: &Victim, overrides: &[&str], want: &[&str]) {
        let overrides: Vec<Override> = overrides.iter().map(|text| text.parse().unwrap()).collect();
        let needs = Needs { bytes: 4 << 30, sector: Some(512) };
        let told: Vec<String> = refusals(victim, &needs, &overrides).iter().map(ToString::to_string).collect();
        assert_eq!(told, want);
    }

    fn mounted(device: &str, at: &str) -> Use {
        Use::Mounted { device: device.into(), at: at.into() }
    }

    #[test]
    fn every_fact_that_speaks_against_it_is_told() {
        check(|_| {}, &[], &[]);
        check(
            |disk| disk.bytes = (4 << 30) - 512,
            &[],
            &["it has 4294966784 bytes (4.0 GiB), and the image needs 4294967296 bytes (4.0 GiB)"],
        );
        check(|disk| disk.bytes = 0, &[], &["there is no medium in it"]);
        check(|disk| disk.read_only = true, &[], &["it is read-only"]);
        check(
            |disk| disk.block = 4096,
            &[],
            &["its blocks are 4096 bytes long, and the image is made for blocks of 512"],
        );
        check(|disk| disk.kind = Kind::Optical, &[], &["it is an optical drive"]);
        check(|disk| disk.kind = Kind::Memory, &[], &["it is this machine's memory"]);
        let held = || Use::Held { device: "sdb2".into(), by: "dm-0".into() };
        check(
            |disk| disk.uses = vec![mounted("sdb1", "/mnt"), held()],
            &[],
            &["sdb1 is mounted at /mnt", "sdb2 is a part of dm-0"],
        );
        told(&Victim { busy: true, ..victim(Some(disk())) }, &[], &["somebody has it open for himself alone"]);
        told(&victim(None), &[], &["/dev/sdb is a file that is there already"]);
        told(&Victim { contents: None, ..victim(None) }, &[], &[]);
    }

    #[test]
    fn an_image_goes_onto_a_disk_with_its_own_sectors() {
        let told = |block: u64, sector: Option<u64>| {
            let victim = victim(Some(BlockDevice { block, ..disk() }));
            let refusals = refusals(&victim, &Needs { bytes: 4 << 30, sector }, &[]);
            refusals.iter().map(|refusal| (refusal.to_string(), refusal.way())).collect::<Vec<_>>()
        };
        assert_eq!(told(4096, Some(4096)), []);
        assert_eq!(told(512, None), []);
        assert_eq!(told(4096, None), []);
        let reason = "its blocks are 4096 bytes long, and the image is made for blocks of 512";
        let way = "`kscratch-image build --sector-size 4096` makes one for this disk";
        assert_eq!(told(4096, Some(512)), [(reason.to_owned(), Some(way.to_owned()))]);
        assert_eq!(told(2048, Some(512))[0].1, None);
    }

    #[test]
    fn an_override_takes_what_it_names_and_no_more() {
        let uses = |disk: &mut BlockDevice| disk.uses = vec![mounted("sdb1", "/mnt"), mounted("sdb2", "/mnt/b")];
        check(uses, &["mounted:/mnt"], &["sdb2 is mounted at /mnt/b"]);
        check(uses, &["mounted:/mnt", "mounted:/mnt/b"], &[]);
        check(uses, &["held:sdb1", "exists:/mnt"], &["sdb1 is mounted at /mnt", "sdb2 is mounted at /mnt/b"]);
        let partition = |disk: &mut BlockDevice| disk.kind = Kind::Partition;
        check(partition, &[], &["sdb is a partition, and the image is a whole disk"]);
        check(partition, &["partition:sdb"], &[]);
        told(&victim(None), &["exists:/dev/sdb"], &[]);
        for text in ["", "all", "mounted", "mounted:", "system:/", "busy:sdb"] {
            assert!(text.parse::<Override>().is_err(), "{text}");
        }
    }

    #[test]
    fn where_nobody_can_be_asked_a_disk_is_blank_or_its_contents_are_named() {
        let told = |contents: Contents, medium: bool, replaces: Option<&str>| {
            let victim = Victim { contents: Some(contents), ..victim(Some(disk())) };
            let needs = Needs { bytes: 4 << 30, sector: Some(512) };
            let told = unattended(&victim, &needs, medium, replaces);
            told.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let table = || Contents::Gpt { guid: "g1".into(), partitions: Vec::new() };
        let holds = ["something is on it: GPT without partitions"];
        assert!(told(Contents::Empty, false, None).is_empty());
        assert_eq!(told(Contents::Empty, true, None), ["it is the medium that is installed from"]);
        assert_eq!(told(table(), false, None), holds);
        assert_eq!(told(table(), false, Some("gpt:g2")), holds);
        assert!(told(table(), false, Some("gpt:g1")).is_empty());
        assert_eq!(told(table(), true, Some("gpt:g1")), ["it is the medium that is installed from"]);
        assert!(told(Contents::Unknown, false, Some("unknown")).is_empty());
        // What cannot be read has no name that could be meant.
        assert_eq!(told(Contents::Unreadable { reason: "x".into() }, false, Some("unknown")).len(), 1);
        // Nothing that metadata say overrides the rest.
        let mut mounted_disk = disk();
        mounted_disk.uses = vec![mounted("sdb1", "/mnt")];
        let needs = Needs { bytes: 4 << 30, sector: Some(512) };
        assert_eq!(unattended(&victim(Some(mounted_disk)), &needs, false, Some("unknown")).len(), 1);
    }

    #[test]
    fn nothing_overrides_the_disk_that_the_machine_runs_from() {
        let system = |disk: &mut BlockDevice| disk.uses = vec![mounted("sdb1", "/mnt"), mounted("sdb2", "/")];
        check(system, &["mounted:/", "mounted:/mnt"], &["this machine runs from it: sdb2 is mounted at /"]);
        let swap = |disk: &mut BlockDevice| disk.uses = vec![Use::Swap { device: "sdb3".into() }];
        check(swap, &["mounted:/"], &["this machine runs from it: this machine swaps to sdb3"]);
    }
}
