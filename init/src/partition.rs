//! Turns the bytes of a disk into its GPT ([`Table`]), and a table with a grown last partition, or with another name of one, into the bytes to write.
//!
//! Format: UEFI Specification 2.10, section 5.3; field names are those of its tables 5.5 (header) and 5.6 (entry).
mod guid;
pub mod single;

use std::io::{self, Read, Seek, SeekFrom};

pub use guid::{Guid, NotAGuid};

/// One used entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// From 1, as the kernel numbers it.
    pub number: u32,
    /// `PartitionTypeGUID`
    pub kind: Guid,
    /// `UniquePartitionGUID`
    pub guid: Guid,
    /// `StartingLBA`, in sectors of the table.
    pub first: u64,
    /// `EndingLBA`, inclusive.
    pub last: u64,
    /// `PartitionName`
    pub name: String,
}

/// Which of the two copies was sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copy {
    /// The one behind the protective MBR.
    Primary,
    /// The one in the disk's last sectors.
    Backup,
}

/// A disk's partition table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Bytes of a sector: 512 or 4096.
    pub sector: u64,
    /// Which copy was read.
    pub copy: Copy,
    /// The used entries in the order of their numbers.
    pub partitions: Vec<Partition>,
    /// The disk's first sector.
    mbr: Vec<u8>,
    header: Header,
    entries: Vec<u8>,
}

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk could not be read.
    #[error("reading the partition table")]
    Read(#[from] io::Error),
    /// Neither copy has a GPT's signature.
    #[error("the disk has no GPT")]
    Missing,
    /// There is a signature, but neither copy is sound.
    #[error("the GPT is damaged: {0}")]
    Damaged(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    my_lba: u64,
    alternate_lba: u64,
    first_usable: u64,
    last_usable: u64,
    disk_guid: [u8; 16],
    entries_lba: u64,
    count: u32,
    size: u32,
    entries_crc: u32,
}

const SIGNATURE: &[u8; 8] = b"EFI PART";
const REVISION: u32 = 0x0001_0000;
const HEADER_SIZE: usize = 92;
/// Far above the 16 KiB that everyone writes; keeps a made-up header from asking for gigabytes.
const MAX_ENTRIES_BYTES: u64 = 1 << 20;

impl Header {
    fn parse(bytes: &[u8], at: u64) -> Result<Self, &'static str> {
        if bytes.get(..8) != Some(SIGNATURE) {
            return Err("no signature");
        }
        let size = u32_at(bytes, 12) as usize;
        if size < HEADER_SIZE || size > bytes.len() {
            return Err("the header's size is impossible");
        }
        let mut zeroed = bytes[..size].to_vec();
        zeroed[16..20].fill(0);
        if crc32fast::hash(&zeroed) != u32_at(bytes, 16) {
            return Err("the header's checksum is wrong");
        }
        let header = Self {
            my_lba: u64_at(bytes, 24),
            alternate_lba: u64_at(bytes, 32),
            first_usable: u64_at(bytes, 40),
            last_usable: u64_at(bytes, 48),
            disk_guid: array_at(bytes, 56),
            entries_lba: u64_at(bytes, 72),
            count: u32_at(bytes, 80),
            size: u32_at(bytes, 84),
            entries_crc: u32_at(bytes, 88),
        };
        if header.my_lba != at {
            return Err("the header belongs to another sector");
        }
        if header.size < 128 || !header.size.is_power_of_two() || header.entries_bytes() > MAX_ENTRIES_BYTES {
            return Err("the entries' size is impossible");
        }
        Ok(header)
    }

    fn entries_bytes(&self) -> u64 {
        u64::from(self.count) * u64::from(self.size)
    }

    fn bytes(&self, sector: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(SIGNATURE);
        bytes.extend_from_slice(&REVISION.to_le_bytes());
        bytes.extend_from_slice(&(HEADER_SIZE as u32).to_le_bytes());
        bytes.extend_from_slice(&[0; 8]);
        for field in [self.my_lba, self.alternate_lba, self.first_usable, self.last_usable] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        bytes.extend_from_slice(&self.disk_guid);
        bytes.extend_from_slice(&self.entries_lba.to_le_bytes());
        for field in [self.count, self.size, self.entries_crc] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        let crc = crc32fast::hash(&bytes);
        bytes[16..20].copy_from_slice(&crc.to_le_bytes());
        bytes.resize(usize::try_from(sector).unwrap_or(HEADER_SIZE).max(HEADER_SIZE), 0);
        bytes
    }
}

impl Table {
    /// Reads the table of a disk: the primary copy, and where that is not sound the backup in the last sector. Sectors of 512
    /// bytes are tried before those of 4096. Where something else begins in the first sector, a backup is of what was on the disk before.
    ///
    /// # Errors
    /// No copy is sound, or the disk cannot be read.
    pub fn read(disk: &mut (impl Read + Seek)) -> Result<Self, Error> {
        let length = disk.seek(SeekFrom::End(0))?;
        let mut damage = None;
        for copy in [Copy::Primary, Copy::Backup] {
            for sector in [512, 4096] {
                let sectors = length / sector;
                let at = if copy == Copy::Primary { 1 } else { sectors.saturating_sub(1) };
                if sectors < 4 {
                    continue;
                }
                match Self::read_copy(disk, sector, sectors, at, copy)? {
                    Ok(table) => return Ok(table),
                    Err("no signature") => {}
                    Err(reason) => damage = damage.or(Some(reason)),
                }
            }
        }
        Err(damage.map_or(Error::Missing, Error::Damaged))
    }

    fn read_copy(
        disk: &mut (impl Read + Seek),
        sector: u64,
        sectors: u64,
        at: u64,
        copy: Copy,
    ) -> io::Result<Result<Self, &'static str>> {
        let header = match Header::parse(&bytes_at(disk, at * sector, sector)?, at) {
            Ok(header) => header,
            Err(reason) => return Ok(Err(reason)),
        };
        let end = header.entries_lba.checked_add(header.entries_bytes().div_ceil(sector));
        if end.is_none_or(|end| end > sectors) {
            return Ok(Err("the entries lie behind the disk's end"));
        }
        let entries = bytes_at(disk, header.entries_lba * sector, header.entries_bytes())?;
        if crc32fast::hash(&entries) != header.entries_crc {
            return Ok(Err("the entries' checksum is wrong"));
        }
        let mbr = bytes_at(disk, 0, sector)?;
        if copy == Copy::Backup && !may_have_backup(&mbr) {
            return Ok(Err("no signature"));
        }
        let partitions = parse_entries(&entries, header.size as usize);
        if partitions.iter().any(|one| one.first > one.last || one.last >= sectors) {
            return Ok(Err("a partition ends behind the disk's end or before its start"));
        }
        Ok(Ok(Self { sector, copy, partitions, mbr, header, entries }))
    }

    /// `DiskGUID`
    #[must_use]
    pub fn disk_guid(&self) -> Guid {
        Guid::from_disk(self.header.disk_guid)
    }

    /// The table with partition `number` stretched to the end of a disk of `length` bytes, as writes to be done in this order. `None`
    /// where it cannot grow: it ends there already, or another partition lies behind it.
    ///
    /// The backup comes first and lies where nothing was before, so at every moment one sound copy is on the disk.
    #[must_use]
    pub fn grow(&self, number: u32, length: u64) -> Option<Change> {
        let old = self.partitions.iter().find(|one| one.number == number)?;
        if self.partitions.iter().any(|other| other.first > old.first) {
            return None;
        }
        // Partitions end on a MiB as they begin on one: a bit less, and aligned for every disk.
        let alignment = (1 << 20) / self.sector;
        let last = ((self.last_usable(length)? + 1) / alignment * alignment).checked_sub(1)?;
        if last <= old.last {
            return None;
        }
        let mut entries = self.entries.clone();
        self.entry(&mut entries, number)?.get_mut(40..48)?.copy_from_slice(&last.to_le_bytes());
        let [backup, primary] = self.copies(entries, length)?;
        Some(Change {
            start: old.first * self.sector,
            length: (last + 1 - old.first) * self.sector,
            first: backup,
            then: primary,
        })
    }

    /// The table with this name of partition `number`, of which what goes beyond 36 units of UTF-16 is left out, on a disk of `length` bytes. `None` where
    /// there is no such partition, or the table has no room where it is written.
    ///
    /// The copy that was not read comes first: at every moment one sound copy is on the disk.
    #[must_use]
    pub fn rename(&self, number: u32, name: &str, length: u64) -> Option<Change> {
        let old = self.partitions.iter().find(|one| one.number == number)?;
        let mut entries = self.entries.clone();
        let mut units = name.encode_utf16();
        for place in self.entry(&mut entries, number)?.get_mut(56..128)?.chunks_exact_mut(2) {
            place.copy_from_slice(&units.next().unwrap_or(0).to_le_bytes());
        }
        let [backup, primary] = self.copies(entries, length)?;
        let [first, then] = if self.copy == Copy::Backup { [primary, backup] } else { [backup, primary] };
        Some(Change { start: old.first * self.sector, length: (old.last + 1 - old.first) * self.sector, first, then })
    }

    /// The bytes of an entry.
    fn entry<'a>(&self, entries: &'a mut [u8], number: u32) -> Option<&'a mut [u8]> {
        let (size, before) = (self.header.size as usize, usize::try_from(number.checked_sub(1)?).ok()?);
        entries.chunks_exact_mut(size).nth(before)
    }

    /// The last sector that a partition may have, where the disk has `length` bytes and the backup stands at its end.
    fn last_usable(&self, length: u64) -> Option<u64> {
        let entry_sectors = self.header.entries_bytes().div_ceil(self.sector);
        (length / self.sector).checked_sub(entry_sectors + 2)
    }

    /// The backup and the primary copy of this table with these entries, on a disk of `length` bytes.
    fn copies(&self, mut entries: Vec<u8>, length: u64) -> Option<[Write; 2]> {
        let sectors = length / self.sector;
        let entry_sectors = self.header.entries_bytes().div_ceil(self.sector);
        let last_usable = self.last_usable(length)?;
        if self.partitions.iter().any(|one| one.last > last_usable) {
            return None;
        }
        let primary = Header {
            my_lba: 1,
            alternate_lba: sectors - 1,
            last_usable,
            entries_lba: 2,
            entries_crc: crc32fast::hash(&entries),
            ..self.header
        };
        if primary.first_usable < 2 + entry_sectors {
            return None;
        }
        let backup =
            Header { my_lba: primary.alternate_lba, alternate_lba: 1, entries_lba: last_usable + 1, ..primary };
        entries.resize(usize::try_from(entry_sectors * self.sector).ok()?, 0);
        Some([
            Write {
                offset: backup.entries_lba * self.sector,
                bytes: [entries.clone(), backup.bytes(self.sector)].concat(),
            },
            // MBR, header and entries in one piece: the window in which a power cut finds half of it is as small as it can be.
            Write {
                offset: 0,
                bytes: [grown_mbr(&self.mbr, self.sector, sectors), primary.bytes(self.sector), entries].concat(),
            },
        ])
    }
}

/// What to write to make a partition, or to change it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where the partition starts, in bytes.
    pub start: u64,
    /// How long it is then, in bytes.
    pub length: u64,
    /// The one copy of the table: to be written, and to have reached the disk, first.
    pub first: Write,
    /// The other copy, to be written then.
    pub then: Write,
}

/// Bytes and their place on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// From the disk's start.
    pub offset: u64,
    /// What.
    pub bytes: Vec<u8>,
}

/// Types of an MBR's partition records (UEFI 5.2.1, tables 5.1 and 5.2); none where it has no signature.
fn records(mbr: &[u8]) -> [u8; 4] {
    let kind = |at| mbr.get(at).copied().unwrap_or(0);
    if mbr.get(510..512) == Some(&[0x55, 0xAA]) { [450, 466, 482, 498].map(kind) } else { [0; 4] }
}

/// Type of the record that protects a GPT (UEFI 5.2.3).
const PROTECTIVE: u8 = 0xEE;

/// Whether a disk that begins so may have lost no more than its primary table.
fn may_have_backup(mbr: &[u8]) -> bool {
    mbr.iter().all(|byte| *byte == 0) || records(mbr).contains(&PROTECTIVE)
}

/// The first sector of a disk that has grown. What else is in it is another system's (boot code, records of a hybrid MBR) and stays.
fn grown_mbr(mbr: &[u8], sector: u64, sectors: u64) -> Vec<u8> {
    let made = protective_mbr(sector, sectors);
    match records(mbr) {
        [PROTECTIVE, 0, 0, 0] => [mbr.get(..446).unwrap_or_default(), made.get(446..).unwrap_or_default()].concat(),
        kinds if kinds.contains(&PROTECTIVE) => mbr.to_vec(),
        _ => made,
    }
}

/// UEFI 5.2.3, table 5.4. The boot code area is empty: these disks boot by UEFI alone.
fn protective_mbr(sector: u64, sectors: u64) -> Vec<u8> {
    let mut mbr = vec![0; usize::try_from(sector).unwrap_or(512)];
    mbr[446..462].copy_from_slice(&[0, 0, 2, 0, 0xEE, 0xFF, 0xFF, 0xFF, 1, 0, 0, 0, 0, 0, 0, 0]);
    let size = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
    mbr[458..462].copy_from_slice(&size.to_le_bytes());
    mbr[510..512].copy_from_slice(&[0x55, 0xAA]);
    mbr
}

fn parse_entries(entries: &[u8], size: usize) -> Vec<Partition> {
    let used = entries.chunks_exact(size).zip(1..).filter(|(entry, _)| entry[..16] != [0; 16]);
    used.map(|(entry, number)| {
        let units: Vec<u16> =
            entry[56..128].chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
        Partition {
            number,
            kind: Guid::from_disk(array_at(entry, 0)),
            guid: Guid::from_disk(array_at(entry, 16)),
            first: u64_at(entry, 32),
            last: u64_at(entry, 40),
            name: String::from_utf16_lossy(units.split(|unit| *unit == 0).next().unwrap_or_default()),
        }
    })
    .collect()
}

fn bytes_at(disk: &mut (impl Read + Seek), offset: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    disk.seek(SeekFrom::Start(offset))?;
    disk.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// `N` bytes at an offset; zeros where there are none, which no caller asks for.
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..at + N).and_then(|part| part.try_into().ok()).unwrap_or([0; N])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

#[cfg(test)]
mod tests;
