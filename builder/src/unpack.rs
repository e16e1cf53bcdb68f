//! Archives in the store (`.deb`, tarballs) become [`Unpacked`] folders: contents back to back in one file, and an index of paths.
use std::collections::BTreeMap;

use crate::store::{Digest, Stored};

/// What an archive holds, by path. The contents stand in `unpacked/<artifact>/data` of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// Digest of the archive.
    pub artifact: Digest,
    /// Entries by absolute path (`/usr/bin/mount`; no trailing slash), in the order of their bytes.
    pub entries: BTreeMap<String, Entry>,
}

/// One entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits, 0o7777 at most.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Extended attributes by full name.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// What stands at a path of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file (a hard link is the file it names: the same range).
    File(Stored),
    /// A regular file whose contents were not kept: documentation and translations.
    Skipped {
        /// Length in bytes.
        len: u64,
    },
    /// A symbolic link and its target, as written.
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
