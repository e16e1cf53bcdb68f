//! A [`Tree`] is the root filesystem to be: paths to nodes, one rule for merging, every node knowing where it came from.
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::store::Stored;

/// Contents of a regular file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A range of a file in the store.
    Stored(Stored),
    /// Bytes made by the builder.
    Literal(Arc<[u8]>),
}

impl Content {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Content::Stored(range) => range.len,
            Content::Literal(bytes) => bytes.len() as u64,
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File(Content),
    /// A symbolic link and its target.
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

/// Where a node came from: told in conflicts and by `kscratch-image why`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// The declaration that brought it in, e.g. `program /usr/sbin/dockerd` or `library of /usr/sbin/dockerd`.
    pub declaration: String,
    /// The artifact that holds it, e.g. `docker.io 26.1.5+dfsg1-9 (debian)`, `overlays/common`, `kscratch-image`.
    pub artifact: String,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {}", self.declaration, self.artifact)
    }
}

/// One entry of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Permission bits, 0o7777 at most.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Extended attributes by full name (`security.capability`).
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// Where it came from.
    pub origin: Origin,
}

/// Paths (absolute, no trailing slash, `/` the root itself) to nodes, in the order of their bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    /// The entries.
    pub nodes: BTreeMap<String, Node>,
}
