//! Turns a qcow2 file into the bytes of its disk.
use std::io;

use super::{
    COMPRESSED, DIRTY, Error, HEADER, MAGIC, MAX_L1, OFFSET_MASK, REFCOUNT_ORDER, ZERO, damaged, u32_at, u64_at,
};
use crate::bytes::ReadAt;

/// Bits of `incompatible_features` that are not read here, and what they say of a file.
const INCOMPATIBLE: [(u64, &str); 4] = [
    (1 << 1, "is marked as corrupt"),
    (1 << 2, "keeps its data in another file"),
    (1 << 3, "is compressed in another way"),
    (1 << 4, "has extended L2 entries"),
];

/// Fields of the header, by the names of the format's description.
#[derive(Debug, Clone)]
pub(super) struct Header {
    pub version: u32,
    pub cluster_bits: u32,
    /// `size`: length of the disk in bytes.
    pub size: u64,
    pub l1_table_offset: u64,
    pub refcount_table_offset: u64,
    pub refcount_table_clusters: u32,
    pub nb_snapshots: u32,
    pub incompatible_features: u64,
    pub autoclear_features: u64,
    pub refcount_order: u32,
}

/// Where a byte of the disk stands.
enum Place {
    /// In the file, there.
    At(u64),
    /// It is zero.
    Zeros,
    /// In the backing file; zero where there is none.
    Nowhere,
}

/// An opened qcow2 file that reads as the disk.
#[derive(Debug, Clone)]
pub struct Disk<R> {
    pub(super) file: R,
    pub(super) header: Header,
    pub(super) l1: Vec<u64>,
}

impl<R: ReadAt> Disk<R> {
    /// Reads header and L1 table. Backing files, encryption, external data files and what else is not known here are refused.
    pub fn open(file: R) -> Result<Self, Error> {
        Self::open_any(file, false)
    }

    /// As [`Disk::open`]; `over`: a backing file is no reason to refuse it, and [`Disk::read_over`] says what is in that one.
    pub(super) fn open_any(file: R, over: bool) -> Result<Self, Error> {
        let mut bytes = [0; HEADER];
        file.read_at(0, &mut bytes[..72])?;
        let (magic, version) = (u32_at(&bytes, 0), u32_at(&bytes, 4));
        if magic != MAGIC || !(2..=3).contains(&version) {
            return Err(damaged("it is not a qcow2 file of version 2 or 3"));
        }
        if version == 3 {
            file.read_at(0, &mut bytes)?;
        }
        if u64_at(&bytes, 8) != 0 && !over {
            return Err(Error::Unsupported("has a backing file"));
        }
        if u32_at(&bytes, 32) != 0 {
            return Err(Error::Unsupported("is encrypted"));
        }
        let incompatible_features = u64_at(&bytes, 72);
        if let Some((_, what)) = INCOMPATIBLE.iter().find(|(bit, _)| incompatible_features & bit != 0) {
            return Err(Error::Unsupported(what));
        }
        // The dirty mark is about refcounts alone.
        if incompatible_features & !DIRTY != 0 {
            return Err(Error::Unsupported("has features that are not known here"));
        }
        let header = Header {
            version,
            cluster_bits: u32_at(&bytes, 20),
            size: u64_at(&bytes, 24),
            l1_table_offset: u64_at(&bytes, 40),
            refcount_table_offset: u64_at(&bytes, 48),
            refcount_table_clusters: u32_at(&bytes, 56),
            nb_snapshots: u32_at(&bytes, 60),
            incompatible_features,
            autoclear_features: u64_at(&bytes, 88),
            refcount_order: if version == 3 { u32_at(&bytes, 96) } else { REFCOUNT_ORDER },
        };
        let entries = u64::from(u32_at(&bytes, 36));
        if !(9..=21).contains(&header.cluster_bits) || entries > MAX_L1 {
            return Err(damaged("its header makes no sense"));
        }
        let mut l1 = vec![0; entries as usize * 8];
        file.read_at(header.l1_table_offset, &mut l1)?;
        let l1 = l1.chunks_exact(8).map(|word| u64_at(word, 0)).collect();
        Ok(Disk { file, header, l1 })
    }

    /// Length of the disk in bytes.
    pub fn disk_len(&self) -> u64 {
        self.header.size
    }

    /// The file that was opened.
    pub fn file(&self) -> &R {
        &self.file
    }

    /// Where byte `offset` of the disk stands, and for how many bytes that holds.
    fn place(&self, offset: u64) -> Result<(Place, u64), Error> {
        let cluster = 1u64 << self.header.cluster_bits;
        let left = cluster - offset % cluster;
        let entries = cluster / 8;
        let index = offset / cluster;
        let table = match self.l1.get((index / entries) as usize) {
            Some(entry) => entry & OFFSET_MASK,
            None => return Err(damaged(format!("byte {offset} of the disk is behind its L1 table"))),
        };
        if table == 0 {
            return Ok((Place::Nowhere, left));
        }
        let mut word = [0; 8];
        self.file.read_at(table + index % entries * 8, &mut word)?;
        let entry = u64_at(&word, 0);
        if entry & COMPRESSED != 0 {
            return Err(Error::Unsupported("has compressed clusters"));
        }
        let place = match entry & OFFSET_MASK {
            _ if entry & ZERO != 0 => Place::Zeros,
            0 => Place::Nowhere,
            at => Place::At(at + offset % cluster),
        };
        Ok((place, left))
    }

    /// Fills `buf`; what stands nowhere in this file is filled by `below`.
    pub(super) fn read_over(
        &self,
        offset: u64,
        buf: &mut [u8],
        below: impl Fn(u64, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64).filter(|end| *end <= self.header.size);
        if end.is_none() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let (place, left) = self.place(at).map_err(io::Error::other)?;
            let len = (buf.len() - done).min(left as usize);
            let part = &mut buf[done..done + len];
            match place {
                Place::At(at) => self.file.read_at(at, part)?,
                Place::Zeros => part.fill(0),
                Place::Nowhere => below(at, part)?,
            }
            done += len;
        }
        Ok(())
    }
}

impl<R: ReadAt> ReadAt for Disk<R> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read_over(offset, buf, |_, part| {
            part.fill(0);
            Ok(())
        })
    }
}
