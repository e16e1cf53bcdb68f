//! Turns entries into a `newc` cpio archive, as the kernel unpacks it for an initramfs (Documentation/driver-api/early-userspace/buffer-format.rst).

/// What stands at a path of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A directory.
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

/// One entry. Owner and group are always root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Path without a leading slash.
    pub path: &'a str,
    /// What it is.
    pub kind: Kind<'a>,
    /// Permission bits.
    pub mode: u16,
}

/// A file that the format cannot hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("putting {path} into the cpio archive: it is 4 GiB long or more")]
pub struct TooLong {
    /// Its path.
    pub path: String,
}

/// The archive; entries stand in the order given (a directory before what is in it), all of time `mtime` (seconds since 1970).
pub fn archive<'a>(entries: impl IntoIterator<Item = Entry<'a>>, mtime: u32) -> Result<Vec<u8>, TooLong> {
    let mut bytes = Vec::new();
    let mut inode = 0;
    for Entry { path, kind, mode } in entries {
        inode += 1;
        let (format, links, data, device) = match kind {
            Kind::Directory => (0o040_000, 2, &[][..], (0, 0)),
            Kind::File(data) => (0o100_000, 1, data, (0, 0)),
            Kind::Symlink(target) => (0o120_000, 1, target.as_bytes(), (0, 0)),
            Kind::CharDevice { major, minor } => (0o020_000, 1, &[][..], (major, minor)),
        };
        let len = u32::try_from(data.len()).map_err(|_| TooLong { path: path.to_owned() })?;
        header(&mut bytes, [inode, format | u32::from(mode), links, mtime, len, device.0, device.1], path);
        bytes.extend_from_slice(data);
        pad(&mut bytes, 4);
    }
    header(&mut bytes, [0, 0, 1, 0, 0, 0, 0], "TRAILER!!!");
    pad(&mut bytes, 512);
    Ok(bytes)
}

/// Fields: ino, mode, nlink, mtime, filesize, rdevmajor, rdevminor; owners, the device and the checksum are 0.
fn header(bytes: &mut Vec<u8>, [inode, mode, links, mtime, len, major, minor]: [u32; 7], path: &str) {
    let fields = [inode, mode, 0, 0, links, mtime, len, 0, 0, major, minor, path.len() as u32 + 1, 0];
    bytes.extend_from_slice(b"070701");
    for field in fields {
        bytes.extend_from_slice(format!("{field:08X}").as_bytes());
    }
    bytes.extend_from_slice(path.as_bytes());
    bytes.push(0);
    pad(bytes, 4);
}

fn pad(bytes: &mut Vec<u8>, multiple: usize) {
    bytes.resize(bytes.len().next_multiple_of(multiple), 0);
}
