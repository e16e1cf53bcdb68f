//! Puts little-endian fields into a byte array and takes them out again, at the offsets that the formats' tables give.
use std::io;

/// Bytes that can be read at any offset: a file, a decompressed image, a slice.
pub trait ReadAt {
    /// Fills `buf` from `offset` (both in bytes); fails with `UnexpectedEof` where the bytes end before `buf` is full.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
}

impl ReadAt for [u8] {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).ok();
        let span = start.and_then(|start| Some(start..start.checked_add(buf.len())?));
        let bytes = span.and_then(|span| self.get(span)).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        (**self).read_at(offset, buf)
    }
}

/// A part of something readable: offset 0 is its byte `start`, and it ends after `len` bytes.
#[derive(Debug, Clone)]
pub struct Window<R> {
    /// What is read.
    pub inner: R,
    /// First byte of the window.
    pub start: u64,
    /// Length of the window in bytes.
    pub len: u64,
}

impl<R: ReadAt> ReadAt for Window<R> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64).filter(|end| *end <= self.len);
        let start = self.start.checked_add(offset);
        match (start, end) {
            (Some(start), Some(_)) => self.inner.read_at(start, buf),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

pub(crate) fn put(buf: &mut [u8], offset: usize, bytes: &[u8]) {
    buf[offset..offset + bytes.len()].copy_from_slice(bytes);
}

pub(crate) fn put_u16(buf: &mut [u8], offset: usize, value: u16) {
    put(buf, offset, &value.to_le_bytes());
}

pub(crate) fn put_u32(buf: &mut [u8], offset: usize, value: u32) {
    put(buf, offset, &value.to_le_bytes());
}

pub(crate) fn put_u64(buf: &mut [u8], offset: usize, value: u64) {
    put(buf, offset, &value.to_le_bytes());
}

/// The field at `offset`, which the caller knows to be inside.
pub(crate) fn u16_at(buf: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes([buf[offset], buf[offset + 1]])
}

/// The field at `offset`, which the caller knows to be inside.
pub(crate) fn u32_at(buf: &[u8], offset: usize) -> u32 {
    u32::from(u16_at(buf, offset)) | u32::from(u16_at(buf, offset + 2)) << 16
}

/// The field at `offset`, which the caller knows to be inside.
pub(crate) fn u64_at(buf: &[u8], offset: usize) -> u64 {
    u64::from(u32_at(buf, offset)) | u64::from(u32_at(buf, offset + 4)) << 32
}
