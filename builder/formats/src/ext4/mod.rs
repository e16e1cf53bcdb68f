//! Plans an ext4 filesystem: sorted entries in, an [`Image`] out whose metadata is literal and whose file contents are ranges.
//!
//! Field names and offsets follow "ext4 Data Structures and Algorithms" of the kernel's documentation
//! (Documentation/filesystems/ext4). What is always on: extents, filetype, flex_bg, 64bit, sparse_super, large_file, huge_file,
//! dir_nlink, extra_isize, metadata_csum; on request: a journal, and reserved descriptor blocks for online growth.
mod checksum;
mod directory;
mod emit;
mod extent;
mod geometry;
mod inode;
mod journal;
mod log;
mod overlaid;
mod read;
mod replay;
mod superblock;
mod tree;
mod used;
mod xattr;

use std::collections::BTreeMap;

use crate::image::Image;

pub use read::{Found, FoundKind, ReadError, Reader};
pub use replay::Replayed;

/// Block size in bytes: the page size, and the only one planned here.
pub const BLOCK: u64 = 4096;

/// What stands at a path; `C` names content that the writer can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind<C> {
    /// A directory.
    Directory,
    /// A regular file whose `len` bytes begin at byte `offset` of the content `id`.
    File {
        /// Names the content.
        id: C,
        /// First byte within the content.
        offset: u64,
        /// Length in bytes.
        len: u64,
    },
    /// A regular file with these bytes.
    Bytes(Vec<u8>),
    /// A symbolic link and its target, 1 to 4095 bytes.
    Symlink(String),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// One entry of the tree to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<C> {
    /// Absolute, no trailing slash; `/` is the root directory itself.
    pub path: String,
    /// What it is.
    pub kind: Kind<C>,
    /// Permission bits, 0o7777 at most.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time in seconds since 1970.
    pub mtime: i64,
    /// Extended attributes by full name: `user.`, `trusted.` or `security.`.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// What the filesystem as a whole is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Length of the partition in bytes.
    pub size: u64,
    /// Volume label, 16 bytes at most.
    pub label: String,
    /// The filesystem's UUID, in the order in which it is written out in hex.
    pub uuid: [u8; 16],
    /// Seed of the directory hashes that the kernel will compute.
    pub hash_seed: [u8; 16],
    /// Number of inodes; none means one for every 16 KiB, as `mke2fs` does.
    pub inodes: Option<u32>,
    /// Length of the journal in blocks of 4 KiB, 1024 at least; none means no journal.
    pub journal_blocks: Option<u32>,
    /// Time of creation in seconds since 1970, also that of entries which the tree does not name.
    pub time: i64,
    /// Size in bytes up to which the filesystem can grow while mounted; none for one that never does.
    pub grow_to: Option<u64>,
}

/// Why a filesystem cannot be planned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The contents are larger than the filesystem.
    #[error(
        "laying out the ext4 filesystem `{label}`: it is {missing} bytes too small for its {needed} bytes of files and directories"
    )]
    NoSpace {
        /// The filesystem's label.
        label: String,
        /// Bytes that files and directories take, in whole blocks.
        needed: u64,
        /// By how much the partition must be larger, at least.
        missing: u64,
    },
    /// More entries than inodes.
    #[error("laying out the ext4 filesystem `{label}`: {needed} inodes are needed, there are {available}")]
    NoInodes {
        /// The filesystem's label.
        label: String,
        /// Inodes needed, reserved ones included.
        needed: u64,
        /// Inodes there are.
        available: u64,
    },
    /// Sizes or counts that no ext4 filesystem can have.
    #[error("laying out the ext4 filesystem `{label}`: {reason}")]
    Options {
        /// The filesystem's label.
        label: String,
        /// What is wrong.
        reason: String,
    },
    /// An entry that cannot stand where it is.
    #[error("placing {path} in the ext4 filesystem: {reason}")]
    Entry {
        /// The entry.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

/// Plans the filesystem. `entries` come sorted by path (a parent before its children); `/lost+found` is made where they lack it.
pub fn plan<C: Clone>(entries: impl IntoIterator<Item = Entry<C>>, options: &Options) -> Result<Image<C>, Error> {
    let inodes = tree::build(entries, options)?;
    let geometry = geometry::Geometry::new(options, inodes.len())?;
    emit::image(inodes, &geometry, options)
}
