//! The device, or file, that is written: past the page cache where it can be, so that what is read back comes from it.
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use kscratch_formats::bytes::ReadAt;
use rustix::fs::{Advice, OFlags, fadvise};

use crate::blockdevice::{BlockDevice, Kernel};
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
    /// Opens it to be written: the device that was looked at and no other, for nobody else where `alone`; or a file, which is made, and as long as the
    /// image.
    ///
    /// # Errors
    /// It cannot be opened, is in use, or is not what was looked at any more.
    pub fn open(
        path: &Path,
        image: u64,
        (looked_at, kernel): (Option<&BlockDevice>, &Kernel),
        alone: bool,
    ) -> Result<Target> {
        let flags = if looked_at.is_some() && alone { OFlags::EXCL } else { OFlags::empty() };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(looked_at.is_none()).custom_flags(flags.bits().cast_signed());
        // As a disk's device, a file that is made is nobody else's to read: it may hold a machine's secrets.
        options.mode(0o600);
        let mut file = options.open(path).with_context(|| format!("opening {} to write", path.display()))?;
        // Between looking and this a person may have thought for long. What is open now can be pulled, but not become another one.
        if let Some(looked_at) = looked_at {
            let other = || {
                format!(
                    "{} is not the device any more that was looked at (was it pulled, or another put in?): nothing was written, run it again",
                    path.display()
                )
            };
            let now = BlockDevice::behind(&file, kernel).with_context(other)?;
            ensure!(now.is_still(looked_at), other());
        } else {
            let metadata = file.metadata().with_context(|| format!("looking at {}", path.display()))?;
            ensure!(metadata.is_file(), "{} was no device when it was looked at, and is one now", path.display());
            if metadata.len() < image {
                file.set_len(image).with_context(|| format!("making {} as long as the image", path.display()))?;
            }
        }
        let len =
            file.seek(SeekFrom::End(0)).with_context(|| format!("asking for the length of {}", path.display()))?;
        // Of what is open, not by its name again.
        let own = format!("/proc/self/fd/{}", file.as_raw_fd());
        let direct =
            OpenOptions::new().read(true).write(true).custom_flags(OFlags::DIRECT.bits().cast_signed()).open(own);
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
