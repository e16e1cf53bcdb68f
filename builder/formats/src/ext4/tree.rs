//! Turns sorted entries into inodes with numbers, link counts and directory contents; where their blocks stand is not known yet.
use std::collections::BTreeMap;

use super::checksum::{filesystem_seed, inode_seed};
use super::directory::{self, Child};
use super::geometry::FIRST_INODE;
use super::inode::{self, S_IFBLK, S_IFCHR, S_IFDIR, S_IFLNK, S_IFREG};
use super::xattr::{self, Attributes};
use super::{BLOCK, Entry, Error, Kind, Options};

/// The root directory's inode number.
pub(super) const ROOT: u32 = 2;
/// `file_type` of directories in directory entries.
pub(super) const TYPE_DIRECTORY: u8 = 2;
/// Longest target that stands in `i_block`.
const FAST_SYMLINK: usize = 59;

/// What an inode's blocks hold.
#[derive(Debug, Clone)]
pub(super) enum Payload<C> {
    /// No blocks; `i_block` holds this.
    Field([u8; 60]),
    Bytes(Vec<u8>),
    Content {
        id: C,
        offset: u64,
        len: u64,
    },
}

/// An inode but for its blocks' places.
#[derive(Debug, Clone)]
pub(super) struct Planned<C> {
    pub number: u32,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: i64,
    pub links: u32,
    /// Length in bytes.
    pub size: u64,
    pub payload: Payload<C>,
    pub attributes: Attributes,
}

impl<C> Planned<C> {
    pub(super) fn is_directory(&self) -> bool {
        self.mode & 0o170_000 == S_IFDIR
    }

    /// Blocks of its contents.
    pub(super) fn blocks(&self) -> u64 {
        match &self.payload {
            Payload::Field(_) => 0,
            Payload::Bytes(bytes) => (bytes.len() as u64).div_ceil(BLOCK),
            Payload::Content { len, .. } => len.div_ceil(BLOCK),
        }
    }
}

/// A directory whose children are still being collected: its place in the list of inodes, its parent, its children.
struct Open {
    index: usize,
    parent: u32,
    children: Vec<Child>,
}

/// The inodes in the order of their numbers: root, lost+found, then all others by path.
pub(super) fn build<C>(
    entries: impl IntoIterator<Item = Entry<C>>,
    options: &Options,
) -> Result<Vec<Planned<C>>, Error> {
    let mut entries: Vec<Entry<C>> = entries.into_iter().collect();
    for (path, mode) in [("/", 0o755), ("/lost+found", 0o700)] {
        if !entries.iter().any(|entry| entry.path == path) {
            entries.push(Entry {
                path: path.to_owned(),
                kind: Kind::Directory,
                mode,
                uid: 0,
                gid: 0,
                mtime: options.time,
                xattrs: BTreeMap::new(),
            });
        }
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    let mut inodes = Vec::with_capacity(entries.len());
    let mut open: BTreeMap<String, Open> = BTreeMap::new();
    let mut next = FIRST_INODE + 1;
    for entry in entries {
        let special = match entry.path.as_str() {
            "/" => Some(ROOT),
            "/lost+found" => Some(FIRST_INODE),
            _ => None,
        };
        let number = special.unwrap_or(next);
        next += u32::from(special.is_none());
        if special.is_some() && !matches!(entry.kind, Kind::Directory) {
            return Err(Error::Entry { path: entry.path, reason: "it must be a directory".to_owned() });
        }
        place(entry, number, &mut inodes, &mut open)?;
    }
    let filesystem = filesystem_seed(&options.uuid);
    for directory in open.into_values() {
        close(directory, &mut inodes, filesystem);
    }
    inodes.sort_by_key(|inode| inode.number);
    Ok(inodes)
}

/// Adds the entry to its parent and to the inodes.
fn place<C>(
    entry: Entry<C>,
    number: u32,
    inodes: &mut Vec<Planned<C>>,
    open: &mut BTreeMap<String, Open>,
) -> Result<(), Error> {
    let Entry { path, kind, mode, uid, gid, mtime, xattrs } = entry;
    let wrong = |reason: String| Error::Entry { path: path.clone(), reason };
    let attributes = xattr::encode(&xattrs).map_err(wrong)?;
    let (format, file_type, payload, size) = describe(kind).map_err(wrong)?;
    let parent = if path == "/" { ROOT } else { adopt(&path, number, file_type, inodes, open).map_err(wrong)? };
    if file_type == TYPE_DIRECTORY {
        open.insert(path, Open { index: inodes.len(), parent, children: Vec::new() });
    }
    inodes.push(Planned { number, mode: format | mode & 0o7777, uid, gid, mtime, links: 1, size, payload, attributes });
    Ok(())
}

/// File type bits, `file_type` code, payload and size.
fn describe<C>(kind: Kind<C>) -> Result<(u16, u8, Payload<C>, u64), String> {
    Ok(match kind {
        Kind::Directory => (S_IFDIR, TYPE_DIRECTORY, Payload::Bytes(Vec::new()), 0),
        Kind::File { id, offset, len } => (S_IFREG, 1, Payload::Content { id, offset, len }, len),
        Kind::Bytes(bytes) => {
            let len = bytes.len() as u64;
            (S_IFREG, 1, Payload::Bytes(bytes), len)
        }
        Kind::Symlink(target) => {
            let len = target.len() as u64;
            match target.len() {
                0 => return Err("a symbolic link needs a target".to_owned()),
                1..=FAST_SYMLINK => {
                    let mut field = [0; 60];
                    field[..target.len()].copy_from_slice(target.as_bytes());
                    (S_IFLNK, 7, Payload::Field(field), len)
                }
                4096.. => {
                    return Err(format!("its target is {len} bytes long, more than a path can be"));
                }
                _ => (S_IFLNK, 7, Payload::Bytes(target.into_bytes()), len),
            }
        }
        Kind::CharDevice { major, minor } => (S_IFCHR, 3, Payload::Field(inode::device(major, minor)), 0),
        Kind::BlockDevice { major, minor } => (S_IFBLK, 4, Payload::Field(inode::device(major, minor)), 0),
    })
}

/// Adds the entry to its parent's children and gives the parent's number.
fn adopt<C>(
    path: &str,
    number: u32,
    file_type: u8,
    inodes: &[Planned<C>],
    open: &mut BTreeMap<String, Open>,
) -> Result<u32, String> {
    let (parent, name) = path.rsplit_once('/').ok_or("its path is not absolute")?;
    let parent = if parent.is_empty() { "/" } else { parent };
    if matches!(name, "" | "." | "..") || name.contains('\0') {
        return Err("its name is not one that a file can have".to_owned());
    }
    if name.len() > 255 {
        return Err(format!("its name is {} bytes long, 255 is the most", name.len()));
    }
    let directory = open.get_mut(parent).ok_or_else(|| format!("there is no directory {parent} for it"))?;
    // Entries are sorted, so a second one of the same path comes right after the first, or after its children.
    if directory.children.last().is_some_and(|last| last.name == name) {
        return Err("it is there twice".to_owned());
    }
    directory.children.push(Child { number, file_type, name: name.to_owned() });
    Ok(inodes[directory.index].number)
}

/// Encodes the directory's contents, now that all its children are known.
fn close<C>(mut directory: Open, inodes: &mut [Planned<C>], filesystem: u32) {
    let inode = &mut inodes[directory.index];
    let subdirectories = directory.children.iter().filter(|child| child.file_type == TYPE_DIRECTORY).count();
    directory.children.sort_by(|a, b| a.name.cmp(&b.name));
    let seed = inode_seed(filesystem, inode.number);
    let bytes = directory::encode(inode.number, directory.parent, &directory.children, seed);
    inode.links = 2 + subdirectories as u32;
    inode.size = bytes.len() as u64;
    inode.payload = Payload::Bytes(bytes);
}
