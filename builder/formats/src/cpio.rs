//! A list of files becomes a newc cpio archive, the form in which the kernel takes its initramfs.
//!
//! Format: Linux `Documentation/driver-api/early-userspace/buffer-format.rst`: a header of ASCII hex fields, the name with its NUL padded to
//! four bytes, the data padded to four bytes; `TRAILER!!!` ends it.
use std::ops::Range;

use thiserror::Error;

/// One member of the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<'a> {
    /// Path without a leading slash, e.g. `usr/lib/modules`.
    pub path: &'a str,
    /// What it is.
    pub kind: MemberKind<'a>,
    /// Permission bits, 0o7777 at most.
    pub mode: u16,
}

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberKind<'a> {
    /// A directory; it must stand before what is in it.
    Directory,
    /// A regular file.
    File(&'a [u8]),
    /// A symbolic link and its target.
    Symlink(&'a str),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// What cannot be written as newc.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// The header has eight hex digits for a length.
    #[error("the file {0} is too large for a cpio archive (4 GiB at most)")]
    TooLarge(String),
    /// Bytes that are no archive, or end within one.
    #[error("reading a cpio archive: {0} at byte {1}")]
    Damaged(&'static str, usize),
}

/// A member that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its path, without the NULs behind it.
    pub path: String,
    /// Where its bytes stand.
    pub data: Range<usize>,
}

/// Reads the archive that begins with the first byte: its members, and where it ends. What stands behind is not looked at.
///
/// # Errors
/// Bytes that are no newc archive, or end before its trailer.
pub fn read(bytes: &[u8]) -> Result<(Vec<Found>, usize), Error> {
    let mut found = Vec::new();
    let mut at = 0usize;
    loop {
        let wrong = |what| Error::Damaged(what, at);
        let header = bytes.get(at..at.saturating_add(HEADER)).ok_or(wrong("the header of a member is cut off"))?;
        if &header[..6] != MAGIC {
            return Err(wrong("there is no header of a member"));
        }
        let field = |number: usize| {
            let digits = std::str::from_utf8(&header[6 + 8 * number..][..8]).ok();
            let value = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
            value.map(|value| value as usize).ok_or(wrong("a field is no number"))
        };
        let (size, name_len) = (field(6)?, field(11)?);
        let name_at = at + HEADER;
        let name = bytes.get(name_at..name_at.saturating_add(name_len)).ok_or(wrong("a name is cut off"))?;
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let data_at = (name_at + name_len).next_multiple_of(4);
        if name == TRAILER.as_bytes() {
            return Ok((found, data_at.min(bytes.len())));
        }
        let data = data_at..data_at.saturating_add(size);
        if bytes.get(data.clone()).is_none() {
            return Err(wrong("the bytes of a file are cut off"));
        }
        at = data.end.next_multiple_of(4);
        found.push(Found { path: String::from_utf8_lossy(name).into_owned(), data });
    }
}

const MAGIC: &[u8; 6] = b"070701";
/// Bytes of a member's header: the magic and thirteen fields of eight digits.
const HEADER: usize = 6 + 13 * 8;
/// Name of the member that ends an archive.
const TRAILER: &str = "TRAILER!!!";
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFCHR: u32 = 0o020_000;

/// Writes the archive. Everything is root's, every time is `mtime` (seconds since 1970), inode numbers count from one.
pub fn archive(members: &[Member<'_>], mtime: u32) -> Result<Vec<u8>, Error> {
    aligned(members, mtime, 4)
}

/// As [`archive`], but what is in files stands at multiples of `alignment` bytes (a power of two, 4 at least), and the archive's length is
/// one. The kernel takes NULs behind a name for a part of it (the format's description, `c_namesize`).
pub fn aligned(members: &[Member<'_>], mtime: u32, alignment: usize) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    for (index, member) in members.iter().enumerate() {
        let (kind, data, device) = match member.kind {
            MemberKind::Directory => (S_IFDIR, &[][..], (0, 0)),
            MemberKind::File(bytes) => (S_IFREG, bytes, (0, 0)),
            MemberKind::Symlink(target) => (S_IFLNK, target.as_bytes(), (0, 0)),
            MemberKind::CharDevice { major, minor } => (S_IFCHR, &[][..], (major, minor)),
        };
        let size = u32::try_from(data.len()).map_err(|_| Error::TooLarge(member.path.to_owned()))?;
        let links = if kind == S_IFDIR { 2 } else { 1 };
        header(
            &mut out,
            member.path,
            if data.is_empty() { 4 } else { alignment },
            [index as u32 + 1, kind | u32::from(member.mode), links, mtime, size, device.0, device.1],
        );
        out.extend_from_slice(data);
        pad(&mut out);
    }
    header(&mut out, TRAILER, 4, [0, 0, 1, 0, 0, 0, 0]);
    out.resize(out.len().next_multiple_of(alignment), 0);
    Ok(out)
}

/// Fields that vary: c_ino, c_mode, c_nlink, c_mtime, c_filesize, c_rmajor, c_rminor. What follows stands at a multiple of `alignment`.
fn header(out: &mut Vec<u8>, name: &str, alignment: usize, [ino, mode, links, mtime, size, rmajor, rminor]: [u32; 7]) {
    let begin = out.len() + HEADER;
    let named = begin + name.len() + 1;
    // To 4 bytes everyone pads by themselves; further NULs are the name's.
    let end = if alignment > 4 { named.next_multiple_of(alignment) } else { named };
    let fields = [ino, mode, 0, 0, links, mtime, size, 0, 0, rmajor, rminor, (end - begin) as u32, 0];
    out.extend_from_slice(MAGIC);
    for field in fields {
        out.extend_from_slice(format!("{field:08X}").as_bytes());
    }
    out.extend_from_slice(name.as_bytes());
    out.resize(end, 0);
    pad(out);
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, proptest};

    use super::{Member, MemberKind, aligned, archive, read};

    #[test]
    fn what_was_written_is_read() {
        let members = [
            Member { path: "a", kind: MemberKind::Directory, mode: 0o755 },
            Member { path: "a/file", kind: MemberKind::File(b"five!"), mode: 0o644 },
            Member { path: "a/link", kind: MemberKind::Symlink("file"), mode: 0o777 },
        ];
        for alignment in [4, 16, 512] {
            let mut bytes = aligned(&members, 7, alignment).unwrap();
            assert_eq!(bytes.len() % alignment, 0);
            bytes.extend_from_slice(b"behind");
            let (found, end) = read(&bytes).unwrap();
            assert_eq!(found.iter().map(|member| member.path.as_str()).collect::<Vec<_>>(), ["a", "a/file", "a/link"]);
            assert_eq!(bytes[found[1].data.clone()], *b"five!");
            assert_eq!(found[1].data.start % alignment, 0);
            assert!(bytes[end..bytes.len() - 6].iter().all(|byte| *byte == 0));
        }
        assert_eq!(aligned(&members, 7, 4), archive(&members, 7));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in any::<Vec<u8>>(), at in 0..300_usize) {
            drop(read(&bytes));
            let member = Member { path: "name", kind: MemberKind::File(&bytes), mode: 0o600 };
            let mut damaged = archive(&[member], 1).unwrap();
            if let Some(byte) = damaged.get_mut(at) {
                *byte ^= 1;
            }
            drop(read(&damaged));
            damaged.truncate(at);
            prop_assert!(read(&damaged).is_err() || damaged.len() > 110);
        }
    }
}
