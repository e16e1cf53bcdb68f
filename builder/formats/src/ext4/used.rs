//! Turns the block bitmaps of a filesystem into the ranges of bytes that mean something, zeros among them.
use std::ops::Range;

use super::read::{ReadError, Reader, damaged};
use crate::bytes::{ReadAt, u16_at, u32_at};

/// `bg_flags`: the block bitmap is not made yet.
const BLOCK_UNINIT: u16 = 0x2;
/// `s_feature_ro_compat`: only some groups have copies of the superblock.
const SPARSE_SUPER: u32 = 0x1;
/// `s_feature_compat`: two groups named in the superblock have them.
const SPARSE_SUPER2: u32 = 0x200;
/// `s_feature_incompat`: descriptors do not stand together.
const META_BG: u32 = 0x10;

/// More groups are taken for damage: those of 128 TiB in blocks of 4 KiB.
const MAX_GROUPS: u64 = 1 << 20;

/// What a group descriptor says.
struct Group {
    block_bitmap: u64,
    inode_bitmap: u64,
    inode_table: u64,
    flags: u16,
}

impl<R: ReadAt> Reader<R> {
    /// The bytes of all blocks that are in use, metadata included, in order: a copy of them alone is the same filesystem, whatever stands in
    /// the others.
    ///
    /// # Errors
    /// A descriptor or bitmap cannot be read or makes no sense; a layout that is not read here.
    pub fn used_ranges(&self) -> Result<Vec<Range<u64>>, ReadError> {
        let mut sb = [0; 1024];
        self.disk.read_at(1024, &mut sb)?;
        let per_group = u64::from(u32_at(&sb, 0x20));
        if per_group == 0 || per_group > 8 * self.block || self.first_block > 1 {
            return damaged("its groups of blocks make no sense");
        }
        if u32_at(&sb, 0x60) & META_BG != 0 || u32_at(&sb, 0x5C) & SPARSE_SUPER2 != 0 {
            return damaged("copies of its superblock do not stand where they are looked for (meta_bg, sparse_super2)");
        }
        let groups = self.blocks.saturating_sub(self.first_block).div_ceil(per_group);
        if groups > MAX_GROUPS {
            return damaged(format!("it has {groups} groups of blocks"));
        }
        let copies = 1 + (groups * self.descriptor).div_ceil(self.block) + u64::from(u16_at(&sb, 0xCE));
        let sparse = u32_at(&sb, 0x64) & SPARSE_SUPER != 0;
        let table = (u64::from(self.inodes_per_group) * self.inode_size).div_ceil(self.block);
        // What stands before the first block of blocks of 1 KiB is the boot sector.
        let mut used: Vec<Range<u64>> = std::iter::once(0..self.first_block + 1).collect();
        let mut bitmap = vec![0; self.block as usize];
        for number in 0..groups {
            let (start, group) = (self.first_block + number * per_group, self.group(number)?);
            let len = per_group.min(self.blocks - start);
            if !sparse || has_copy(number) {
                used.push(start..start + copies.min(len));
            }
            used.extend([group.block_bitmap, group.inode_bitmap].map(|block| block..block + 1));
            used.push(group.inode_table..group.inode_table + table);
            if group.flags & BLOCK_UNINIT != 0 {
                continue;
            }
            self.disk.read_at(group.block_bitmap * self.block, &mut bitmap)?;
            let taken = (0..len).filter(|block| bitmap[(block / 8) as usize] & 1 << (block % 8) != 0);
            for block in taken {
                match used.last_mut() {
                    Some(last) if last.end == start + block => last.end += 1,
                    _ => used.push(start + block..start + block + 1),
                }
            }
        }
        if used.iter().any(|run| run.end > self.blocks) {
            return damaged("a block in use lies behind the filesystem");
        }
        used.sort_by_key(|run| (run.start, run.end));
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for run in used {
            let (start, end) = (run.start * self.block, run.end * self.block);
            match ranges.last_mut() {
                Some(last) if last.end >= start => last.end = last.end.max(end),
                _ => ranges.push(start..end),
            }
        }
        Ok(ranges)
    }

    fn group(&self, number: u64) -> Result<Group, ReadError> {
        let mut bytes = [0; 64];
        let len = self.descriptor.min(64) as usize;
        let at = (self.first_block + 1) * self.block + number * self.descriptor;
        self.disk.read_at(at, &mut bytes[..len])?;
        let place = |low: usize| {
            let block = u64::from(u32_at(&bytes, low)) | u64::from(u32_at(&bytes, low + 0x20)) << 32;
            if block < self.blocks { Ok(block) } else { damaged("the tables of a group lie behind the filesystem") }
        };
        Ok(Group {
            block_bitmap: place(0x0)?,
            inode_bitmap: place(0x4)?,
            inode_table: place(0x8)?,
            flags: u16_at(&bytes, 0x12),
        })
    }
}

/// Groups 0 and 1, and powers of 3, 5 and 7.
fn has_copy(group: u64) -> bool {
    let power_of = |base: u64| {
        (0..).map(|exponent| base.pow(exponent)).take_while(|power| *power <= group).any(|power| power == group)
    };
    group <= 1 || power_of(3) || power_of(5) || power_of(7)
}
