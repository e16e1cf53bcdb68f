//! Opens the log of a jbd2 journal: what its superblock says, its blocks by number, and the checksums that they carry.
//!
//! Field names and offsets follow "Journal (jbd2)" of the kernel's "ext4 Data Structures and Algorithms"; all integers are big-endian.
use super::checksum::crc;
use super::read::{ReadError, Run, damaged};
use crate::bytes::{ReadAt, put_u32};

/// `h_magic` of every block that is the log's own.
pub(super) const MAGIC: u32 = 0xC03B_3998;
/// `h_blocktype`.
pub(super) const DESCRIPTOR: u32 = 1;
pub(super) const COMMIT: u32 = 2;
pub(super) const SUPERBLOCK_V1: u32 = 3;
pub(super) const SUPERBLOCK_V2: u32 = 4;
pub(super) const REVOKE: u32 = 5;
/// `JBD2_FEATURE_COMPAT_CHECKSUM`: one checksum over all blocks of a transaction, in its commit block.
const COMPAT_CHECKSUM: u32 = 0x1;
/// `JBD2_FEATURE_INCOMPAT_*`.
const REVOKES: u32 = 0x1;
const WIDE: u32 = 0x2;
const ASYNC_COMMIT: u32 = 0x4;
const CSUM_V2: u32 = 0x8;
const CSUM_V3: u32 = 0x10;
const FAST_COMMIT: u32 = 0x20;
/// `JBD2_CRC32C_CHKSUM`, and `JBD2_CRC32_CHKSUM` of the older kind.
const CRC32C: u8 = 4;
const CRC32: u8 = 1;
/// Bytes of the commit block that a kernel writes; what stands behind them is zero.
const COMMIT_HEADER: usize = 60;

pub(super) fn u16_be(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn u32_be(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_be(bytes, at)) << 16 | u32::from(u16_be(bytes, at + 2))
}

pub(super) fn u64_be(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_be(bytes, at)) << 32 | u64::from(u32_be(bytes, at + 4))
}

/// Which checksums the blocks of a log have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sums {
    None,
    /// One for a transaction, in its commit block.
    Transactions,
    /// One in every block of the log; `wide`: all 32 bits of those in tags (CSUM_V3), not the lower 16 (CSUM_V2).
    Blocks {
        seed: u32,
        wide: bool,
    },
}

/// An opened log.
#[derive(Debug)]
pub(super) struct Log<'a, R> {
    disk: &'a R,
    runs: Vec<Run>,
    /// Bytes of a block.
    pub block: usize,
    /// Blocks of the filesystem.
    pub blocks: u64,
    /// First block of the log, and the one behind its last: the log goes on with the first there.
    first: u64,
    end: u64,
    /// The block that the first transaction not yet done away with begins at; none where there is none.
    pub start: Option<u64>,
    /// The sequence number of that transaction.
    pub sequence: u32,
    /// Block numbers have 64 bits.
    pub wide: bool,
    pub sums: Sums,
}

impl<'a, R: ReadAt> Log<'a, R> {
    /// Reads the journal's superblock. `runs` are the stretches of the journal's file, `blocks` those of the filesystem, `block` bytes each.
    pub(super) fn open(disk: &'a R, runs: Vec<Run>, block: u64, blocks: u64) -> Result<Self, ReadError> {
        if !apart(&runs, blocks) {
            return damaged("its journal is twice in one place, or behind the filesystem");
        }
        let mut log = Log {
            disk,
            runs,
            block: block as usize,
            blocks,
            first: 0,
            end: 1,
            start: None,
            sequence: 0,
            wide: false,
            sums: Sums::None,
        };
        let mut sb = log.read(0)?;
        sb.truncate(1024);
        let kind = u32_be(&sb, 4);
        if u32_be(&sb, 0) != MAGIC || !(SUPERBLOCK_V1..=SUPERBLOCK_V2).contains(&kind) {
            return damaged("its journal has no superblock");
        }
        let feature = |at| if kind == SUPERBLOCK_V2 { u32_be(&sb, at) } else { 0 };
        let (compat, incompat) = (feature(0x24), feature(0x28));
        if incompat & FAST_COMMIT != 0 {
            return damaged("its journal has fast commits, which are not read here");
        }
        let unknown = incompat & !(REVOKES | WIDE | ASYNC_COMMIT | CSUM_V2 | CSUM_V3);
        if unknown != 0 {
            return damaged(format!("its journal has features that are not read here ({unknown:#x})"));
        }
        log.wide = incompat & WIDE != 0;
        log.sums = match incompat & (CSUM_V2 | CSUM_V3) {
            0 if compat & COMPAT_CHECKSUM != 0 => Sums::Transactions,
            0 => Sums::None,
            // The seed: over `s_uuid`.
            version => Sums::Blocks { seed: crc(!0, &sb[0x30..0x40]), wide: version & CSUM_V3 != 0 },
        };
        let (end, first, start) = (u32_be(&sb, 0x10).into(), u32_be(&sb, 0x14).into(), u64::from(u32_be(&sb, 0x1C)));
        log.sequence = u32_be(&sb, 0x18);
        if u64::from(u32_be(&sb, 0x0C)) != block
            || first == 0
            || first >= end
            || log.runs.last().is_none_or(|(logical, _, blocks)| logical + blocks < end)
            || (start != 0 && !(first..end).contains(&start))
        {
            return damaged("the fields of its journal's superblock make no sense");
        }
        if let Sums::Blocks { .. } = log.sums {
            let said = u32_be(&sb, 0xFC);
            put_u32(&mut sb, 0xFC, 0);
            if sb[0x50] != CRC32C || crc(!0, &sb) != said {
                return damaged("the checksum of its journal's superblock is wrong");
            }
        }
        (log.first, log.end) = (first, end);
        log.start = (start != 0).then_some(start);
        Ok(log)
    }

    /// Number of blocks that transactions may stand in.
    pub(super) fn len(&self) -> u64 {
        self.end - self.first
    }

    /// The block `steps` behind `number`.
    pub(super) fn behind(&self, number: u64, steps: u64) -> u64 {
        self.first + (number - self.first + steps) % self.len()
    }

    /// Where on the disk, in blocks, the block `number` of the log stands.
    pub(super) fn place(&self, number: u64) -> Result<u64, ReadError> {
        let index = self.runs.partition_point(|(logical, ..)| *logical <= number);
        match index.checked_sub(1).and_then(|index| self.runs.get(index)) {
            Some((logical, start, blocks)) if number - logical < *blocks => Ok(start + (number - logical)),
            _ => damaged(format!("block {number} of its journal is nowhere")),
        }
    }

    pub(super) fn read(&self, number: u64) -> Result<Vec<u8>, ReadError> {
        let mut bytes = vec![0; self.block];
        self.disk.read_at(self.place(number)?.saturating_mul(self.block as u64), &mut bytes)?;
        Ok(bytes)
    }

    /// Bytes at a block's end that are its checksum (`struct jbd2_journal_block_tail`).
    pub(super) fn tail(&self) -> usize {
        if matches!(self.sums, Sums::Blocks { .. }) { 4 } else { 0 }
    }

    /// Whether the checksum at the end of a descriptor or revoke block is right.
    pub(super) fn is_sound(&self, bytes: &[u8]) -> bool {
        let Sums::Blocks { seed, .. } = self.sums else { return true };
        let (body, tail) = bytes.split_at(bytes.len() - 4);
        crc(crc(seed, body), &[0; 4]) == u32_be(tail, 0)
    }

    /// Whether the checksum in a commit block is right; `all` is that of [`transaction_sum`] over the transaction's blocks.
    pub(super) fn is_sound_commit(&self, bytes: &[u8], all: u32) -> bool {
        let (kind, size, said) = (bytes[12], bytes[13], u32_be(bytes, 16));
        match self.sums {
            Sums::None => true,
            Sums::Transactions => (kind, size, said) == (CRC32, 4, all) || (kind, size, said) == (0, 0, 0),
            Sums::Blocks { seed, .. } => {
                let mut bytes = bytes.to_vec();
                put_u32(&mut bytes, 16, 0);
                let whole = crc(seed, &bytes);
                // A power cut may leave the block's first sector new and the others old.
                bytes[COMMIT_HEADER..].fill(0);
                whole == said || crc(seed, &bytes) == said
            }
        }
    }

    /// Whether the copy `bytes` of a block is what its tag says; `said` is the tag's checksum.
    pub(super) fn is_sound_copy(&self, bytes: &[u8], sequence: u32, said: u32) -> bool {
        match self.sums {
            Sums::None | Sums::Transactions => true,
            Sums::Blocks { seed, wide } => {
                let sum = crc(crc(seed, &sequence.to_be_bytes()), bytes);
                said == if wide { sum } else { sum & 0xFFFF }
            }
        }
    }
}

/// Whether no block stands in two stretches: a walk through the log is no longer than the disk.
fn apart(runs: &[Run], blocks: u64) -> bool {
    let mut spans: Vec<(u64, u64)> = runs.iter().map(|(_, start, len)| (*start, *start + *len)).collect();
    spans.sort_unstable();
    spans.windows(2).all(|pair| pair[0].1 <= pair[1].0) && spans.last().is_none_or(|(_, end)| *end <= blocks)
}

/// Goes on with the checksum over a transaction (`crc32_be` of the kernel, not inverted at either end).
pub(super) fn transaction_sum(sum: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(sum, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte) << 24, |sum, _| sum << 1 ^ if sum >> 31 == 1 { 0x04C1_1DB7 } else { 0 })
    })
}

#[cfg(test)]
mod tests {
    use super::transaction_sum;

    #[test]
    fn the_older_checksum_is_the_one_of_the_catalogue() {
        // CRC-32/MPEG-2: its check value is over these digits.
        assert_eq!(transaction_sum(!0, b"123456789"), 0x0376_E6E7);
    }
}
