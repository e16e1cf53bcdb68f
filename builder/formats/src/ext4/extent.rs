//! Turns runs of blocks into an inode's extent tree: its 60 bytes in the inode and the blocks of nodes below.
use super::BLOCK;
use super::checksum::crc;
use super::geometry::Run;
use crate::bytes::{put_u16, put_u32};

const MAGIC: u16 = 0xF30A;
/// Entries of the root in `i_block`: (60 - 12) / 12.
const IN_INODE: usize = 4;
/// Entries of a node in a block: header and entries are 12 bytes each, the checksum takes the last 4.
const IN_BLOCK: usize = 340;
/// Longest extent that counts as initialised.
const MAX_BLOCKS: u64 = 32768;

/// An entry of a node: the first logical block under it, and what it points to.
#[derive(Debug, Clone, Copy)]
enum Slot {
    Leaf { logical: u32, run: Run },
    Index { logical: u32, block: u64 },
}

/// Node blocks that `runs` need; the caller allocates as many.
pub(super) fn node_blocks(runs: &[Run]) -> u64 {
    let mut entries = runs.iter().map(|run| run.blocks.div_ceil(MAX_BLOCKS) as usize).sum::<usize>();
    let mut blocks = 0;
    while entries > IN_INODE {
        entries = entries.div_ceil(IN_BLOCK);
        blocks += entries as u64;
    }
    blocks
}

/// The `i_block` field, and each of `nodes` with its bytes. `seed` is the inode's checksum seed.
pub(super) fn encode(runs: &[Run], nodes: &[u64], seed: u32) -> ([u8; 60], Vec<(u64, Vec<u8>)>) {
    let mut slots = leaves(runs);
    let mut depth = 0;
    let mut written = Vec::new();
    let mut free = nodes.iter().copied();
    while slots.len() > IN_INODE {
        let mut above = Vec::new();
        for (entries, block) in slots.chunks(IN_BLOCK).zip(free.by_ref()) {
            let mut node = vec![0; BLOCK as usize];
            put_node(&mut node, entries, IN_BLOCK, depth);
            let tail = 12 * (1 + IN_BLOCK);
            let sum = crc(seed, &node[..tail]);
            put_u32(&mut node, tail, sum);
            above.push(Slot::Index { logical: entries[0].logical(), block });
            written.push((block, node));
        }
        slots = above;
        depth += 1;
    }
    let mut root = [0; 60];
    put_node(&mut root, &slots, IN_INODE, depth);
    (root, written)
}

fn leaves(runs: &[Run]) -> Vec<Slot> {
    let mut slots = Vec::new();
    let mut logical = 0;
    for run in runs {
        let mut done = 0;
        while done < run.blocks {
            let blocks = (run.blocks - done).min(MAX_BLOCKS);
            slots.push(Slot::Leaf { logical: logical as u32, run: Run { start: run.start + done, blocks } });
            done += blocks;
            logical += blocks;
        }
    }
    slots
}

impl Slot {
    fn logical(&self) -> u32 {
        match self {
            Slot::Leaf { logical, .. } | Slot::Index { logical, .. } => *logical,
        }
    }
}

/// `struct ext4_extent_header`, then `ext4_extent` or `ext4_extent_idx`.
fn put_node(node: &mut [u8], slots: &[Slot], max: usize, depth: u16) {
    put_u16(node, 0, MAGIC);
    put_u16(node, 2, slots.len() as u16);
    put_u16(node, 4, max as u16);
    put_u16(node, 6, depth);
    for (index, slot) in slots.iter().enumerate() {
        let at = 12 * (1 + index);
        put_u32(node, at, slot.logical());
        match slot {
            Slot::Leaf { run, .. } => {
                put_u16(node, at + 4, run.blocks as u16);
                put_u16(node, at + 6, (run.start >> 32) as u16);
                put_u32(node, at + 8, run.start as u32);
            }
            Slot::Index { block, .. } => {
                put_u32(node, at + 4, *block as u32);
                put_u16(node, at + 8, (*block >> 32) as u16);
            }
        }
    }
}
