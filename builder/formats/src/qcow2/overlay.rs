//! Turns a qcow2 file that lies over another disk, and that disk, into the bytes of both together.
use std::io;

use super::{BACKING_FORMAT, Disk, Error, HEADER, MAX_BACKING_NAME, damaged, u32_at, u64_at};
use crate::bytes::ReadAt;

/// Extensions of the header beyond this are taken for damage.
const MAX_EXTENSIONS: usize = 64;

/// The file that another lies over, as that one names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backing {
    /// Its path; a relative one is seen from the folder of the file that names it.
    pub name: String,
    /// Its format in QEMU's words (`raw`, `qcow2`), where it is told.
    pub format: Option<String>,
}

/// What the file says of a file below it; none where it stands alone.
///
/// # Errors
/// It is no qcow2 file, or its header is damaged.
pub fn backing<R: ReadAt>(file: &R) -> Result<Option<Backing>, Error> {
    let mut header = [0; HEADER];
    file.read_at(0, &mut header[..72])?;
    let (at, len) = (u64_at(&header, 8), u32_at(&header, 16));
    if u32_at(&header, 0) != super::MAGIC {
        return Err(damaged("it is not a qcow2 file of version 2 or 3"));
    }
    if at == 0 {
        return Ok(None);
    }
    if len > MAX_BACKING_NAME {
        return Err(damaged("the name of its backing file is too long"));
    }
    let mut name = vec![0; len as usize];
    file.read_at(at, &mut name)?;
    let name = String::from_utf8(name).map_err(|_| damaged("the name of its backing file is no text"))?;
    // Version 2 has no other fields than these; later ones say how long they are (`header_length`).
    let start = if u32_at(&header, 4) < 3 {
        72
    } else {
        file.read_at(0, &mut header)?;
        u64::from(u32_at(&header, 100))
    };
    Ok(Some(Backing { name, format: format(file, start)? }))
}

/// The header extension that names the backing file's format.
fn format<R: ReadAt>(file: &R, start: u64) -> Result<Option<String>, Error> {
    let mut at = start;
    for _ in 0..MAX_EXTENSIONS {
        let mut head = [0; 8];
        file.read_at(at, &mut head)?;
        let (kind, len) = (u32_at(&head, 0), u32_at(&head, 4));
        match kind {
            0 => return Ok(None),
            BACKING_FORMAT if len <= MAX_BACKING_NAME => {
                let mut text = vec![0; len as usize];
                file.read_at(at + 8, &mut text)?;
                return Ok(Some(String::from_utf8_lossy(&text).into_owned()));
            }
            _ => at += 8 + u64::from(len).next_multiple_of(8),
        }
    }
    Err(damaged("its header has no end"))
}

/// A qcow2 file over another disk.
#[derive(Debug, Clone)]
pub struct Overlay<R, B> {
    top: Disk<R>,
    below: B,
    below_len: u64,
}

impl<R: ReadAt, B: ReadAt> Overlay<R, B> {
    /// Lays the file over `below`, a disk of `below_len` bytes. Encryption, external data files and what else is not known here are refused.
    ///
    /// # Errors
    /// The file cannot be read, or has what is not read here.
    pub fn open(file: R, below: B, below_len: u64) -> Result<Self, Error> {
        Ok(Overlay { top: Disk::open_any(file, true)?, below, below_len })
    }

    /// Length of the disk in bytes.
    pub fn disk_len(&self) -> u64 {
        self.top.disk_len()
    }
}

impl<R: ReadAt, B: ReadAt> ReadAt for Overlay<R, B> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.top.read_over(offset, buf, |at, part| {
            // The disk below may be shorter: what is behind its end is zero.
            let inside = self.below_len.saturating_sub(at).min(part.len() as u64) as usize;
            let (there, behind) = part.split_at_mut(inside);
            behind.fill(0);
            if there.is_empty() { Ok(()) } else { self.below.read_at(at, there) }
        })
    }
}
