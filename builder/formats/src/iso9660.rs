//! Turns files that stand anywhere in an image into the volume descriptors and the directory that name them, with one of them to be booted by UEFI.
//!
//! ECMA-119 (ISO 9660), 4th edition, whose field names are used; "El Torito" Bootable CD-ROM Format Specification 1.0; UEFI specification 2.10, section
//! 13.3.2. All files are in the root directory, by names of interchange level 1. Nothing is written before byte [`START`], where a partition table may
//! stand: the same bytes are a disk then.
use std::collections::BTreeSet;

use crate::bytes::{put, put_u16, put_u32};
use crate::calendar::moment;
use crate::image::{Data, Extent};

/// Bytes of a logical sector.
pub const SECTOR: u64 = 2048;
/// The first byte of the descriptors: what is before it is the System Area, which the format leaves to others.
pub const START: u64 = 16 * SECTOR;
/// The first byte behind the descriptors, where files may begin.
pub const END: u64 = 23 * SECTOR;
/// Sectors of what stands there.
const DESCRIPTOR: u64 = 16;
const BOOT_RECORD: u64 = 17;
const TERMINATOR: u64 = 18;
const LITTLE: u64 = 19;
const BIG: u64 = 20;
const ROOT: u64 = 21;
const CATALOG: u64 = 22;
/// Bytes of the path table, which has the root alone.
const PATH_TABLE: u32 = 10;
/// Flag of a directory in `File Flags`.
const DIRECTORY: u8 = 2;

/// A file of the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Up to 8 of A-Z, 0-9 and _, a dot, and up to 3 of them.
    pub name: String,
    /// First byte in the image, a multiple of [`SECTOR`].
    pub start: u64,
    /// Length in bytes, less than 4 GiB.
    pub len: u64,
}

/// What the volume as a whole is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Length of the image in bytes, a multiple of [`SECTOR`].
    pub len: u64,
    /// `Volume Identifier`: up to 32 of A-Z, 0-9 and _.
    pub volume: String,
    /// Time of all files in seconds since 1970.
    pub time: i64,
    /// The file that is the FAT image of an EFI system partition. Firmware is told no length of it, as it may be longer than can be told: it reaches to
    /// the end of the volume then, so it is best the last file.
    pub boot: String,
}

/// Why a volume cannot be planned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A length or name that no volume can have.
    #[error("laying out the ISO 9660 volume `{volume}`: {reason}")]
    Options {
        /// Its name.
        volume: String,
        /// What is wrong.
        reason: String,
    },
    /// A file that cannot stand where it is, or have its name.
    #[error("placing {name} on the ISO 9660 volume: {reason}")]
    File {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: String,
    },
}

/// Plans the volume: the one extent that makes one of the image in which the files stand.
///
/// # Errors
/// Names, places or lengths that the format does not have.
pub fn plan<C>(files: &[File], options: &Options) -> Result<Extent<C>, Error> {
    check(files, options)?;
    let boot = files.iter().find(|file| file.name == options.boot);
    let boot = boot.ok_or_else(|| options.wrong(format!("there is no file {} to be booted", options.boot)))?;
    let root = directory(files, options.time)
        .ok_or_else(|| options.wrong("it has more files than there is room for".to_owned()))?;
    let mut bytes = vec![0; (END - START) as usize];
    let at = |sector: u64| (sector * SECTOR - START) as usize;
    put(&mut bytes, at(DESCRIPTOR), &primary(options));
    put(&mut bytes, at(BOOT_RECORD), &boot_record());
    put(&mut bytes, at(TERMINATOR), b"\xFFCD001\x01");
    put(&mut bytes, at(LITTLE), &path_table(u32::to_le_bytes, u16::to_le_bytes));
    put(&mut bytes, at(BIG), &path_table(u32::to_be_bytes, u16::to_be_bytes));
    put(&mut bytes, at(ROOT), &root);
    put(&mut bytes, at(CATALOG), &catalog(boot));
    Ok(Extent { offset: START, data: Data::Bytes(bytes) })
}

impl Options {
    fn wrong(&self, reason: String) -> Error {
        Error::Options { volume: self.volume.clone(), reason }
    }
}

fn check(files: &[File], options: &Options) -> Result<(), Error> {
    if options.volume.is_empty() || options.volume.len() > 32 || !options.volume.bytes().all(is_d_character) {
        return Err(options.wrong("its name must be 1 to 32 of A-Z, 0-9 and _".to_owned()));
    }
    let sectors = options.len / SECTOR;
    if !options.len.is_multiple_of(SECTOR) || options.len < END || u32::try_from(sectors).is_err() {
        return Err(options.wrong(format!("{} bytes are no length of one", options.len)));
    }
    let mut names = BTreeSet::new();
    for (at, file) in files.iter().enumerate() {
        let wrong = |reason: String| Err(Error::File { name: file.name.clone(), reason });
        let (name, extension) = file.name.split_once('.').unwrap_or((file.name.as_str(), ""));
        let fits = |part: &str, most: usize| part.len() <= most && part.bytes().all(is_d_character);
        if name.is_empty() || !fits(name, 8) || !fits(extension, 3) {
            return wrong("its name must be up to 8 of A-Z, 0-9 and _, a dot, and up to 3 of them".to_owned());
        }
        if !names.insert(identifier(&file.name)) {
            return wrong("it is there twice".to_owned());
        }
        let end = file.start.saturating_add(file.len);
        if !file.start.is_multiple_of(SECTOR) || file.start < END || end > options.len {
            return wrong(format!("it cannot stand at the bytes {} to {end}", file.start));
        }
        if u32::try_from(file.len).is_err() {
            return wrong(format!("it is {} bytes long, 4 GiB or more", file.len));
        }
        let overlaps = |other: &&File| other.start < end && file.start < other.start + other.len;
        if let Some(other) = files.iter().take(at).find(overlaps) {
            return wrong(format!("it overlaps {}", other.name));
        }
    }
    Ok(())
}

/// d-characters (7.4.1).
fn is_d_character(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_'
}

/// `File Identifier` (7.5.1): name, dot, extension, and the version behind a semicolon.
fn identifier(name: &str) -> String {
    let dot = if name.contains('.') { "" } else { "." };
    format!("{name}{dot};1")
}

/// A number in both orders of bytes (7.3.3).
fn both(number: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    put(&mut bytes, 0, &number.to_le_bytes());
    put(&mut bytes, 4, &number.to_be_bytes());
    bytes
}

/// The same of 16 bits (7.2.3).
fn both_u16(number: u16) -> [u8; 4] {
    let [low, high] = number.to_le_bytes();
    [low, high, high, low]
}

/// `Primary Volume Descriptor` (8.4).
fn primary(options: &Options) -> Vec<u8> {
    let mut bytes = vec![0; SECTOR as usize];
    put(&mut bytes, 0, b"\x01CD001\x01");
    // Texts are filled up with blanks: system, volume; then set, publisher, preparer, application and three files.
    for (from, to) in [(8, 72), (190, 813)] {
        bytes[from..to].fill(b' ');
    }
    put(&mut bytes, 40, options.volume.as_bytes());
    put(&mut bytes, 80, &both((options.len / SECTOR) as u32)); // Volume Space Size
    put(&mut bytes, 120, &both_u16(1)); // Volume Set Size
    put(&mut bytes, 124, &both_u16(1)); // Volume Sequence Number
    put(&mut bytes, 128, &both_u16(SECTOR as u16)); // Logical Block Size
    put(&mut bytes, 132, &both(PATH_TABLE)); // Path Table Size
    put_u32(&mut bytes, 140, LITTLE as u32); // Location of Occurrence of Type L Path Table
    put(&mut bytes, 148, &(BIG as u32).to_be_bytes()); // Type M
    put(&mut bytes, 156, &record(b"\0", ROOT * SECTOR, SECTOR, DIRECTORY, options.time));
    put(&mut bytes, 574, b"KSCRATCH"); // Application Identifier
    let created = long_time(options.time);
    put(&mut bytes, 813, &created); // Volume Creation
    put(&mut bytes, 830, &created); // Modification
    put(&mut bytes, 847, b"0000000000000000\0"); // Expiration: never
    put(&mut bytes, 864, b"0000000000000000\0"); // Effective: at once
    bytes[881] = 1; // File Structure Version
    bytes
}

/// 8.4.26.1: digits, hundredths, and the offset from Greenwich.
fn long_time(time: i64) -> Vec<u8> {
    let one = moment(time);
    let text = format!(
        "{:04}{:02}{:02}{:02}{:02}{:02}00\0",
        one.year.min(9999),
        one.month,
        one.day,
        one.hour,
        one.minute,
        one.second
    );
    text.into_bytes()
}

/// `Directory Record` (9.1).
fn record(name: &[u8], start: u64, len: u64, flags: u8, time: i64) -> Vec<u8> {
    let one = moment(time);
    let mut bytes = vec![0, 0];
    bytes.extend(both((start / SECTOR) as u32)); // Location of Extent
    bytes.extend(both(len as u32)); // Data Length
    // 9.1.5: the year counts from 1900, in one byte.
    bytes.extend(
        [(one.year - 1900).min(255), one.month, one.day, one.hour, one.minute, one.second, 0].map(|field| field as u8),
    );
    bytes.extend([flags, 0, 0]);
    bytes.extend(both_u16(1)); // Volume Sequence Number
    bytes.push(name.len() as u8);
    bytes.extend(name);
    // Records have an even length.
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    bytes[0] = bytes.len() as u8;
    bytes
}

/// The root directory, sorted as 9.3 wants it; none where it does not fit into its sector.
fn directory(files: &[File], time: i64) -> Option<Vec<u8>> {
    // By names and then extensions, each filled up with blanks, which come before all characters of names.
    let key = |file: &File| {
        let (name, extension) = file.name.split_once('.').unwrap_or((file.name.as_str(), ""));
        format!("{name:<8}{extension:<3}")
    };
    let mut sorted: Vec<&File> = files.iter().collect();
    sorted.sort_by_key(|file| key(file));
    let mut bytes = record(b"\0", ROOT * SECTOR, SECTOR, DIRECTORY, time);
    bytes.extend(record(b"\x01", ROOT * SECTOR, SECTOR, DIRECTORY, time));
    for file in sorted {
        bytes.extend(record(identifier(&file.name).as_bytes(), file.start, file.len, 0, time));
    }
    (bytes.len() as u64 <= SECTOR).then_some(bytes)
}

/// `Path Table Record` (9.4) of the root: its place, and itself as its parent.
fn path_table(long: fn(u32) -> [u8; 4], short: fn(u16) -> [u8; 2]) -> Vec<u8> {
    let mut bytes = vec![1, 0];
    bytes.extend(long(ROOT as u32));
    bytes.extend(short(1));
    bytes.extend([0, 0]);
    bytes
}

/// "El Torito", figure 7.
fn boot_record() -> Vec<u8> {
    let mut bytes = vec![0; SECTOR as usize];
    put(&mut bytes, 0, b"\0CD001\x01EL TORITO SPECIFICATION");
    put_u32(&mut bytes, 0x47, CATALOG as u32);
    bytes
}

/// "El Torito", figures 2 and 3: the validation entry, and the entry that is booted.
fn catalog(boot: &File) -> Vec<u8> {
    let mut bytes = vec![0; SECTOR as usize];
    put(&mut bytes, 0, &[1, 0xEF]); // Header ID, Platform ID: EFI
    put(&mut bytes, 4, b"KSCRATCH");
    put(&mut bytes, 0x1E, &[0x55, 0xAA]);
    // The words of the entry add up to zero.
    let words = bytes[..32].chunks_exact(2).map(|word| u16::from_le_bytes([word[0], word[1]]));
    let sum = words.fold(0_u16, u16::wrapping_add);
    put_u16(&mut bytes, 0x1C, sum.wrapping_neg());
    // Bootable, no emulation. UEFI 13.3.2.1: a Sector Count of 0 means up to the end of the volume.
    bytes[32] = 0x88;
    put_u32(&mut bytes, 40, (boot.start / SECTOR) as u32); // Load RBA
    bytes
}
