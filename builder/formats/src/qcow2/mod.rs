//! Turns an image into the layout of a qcow2 file that holds it, such a file back into the disk's bytes, and new bytes into patches of it.
//!
//! Format: docs/interop/qcow2.rst of QEMU, version 3; all integers are big-endian.
mod layout;
mod overlay;
mod read;
mod update;

use std::io;

pub use layout::{Layout, layout};
pub use overlay::{Backing, Overlay, backing};
pub use read::Disk;

/// Bytes of a cluster: QEMU's own default.
pub const CLUSTER: u64 = 1 << CLUSTER_BITS;
const CLUSTER_BITS: u32 = 16;
const MAGIC: u32 = 0x5146_49FB;
const HEADER: usize = 104;
/// Entries of an L2 table, and guest clusters under one L1 entry.
const L2_ENTRIES: u64 = CLUSTER / 8;
/// log2 of the bits of a refcount, and how many a refcount block holds.
const REFCOUNT_ORDER: u32 = 4;
const REFCOUNTS: u64 = CLUSTER / 2;
/// QCOW_OFLAG_COPIED: the refcount is exactly one.
const COPIED: u64 = 1 << 63;
/// Bits 9 to 55 of an L1 or L2 entry.
const OFFSET_MASK: u64 = 0x00FF_FFFF_FFFF_FE00;
/// QCOW_OFLAG_COMPRESSED, in L2 entries.
const COMPRESSED: u64 = 1 << 62;
/// QCOW_OFLAG_ZERO, in L2 entries: the cluster reads as zeros.
const ZERO: u64 = 1;
/// The dirty bit of `incompatible_features`: refcounts may be behind.
const DIRTY: u64 = 1;
/// Header extension: the backing file's format. Names of more bytes than these are against the format's description.
const BACKING_FORMAT: u32 = 0xE279_2ACA;
const MAX_BACKING_NAME: u32 = 1023;
/// A larger L1 table than that of a 32 TiB disk is not read.
const MAX_L1: u64 = 1 << 16;

/// Why a file cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A disk too large.
    #[error("a qcow2 file for a disk of {0} bytes is larger than 32 TiB")]
    TooLarge(u64),
    /// A file that is not qcow2, or is damaged.
    #[error("reading the qcow2 file: {0}")]
    Unreadable(String),
    /// A file that uses what is not read or not written here; the words name it.
    #[error("the qcow2 file {0}; `qemu-img convert -O qcow2` makes a plain one of it")]
    Unsupported(&'static str),
    /// The bytes could not be read.
    #[error("reading the qcow2 file")]
    Read(#[from] io::Error),
}

fn damaged(reason: impl Into<String>) -> Error {
    Error::Unreadable(reason.into())
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_be_bytes([bytes[offset], bytes[offset + 1], bytes[offset + 2], bytes[offset + 3]])
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from(u32_at(bytes, offset)) << 32 | u64::from(u32_at(bytes, offset + 4))
}
