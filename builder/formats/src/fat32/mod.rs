//! Plans a FAT32 volume and reads and changes small files of one.
//!
//! Field names follow Microsoft's "FAT32 File System Specification" (fatgen103).
mod name;
mod plan;
mod read;
mod replace;

pub use plan::plan;
pub use read::{Found, Volume};

use crate::calendar::moment;

/// Bytes that sectors may have (`BPB_BytsPerSec`): those of the disk that the volume is on.
const SECTORS: [u64; 4] = [512, 1024, 2048, 4096];
/// Bytes of a directory entry.
const SLOT: usize = 32;
const ATTR_VOLUME_ID: u8 = 0x08;
const ATTR_DIRECTORY: u8 = 0x10;
const ATTR_ARCHIVE: u8 = 0x20;
/// All four low bits: a long-name slot.
const ATTR_LONG_NAME: u8 = 0x0F;
/// Marks the last cluster of a chain.
const END_OF_CHAIN: u32 = 0x0FFF_FFFF;
/// The upper four bits of a FAT entry are reserved.
const ENTRY_MASK: u32 = 0x0FFF_FFFF;
/// The fewest clusters of FAT32; with fewer it would be read as FAT16.
const MIN_CLUSTERS: u64 = 65525;

/// What stands at a path; `C` names content that the writer can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind<C> {
    /// A directory.
    Directory,
    /// A file whose `len` bytes begin at byte `offset` of the content `id`.
    File {
        /// Names the content.
        id: C,
        /// First byte within the content.
        offset: u64,
        /// Length in bytes, less than 4 GiB.
        len: u64,
    },
    /// A file with these bytes.
    Bytes(Vec<u8>),
}

/// One entry of the volume to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<C> {
    /// Absolute, no trailing slash.
    pub path: String,
    /// What it is.
    pub kind: Kind<C>,
}

/// What the volume as a whole is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Length of the partition in bytes.
    pub size: u64,
    /// Bytes of the disk's sectors.
    pub sector: u64,
    /// Label, 11 ASCII capitals, digits or `_-` at most.
    pub label: String,
    /// `BS_VolID`.
    pub serial: u32,
    /// Time of all entries in seconds since 1970; before 1980 counts as 1980.
    pub time: i64,
    /// `BPB_HiddSec`: the sector at which the partition begins.
    pub hidden_sectors: u32,
}

/// Why a volume cannot be planned, read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Sizes or labels that no volume can have.
    #[error("laying out the FAT32 volume `{label}`: {reason}")]
    Options {
        /// The volume's label.
        label: String,
        /// What is wrong.
        reason: String,
    },
    /// The contents are larger than the volume.
    #[error("the FAT32 volume is {missing} bytes too small")]
    NoSpace {
        /// How much more free space is needed.
        missing: u64,
    },
    /// An entry that cannot stand where it is.
    #[error("placing {path} on the FAT32 volume: {reason}")]
    Entry {
        /// The entry.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// Bytes that are not a FAT32 volume, or a damaged one.
    #[error("reading the FAT32 volume: {reason}")]
    Damaged {
        /// What is wrong.
        reason: String,
    },
    /// Nothing stands at the path.
    #[error("there is no {path} on the FAT32 volume")]
    NotFound {
        /// The path.
        path: String,
    },
    /// The bytes could not be read.
    #[error("reading the FAT32 volume")]
    Read(#[from] std::io::Error),
}

/// A time as directory entries hold it: date and time, to two seconds (section "Date and Time Formats").
fn dos_time(time: i64) -> (u16, u16) {
    let moment = moment(time.max(315_532_800));
    let year = (moment.year - 1980).min(127);
    let date = year << 9 | moment.month << 5 | moment.day;
    let clock = moment.hour << 11 | moment.minute << 5 | (moment.second / 2);
    (date as u16, clock as u16)
}
