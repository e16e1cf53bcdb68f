//! Turns partitions into the tables of a GPT disk, and a disk's tables back into partitions whose checksums hold.
//!
//! UEFI specification 2.10, sections 5.2.3 (protective MBR) and 5.3 (GPT).
use crate::bytes::{ReadAt, put, put_u16, put_u32, put_u64, u32_at, u64_at};
use crate::guid::Guid;
use crate::image::{Data, Extent};

/// Logical block sizes in bytes: tables are made for one of them, and a disk of the other kind has none by them.
pub const SECTORS: [u64; 2] = [512, 4096];
/// Partitions begin at multiples of this many bytes.
pub const ALIGNMENT: u64 = 1 << 20;
const SIGNATURE: &[u8; 8] = b"EFI PART";
const REVISION: u32 = 0x0001_0000;
const HEADER: usize = 92;
const ENTRY: usize = 128;
const ENTRIES: usize = 128;
/// `PartitionName` in UTF-16 code units.
const NAME: usize = 36;

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// `PartitionName`, 36 UTF-16 code units at most.
    pub name: String,
    /// `PartitionTypeGUID`.
    pub kind: Guid,
    /// `UniquePartitionGUID`: the kernel's PARTUUID.
    pub guid: Guid,
    /// First byte on the disk.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
    /// `Attributes`, as bits.
    pub attributes: u64,
}

/// What a disk's tables say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Bytes of the sectors that they count in.
    pub sector: u64,
    /// `DiskGUID`.
    pub disk: Guid,
    /// The used entries, with their numbers (from 1).
    pub partitions: Vec<(u32, Partition)>,
    /// What is wrong with the table that was not used, if anything.
    pub warning: Option<Error>,
}

/// Why tables cannot be made or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A partition that cannot stand where it is.
    #[error("placing partition `{name}`: {reason}")]
    Partition {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A disk too small, or of a length that no disk has.
    #[error("laying out a disk of {len} bytes: {reason}")]
    Disk {
        /// Its length in bytes.
        len: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// A table that is damaged or absent.
    #[error("reading the {which} partition table: {reason}")]
    Table {
        /// `primary` or `backup`.
        which: &'static str,
        /// What is wrong.
        reason: String,
    },
}

/// Sectors of the entry array.
fn array_sectors(sector: u64) -> u64 {
    (ENTRY * ENTRIES) as u64 / sector
}

/// Bytes that the tables take at the end of a disk with such sectors.
pub fn backup(sector: u64) -> u64 {
    (array_sectors(sector) + 1) * sector
}

/// The protective MBR, both headers and both entry arrays of a disk of `len` bytes, in `sector` bytes each. Partition numbers follow the
/// order given.
pub fn tables<C>(disk: Guid, len: u64, sector: u64, partitions: &[Partition]) -> Result<Vec<Extent<C>>, Error> {
    let wrong = |reason| Error::Disk { len, reason };
    if !SECTORS.contains(&sector) {
        return Err(wrong("its sectors are neither 512 nor 4096 bytes long"));
    }
    if !len.is_multiple_of(sector) {
        return Err(wrong("its length is not a multiple of its sectors'"));
    }
    if len < 2 * ALIGNMENT {
        return Err(wrong("it must be 2 MiB at least"));
    }
    if partitions.len() > ENTRIES {
        return Err(wrong("it has more than 128 partitions"));
    }
    let mut array = vec![0; ENTRY * ENTRIES];
    for (index, partition) in partitions.iter().enumerate() {
        place(partition, &partitions[..index], len, sector)?;
        put_entry(&mut array[index * ENTRY..], partition, sector);
    }
    let last = len / sector - 1;
    let sum = crc32fast::hash(&array);
    let mut start = protective_mbr(last, sector);
    start.extend_from_slice(&header(disk, (1, last), 2, last, sum, sector));
    start.extend_from_slice(&array);
    let mut end = array;
    end.extend_from_slice(&header(disk, (last, 1), last - array_sectors(sector), last, sum, sector));
    let backup = len - backup(sector);
    Ok(vec![Extent { offset: 0, data: Data::Bytes(start) }, Extent { offset: backup, data: Data::Bytes(end) }])
}

fn place(partition: &Partition, before: &[Partition], len: u64, sector: u64) -> Result<(), Error> {
    let usable = len - backup(sector);
    let wrong = |reason: String| Err(Error::Partition { name: partition.name.clone(), reason });
    let end = partition.start.saturating_add(partition.len);
    if !partition.start.is_multiple_of(ALIGNMENT) || partition.start == 0 {
        return wrong(format!("it begins at {}, which is not a multiple of 1 MiB above 0", partition.start));
    }
    if partition.len == 0 || !partition.len.is_multiple_of(sector) {
        return wrong(format!("its length of {} bytes is not a multiple of {sector} above 0", partition.len));
    }
    if end > usable {
        return wrong(format!("it ends at {end}, past the last usable byte {usable} of the disk"));
    }
    if partition.name.encode_utf16().count() > NAME {
        return wrong("its name is longer than 36 characters".to_owned());
    }
    if partition.kind.is_zero() {
        return wrong("its type is the zero GUID, which marks unused entries".to_owned());
    }
    match before.iter().find(|other| other.start < end && partition.start < other.start + other.len) {
        Some(other) => wrong(format!("it overlaps partition `{}`", other.name)),
        None => match before.iter().find(|other| other.guid == partition.guid) {
            Some(other) => wrong(format!("it has the same GUID as partition `{}`", other.name)),
            None => Ok(()),
        },
    }
}

fn put_entry(entry: &mut [u8], partition: &Partition, sector: u64) {
    put(entry, 0, &partition.kind.to_disk());
    put(entry, 16, &partition.guid.to_disk());
    put_u64(entry, 32, partition.start / sector);
    put_u64(entry, 40, (partition.start + partition.len) / sector - 1);
    put_u64(entry, 48, partition.attributes);
    for (index, unit) in partition.name.encode_utf16().enumerate() {
        put_u16(entry, 56 + 2 * index, unit);
    }
}

fn protective_mbr(last: u64, sector: u64) -> Vec<u8> {
    let mut mbr = vec![0; sector as usize];
    // One record of type 0xEE over the whole disk; CHS of LBA 1 and of what CHS cannot reach.
    put(&mut mbr, 446, &[0x00, 0x00, 0x02, 0x00, 0xEE, 0xFF, 0xFF, 0xFF]);
    put_u32(&mut mbr, 454, 1);
    put_u32(&mut mbr, 458, u32::try_from(last).unwrap_or(u32::MAX));
    put_u16(&mut mbr, 510, 0xAA55);
    mbr
}

fn header(disk: Guid, (own, other): (u64, u64), array: u64, last: u64, array_sum: u32, sector: u64) -> Vec<u8> {
    let sectors = array_sectors(sector);
    let mut bytes = vec![0; sector as usize];
    put(&mut bytes, 0, SIGNATURE);
    put_u32(&mut bytes, 8, REVISION);
    put_u32(&mut bytes, 12, HEADER as u32);
    put_u64(&mut bytes, 24, own); // MyLBA
    put_u64(&mut bytes, 32, other); // AlternateLBA
    put_u64(&mut bytes, 40, 2 + sectors); // FirstUsableLBA
    put_u64(&mut bytes, 48, last - sectors - 1); // LastUsableLBA
    put(&mut bytes, 56, &disk.to_disk());
    put_u64(&mut bytes, 72, array); // PartitionEntryLBA
    put_u32(&mut bytes, 80, ENTRIES as u32);
    put_u32(&mut bytes, 84, ENTRY as u32);
    put_u32(&mut bytes, 88, array_sum);
    let sum = crc32fast::hash(&bytes[..HEADER]);
    put_u32(&mut bytes, 16, sum);
    bytes
}

/// Reads the tables of a disk of `len` bytes: the primary one, or the backup where the primary is damaged. Checksums must hold. Which
/// sectors they count in is found out by where they stand.
pub fn read(disk: &(impl ReadAt + ?Sized), len: u64) -> Result<Table, Error> {
    let [small, large] = SECTORS;
    // What is wrong is told of the small ones, which nearly all disks have.
    read_sectors(disk, len, small).or_else(|error| read_sectors(disk, len, large).map_err(|_| error))
}

fn read_sectors(disk: &(impl ReadAt + ?Sized), len: u64, sector: u64) -> Result<Table, Error> {
    let backup = (len / sector).saturating_sub(1);
    let read = |lba, which| read_table(disk, len, sector, lba, which);
    match (read(1, "primary"), read(backup, "backup")) {
        (Ok(table), second) => Ok(Table { warning: second.err(), ..table }),
        (Err(first), Ok(table)) => Ok(Table { warning: Some(first), ..table }),
        (Err(first), Err(_)) => Err(first),
    }
}

fn read_table(
    disk: &(impl ReadAt + ?Sized),
    len: u64,
    sector: u64,
    lba: u64,
    which: &'static str,
) -> Result<Table, Error> {
    let wrong = |reason: String| Error::Table { which, reason };
    let unreadable = |error: std::io::Error| wrong(error.to_string());
    let mut header = vec![0; sector as usize];
    disk.read_at(lba * sector, &mut header).map_err(unreadable)?;
    if &header[..8] != SIGNATURE {
        return Err(wrong("there is no `EFI PART` signature".to_owned()));
    }
    let size = u32_at(&header, 12) as usize;
    if !(HEADER..=sector as usize).contains(&size) {
        return Err(wrong(format!("its header claims a length of {size} bytes")));
    }
    let sum = u32_at(&header, 16);
    put_u32(&mut header, 16, 0);
    if crc32fast::hash(&header[..size]) != sum {
        return Err(wrong("the checksum of its header is wrong".to_owned()));
    }
    if u64_at(&header, 24) != lba {
        return Err(wrong(format!("its header says it stands at sector {}, not {lba}", u64_at(&header, 24))));
    }
    let (count, entry) = (u32_at(&header, 80) as usize, u32_at(&header, 84) as usize);
    // 128 entries of 128 bytes are usual; the bound keeps a damaged header from asking for gigabytes.
    let bytes = count.saturating_mul(entry);
    if entry < ENTRY || !entry.is_multiple_of(8) || bytes > 1 << 20 {
        return Err(wrong(format!("it claims {count} entries of {entry} bytes")));
    }
    let mut array = vec![0; bytes];
    let at = u64_at(&header, 72).checked_mul(sector).ok_or_else(|| wrong("its entries are out of reach".to_owned()))?;
    disk.read_at(at, &mut array).map_err(unreadable)?;
    if crc32fast::hash(&array) != u32_at(&header, 88) {
        return Err(wrong("the checksum of its entries is wrong".to_owned()));
    }
    let mut partitions = Vec::new();
    for (number, entry) in (1..).zip(array.chunks_exact(entry)) {
        let partition = parse_entry(entry, len, sector).map_err(|reason| wrong(format!("entry {number} {reason}")))?;
        partitions.extend(partition.map(|partition| (number, partition)));
    }
    Ok(Table { sector, disk: guid_at(&header, 56), partitions, warning: None })
}

fn parse_entry(entry: &[u8], len: u64, sector: u64) -> Result<Option<Partition>, String> {
    let kind = guid_at(entry, 0);
    if kind.is_zero() {
        return Ok(None);
    }
    let (first, last) = (u64_at(entry, 32), u64_at(entry, 40));
    if first == 0 || last < first || last >= len / sector {
        return Err(format!("reaches from sector {first} to {last} of a disk of {}", len / sector));
    }
    let units: Vec<u16> = entry[56..128]
        .chunks_exact(2)
        .map(|unit| u16::from_le_bytes([unit[0], unit[1]]))
        .take_while(|unit| *unit != 0)
        .collect();
    Ok(Some(Partition {
        name: String::from_utf16_lossy(&units),
        kind,
        guid: guid_at(entry, 16),
        start: first * sector,
        len: (last - first + 1) * sector,
        attributes: u64_at(entry, 48),
    }))
}

fn guid_at(bytes: &[u8], offset: usize) -> Guid {
    let mut guid = [0; 16];
    guid.copy_from_slice(&bytes[offset..offset + 16]);
    Guid::from_disk(guid)
}
