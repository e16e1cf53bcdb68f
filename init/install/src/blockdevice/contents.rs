//! Turns the first bytes of a disk, and of its partitions, into what a person knows it by before it is overwritten.
use std::fmt;

use kscratch_formats::bytes::{ReadAt, Window};
use kscratch_formats::ext4::Reader;
use kscratch_formats::fat32::Volume;
use kscratch_formats::gpt;
use serde::Serialize;

use crate::words::shown;

/// Signatures of what is not read further: name, place in bytes, bytes.
const SIGNATURES: [(&str, u64, &[u8]); 13] = [
    ("LUKS", 0, b"LUKS\xBA\xBE"),
    ("xfs", 0, b"XFSB"),
    ("NTFS", 3, b"NTFS    "),
    ("exFAT", 3, b"EXFAT   "),
    ("squashfs", 0, b"hsqs"),
    ("BitLocker", 3, b"-FVE-FS-"),
    ("LVM", 512 + 24, b"LVM2 001"),
    ("swap", 4086, b"SWAPSPACE2"),
    ("f2fs", 1024, &[0x10, 0x20, 0xF5, 0xF2]),
    ("ext", 1024 + 0x38, &[0x53, 0xEF]),
    ("md RAID", 4096, &[0xFC, 0x4E, 0x2B, 0xA9]),
    ("ISO 9660", 32769, b"CD001"),
    ("btrfs", 65536 + 64, b"_BHRfS_M"),
];
/// The same for what stands at the end of a disk, whose beginning may be zeros: members of arrays. The places are from the end, down to a multiple of
/// the last number (for md: Linux' `super_90_load` and `super_1_load`; DDF 2.0, 4.1; for Intel's, mdadm's super-intel.c).
const AT_THE_END: [(&str, u64, u64, &[u8]); 5] = [
    // Two sectors before the end, of either length.
    ("Intel RAID", 1024, 512, b"Intel Raid ISM Cfg Sig. "),
    ("Intel RAID", 8192, 4096, b"Intel Raid ISM Cfg Sig. "),
    ("DDF RAID", 512, 512, &[0xDE, 0x11, 0xDE, 0x11]),
    ("md RAID", 8192, 4096, &[0xFC, 0x4E, 0x2B, 0xA9]),
    ("md RAID", 65536, 65536, &[0xFC, 0x4E, 0x2B, 0xA9]),
];
/// What is looked at before a disk is called empty.
const START: u64 = 1 << 20;

/// What is on a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Contents {
    /// Zeros, as far as is looked, and no array's mark at the end.
    Empty,
    /// A GUID partition table.
    Gpt {
        /// The disk's GUID.
        guid: String,
        /// Its partitions.
        partitions: Vec<Part>,
    },
    /// An MBR with partitions.
    Mbr {
        /// Its disk signature, in hex.
        signature: String,
        /// Its partitions.
        partitions: Vec<Part>,
    },
    /// A filesystem, or something else with a signature, over the whole disk.
    Whole(Found),
    /// Something else.
    Unknown,
    /// It cannot be looked at.
    Unreadable {
        /// Why.
        reason: String,
    },
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Its number, from 1.
    pub number: u32,
    /// Its name in the table; empty where there is none.
    pub name: String,
    /// Length in bytes.
    pub bytes: u64,
    /// What is in it, if that is known.
    pub found: Option<Found>,
}

/// A filesystem or the like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// `ext4`, `vfat`, `LUKS`...
    pub format: &'static str,
    /// Its label, if it has one and it is known where.
    pub label: Option<String>,
}

impl Contents {
    /// Looks at a disk of `len` bytes.
    pub fn of(disk: &impl ReadAt, len: u64) -> Contents {
        let mut start = vec![0; len.min(START) as usize];
        if let Err(error) = disk.read_at(0, &mut start) {
            return Contents::Unreadable { reason: error.to_string() };
        }
        if let Ok(table) = gpt::read(disk, len) {
            let part = |(number, partition): &(u32, gpt::Partition)| Part {
                number: *number,
                name: shown(partition.name.trim()),
                bytes: partition.len,
                found: found(&Window { inner: disk, start: partition.start, len: partition.len }),
            };
            let partitions = table.partitions.iter().map(part).collect();
            return Contents::Gpt { guid: table.disk.to_string(), partitions };
        }
        if let Some(found) = found(disk) {
            return Contents::Whole(found);
        }
        let partitions = mbr(&start, disk);
        if !partitions.is_empty() {
            return Contents::Mbr { signature: signature(&start), partitions };
        }
        if let Some(found) = found_at_the_end(disk, len) {
            return Contents::Whole(found);
        }
        if start.iter().all(|byte| *byte == 0) { Contents::Empty } else { Contents::Unknown }
    }

    /// The word by which metadata say that just this may be overwritten; none where nothing is there, or nobody knows what.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        match self {
            Contents::Empty | Contents::Unreadable { .. } => None,
            Contents::Gpt { guid, .. } => Some(format!("gpt:{guid}")),
            Contents::Mbr { signature, .. } => Some(format!("mbr:{signature}")),
            Contents::Whole(found) => Some(found.format.replace(' ', "-").to_ascii_lowercase()),
            Contents::Unknown => Some("unknown".to_owned()),
        }
    }
}

/// The disk signature of an MBR: a number of 32 bits at byte 440, as `blkid` shows it.
fn signature(start: &[u8]) -> String {
    let bytes = start.get(440..444).unwrap_or_default();
    bytes.iter().rev().map(|byte| format!("{byte:02x}")).collect()
}

/// The primary partitions of an MBR: 16 bytes each from byte 446, type, first sector and number of sectors at 4, 8 and 12.
fn mbr(start: &[u8], disk: &impl ReadAt) -> Vec<Part> {
    let Some(records) = start.get(446..510).filter(|_| start.get(510..512) == Some(&[0x55, 0xAA])) else {
        return Vec::new();
    };
    let number = |bytes: &[u8]| u64::from(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    let records =
        (1..).zip(records.chunks_exact(16)).filter(|(_, record)| record[4] != 0 && number(&record[12..]) != 0);
    let part = |(at, record): (u32, &[u8])| {
        let (first, bytes) = (number(&record[8..]) * 512, number(&record[12..]) * 512);
        Part { number: at, name: String::new(), bytes, found: found(&Window { inner: disk, start: first, len: bytes }) }
    };
    records.map(part).collect()
}

fn found(disk: &impl ReadAt) -> Option<Found> {
    let label = |label: &str| Some(shown(label.trim())).filter(|label| !label.is_empty());
    if let Ok(volume) = Volume::open(disk) {
        return Some(Found { format: "vfat", label: label(volume.label()) });
    }
    if let Ok(reader) = Reader::open(disk) {
        return Some(Found { format: "ext4", label: label(reader.label()) });
    }
    let signed = |place: u64, signature: &[u8]| {
        let mut bytes = vec![0; signature.len()];
        disk.read_at(place, &mut bytes).is_ok() && bytes == signature
    };
    let (format, ..) = SIGNATURES.iter().find(|(_, place, signature)| signed(*place, signature))?;
    Some(Found { format, label: None })
}

fn found_at_the_end(disk: &impl ReadAt, len: u64) -> Option<Found> {
    let signed = |before: u64, aligned: u64, signature: &[u8]| {
        let mut bytes = vec![0; signature.len()];
        let place = len.checked_sub(before).map(|place| place / aligned * aligned);
        place.is_some_and(|place| disk.read_at(place, &mut bytes).is_ok()) && bytes == signature
    };
    let (format, ..) =
        AT_THE_END.iter().find(|(_, before, aligned, signature)| signed(*before, *aligned, signature))?;
    Some(Found { format, label: None })
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.label {
            Some(label) => write!(f, "{} `{label}`", self.format),
            None => f.write_str(self.format),
        }
    }
}

impl fmt::Display for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Contents::Empty => f.write_str("empty"),
            Contents::Unknown => f.write_str("data of an unknown kind"),
            Contents::Unreadable { reason } => write!(f, "cannot be read: {reason}"),
            Contents::Whole(found) => write!(f, "{found}"),
            Contents::Gpt { partitions, .. } | Contents::Mbr { partitions, .. } => {
                f.write_str(if matches!(self, Contents::Gpt { .. }) { "GPT" } else { "MBR" })?;
                if partitions.is_empty() {
                    return f.write_str(" without partitions");
                }
                let told = partitions.iter().map(|part| match (&part.found, part.name.as_str()) {
                    (Some(found), "") => format!("{found}"),
                    (Some(found), name) => format!("{name} ({found})"),
                    (None, "") => format!("partition {}", part.number),
                    (None, name) => name.to_owned(),
                });
                write!(f, ": {}", told.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Contents;

    #[track_caller]
    fn check(disk: &[u8], want: &str) {
        assert_eq!(Contents::of(&disk, disk.len() as u64).to_string(), want);
    }

    #[track_caller]
    fn named(disk: &[u8], want: Option<&str>) {
        assert_eq!(Contents::of(&disk, disk.len() as u64).name().as_deref(), want);
    }

    fn with(at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut disk = vec![0; 2 << 20];
        disk[at..at + bytes.len()].copy_from_slice(bytes);
        disk
    }

    #[test]
    fn signatures_are_told() {
        check(&vec![0; 2 << 20], "empty");
        check(&with(7, b"x"), "data of an unknown kind");
        check(&with(0, b"LUKS\xBA\xBE"), "LUKS");
        check(&with(65600, b"_BHRfS_M"), "btrfs");
        named(&vec![0; 2 << 20], None);
        named(&with(7, b"x"), Some("unknown"));
        named(&with(0, b"LUKS\xBA\xBE"), Some("luks"));
        named(&with(4096, &[0xFC, 0x4E, 0x2B, 0xA9]), Some("md-raid"));
        // Behind what is looked at, nothing is said.
        check(&with((1 << 20) + 1, b"x"), "empty");
    }

    #[test]
    fn a_member_of_an_array_is_not_empty_though_its_beginning_is() {
        const END: usize = 2 << 20;
        for sector in [512, 4096] {
            named(&with(END - 2 * sector, b"Intel Raid ISM Cfg Sig. 1.3"), Some("intel-raid"));
        }
        named(&with(END - 512, &[0xDE, 0x11, 0xDE, 0x11]), Some("ddf-raid"));
        let md = [0xFC, 0x4E, 0x2B, 0xA9];
        for (at, odd) in [(END - 8192, 0), (END - 8192, 512), (END - 65536, 0)] {
            let mut disk = with(at, &md);
            disk.extend(vec![0; odd]);
            named(&disk, Some("md-raid"));
        }
        // A longer one ends elsewhere for each of them.
        let mut disk = with(END - 65536, &md);
        disk.extend(vec![0; 4096]);
        named(&disk, Some("md-raid"));
        named(&with(END - 4096, &md), None);
    }

    #[test]
    fn an_mbr_tells_its_partitions() {
        let mut disk = with(510, &[0x55, 0xAA]);
        check(&disk, "data of an unknown kind");
        // Type 7, from sector 2048, 8 sectors.
        disk[446 + 4] = 7;
        disk[446 + 8..446 + 16].copy_from_slice(&[0, 8, 0, 0, 8, 0, 0, 0]);
        check(&disk, "MBR: partition 1");
        disk[440..444].copy_from_slice(&[0x78, 0x56, 0x34, 0x12]);
        named(&disk, Some("mbr:12345678"));
        disk[2048 * 512 + 3..2048 * 512 + 11].copy_from_slice(b"NTFS    ");
        check(&disk, "MBR: NTFS");
    }

    proptest! {
        #[test]
        fn no_disk_says_anything_that_a_terminal_obeys(changes in prop::collection::vec((0usize..70_000, any::<u8>()), 0..60), len in 0usize..70_000) {
            let mut disk = vec![0; len];
            for (at, byte) in changes {
                if let Some(place) = disk.get_mut(at) {
                    *place = byte;
                }
            }
            prop_assert!(!Contents::of(&disk.as_slice(), len as u64).to_string().contains(char::is_control));
        }
    }
}
