//! Turns the bytes of an ext4 filesystem back into its tree: enough for filesystems that were planned here, mounted since or not.
use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::checksum::crc;
use super::inode::{EXTENTS, S_IFDIR, S_IFLNK, S_IFREG};
use super::log::Log;
use super::overlaid::Overlaid;
use super::replay::{Replayed, replay};
use super::tree::ROOT;
use crate::bytes::{ReadAt, u16_at, u32_at};
use crate::guid::Guid;

/// filetype, recover, extents, 64bit, flex_bg, csum_seed (of checksums that are not looked at here): what is understood.
const KNOWN_INCOMPAT: u32 = 0x2 | RECOVER | 0x40 | INCOMPAT_64BIT | 0x200 | 0x2000;
const RECOVER: u32 = 0x4;
const INCOMPAT_64BIT: u32 = 0x80;
const METADATA_CSUM: u32 = 0x400;
/// A directory of more bytes is taken for damage.
const MAX_DIRECTORY: u64 = 64 << 20;
/// Extents of one file beyond this are taken for damage.
const MAX_RUNS: usize = 1 << 16;
/// More blocks, and longer files in bytes, are taken for damage: sums of what is below cannot overflow.
const MAX_SIZE: u64 = 1 << 44;
/// The deepest tree of directories that is followed.
const MAX_DEPTH: usize = 256;

/// Why a filesystem cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Bytes that are not an ext4 filesystem, a damaged one, or one with features that are not read here.
    #[error("reading the ext4 filesystem: {0}")]
    Damaged(String),
    /// The bytes could not be read.
    #[error("reading the ext4 filesystem")]
    Read(#[from] io::Error),
}

pub(super) fn damaged<T>(reason: impl Into<String>) -> Result<T, ReadError> {
    Err(ReadError::Damaged(reason.into()))
}

/// What an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link; its contents are the target.
    Symlink,
    /// Anything else: devices, pipes, sockets.
    Other,
}

/// An inode that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What it is.
    pub kind: FoundKind,
    /// Permission bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub len: u64,
    number: u32,
    flags: u32,
    block: [u8; 60],
}

/// A stretch of a file: logical block, block, number of blocks.
pub(super) type Run = (u64, u64, u64);

/// An opened filesystem, read as if its journal had been replayed.
#[derive(Debug, Clone)]
pub struct Reader<R> {
    pub(super) disk: Overlaid<R>,
    pub(super) block: u64,
    pub(super) blocks: u64,
    free: u64,
    inodes: u32,
    pub(super) inodes_per_group: u32,
    pub(super) inode_size: u64,
    pub(super) descriptor: u64,
    pub(super) first_block: u64,
    label: String,
    uuid: Guid,
    recover: bool,
    journal: u32,
    replayed: Replayed,
}

impl<R: ReadAt> Reader<R> {
    /// Reads and checks the superblock, and the journal where it holds changes that the rest does not have yet.
    ///
    /// # Errors
    /// The superblock or the journal cannot be read, is damaged, or has features that are not read here.
    pub fn open(disk: R) -> Result<Self, ReadError> {
        let reader = Self::as_it_stands(Overlaid { disk, block: 1024, moved: BTreeMap::new() })?;
        if !reader.recover {
            return Ok(reader);
        }
        if reader.journal == 0 {
            return damaged("its journal is on another disk");
        }
        let runs = reader.runs(&reader.inode(reader.journal)?)?;
        let (replayed, moved) = replay(&Log::open(&reader.disk, runs, reader.block, reader.blocks)?)?;
        let overlaid = Overlaid { disk: reader.disk.disk, block: reader.block, moved };
        // The superblock may be among what the journal has newer.
        Ok(Reader { recover: true, replayed, ..Self::as_it_stands(overlaid)? })
    }

    fn as_it_stands(disk: Overlaid<R>) -> Result<Self, ReadError> {
        let mut sb = [0; 1024];
        disk.read_at(1024, &mut sb)?;
        if u16_at(&sb, 0x38) != 0xEF53 {
            return damaged("there is no ext4 superblock");
        }
        if u32_at(&sb, 0x64) & METADATA_CSUM != 0 && crc(!0, &sb[..1020]) != u32_at(&sb, 1020) {
            return damaged("the checksum of its superblock is wrong");
        }
        let incompat = u32_at(&sb, 0x60);
        if incompat & !KNOWN_INCOMPAT != 0 {
            return damaged(format!("it has features that are not read here ({:#x})", incompat & !KNOWN_INCOMPAT));
        }
        let wide = incompat & INCOMPAT_64BIT != 0;
        let high = |offset: usize| if wide { u64::from(u32_at(&sb, offset)) << 32 } else { 0 };
        let (log_block, inode_size) = (u32_at(&sb, 0x18), u64::from(u16_at(&sb, 0x58)));
        let inodes_per_group = u32_at(&sb, 0x28);
        let descriptor = if wide { u64::from(u16_at(&sb, 0xFE)) } else { 32 };
        let blocks = u64::from(u32_at(&sb, 0x04)) | high(0x150);
        if log_block > 6
            || blocks > MAX_SIZE
            || !(128..=4096).contains(&inode_size)
            || inodes_per_group == 0
            || !(32..=1024).contains(&descriptor)
        {
            return damaged("the fields of its superblock make no sense");
        }
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&sb[0x68..0x78]);
        let label: Vec<u8> = sb[0x78..0x88].iter().copied().take_while(|byte| *byte != 0).collect();
        Ok(Reader {
            disk,
            block: 1024 << log_block,
            blocks,
            free: u64::from(u32_at(&sb, 0x0C)) | high(0x158),
            inodes: u32_at(&sb, 0x00),
            inodes_per_group,
            inode_size,
            descriptor,
            first_block: u64::from(u32_at(&sb, 0x14)),
            label: String::from_utf8_lossy(&label).into_owned(),
            uuid: Guid(uuid),
            recover: incompat & RECOVER != 0,
            journal: u32_at(&sb, 0xE0),
            replayed: Replayed::default(),
        })
    }

    /// `s_volume_name`.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// `s_uuid`.
    pub fn uuid(&self) -> Guid {
        self.uuid
    }

    /// Length of the filesystem in bytes.
    pub fn size(&self) -> u64 {
        self.blocks.saturating_mul(self.block)
    }

    /// Bytes in use, metadata included.
    pub fn used(&self) -> u64 {
        self.blocks.saturating_sub(self.free).saturating_mul(self.block)
    }

    /// Whether it is in use or was not unmounted: a mount would replay its journal.
    pub fn needs_recovery(&self) -> bool {
        self.recover
    }

    /// What the journal holds that the rest does not have yet, and that is read from there.
    pub fn replayed(&self) -> Replayed {
        self.replayed
    }

    /// All inodes with their absolute paths, in the order of paths.
    pub fn walk(&self) -> Result<BTreeMap<String, Found>, ReadError> {
        let root = self.inode(ROOT)?;
        let mut all = BTreeMap::new();
        let mut seen = BTreeSet::from([ROOT]);
        let mut open = vec![(String::new(), root)];
        while let Some((path, directory)) = open.pop() {
            for (name, number) in self.list(&directory)? {
                let path = format!("{path}/{name}");
                let found = self.inode(number)?;
                if found.kind == FoundKind::Directory {
                    if !seen.insert(number) || path.matches('/').count() > MAX_DEPTH {
                        return damaged(format!("directory {path} is inside itself"));
                    }
                    open.push((path.clone(), found.clone()));
                }
                if all.len() > self.inodes as usize * 2 {
                    return damaged("it has more names than inodes");
                }
                all.insert(path, found);
            }
        }
        Ok(all)
    }

    /// What stands at an absolute path; symbolic links are not followed.
    pub fn find(&self, path: &str) -> Result<Option<Found>, ReadError> {
        let mut found = self.inode(ROOT)?;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            if found.kind != FoundKind::Directory {
                return Ok(None);
            }
            match self.list(&found)?.into_iter().find(|(name, _)| name == part) {
                Some((_, number)) => found = self.inode(number)?,
                None => return Ok(None),
            }
        }
        Ok(Some(found))
    }

    /// The contents of a file or the target of a link, `limit` bytes at most.
    pub fn read(&self, found: &Found, limit: u64) -> Result<Vec<u8>, ReadError> {
        if found.len > limit {
            return damaged(format!("a file is {} bytes long, more than the {limit} expected", found.len));
        }
        let mut bytes = Vec::new();
        self.each_piece(found, |piece| bytes.extend_from_slice(piece))?;
        Ok(bytes)
    }

    /// Gives the contents piece by piece, from the first byte to the last.
    pub fn each_piece(&self, found: &Found, mut take: impl FnMut(&[u8])) -> Result<(), ReadError> {
        if found.kind == FoundKind::Symlink && found.flags & EXTENTS == 0 {
            let target = found.block.get(..found.len as usize);
            take(target.ok_or_else(|| ReadError::Damaged("a link's target is too long".to_owned()))?);
            return Ok(());
        }
        if found.len > MAX_SIZE {
            return damaged(format!("inode {} claims {} bytes", found.number, found.len));
        }
        let zeros = [0; 4096];
        let mut buffer = vec![0; 256 << 10];
        let mut done = 0;
        let runs = if found.len == 0 { Vec::new() } else { self.runs(found)? };
        // A run past the end stands for the hole that the file may end in.
        for (logical, start, blocks) in runs.into_iter().chain([(u64::MAX / self.block, 0, 0)]) {
            let from = (logical * self.block).min(found.len);
            while done < from {
                let len = (from - done).min(zeros.len() as u64);
                take(&zeros[..len as usize]);
                done += len;
            }
            let end = (logical * self.block).saturating_add(blocks * self.block).min(found.len);
            while done < end {
                let len = (end - done).min(buffer.len() as u64) as usize;
                self.disk.read_at(start * self.block + (done - logical * self.block), &mut buffer[..len])?;
                take(&buffer[..len]);
                done += len as u64;
            }
        }
        Ok(())
    }

    fn inode(&self, number: u32) -> Result<Found, ReadError> {
        if number == 0 || number > self.inodes {
            return damaged(format!("there is no inode {number}"));
        }
        let (group, index) = ((number - 1) / self.inodes_per_group, (number - 1) % self.inodes_per_group);
        let mut descriptor = [0; 64];
        let len = self.descriptor.min(64) as usize;
        let at = (self.first_block + 1) * self.block + u64::from(group) * self.descriptor;
        self.disk.read_at(at, &mut descriptor[..len])?;
        let table = u64::from(u32_at(&descriptor, 8)) | u64::from(u32_at(&descriptor, 0x28)) << 32;
        let mut bytes = [0; 128];
        let at = table.checked_mul(self.block).and_then(|at| at.checked_add(u64::from(index) * self.inode_size));
        self.disk.read_at(at.unwrap_or(u64::MAX), &mut bytes)?;
        let mode = u16_at(&bytes, 0);
        let mut block = [0; 60];
        block.copy_from_slice(&bytes[0x28..0x64]);
        Ok(Found {
            kind: match mode & 0o170_000 {
                S_IFDIR => FoundKind::Directory,
                S_IFREG => FoundKind::File,
                S_IFLNK => FoundKind::Symlink,
                _ => FoundKind::Other,
            },
            mode: mode & 0o7777,
            uid: u32::from(u16_at(&bytes, 2)) | u32::from(u16_at(&bytes, 0x78)) << 16,
            gid: u32::from(u16_at(&bytes, 0x18)) | u32::from(u16_at(&bytes, 0x7A)) << 16,
            len: u64::from(u32_at(&bytes, 4)) | u64::from(u32_at(&bytes, 0x6C)) << 32,
            number,
            flags: u32_at(&bytes, 0x20),
            block,
        })
    }

    /// The stretches of a file in order.
    fn runs(&self, found: &Found) -> Result<Vec<Run>, ReadError> {
        if found.flags & EXTENTS == 0 {
            return damaged(format!("inode {} has no extents", found.number));
        }
        let mut runs = Vec::new();
        self.node(&found.block, None, &mut runs)?;
        if runs.windows(2).any(|pair| pair[0].0 + pair[0].2 > pair[1].0) {
            return damaged(format!("the extents of inode {} overlap", found.number));
        }
        Ok(runs)
    }

    /// Reads a node; `depth` is what its header must say, so that no cycle is followed.
    fn node(&self, node: &[u8], depth: Option<u16>, runs: &mut Vec<Run>) -> Result<(), ReadError> {
        let (magic, entries, own) = (u16_at(node, 0), usize::from(u16_at(node, 2)), u16_at(node, 6));
        if magic != 0xF30A || own > 5 || depth.is_some_and(|depth| depth != own) || 12 * (entries + 1) > node.len() {
            return damaged("a node of an extent tree makes no sense");
        }
        for entry in node[12..12 * (entries + 1)].chunks_exact(12) {
            let logical = u64::from(u32_at(entry, 0));
            if own == 0 {
                let (len, start) = (u16_at(entry, 4), u64::from(u32_at(entry, 8)) | u64::from(u16_at(entry, 6)) << 32);
                // Above 32768 blocks are allocated but hold nothing yet.
                if len <= 32768 {
                    runs.push((logical, start, u64::from(len)));
                }
                if start >= self.blocks || runs.len() > MAX_RUNS {
                    return damaged("an extent lies behind the filesystem");
                }
            } else {
                let child = u64::from(u32_at(entry, 4)) | u64::from(u16_at(entry, 8)) << 32;
                let mut block = vec![0; self.block as usize];
                self.disk.read_at(child.saturating_mul(self.block), &mut block)?;
                self.node(&block, Some(own - 1), runs)?;
            }
        }
        Ok(())
    }

    fn list(&self, directory: &Found) -> Result<Vec<(String, u32)>, ReadError> {
        let bytes = self.read(directory, MAX_DIRECTORY)?;
        let mut names = Vec::new();
        // The blocks of an indexed directory (htree) look like empty entries where they hold the index.
        for block in bytes.chunks(self.block as usize) {
            let mut at = 0;
            while at + 8 <= block.len() {
                let (number, len, name) =
                    (u32_at(block, at), usize::from(u16_at(block, at + 4)), usize::from(block[at + 6]));
                if len < 8 || at + len > block.len() || 8 + name > len {
                    return damaged(format!("an entry of directory inode {} makes no sense", directory.number));
                }
                let name = &block[at + 8..at + 8 + name];
                if number != 0 && name != b"." && name != b".." {
                    names.push((String::from_utf8_lossy(name).into_owned(), number));
                }
                at += len;
            }
        }
        Ok(names)
    }
}
