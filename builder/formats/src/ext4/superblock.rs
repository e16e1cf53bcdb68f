//! Turns geometry and usage into superblocks, group descriptors and bitmaps.
use super::checksum::{crc, filesystem_seed};
use super::geometry::{BLOCKS_PER_GROUP, DESCRIPTOR_SIZE, FIRST_INODE, Geometry, INODE_SIZE};
use super::{BLOCK, Options};
use crate::bytes::{put, put_u16, put_u32, put_u64};

/// Length of the superblock in bytes.
pub(super) const SUPERBLOCK: usize = 1024;
const COMPAT_HAS_JOURNAL: u32 = 0x4;
const COMPAT_EXT_ATTR: u32 = 0x8;
const COMPAT_RESIZE_INODE: u32 = 0x10;
const COMPAT_DIR_INDEX: u32 = 0x20;
/// filetype, extents, 64bit, flex_bg.
const INCOMPAT: u32 = 0x2 | 0x40 | 0x80 | 0x200;
/// sparse_super, large_file, huge_file, dir_nlink, extra_isize, metadata_csum.
const RO_COMPAT: u32 = 0x1 | 0x2 | 0x8 | 0x20 | 0x40 | 0x400;
const INODE_UNINIT: u16 = 0x1;
const BLOCK_UNINIT: u16 = 0x2;
const INODE_ZEROED: u16 = 0x4;
/// user_xattr and acl, as mke2fs sets them.
const MOUNT_OPTIONS: u32 = 0x4 | 0x8;

/// What is in use in one group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    /// Blocks from the group's beginning.
    pub blocks: u64,
    /// Inodes from the group's beginning.
    pub inodes: u64,
    pub directories: u64,
}

/// The journal as the superblock backs it up: `i_block` of its inode and its length in bytes.
#[derive(Debug, Clone)]
pub(super) struct JournalBackup {
    pub block: [u8; 60],
    pub size: u64,
}

/// The superblock of group 0; [`backup`] makes the others of it.
pub(super) fn primary(
    geometry: &Geometry,
    options: &Options,
    usage: &[Usage],
    journal: Option<&JournalBackup>,
) -> [u8; SUPERBLOCK] {
    let mut sb = [0; SUPERBLOCK];
    let free_blocks = geometry.blocks - usage.iter().map(|group| group.blocks).sum::<u64>();
    let inodes = geometry.inodes_per_group * geometry.groups;
    let free_inodes = inodes - usage.iter().map(|group| group.inodes).sum::<u64>();
    put_u32(&mut sb, 0x00, inodes as u32);
    put_u32(&mut sb, 0x04, geometry.blocks as u32);
    put_u32(&mut sb, 0x0C, free_blocks as u32);
    put_u32(&mut sb, 0x10, free_inodes as u32);
    put_u32(&mut sb, 0x18, 2); // s_log_block_size: 4 KiB
    put_u32(&mut sb, 0x1C, 2);
    put_u32(&mut sb, 0x20, BLOCKS_PER_GROUP as u32);
    put_u32(&mut sb, 0x24, BLOCKS_PER_GROUP as u32);
    put_u32(&mut sb, 0x28, geometry.inodes_per_group as u32);
    put_u32(&mut sb, 0x30, options.time as u32); // s_wtime
    put_u16(&mut sb, 0x36, 0xFFFF); // s_max_mnt_count: no check by count
    put_u16(&mut sb, 0x38, 0xEF53); // s_magic
    put_u16(&mut sb, 0x3A, 1); // s_state: clean
    put_u16(&mut sb, 0x3C, 1); // s_errors: continue
    put_u32(&mut sb, 0x40, options.time as u32); // s_lastcheck
    put_u32(&mut sb, 0x4C, 1); // s_rev_level: dynamic
    put_u32(&mut sb, 0x54, FIRST_INODE);
    put_u16(&mut sb, 0x58, INODE_SIZE as u16);
    let growable = geometry.reserved_descriptor_blocks > 0;
    let compat = COMPAT_EXT_ATTR
        | COMPAT_DIR_INDEX
        | if journal.is_some() { COMPAT_HAS_JOURNAL } else { 0 }
        | if growable { COMPAT_RESIZE_INODE } else { 0 };
    put_u32(&mut sb, 0x5C, compat);
    put_u32(&mut sb, 0x60, INCOMPAT);
    put_u32(&mut sb, 0x64, RO_COMPAT);
    put(&mut sb, 0x68, &options.uuid);
    put(&mut sb, 0x78, options.label.as_bytes());
    put_u16(&mut sb, 0xCE, geometry.reserved_descriptor_blocks as u16);
    put(&mut sb, 0xEC, &options.hash_seed);
    sb[0xFC] = 1; // s_def_hash_version: half MD4
    put_u16(&mut sb, 0xFE, DESCRIPTOR_SIZE as u16);
    put_u32(&mut sb, 0x100, MOUNT_OPTIONS);
    put_u32(&mut sb, 0x108, options.time as u32); // s_mkfs_time
    if let Some(journal) = journal {
        put_u32(&mut sb, 0xE0, super::emit::JOURNAL); // s_journal_inum
        sb[0xFD] = 1; // s_jnl_backup_type
        put(&mut sb, 0x10C, &journal.block);
        put_u32(&mut sb, 0x148, (journal.size >> 32) as u32);
        put_u32(&mut sb, 0x14C, journal.size as u32);
    }
    put_u32(&mut sb, 0x150, (geometry.blocks >> 32) as u32);
    put_u32(&mut sb, 0x158, (free_blocks >> 32) as u32);
    put_u16(&mut sb, 0x15C, 32); // s_min_extra_isize
    put_u16(&mut sb, 0x15E, 32); // s_want_extra_isize
    put_u32(&mut sb, 0x160, 1); // s_flags: signed directory hash
    sb[0x174] = geometry.log_groups_per_flex;
    sb[0x175] = 1; // s_checksum_type: crc32c
    seal(&mut sb);
    sb
}

/// The copy of the superblock that stands in `group`.
pub(super) fn backup(primary: &[u8; SUPERBLOCK], group: u64) -> [u8; SUPERBLOCK] {
    let mut sb = *primary;
    put_u16(&mut sb, 0x5A, group as u16); // s_block_group_nr
    seal(&mut sb);
    sb
}

fn seal(sb: &mut [u8; SUPERBLOCK]) {
    let sum = crc(!0, &sb[..SUPERBLOCK - 4]);
    put_u32(sb, SUPERBLOCK - 4, sum);
}

/// The group descriptors, and every bitmap that must be written with its block number.
pub(super) fn groups(geometry: &Geometry, options: &Options, usage: &[Usage]) -> (Vec<u8>, Vec<(u64, Vec<u8>)>) {
    let seed = filesystem_seed(&options.uuid);
    let mut descriptors = Vec::with_capacity(usage.len() * DESCRIPTOR_SIZE as usize);
    let mut bitmaps = Vec::new();
    for (group, used) in (0..).zip(usage) {
        let mut flags = INODE_ZEROED;
        let mut sums = [0; 2];
        let blocks = geometry.group_blocks(group);
        // The kernel makes the bitmap of a BLOCK_UNINIT group itself, knowing only the metadata of the group's own.
        // e2fsck wants the last group's bitmap written (its problem PR_0_BB_UNINIT_LAST), even where the group is whole.
        let last = group + 1 == usage.len() as u64;
        let whole = blocks == BLOCKS_PER_GROUP && !last;
        if used.blocks > geometry.fixed(group) || geometry.is_flex_first(group) || !whole {
            let bitmap = bitmap(used.blocks, blocks);
            sums[0] = crc(seed, &bitmap);
            bitmaps.push((geometry.block_bitmap(group), bitmap));
        } else {
            flags |= BLOCK_UNINIT;
        }
        if used.inodes > 0 {
            let bitmap = bitmap(used.inodes, geometry.inodes_per_group);
            sums[1] = crc(seed, &bitmap[..geometry.inodes_per_group as usize / 8]);
            bitmaps.push((geometry.inode_bitmap(group), bitmap));
        } else {
            flags |= INODE_UNINIT;
        }
        descriptors.extend_from_slice(&descriptor(geometry, group, used, flags, sums, seed));
    }
    (descriptors, bitmaps)
}

/// `struct ext4_group_desc`, 64 bytes.
fn descriptor(geometry: &Geometry, group: u64, used: &Usage, flags: u16, sums: [u32; 2], seed: u32) -> [u8; 64] {
    let mut desc = [0; DESCRIPTOR_SIZE as usize];
    let mut halves = |low: usize, high: usize, value: u64| {
        put_u32(&mut desc, low, value as u32);
        put_u32(&mut desc, high, (value >> 32) as u32);
    };
    halves(0x00, 0x20, geometry.block_bitmap(group));
    halves(0x04, 0x24, geometry.inode_bitmap(group));
    halves(0x08, 0x28, geometry.inode_table(group));
    let free_inodes = geometry.inodes_per_group - used.inodes;
    // Counts are at most 32768 and need no upper half.
    put_u16(&mut desc, 0x0C, (geometry.group_blocks(group) - used.blocks) as u16);
    put_u16(&mut desc, 0x0E, free_inodes as u16);
    put_u16(&mut desc, 0x10, used.directories as u16);
    put_u16(&mut desc, 0x12, flags);
    put_u16(&mut desc, 0x18, sums[0] as u16);
    put_u16(&mut desc, 0x1A, sums[1] as u16);
    put_u16(&mut desc, 0x1C, free_inodes as u16); // bg_itable_unused: inodes are used from the first
    put_u16(&mut desc, 0x38, (sums[0] >> 16) as u16);
    put_u16(&mut desc, 0x3A, (sums[1] >> 16) as u16);
    let sum = crc(crc(seed, &(group as u32).to_le_bytes()), &desc);
    put_u16(&mut desc, 0x1E, sum as u16);
    desc
}

/// One block with the first `used` bits set, and those past `len`, which stand for nothing.
fn bitmap(used: u64, len: u64) -> Vec<u8> {
    let mut words = vec![0u8; BLOCK as usize];
    for (index, word) in (0u64..).zip(words.chunks_exact_mut(8)) {
        let ones = |bits: u64| match bits.saturating_sub(index * 64) {
            0 => 0u64,
            bits @ 1..64 => (1 << bits) - 1,
            _ => !0,
        };
        put_u64(word, 0, ones(used) | !ones(len));
    }
    words
}
