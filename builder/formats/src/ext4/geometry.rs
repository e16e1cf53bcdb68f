//! Turns a size and a number of inodes into block groups: where every group's fixed metadata stands, and which blocks are free.
use super::{BLOCK, Error, Options};

/// Blocks described by one bitmap block.
pub(super) const BLOCKS_PER_GROUP: u64 = 8 * BLOCK;
/// Bytes of an inode on disk.
pub(super) const INODE_SIZE: u64 = 256;
/// Bytes of a group descriptor with the 64bit feature.
pub(super) const DESCRIPTOR_SIZE: u64 = 64;
/// First inode that is not reserved: lost+found.
pub(super) const FIRST_INODE: u32 = 11;
/// Block numbers that one block of the resize inode holds.
const POINTERS_PER_BLOCK: u64 = BLOCK / 4;

/// A stretch of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub start: u64,
    pub blocks: u64,
}

/// The block groups of a filesystem.
#[derive(Debug, Clone)]
pub(super) struct Geometry {
    pub blocks: u64,
    pub groups: u64,
    pub inodes_per_group: u64,
    pub descriptor_blocks: u64,
    pub reserved_descriptor_blocks: u64,
    pub log_groups_per_flex: u8,
}

impl Geometry {
    /// Lays out groups for `used` inodes, root and lost+found among them, besides the reserved ones.
    pub(super) fn new(options: &Options, used: usize) -> Result<Self, Error> {
        let wrong = |reason: &str| Error::Options { label: options.label.clone(), reason: reason.to_owned() };
        let mut blocks = options.size / BLOCK;
        if blocks < 64 {
            return Err(wrong("it must be 256 KiB at least"));
        }
        if blocks > 1 << 31 {
            return Err(wrong("it must be 8 TiB at most"));
        }
        // Root is counted among both the used and the ten reserved.
        let needed = used as u64 + u64::from(FIRST_INODE) - 2;
        let wanted = options.inodes.map_or(options.size / 16384, u64::from).max(16);
        if wanted < needed {
            return Err(Error::NoInodes { label: options.label.clone(), needed, available: wanted });
        }
        loop {
            let geometry = Self::of_blocks(blocks, wanted, options.grow_to);
            if geometry.inodes_per_group > BLOCKS_PER_GROUP {
                return Err(wrong("more inodes are asked for than its block groups can hold"));
            }
            let last = geometry.groups - 1;
            // A last group that is little more than its own metadata is left out, as mke2fs does.
            if geometry.fixed(last) + 50 <= geometry.group_blocks(last) {
                return Ok(geometry);
            }
            if last == 0 {
                return Err(wrong("it is too small for its own inode tables"));
            }
            blocks = last * BLOCKS_PER_GROUP;
        }
    }

    fn of_blocks(blocks: u64, inodes: u64, grow_to: Option<u64>) -> Self {
        let groups = blocks.div_ceil(BLOCKS_PER_GROUP);
        let per_block = BLOCK / INODE_SIZE;
        let descriptor_blocks = |groups: u64| (groups * DESCRIPTOR_SIZE).div_ceil(BLOCK);
        let grown = grow_to.map_or(0, |bytes| descriptor_blocks(bytes.div_ceil(BLOCK * BLOCKS_PER_GROUP)));
        let mut geometry = Geometry {
            blocks,
            groups,
            inodes_per_group: inodes.div_ceil(groups).next_multiple_of(per_block),
            descriptor_blocks: descriptor_blocks(groups),
            reserved_descriptor_blocks: grown.saturating_sub(descriptor_blocks(groups)).min(POINTERS_PER_BLOCK),
            log_groups_per_flex: 4,
        };
        // The tables of a flex group stand in its first group and must leave most of that group to files.
        while geometry.log_groups_per_flex > 0
            && (2 + geometry.table_blocks()) << geometry.log_groups_per_flex > BLOCKS_PER_GROUP / 2
        {
            geometry.log_groups_per_flex -= 1;
        }
        geometry
    }

    /// Blocks of one group's inode table.
    pub(super) fn table_blocks(&self) -> u64 {
        self.inodes_per_group * INODE_SIZE / BLOCK
    }

    /// Whether the group begins with a copy of superblock and descriptors: sparse_super, groups 0, 1 and powers of 3, 5, 7.
    pub(super) fn has_super(&self, group: u64) -> bool {
        let power_of = |base: u64| {
            let mut power = base;
            while power < group {
                power *= base;
            }
            power == group
        };
        group <= 1 || power_of(3) || power_of(5) || power_of(7)
    }

    pub(super) fn group_start(&self, group: u64) -> u64 {
        group * BLOCKS_PER_GROUP
    }

    pub(super) fn group_blocks(&self, group: u64) -> u64 {
        (self.blocks - self.group_start(group)).min(BLOCKS_PER_GROUP)
    }

    fn super_blocks(&self, group: u64) -> u64 {
        if self.has_super(group) { 1 + self.descriptor_blocks + self.reserved_descriptor_blocks } else { 0 }
    }

    /// The first group of the flex group, which holds bitmaps and inode tables for all of it, and how many groups it serves.
    fn flex(&self, group: u64) -> (u64, u64) {
        let first = group >> self.log_groups_per_flex << self.log_groups_per_flex;
        (first, (self.groups - first).min(1 << self.log_groups_per_flex))
    }

    /// Whether bitmaps and inode tables of other groups stand here.
    pub(super) fn is_flex_first(&self, group: u64) -> bool {
        self.flex(group).0 == group
    }

    /// Blocks at the group's beginning that hold fixed metadata.
    pub(super) fn fixed(&self, group: u64) -> u64 {
        let (first, groups) = self.flex(group);
        self.super_blocks(group) + if first == group { groups * (2 + self.table_blocks()) } else { 0 }
    }

    pub(super) fn block_bitmap(&self, group: u64) -> u64 {
        let (first, _) = self.flex(group);
        self.group_start(first) + self.super_blocks(first) + (group - first)
    }

    pub(super) fn inode_bitmap(&self, group: u64) -> u64 {
        self.block_bitmap(group) + self.flex(group).1
    }

    pub(super) fn inode_table(&self, group: u64) -> u64 {
        let (first, groups) = self.flex(group);
        self.group_start(first) + self.super_blocks(first) + 2 * groups + (group - first) * self.table_blocks()
    }

    /// Byte offset of an inode.
    pub(super) fn inode_offset(&self, number: u32) -> u64 {
        let index = u64::from(number) - 1;
        self.inode_table(index / self.inodes_per_group) * BLOCK + index % self.inodes_per_group * INODE_SIZE
    }

    /// Blocks that no fixed metadata takes.
    pub(super) fn free_blocks(&self) -> u64 {
        (0..self.groups).map(|group| self.group_blocks(group) - self.fixed(group)).sum()
    }
}

/// Hands out blocks from the first to the last, so that what is used is a prefix of the free blocks and contents are contiguous.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    geometry: &'a Geometry,
    next: u64,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(geometry: &'a Geometry) -> Self {
        Cursor { geometry, next: 0 }
    }

    /// Takes `blocks` blocks; none if there are not as many left.
    pub(super) fn take(&mut self, blocks: u64) -> Option<Vec<Run>> {
        let mut runs: Vec<Run> = Vec::new();
        let mut left = blocks;
        while left > 0 {
            let group = self.next / BLOCKS_PER_GROUP;
            if group >= self.geometry.groups {
                return None;
            }
            let start = self.geometry.group_start(group);
            self.next = self.next.max(start + self.geometry.fixed(group));
            let here = left.min(start + self.geometry.group_blocks(group) - self.next);
            match runs.last_mut() {
                Some(run) if run.start + run.blocks == self.next => run.blocks += here,
                _ if here > 0 => runs.push(Run { start: self.next, blocks: here }),
                _ => {}
            }
            left -= here;
            self.next += here;
            if here == 0 {
                self.next = start + BLOCKS_PER_GROUP;
            }
        }
        Some(runs)
    }

    /// Blocks in use at the beginning of a group: its fixed metadata and what was handed out.
    pub(super) fn used(&self, group: u64) -> u64 {
        let start = self.geometry.group_start(group);
        let taken = self.next.saturating_sub(start).min(self.geometry.group_blocks(group));
        taken.max(self.geometry.fixed(group))
    }
}
