//! A [`Store`] is a folder of verified files: a file gets its name, its SHA-256, only after its digest is right.
//!
//! ```text
//! CACHE/store/sha256/<64 hex>          artifacts as fetched (packages, tarballs) and outputs of compiles
//! CACHE/store/unpacked/<64 hex>/       what an artifact holds: `data` (file contents back to back) and `index.json`
//! CACHE/store/tmp/                     parts on their way in; never read
//! ```
use std::fmt;

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A range of a file in the store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stored {
    /// Path of the file, relative to the store's root, e.g. `unpacked/<hex>/data`.
    pub file: String,
    /// First byte of the range.
    pub offset: u64,
    /// Length of the range in bytes.
    pub len: u64,
    /// SHA-256 of exactly this range.
    pub sha256: Digest,
}
