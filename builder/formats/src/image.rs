//! An [`Image`] is a plan of bytes: extents in order, holes read as zeros.

/// A span of bytes at a place: either known literally, or a range of some outside content named by `C`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent<C> {
    /// Where the span begins, in bytes from the start of the image.
    pub offset: u64,
    /// What stands there.
    pub data: Data<C>,
}

/// What an extent holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data<C> {
    /// Literal bytes (metadata of filesystems, small files).
    Bytes(Vec<u8>),
    /// `len` bytes from byte `offset` of the content named `id`; the writer copies them, in the kernel where it can.
    Content {
        /// Names the content; whoever plans and whoever writes agree on what it means.
        id: C,
        /// First byte within the content.
        offset: u64,
        /// Number of bytes.
        len: u64,
    },
}

impl<C> Data<C> {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Data::Bytes(bytes) => bytes.len() as u64,
            Data::Content { len, .. } => *len,
        }
    }

    /// Whether the span is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A whole filesystem or disk, `len` bytes long. Extents are sorted by offset and never overlap; what they do not cover is zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image<C> {
    /// Length in bytes, holes included.
    pub len: u64,
    /// The spans that are not holes.
    pub extents: Vec<Extent<C>>,
}
