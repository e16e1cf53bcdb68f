//! Turns plans and chunks of bytes into digests: one names contents before they are written, one is the finished disk's.
use kscratch_formats::guid::Guid;
use kscratch_formats::image::{Data, Image};
use sha2::{Digest as _, Sha256};

use crate::store::Digest;
use crate::tree::{Content, Kind, Node, Tree};

/// Bytes of a chunk of the disk digest.
pub const CHUNK: u64 = 1 << 20;

/// The disk digest in the making: SHA-256 over offset (u64 LE) and SHA-256 of every chunk of 1 MiB that is not all zeros, in
/// order, then the disk's length (u64 LE).
#[derive(Debug, Clone, Default)]
pub struct DiskDigest(Sha256);

impl DiskDigest {
    /// Adds the chunk at `offset`, given its SHA-256. Chunks come in order; those of zeros alone are left out.
    pub fn add(&mut self, offset: u64, chunk: &[u8; 32]) {
        self.0.update(offset.to_le_bytes());
        self.0.update(chunk);
    }

    /// The digest of a disk of `len` bytes.
    pub fn finish(mut self, len: u64) -> Digest {
        self.0.update(len.to_le_bytes());
        Digest(self.0.finalize().into())
    }
}

/// A GUID that derives from content: the same purpose and content give the same one.
pub fn guid(purpose: &str, content: &Digest) -> Guid {
    let mut hash = Sha256::new();
    hash.update(purpose.as_bytes());
    hash.update([0]);
    hash.update(content.0);
    let digest: [u8; 32] = hash.finalize().into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    Guid::version8(bytes)
}

/// The digest of what an image will hold. Contents of the store count by their digests, so no file is read.
pub fn image(image: &Image<Content>) -> Digest {
    let mut hash = Sha256::new();
    hash.update(image.len.to_le_bytes());
    for extent in &image.extents {
        hash.update(extent.offset.to_le_bytes());
        hash.update(extent.data.len().to_le_bytes());
        match &extent.data {
            Data::Bytes(bytes) => {
                hash.update([0]);
                hash.update(bytes);
            }
            Data::Content { id, offset, .. } => {
                hash.update([1]);
                hash.update(offset.to_le_bytes());
                content(&mut hash, id);
            }
        }
    }
    Digest(hash.finalize().into())
}

/// The digest of a tree: paths, kinds, modes, owners, attributes and contents; origins do not count.
pub fn tree(tree: &Tree) -> Digest {
    let mut hash = Sha256::new();
    for (path, entry) in &tree.nodes {
        field(&mut hash, path.as_bytes());
        node(&mut hash, entry);
    }
    Digest(hash.finalize().into())
}

fn node(hash: &mut Sha256, node: &Node) {
    hash.update(node.mode.to_le_bytes());
    hash.update(node.uid.to_le_bytes());
    hash.update(node.gid.to_le_bytes());
    hash.update((node.xattrs.len() as u64).to_le_bytes());
    for (name, value) in &node.xattrs {
        field(hash, name.as_bytes());
        field(hash, value);
    }
    match &node.kind {
        Kind::Directory => hash.update(b"d"),
        Kind::File(data) => {
            hash.update(b"f");
            content(hash, data);
        }
        Kind::Symlink(target) => {
            hash.update(b"l");
            field(hash, target.as_bytes());
        }
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
            hash.update(if matches!(node.kind, Kind::CharDevice { .. }) { b"c" } else { b"b" });
            hash.update(major.to_le_bytes());
            hash.update(minor.to_le_bytes());
        }
    }
}

/// Length first, so that no two sequences of fields look alike.
fn field(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

fn content(hash: &mut Sha256, content: &Content) {
    hash.update(content.len().to_le_bytes());
    match content {
        Content::Stored(stored) => hash.update(stored.sha256.0),
        Content::Literal(bytes) => hash.update(Sha256::digest(bytes)),
    }
}
