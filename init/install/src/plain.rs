//! A file or device that reads at any offset.
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use kscratch_formats::bytes::ReadAt;

/// An opened file or device, and its length.
#[derive(Debug)]
pub struct Plain {
    file: File,
    len: u64,
}

impl Plain {
    /// Opens it to be read.
    ///
    /// # Errors
    /// It cannot be opened, or has no length.
    pub fn open(path: &Path) -> io::Result<Plain> {
        let mut file = File::open(path)?;
        // The length of a block device is told in no other way.
        let len = file.seek(SeekFrom::End(0))?;
        Ok(Plain { file, len })
    }

    /// Bytes of it.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl ReadAt for Plain {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }
}
