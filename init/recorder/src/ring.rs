//! All blocks of a partition become the boots that wrote them, and the place of the next block.
use std::collections::BTreeMap;

use crate::block::{BLOCK, Block, BootId, Filling};
use crate::entry::Entry;

/// What a partition holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ring {
    /// Boots, the oldest first.
    pub boots: Vec<Boot>,
    /// The sequence number of the next block.
    next: u64,
    /// Blocks of the partition.
    blocks: u64,
}

/// What is left of one boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// Its name.
    pub id: BootId,
    /// What was said, in order.
    pub entries: Vec<Entry>,
    /// Whether something before the first entry was overwritten by later boots, or is damaged.
    pub cut: bool,
    /// Blocks between the first and the last one that cannot be read.
    pub lost: u64,
    /// Blocks behind its last one that cannot be read: its own, or the next boot's first ones.
    pub lost_after: u64,
}

/// Makes the blocks of one boot.
#[derive(Debug)]
pub struct Writer {
    boot: BootId,
    next: u64,
    blocks: u64,
    filling: Filling,
}

/// Where a block goes, in bytes from the partition's start, and the block.
pub type Placed = (u64, Box<[u8; BLOCK]>);

impl Ring {
    /// Bytes that boots have written since the partition was new, those of blocks that were overwritten too.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.next.saturating_mul(BLOCK as u64)
    }

    /// Reads a partition, all of it. Whatever its bytes are, what is sound among them is found.
    #[must_use]
    pub fn read(partition: &[u8]) -> Ring {
        let blocks = (partition.len() / BLOCK) as u64;
        let sound = partition.chunks_exact(BLOCK).zip(0..).filter_map(|(bytes, place)| {
            // One that stands elsewhere than its number says is of another partition, which was copied here.
            Block::parse(bytes).filter(|block| block.sequence % blocks == place)
        });
        let found: BTreeMap<u64, Block> = sound.map(|block| (block.sequence, block)).collect();
        let next = found.last_key_value().map_or(0, |(sequence, _)| sequence.saturating_add(1));
        let mut boots: Vec<Boot> = Vec::new();
        let mut before = None;
        for (sequence, block) in found {
            let gap = before.map_or(0, |before: u64| sequence - before - 1);
            before = Some(sequence);
            match boots.last_mut().filter(|boot| boot.id == block.boot) {
                Some(boot) => {
                    boot.lost += gap;
                    boot.entries.extend(block.entries);
                }
                None => {
                    if let Some(last) = boots.last_mut() {
                        last.lost_after = gap;
                    }
                    let cut = !matches!(block.entries.first(), Some(Entry { what: crate::What::Begin(_), .. }));
                    boots.push(Boot { id: block.boot, entries: block.entries, cut, lost: 0, lost_after: 0 });
                }
            }
        }
        Ring { boots, next, blocks }
    }

    /// A writer for a boot that comes after all of these; none where the partition has no room for a block.
    #[must_use]
    pub fn writer(&self, boot: BootId) -> Option<Writer> {
        (self.blocks > 0).then(|| Writer { boot, next: self.next, blocks: self.blocks, filling: Filling::default() })
    }
}

impl Writer {
    /// Takes an entry. Where there is no room for it beside those that wait, they are given as a block to be written.
    #[must_use]
    pub fn push(&mut self, entry: &Entry) -> Option<Placed> {
        if self.filling.take(entry) {
            return None;
        }
        let full = self.flush();
        self.filling.take(entry);
        full
    }

    /// Those that wait, as a block to be written, if there are any.
    #[must_use]
    pub fn flush(&mut self) -> Option<Placed> {
        if self.filling.is_empty() {
            return None;
        }
        let sequence = self.next;
        self.next = self.next.wrapping_add(1);
        Some((sequence % self.blocks * BLOCK as u64, self.filling.seal(sequence, self.boot)))
    }
}
