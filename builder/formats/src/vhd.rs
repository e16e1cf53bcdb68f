//! Turns a disk's length and identity into the footer that makes a raw file a fixed VHD, and a footer back into the disk's length.
//!
//! Virtual Hard Disk Image Format Specification, version 1.0: "Hard Disk Footer Format". All fields are big endian.
use crate::bytes::{ReadAt, put};

/// Bytes of the footer, which stands behind the disk's bytes.
pub const FOOTER: u64 = 512;
const COOKIE: &[u8; 8] = b"conectix";
/// Seconds from 1970 to 2000, where the format's times begin.
const EPOCH: i64 = 946_684_800;
const FIXED: u32 = 2;
const DYNAMIC: u32 = 3;
/// Where the checksum stands.
const CHECKSUM: usize = 64;

/// Why a file is no fixed VHD.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A footer that is damaged.
    #[error("reading the VHD's footer: {0}")]
    Damaged(&'static str),
    /// Another kind of VHD.
    #[error("it is a {0} VHD, and only fixed ones are read here")]
    Kind(&'static str),
}

/// The footer of a disk of `len` bytes. `time` is in seconds since 1970.
pub fn footer(len: u64, time: i64, unique: [u8; 16]) -> [u8; FOOTER as usize] {
    let mut bytes = [0; FOOTER as usize];
    put(&mut bytes, 0, COOKIE);
    put(&mut bytes, 8, &2u32.to_be_bytes()); // Features: the reserved bit, which is always set
    put(&mut bytes, 12, &0x0001_0000u32.to_be_bytes()); // File Format Version
    put(&mut bytes, 16, &u64::MAX.to_be_bytes()); // Data Offset: none in a fixed disk
    let time = u32::try_from(time.saturating_sub(EPOCH).max(0)).unwrap_or(u32::MAX);
    put(&mut bytes, 24, &time.to_be_bytes());
    // Creator Application. By it readers choose whether the geometry is the disk's length, which rounds it down, or Current Size:
    // QEMU takes the latter for this name, its own of `force_size`; Azure and Hyper-V always do.
    put(&mut bytes, 28, b"qem2");
    put(&mut bytes, 32, &0x0001_0000u32.to_be_bytes()); // Creator Version
    put(&mut bytes, 36, b"Wi2k"); // Creator Host OS: one of the two that there are
    put(&mut bytes, 40, &len.to_be_bytes()); // Original Size
    put(&mut bytes, 48, &len.to_be_bytes()); // Current Size
    let (cylinders, heads, sectors) = geometry(len / 512);
    put(&mut bytes, 56, &cylinders.to_be_bytes());
    put(&mut bytes, 58, &[heads, sectors]);
    put(&mut bytes, 60, &FIXED.to_be_bytes());
    put(&mut bytes, 68, &unique);
    let sum = checksum(&bytes);
    put(&mut bytes, CHECKSUM, &sum.to_be_bytes());
    bytes
}

/// The one's complement of the sum of all bytes but the checksum's own.
fn checksum(bytes: &[u8; FOOTER as usize]) -> u32 {
    let counted = bytes.iter().enumerate().filter(|(at, _)| !(CHECKSUM..CHECKSUM + 4).contains(at));
    !counted.map(|(_, byte)| u32::from(*byte)).sum::<u32>()
}

/// Cylinders, heads and sectors per track of a disk of so many sectors (the specification's appendix, "CHS Calculation").
fn geometry(sectors: u64) -> (u16, u8, u8) {
    let total = u32::try_from(sectors).unwrap_or(u32::MAX).min(65535 * 16 * 255);
    if total >= 65535 * 16 * 63 {
        return (cylinders(total / 255 / 16), 16, 255);
    }
    let mut per_track = 17;
    let mut tracks = total / per_track;
    let mut heads = tracks.div_ceil(1024).max(4);
    if tracks >= heads * 1024 || heads > 16 {
        (per_track, heads) = (31, 16);
        tracks = total / per_track;
    }
    if tracks >= heads * 1024 {
        (per_track, heads) = (63, 16);
        tracks = total / per_track;
    }
    (cylinders(tracks / heads), heads as u8, per_track as u8)
}

fn cylinders(number: u32) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

/// The length of the disk in a file of `len` bytes; none where the file does not end with a footer.
///
/// # Errors
/// A footer that is damaged, or that of a disk that is not fixed.
pub fn disk_len(file: &(impl ReadAt + ?Sized), len: u64) -> Result<Option<u64>, Error> {
    let mut bytes = [0; FOOTER as usize];
    let Some(at) = len.checked_sub(FOOTER) else { return Ok(None) };
    if file.read_at(at, &mut bytes).is_err() || &bytes[..8] != COOKIE {
        return Ok(None);
    }
    let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    if word(CHECKSUM) != checksum(&bytes) {
        return Err(Error::Damaged("its checksum is wrong"));
    }
    match word(60) {
        FIXED => {}
        DYNAMIC => return Err(Error::Kind("dynamic")),
        _ => return Err(Error::Kind("differencing")),
    }
    let size = u64::from(word(48)) << 32 | u64::from(word(52));
    if size > at {
        return Err(Error::Damaged("the disk is longer than the file"));
    }
    Ok(Some(size))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    use super::{Error, disk_len, footer, geometry};

    #[test]
    fn geometries_are_those_of_the_specification() {
        // The smallest and the largest, and the borders between the three track lengths.
        assert_eq!(geometry(2048), (30, 4, 17));
        assert_eq!(geometry(1024 * 16 * 17), (561, 16, 31));
        assert_eq!(geometry(1024 * 16 * 31), (503, 16, 63));
        assert_eq!(geometry(65535 * 16 * 63), (16191, 16, 255));
        assert_eq!(geometry(1 << 40), (65535, 16, 255));
    }

    #[test]
    fn a_file_with_a_footer_is_a_disk() {
        let mut file = vec![7; 4096];
        assert_eq!(disk_len(file.as_slice(), 4096), Ok(None));
        file.extend(footer(4096, 1_760_000_000, [9; 16]));
        let len = file.len() as u64;
        assert_eq!(disk_len(file.as_slice(), len), Ok(Some(4096)));
        file[4096 + 63] = 3;
        assert_eq!(disk_len(file.as_slice(), len), Err(Error::Damaged("its checksum is wrong")));
        file[4096 + 67] -= 1;
        assert_eq!(disk_len(file.as_slice(), len), Err(Error::Kind("dynamic")));
    }

    proptest! {
        #[test]
        fn any_footer_is_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 512), at in 0..512_usize, with in any::<u8>()) {
            drop(disk_len(bytes.as_slice(), 512));
            bytes[..8].copy_from_slice(b"conectix");
            drop(disk_len(bytes.as_slice(), 512));
            let mut good = [vec![0; 1024], footer(1024, 0, [3; 16]).to_vec()].concat();
            let same = good[1024 + at] == with;
            good[1024 + at] = with;
            // A byte that differs is found by the cookie or by the sum.
            prop_assert_eq!(disk_len(good.as_slice(), 1536) == Ok(Some(1024)), same);
        }
    }
}
