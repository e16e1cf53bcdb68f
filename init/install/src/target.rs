//! The device, or file, that is written: past the page cache where it can be, so that what is read back comes from it.
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kscratch_formats::bytes::ReadAt;
use rustix::fs::{Advice, OFlags, fadvise};

use crate::copy::PIECE;

/// What direct I/O wants: places, lengths and memory are multiples of a logical block, which none is longer than.
const ALIGNMENT: usize = 4096;

/// An opened target.
#[derive(Debug)]
pub struct Target {
    path: PathBuf,
    file: File,
    /// The same, past the page cache; none where its filesystem does not offer that.
    direct: Option<File>,
    len: u64,
}

/// Memory that direct I/O takes.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Buffer {
    /// Zeros.
    pub(crate) fn new(len: usize) -> Buffer {
        let bytes = vec![0; len + ALIGNMENT];
        let start = bytes.as_ptr().align_offset(ALIGNMENT);
        Buffer { bytes, start: if start < ALIGNMENT { start } else { 0 }, len }
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

impl Target {
    /// Opens it to be written, a device for nobody else where `alone`. A file is made, and as long as the image.
    ///
    /// # Errors
    /// It cannot be opened, or is in use.
    pub fn open(path: &Path, image: u64, alone: bool) -> Result<Target> {
        let device = path.metadata().is_ok_and(|metadata| metadata.file_type().is_block_device());
        let flags = if device && alone { OFlags::EXCL } else { OFlags::empty() };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(!device).custom_flags(flags.bits().cast_signed());
        let mut file = options.open(path).with_context(|| format!("opening {} to write", path.display()))?;
        if !device {
            let longer = file.metadata().is_ok_and(|metadata| metadata.len() < image);
            if longer {
                file.set_len(image).with_context(|| format!("making {} as long as the image", path.display()))?;
            }
        }
        let len =
            file.seek(SeekFrom::End(0)).with_context(|| format!("asking for the length of {}", path.display()))?;
        let direct =
            OpenOptions::new().read(true).write(true).custom_flags(OFlags::DIRECT.bits().cast_signed()).open(path);
        Ok(Target { path: path.to_owned(), file, direct: direct.ok(), len })
    }

    /// The file, through the page cache.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The file that fits a piece, and that which takes any.
    fn for_piece(&self, offset: u64, bytes: &[u8]) -> (&File, bool) {
        let fits = offset.is_multiple_of(ALIGNMENT as u64)
            && bytes.len().is_multiple_of(ALIGNMENT)
            && bytes.as_ptr().align_offset(ALIGNMENT) == 0;
        match &self.direct {
            Some(direct) if fits => (direct, true),
            _ => (&self.file, false),
        }
    }

    /// Writes a piece.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let (file, _) = self.for_piece(offset, bytes);
        file.write_all_at(bytes, offset).with_context(|| format!("writing at byte {offset} of {}", self.path.display()))
    }

    /// Reads a piece from the device itself.
    pub(crate) fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        self.uncached(offset, bytes)
            .with_context(|| format!("reading back at byte {offset} of {}", self.path.display()))
    }

    fn uncached(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let (file, direct) = self.for_piece(offset, bytes);
        if !direct {
            // What is on the disk already is dropped from the cache, and read anew.
            fadvise(file, offset, std::num::NonZeroU64::new(bytes.len() as u64), Advice::DontNeed)?;
        }
        file.read_exact_at(bytes, offset)
    }

    /// Makes zeros of what firmware and kernels look for: the start of the disk, the end of the image, and the end of the device.
    pub(crate) fn without_tables(&self, image: u64) -> Result<()> {
        let mut zeros = Buffer::new(PIECE as usize);
        for start in [0, image.saturating_sub(PIECE), self.len.saturating_sub(PIECE)] {
            let len = (self.len - start).min(PIECE) as usize;
            self.write(start, &zeros.bytes()[..len]).context("taking out the partition table that was there")?;
        }
        self.sync()
    }

    /// Whether a device is not there any more: the kernel takes its length away with it. Writing to it is "no space left" then.
    pub fn is_gone(&self) -> bool {
        let device = self.file.metadata().is_ok_and(|metadata| metadata.file_type().is_block_device());
        device && (&self.file).seek(SeekFrom::End(0)).is_ok_and(|len| len == 0)
    }

    /// Waits until everything is on the device.
    ///
    /// # Errors
    /// The device's, told by the kernel.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_all().with_context(|| format!("waiting until everything is on {}", self.path.display()))
    }
}

impl ReadAt for Target {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.uncached(offset, bytes)
    }
}
