//! Turns an image into the layout of a qcow2 file that holds it, and such a file back into the disk's bytes.
//!
//! Format: docs/interop/qcow2.rst of QEMU, version 3; all integers are big-endian.
use std::collections::BTreeSet;
use std::io;

use crate::bytes::ReadAt;
use crate::image::Image;

/// Bytes of a cluster: QEMU's own default.
pub const CLUSTER: u64 = 1 << CLUSTER_BITS;
const CLUSTER_BITS: u32 = 16;
const MAGIC: u32 = 0x5146_49FB;
const HEADER: usize = 104;
/// Entries of an L2 table, and guest clusters under one L1 entry.
const L2_ENTRIES: u64 = CLUSTER / 8;
/// 16-bit refcounts in a refcount block.
const REFCOUNTS: u64 = CLUSTER / 2;
/// QCOW_OFLAG_COPIED: the refcount is exactly one.
const COPIED: u64 = 1 << 63;
/// Bits 9 to 55 of an L1 or L2 entry.
const OFFSET_MASK: u64 = 0x00FF_FFFF_FFFF_FE00;
/// QCOW_OFLAG_COMPRESSED, in L2 entries.
const COMPRESSED: u64 = 1 << 62;
/// QCOW_OFLAG_ZERO, in L2 entries: the cluster reads as zeros.
const ZERO: u64 = 1;
/// A larger L1 table than that of a 32 TiB disk is not read.
const MAX_L1: u64 = 1 << 16;

/// Where everything stands in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Length of the file in bytes.
    pub len: u64,
    /// Header and tables: byte offset in the file, and bytes.
    pub metadata: Vec<(u64, Vec<u8>)>,
    /// Disk clusters that hold something, in order.
    clusters: Vec<u64>,
    /// First byte in the file of the first of them; the others follow.
    data: u64,
}

impl Layout {
    /// Where in the file the cluster stands that begins at this byte of the disk; none for a hole.
    pub fn place(&self, offset: u64) -> Option<u64> {
        let index = self.clusters.binary_search(&(offset / CLUSTER)).ok()?;
        Some(self.data + index as u64 * CLUSTER)
    }
}

/// Why a file cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A disk too large.
    #[error("a qcow2 file for a disk of {0} bytes is larger than 32 TiB")]
    TooLarge(u64),
    /// A file that is not qcow2, is damaged, or uses what is not read here.
    #[error("reading the qcow2 file: {0}")]
    Unreadable(String),
    /// The bytes could not be read.
    #[error("reading the qcow2 file")]
    Read(#[from] io::Error),
}

/// Lays the file out: header, refcounts, L1, L2 tables, then the clusters in the order of the disk.
pub fn layout<C>(image: &Image<C>) -> Result<Layout, Error> {
    if image.len > MAX_L1 * L2_ENTRIES * CLUSTER {
        return Err(Error::TooLarge(image.len));
    }
    let mut used = BTreeSet::new();
    for extent in image.extents.iter().filter(|extent| !extent.data.is_empty()) {
        used.extend(extent.offset / CLUSTER..=(extent.offset + extent.data.len() - 1) / CLUSTER);
    }
    let clusters: Vec<u64> = used.into_iter().collect();
    let tables: BTreeSet<u64> = clusters.iter().map(|cluster| cluster / L2_ENTRIES).collect();
    let l1_entries = image.len.div_ceil(CLUSTER * L2_ENTRIES).max(1);
    let l1_clusters = (l1_entries * 8).div_ceil(CLUSTER);
    let others = 1 + l1_clusters + tables.len() as u64 + clusters.len() as u64;
    // Refcount blocks count themselves and their table.
    let (mut blocks, mut table) = (1, 1);
    while blocks * REFCOUNTS < others + blocks + table {
        blocks += 1;
        table = (blocks * 8).div_ceil(CLUSTER);
    }
    let total = others + blocks + table;
    let (table_at, blocks_at) = (CLUSTER, (1 + table) * CLUSTER);
    let l1_at = blocks_at + blocks * CLUSTER;
    let l2_at = l1_at + l1_clusters * CLUSTER;
    let data = l2_at + tables.len() as u64 * CLUSTER;

    let mut l1 = vec![0u64; l1_entries as usize];
    let mut l2 = Vec::new();
    for (at, table) in (l2_at..).step_by(CLUSTER as usize).zip(&tables) {
        l1[*table as usize] = at | COPIED;
        l2.push((at, vec![0u64; L2_ENTRIES as usize]));
    }
    for (at, cluster) in (data..).step_by(CLUSTER as usize).zip(&clusters) {
        let table = l1[(cluster / L2_ENTRIES) as usize] & OFFSET_MASK;
        l2[((table - l2_at) / CLUSTER) as usize].1[(cluster % L2_ENTRIES) as usize] = at | COPIED;
    }
    let refcount_table: Vec<u64> = (blocks_at..l1_at).step_by(CLUSTER as usize).collect();
    let mut metadata = vec![
        (0, header(image.len, l1_entries as u32, l1_at, table_at, table as u32)),
        (table_at, words(&refcount_table)),
        (blocks_at, [0u8, 1].repeat(total as usize)),
        (l1_at, words(&l1)),
    ];
    metadata.extend(l2.into_iter().map(|(at, table)| (at, words(&table))));
    Ok(Layout { len: total * CLUSTER, metadata, clusters, data })
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn header(len: u64, l1_entries: u32, l1: u64, refcounts: u64, refcount_clusters: u32) -> Vec<u8> {
    let mut bytes = vec![0; HEADER + 8]; // an end-of-extensions record of zeros follows
    let mut put = |offset: usize, field: &[u8]| bytes[offset..offset + field.len()].copy_from_slice(field);
    put(0, &MAGIC.to_be_bytes());
    put(4, &3u32.to_be_bytes()); // version
    put(20, &CLUSTER_BITS.to_be_bytes());
    put(24, &len.to_be_bytes());
    put(36, &l1_entries.to_be_bytes());
    put(40, &l1.to_be_bytes());
    put(48, &refcounts.to_be_bytes());
    put(56, &refcount_clusters.to_be_bytes());
    put(96, &4u32.to_be_bytes()); // refcount_order: 16 bits
    put(100, &(HEADER as u32).to_be_bytes());
    bytes
}

/// An opened qcow2 file that reads as the disk.
#[derive(Debug, Clone)]
pub struct Disk<R> {
    file: R,
    len: u64,
    cluster_bits: u32,
    l1: Vec<u64>,
}

impl<R: ReadAt> Disk<R> {
    /// Reads header and L1 table. Backing files, encryption, compressed clusters and external data files are refused.
    pub fn open(file: R) -> Result<Self, Error> {
        let refuse = |reason: String| Err(Error::Unreadable(reason));
        let mut header = [0; HEADER];
        file.read_at(0, &mut header[..72])?;
        let (magic, version) = (u32_at(&header, 0), u32_at(&header, 4));
        if magic != MAGIC || !(2..=3).contains(&version) {
            return refuse("it is not a qcow2 file of version 2 or 3".to_owned());
        }
        if version == 3 {
            file.read_at(0, &mut header)?;
        }
        if u64_at(&header, 8) != 0 {
            return refuse("it has a backing file; make it one with `qemu-img convert`".to_owned());
        }
        // Bit 0 is the dirty mark, which is about refcounts alone.
        if u32_at(&header, 32) != 0 || u64_at(&header, 72) & !1 != 0 {
            return refuse("it is encrypted or has features that are not known here".to_owned());
        }
        let (cluster_bits, len) = (u32_at(&header, 20), u64_at(&header, 24));
        let entries = u64::from(u32_at(&header, 36));
        if !(9..=21).contains(&cluster_bits) || entries > MAX_L1 {
            return refuse("its header makes no sense".to_owned());
        }
        let mut bytes = vec![0; entries as usize * 8];
        file.read_at(u64_at(&header, 40), &mut bytes)?;
        let l1 = bytes.chunks_exact(8).map(|word| u64_at(word, 0)).collect();
        Ok(Disk { file, len, cluster_bits, l1 })
    }

    /// Length of the disk in bytes.
    pub fn disk_len(&self) -> u64 {
        self.len
    }

    /// The file that was opened.
    pub fn file(&self) -> &R {
        &self.file
    }

    /// Where in the file byte `offset` of the disk stands, none for a hole, and for how many bytes that holds.
    pub fn place(&self, offset: u64) -> Result<(Option<u64>, u64), Error> {
        let cluster = 1u64 << self.cluster_bits;
        let left = cluster - offset % cluster;
        let entries = cluster / 8;
        let index = offset / cluster;
        let table = match self.l1.get((index / entries) as usize) {
            Some(entry) => entry & OFFSET_MASK,
            None => return Err(Error::Unreadable(format!("byte {offset} of the disk is behind its L1 table"))),
        };
        if table == 0 {
            return Ok((None, left));
        }
        let mut word = [0; 8];
        self.file.read_at(table + index % entries * 8, &mut word)?;
        let entry = u64_at(&word, 0);
        if entry & COMPRESSED != 0 {
            return Err(Error::Unreadable(
                "it has compressed clusters; `qemu-img convert` makes one without".to_owned(),
            ));
        }
        let at = entry & OFFSET_MASK;
        let hole = at == 0 || entry & ZERO != 0;
        Ok(((!hole).then_some(at + offset % cluster), left))
    }
}

impl<R: ReadAt> ReadAt for Disk<R> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64).filter(|end| *end <= self.len);
        if end.is_none() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut done = 0;
        while done < buf.len() {
            let (place, left) = self.place(offset + done as u64).map_err(io::Error::other)?;
            let len = (buf.len() - done).min(left as usize);
            let part = &mut buf[done..done + len];
            match place {
                Some(at) => self.file.read_at(at, part)?,
                None => part.fill(0),
            }
            done += len;
        }
        Ok(())
    }
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_be_bytes([bytes[offset], bytes[offset + 1], bytes[offset + 2], bytes[offset + 3]])
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from(u32_at(bytes, offset)) << 32 | u64::from(u32_at(bytes, offset + 4))
}
