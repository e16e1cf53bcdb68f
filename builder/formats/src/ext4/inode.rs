//! Turns what is known of an inode into its 256 bytes, checksum included.
use super::checksum::crc;
use super::geometry::INODE_SIZE;
use super::xattr::IN_INODE as XATTR_BYTES;
use crate::bytes::{put, put_u16, put_u32};

pub(super) const S_IFCHR: u16 = 0o020_000;
pub(super) const S_IFDIR: u16 = 0o040_000;
pub(super) const S_IFBLK: u16 = 0o060_000;
pub(super) const S_IFREG: u16 = 0o100_000;
pub(super) const S_IFLNK: u16 = 0o120_000;
/// `EXT4_EXTENTS_FL`.
pub(super) const EXTENTS: u32 = 0x8_0000;
/// `i_extra_isize`: all fields up to `i_projid`.
const EXTRA: u16 = 32;

/// The fields of an inode that are not the same everywhere.
#[derive(Debug, Clone)]
pub(super) struct Inode {
    /// File type and permission bits.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: i64,
    /// Time of creation and of the last change of the inode.
    pub ctime: i64,
    pub links: u32,
    /// Length in bytes.
    pub size: u64,
    /// Blocks of 4 KiB that belong to it, index and attribute blocks included.
    pub blocks: u64,
    pub flags: u32,
    /// `i_block`: an extent tree, a short link's target, or a device number.
    pub block: [u8; 60],
    /// `i_file_acl`: the attribute block, or 0.
    pub xattr_block: u64,
    /// Attributes in the inode, or zeros.
    pub xattrs: [u8; XATTR_BYTES],
}

impl Inode {
    /// The inode as it stands in the table; `seed` is its checksum seed.
    pub(super) fn encode(&self, seed: u32) -> [u8; INODE_SIZE as usize] {
        let mut bytes = [0; INODE_SIZE as usize];
        let sectors = self.blocks * 8;
        // dir_nlink: a directory with more subdirectories than i_links_count holds says 1.
        let links = if self.links >= 65000 { 1 } else { self.links as u16 };
        put_u16(&mut bytes, 0x00, self.mode);
        put_u16(&mut bytes, 0x02, self.uid as u16);
        put_u32(&mut bytes, 0x04, self.size as u32);
        put_u32(&mut bytes, 0x08, self.mtime as u32); // i_atime
        put_u32(&mut bytes, 0x0C, self.ctime as u32);
        put_u32(&mut bytes, 0x10, self.mtime as u32);
        put_u16(&mut bytes, 0x18, self.gid as u16);
        put_u16(&mut bytes, 0x1A, links);
        put_u32(&mut bytes, 0x1C, sectors as u32);
        put_u32(&mut bytes, 0x20, self.flags);
        put(&mut bytes, 0x28, &self.block);
        put_u32(&mut bytes, 0x68, self.xattr_block as u32);
        put_u32(&mut bytes, 0x6C, (self.size >> 32) as u32);
        put_u16(&mut bytes, 0x74, (sectors >> 32) as u16);
        put_u16(&mut bytes, 0x76, (self.xattr_block >> 32) as u16);
        put_u16(&mut bytes, 0x78, (self.uid >> 16) as u16);
        put_u16(&mut bytes, 0x7A, (self.gid >> 16) as u16);
        put_u16(&mut bytes, 0x80, EXTRA);
        put_u32(&mut bytes, 0x84, epoch(self.ctime)); // i_ctime_extra
        put_u32(&mut bytes, 0x88, epoch(self.mtime)); // i_mtime_extra
        put_u32(&mut bytes, 0x8C, epoch(self.mtime)); // i_atime_extra
        put_u32(&mut bytes, 0x90, self.ctime as u32); // i_crtime
        put_u32(&mut bytes, 0x94, epoch(self.ctime));
        put(&mut bytes, 0xA0, &self.xattrs);
        let sum = crc(seed, &bytes);
        put_u16(&mut bytes, 0x7C, sum as u16);
        put_u16(&mut bytes, 0x82, (sum >> 16) as u16);
        bytes
    }
}

/// The two bits that carry a time past 2038: the low 32 bits are signed, these count how often they wrapped.
fn epoch(time: i64) -> u32 {
    ((time - i64::from(time as i32)) >> 32) as u32 & 3
}

/// A device number in `i_block`: the old form where it fits, else the kernel's `new_encode_dev`.
pub(super) fn device(major: u32, minor: u32) -> [u8; 60] {
    let mut block = [0; 60];
    if major < 256 && minor < 256 {
        put_u32(&mut block, 0, major << 8 | minor);
    } else {
        put_u32(&mut block, 4, (minor & 0xFF) | major << 8 | (minor & !0xFF) << 12);
    }
    block
}
