//! What a regular file holds, in the store or in memory, becomes bytes that can be read.
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::store::{Digest, Store, Stored};

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

    /// SHA-256 of the bytes, wherever they stand.
    pub fn sha256(&self) -> Digest {
        match self {
            Content::Stored(range) => range.sha256,
            Content::Literal(bytes) => Digest(Sha256::digest(bytes).into()),
        }
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Content::Literal(bytes.into())
    }
}

/// A reader that can go back, as readers of ELF and archives need it.
pub trait ReadSeek: io::Read + io::Seek {}
impl<T: io::Read + io::Seek> ReadSeek for T {}

/// Gives the bytes of [`Content`]s; the store is the real one.
pub trait Contents: Sync {
    /// A reader over exactly the content's bytes.
    ///
    /// # Errors
    /// What opening the store's file says.
    fn open(&self, content: &Content) -> io::Result<Box<dyn ReadSeek + '_>>;

    /// All bytes of the content, in memory.
    ///
    /// # Errors
    /// What opening or reading the store's file says.
    fn read(&self, content: &Content) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut self.open(content)?, &mut bytes)?;
        Ok(bytes)
    }
}

impl Contents for Store {
    fn open(&self, content: &Content) -> io::Result<Box<dyn ReadSeek + '_>> {
        match content {
            Content::Literal(bytes) => Ok(Box::new(io::Cursor::new(bytes.clone()))),
            Content::Stored(range) => {
                Ok(Box::new(Window::new(File::open(self.root().join(&range.file))?, range.offset, range.len)))
            }
        }
    }
}

/// A part of a file, read as if it were the whole.
struct Window {
    file: File,
    start: u64,
    len: u64,
    at: u64,
}

impl Window {
    fn new(file: File, start: u64, len: u64) -> Self {
        Window { file, start, len, at: 0 }
    }
}

impl io::Read for Window {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.len.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let want = left.min(buffer.len());
        let got = self.file.read_at(&mut buffer[..want], self.start + self.at)?;
        self.at += got as u64;
        Ok(got)
    }
}

impl io::Seek for Window {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        let at = match to {
            io::SeekFrom::Start(at) => Some(at),
            io::SeekFrom::End(by) => self.len.checked_add_signed(by),
            io::SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "seeking before the start"))?;
        Ok(self.at)
    }
}
