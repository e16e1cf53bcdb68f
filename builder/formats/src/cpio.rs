//! A list of files becomes a newc cpio archive, the form in which the kernel takes its initramfs.
//!
//! Format: Linux `Documentation/driver-api/early-userspace/buffer-format.rst`: a header of ASCII hex fields, the name with its NUL padded to
//! four bytes, the data padded to four bytes; `TRAILER!!!` ends it.
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
}

const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFCHR: u32 = 0o020_000;

/// Writes the archive. Everything is root's, every time is `mtime` (seconds since 1970), inode numbers count from one.
pub fn archive(members: &[Member<'_>], mtime: u32) -> Result<Vec<u8>, Error> {
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
            [index as u32 + 1, kind | u32::from(member.mode), links, mtime, size, device.0, device.1],
        );
        out.extend_from_slice(data);
        pad(&mut out);
    }
    header(&mut out, "TRAILER!!!", [0, 0, 1, 0, 0, 0, 0]);
    Ok(out)
}

/// Fields that vary: c_ino, c_mode, c_nlink, c_mtime, c_filesize, c_rmajor, c_rminor.
fn header(out: &mut Vec<u8>, name: &str, [ino, mode, links, mtime, size, rmajor, rminor]: [u32; 7]) {
    let fields = [ino, mode, 0, 0, links, mtime, size, 0, 0, rmajor, rminor, name.len() as u32 + 1, 0];
    out.extend_from_slice(b"070701");
    for field in fields {
        out.extend_from_slice(format!("{field:08X}").as_bytes());
    }
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    pad(out);
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}
