//! A disk packed for its installation: the ranges that hold something, each compressed by itself, behind an index with their digests.
//!
//! Everything is little endian. A header of 64 bytes: `KSPACKED`, version (u32), bytes of a sector of the disk, or 0 (u32), length of the disk (u64),
//! number of ranges (u32), zero (u32), SHA-256 of the index. Then the index, 56 bytes a range: first byte on the disk (u64), its length (u32), its
//! length when packed (u32), where that stands, from the header (u64), SHA-256 of the range. Then the ranges as zstd frames. What no range names may hold
//! anything on the device.
//!
//! [`Packed::identity`] is the content's own: whoever knows it from a place that is trusted, such as a signed command line, needs to trust no other byte.
use std::io;

use kscratch_formats::bmap::{BlockMap, Mapped};
use kscratch_formats::bytes::ReadAt;
use kscratch_formats::guid::Guid;
use sha2::{Digest as _, Sha256};

use crate::copy::PIECE;

/// Type of the partition that holds one: `6b736372-6174-4368-8001-7061636b6564`.
pub const TYPE: Guid = Guid(*b"\x6b\x73\x63\x72\x61\x74\x43\x68\x80\x01\x70\x61\x63\x6b\x65\x64");
const MAGIC: &[u8; 8] = b"KSPACKED";
const VERSION: u32 = 1;
/// Bytes of the header.
pub const HEADER: usize = 64;
/// Bytes of a range's entry in the index.
pub const ENTRY: usize = 56;
/// More ranges are not read: a disk of 1 TiB that is full has so many.
const MAX_RANGES: u32 = 1 << 20;
/// A range that does not get smaller grows by its frame's own words.
const MAX_PACKED: u64 = PIECE + (64 << 10);
/// The level that `zstd` calls its default.
const LEVEL: i32 = 3;

/// Why bytes are no packed disk.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// They cannot be read.
    #[error("reading the packed disk")]
    Read(#[from] io::Error),
    /// They are damaged, or of another version.
    #[error("reading the packed disk: {0}")]
    Damaged(String),
}

fn damaged<T>(reason: impl Into<String>) -> Result<T, Error> {
    Err(Error::Damaged(reason.into()))
}

/// A range, packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// Where it stands on the disk, and its digest.
    pub mapped: Mapped,
    /// First byte of its frame, from the header.
    pub place: u64,
    /// Bytes of its frame.
    pub len: u32,
}

/// What stands before the ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// Bytes of the disk's sectors, where it has tables that count in them.
    pub sector: Option<u64>,
    /// Bytes of the disk.
    pub disk: u64,
    /// In the disk's order.
    pub ranges: Vec<Range>,
}

impl Index {
    /// Where the first range's frame stands, of so many.
    pub fn end(ranges: usize) -> u64 {
        (HEADER + ranges * ENTRY) as u64
    }

    /// Header and index as they are written.
    pub fn print(&self) -> Vec<u8> {
        let mut index = Vec::new();
        for Range { mapped, place, len } in &self.ranges {
            index.extend(mapped.bytes.start.to_le_bytes());
            index.extend(((mapped.bytes.end - mapped.bytes.start) as u32).to_le_bytes());
            index.extend(len.to_le_bytes());
            index.extend(place.to_le_bytes());
            index.extend(mapped.sha256);
        }
        let mut all = MAGIC.to_vec();
        all.extend(VERSION.to_le_bytes());
        all.extend((self.sector.unwrap_or(0) as u32).to_le_bytes());
        all.extend(self.disk.to_le_bytes());
        all.extend((self.ranges.len() as u32).to_le_bytes());
        all.extend([0; 4]);
        all.extend(Sha256::digest(&index));
        all.extend(index);
        all
    }

    /// The identity of what is written so: a GUID of version 8 that derives from the header, which has the digest of the index, which has that of every
    /// range.
    pub fn identity(&self) -> Guid {
        identity(self.print().get(..HEADER).unwrap_or_default())
    }
}

fn identity(header: &[u8]) -> Guid {
    let digest: [u8; 32] = Sha256::new().chain_update(b"kscratch packed disk\0").chain_update(header).finalize().into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    Guid::version8(bytes)
}

/// A range as it is written.
///
/// # Errors
/// The compressor's.
pub fn pack(range: &[u8]) -> io::Result<Vec<u8>> {
    zstd::bulk::compress(range, LEVEL)
}

/// A packed disk that reads as the disk: bytes that no range has are zeros.
#[derive(Debug)]
pub struct Packed<R> {
    bytes: R,
    index: Index,
    identity: Guid,
}

impl<R: ReadAt> Packed<R> {
    /// Reads header and index of what is `len` bytes long.
    ///
    /// # Errors
    /// The bytes cannot be read, are damaged, or are of another version.
    pub fn open(bytes: R, len: u64) -> Result<Self, Error> {
        let mut header = [0; HEADER];
        bytes.read_at(0, &mut header)?;
        if &header[..8] != MAGIC {
            return damaged("it is none");
        }
        if u32_at(&header, 8) != VERSION {
            return damaged(format!("it is of version {}, and {VERSION} is known here", u32_at(&header, 8)));
        }
        let count = u32_at(&header, 24);
        if count > MAX_RANGES || Index::end(count as usize) > len {
            return damaged(format!("it claims to have {count} ranges"));
        }
        let mut entries = vec![0; count as usize * ENTRY];
        bytes.read_at(HEADER as u64, &mut entries)?;
        if Sha256::digest(&entries)[..] != header[32..] {
            return damaged("the digest of its index is wrong");
        }
        let sector = match u32_at(&header, 12) {
            0 => None,
            sector @ (512 | 4096) => Some(u64::from(sector)),
            other => return damaged(format!("it is for sectors of {other} bytes")),
        };
        let mut index = Index { sector, disk: u64_at(&header, 16), ranges: Vec::new() };
        for entry in entries.chunks_exact(ENTRY) {
            let range = range(entry, len)?;
            let before = index.ranges.last().map_or(0, |range| range.mapped.bytes.end);
            if range.mapped.bytes.start < before || range.mapped.bytes.end > index.disk {
                return damaged(format!(
                    "its range {:?} is past the disk, or not behind the one before",
                    range.mapped.bytes
                ));
            }
            index.ranges.push(range);
        }
        Ok(Packed { bytes, index, identity: identity(&header) })
    }

    /// The content's identity, see [`Index::identity`].
    pub fn identity(&self) -> Guid {
        self.identity
    }

    /// What is known of the disk.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The ranges with their digests.
    pub fn map(&self) -> BlockMap {
        BlockMap {
            image: self.index.disk,
            ranges: self.index.ranges.iter().map(|range| range.mapped.clone()).collect(),
        }
    }

    /// A range's bytes.
    fn unpacked(&self, range: &Range, into: &mut [u8]) -> io::Result<()> {
        let mut frame = vec![0; range.len as usize];
        self.bytes.read_at(range.place, &mut frame)?;
        let len = zstd::bulk::decompress_to_buffer(&frame, into)?;
        if len == into.len() { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }
}

impl<R: ReadAt> ReadAt for Packed<R> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64).filter(|end| *end <= self.index.disk);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let ranges = &self.index.ranges;
        let first = ranges.partition_point(|range| range.mapped.bytes.end <= offset);
        let touched = ranges.iter().skip(first).take_while(|range| range.mapped.bytes.start < end);
        // One that is asked for as a whole, as a copy does, is unpacked where it is wanted.
        let whole = offset..end;
        buf.fill(0);
        for range in touched {
            if range.mapped.bytes == whole {
                return self.unpacked(range, buf);
            }
            let own = &range.mapped.bytes;
            let mut bytes = vec![0; (own.end - own.start) as usize];
            self.unpacked(range, &mut bytes)?;
            let (from, to) = (own.start.max(offset), own.end.min(end));
            buf[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&bytes[(from - own.start) as usize..(to - own.start) as usize]);
        }
        Ok(())
    }
}

fn range(entry: &[u8], whole: u64) -> Result<Range, Error> {
    let (start, bytes, len, place) = (u64_at(entry, 0), u32_at(entry, 8), u32_at(entry, 12), u64_at(entry, 16));
    let end = start.checked_add(u64::from(bytes)).filter(|_| bytes > 0 && u64::from(bytes) <= PIECE);
    let packed = place.checked_add(u64::from(len)).filter(|end| *end <= whole && u64::from(len) <= MAX_PACKED);
    let (Some(end), Some(_)) = (end, packed) else {
        return damaged(format!("its range of {bytes} bytes at {start}, in {len} bytes at {place}, cannot be"));
    };
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(&entry[24..]);
    Ok(Range { mapped: Mapped { bytes: start..end, sha256 }, place, len })
}

/// The field at `at`, which the caller knows to be inside.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|field| field.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// The field at `at`, which the caller knows to be inside.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|field| field.try_into().ok()).map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use kscratch_formats::bmap::Mapped;
    use kscratch_formats::bytes::ReadAt;
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha256};

    use super::{HEADER, Index, Packed, Range, pack};

    /// A disk of some ranges, and it packed.
    fn packed(ranges: &[(u64, Vec<u8>)], disk: u64) -> (Vec<u8>, Vec<u8>) {
        let mut plain = vec![0; disk as usize];
        let mut frames = Vec::new();
        let mut index = Index { sector: Some(512), disk, ranges: Vec::new() };
        for (start, bytes) in ranges {
            let end = start + bytes.len() as u64;
            plain[*start as usize..end as usize].copy_from_slice(bytes);
            let frame = pack(bytes).unwrap();
            let place = Index::end(ranges.len()) + frames.len() as u64;
            let mapped = Mapped { bytes: *start..end, sha256: Sha256::digest(bytes).into() };
            index.ranges.push(Range { mapped, place, len: frame.len() as u32 });
            frames.extend(frame);
        }
        let mut all = index.print();
        all.extend(frames);
        let opened = Packed::open(all.as_slice(), all.len() as u64).unwrap();
        assert_eq!((opened.index(), opened.identity()), (&index, index.identity()));
        (plain, all)
    }

    fn sample() -> (Vec<u8>, Vec<u8>) {
        packed(&[(0, vec![7; 3000]), (5000, (0..=255).collect()), (9000, vec![0; 1000])], 10_000)
    }

    #[test]
    fn it_reads_as_the_disk_wherever_a_piece_is_cut() {
        let (plain, all) = sample();
        let disk = Packed::open(all.as_slice(), all.len() as u64).unwrap();
        for (from, to) in
            [(0, 3000), (0, 10_000), (2999, 5001), (3000, 5000), (5000, 5256), (5100, 9500), (9999, 10_000), (4, 4)]
        {
            let mut piece = vec![0xA5; to - from];
            disk.read_at(from as u64, &mut piece).unwrap();
            assert!(piece == plain[from..to], "{from}..{to}");
        }
        assert!(disk.read_at(9999, &mut [0; 2]).is_err());
        assert_eq!(disk.map().mapped(), 3000 + 256 + 1000);
    }

    #[test]
    fn another_index_is_another_identity() {
        let (_, all) = sample();
        let identity = |all: &[u8]| Packed::open(all, all.len() as u64).map(|packed| packed.identity());
        let known = identity(&all).unwrap();
        for at in [9, 12, 16, 24, 40, HEADER, HEADER + 55] {
            let mut other = all.clone();
            other[at] ^= 1;
            assert!(identity(&other).map_or(true, |other| other != known), "{at}");
        }
        // A frame's bytes are held against the range's digest when it is copied.
        let mut other = all.clone();
        *other.last_mut().unwrap() ^= 1;
        assert_eq!(identity(&other).unwrap(), known);
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(changes in prop::collection::vec((0usize..300, any::<u8>()), 0..8), len in 0usize..600, offset in 0u64..20_000) {
            let (_, mut all) = sample();
            for (at, byte) in changes {
                all[at] = byte;
            }
            all.truncate(len.max(1));
            // As if it had been sealed so.
            let entries: Vec<u8> = all.get(HEADER..HEADER + 3 * super::ENTRY).unwrap_or_default().to_vec();
            if let Some(digest) = all.get_mut(32..HEADER) {
                digest.copy_from_slice(&Sha256::digest(&entries));
            }
            if let Ok(disk) = Packed::open(all.as_slice(), all.len() as u64) {
                let _ = disk.read_at(offset, &mut [0; 4096]);
            }
        }
    }
}
