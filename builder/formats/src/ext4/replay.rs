//! Turns a log with transactions in it into the places of the newest copies of blocks, as a mount would put them: nothing is written.
//!
//! The rules are those of the kernel's recovery (fs/jbd2/recovery.c): a transaction counts once its commit block is there, a block that
//! a later or the same transaction revokes is left alone, and what has a wrong checksum inside a finished transaction is damage.
use std::collections::BTreeMap;

use super::log::{COMMIT, DESCRIPTOR, Log, MAGIC, REVOKE, Sums, transaction_sum, u16_be, u32_be, u64_be};
use super::overlaid::Moved;
use super::read::{ReadError, damaged};
use crate::bytes::ReadAt;

/// Bytes of `journal_header_t`, and with `r_count` of a revoke block's.
const HEADER: usize = 12;
const REVOKE_HEADER: usize = 16;
/// `t_flags`: the block began with the log's magic number; the UUID of the tag before holds on; no tag behind this one.
const ESCAPED: u16 = 0x1;
const SAME_UUID: u16 = 0x2;
const LAST: u16 = 0x8;

/// What a replay found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Replayed {
    /// Finished transactions in the journal.
    pub transactions: u64,
    /// Blocks of the filesystem of which the journal holds the newest copy.
    pub blocks: u64,
}

/// A copy of a block in the log.
#[derive(Debug, Clone, Copy)]
struct Copied {
    /// The block of the filesystem.
    block: u64,
    /// The block of the log.
    number: u64,
    escaped: bool,
    sum: u32,
    /// Which transaction it belongs to, counted from the log's start.
    transaction: u64,
}

/// What finished transactions say, in their order.
#[derive(Debug, Default)]
struct Found {
    copies: Vec<Copied>,
    /// Revoked blocks, each with the last transaction that does it.
    revoked: BTreeMap<u64, u64>,
    transactions: u64,
}

/// Reads all finished transactions.
///
/// # Errors
/// The log cannot be read, or a finished transaction is damaged.
pub(super) fn replay<R: ReadAt>(log: &Log<'_, R>) -> Result<(Replayed, BTreeMap<u64, Moved>), ReadError> {
    let found = scan(log)?;
    let mut moved = BTreeMap::new();
    for copy in &found.copies {
        if found.revoked.get(&copy.block).is_some_and(|last| *last >= copy.transaction) {
            continue;
        }
        let sequence = log.sequence.wrapping_add(copy.transaction as u32);
        if !log.is_sound_copy(&log.read(copy.number)?, sequence, copy.sum) {
            return damaged(format!("the checksum of block {} in its journal is wrong", copy.block));
        }
        if copy.block >= log.blocks {
            return damaged(format!("its journal has a block {} that the filesystem has not", copy.block));
        }
        let begins = copy.escaped.then_some(MAGIC.to_be_bytes());
        moved.insert(copy.block, Moved { at: log.place(copy.number)?, begins });
    }
    Ok((Replayed { transactions: found.transactions, blocks: moved.len() as u64 }, moved))
}

/// The transaction that is being read.
struct Open {
    copies: Vec<Copied>,
    revoked: Vec<u64>,
    /// A block of the log itself had a wrong checksum.
    unsound: bool,
    /// See [`transaction_sum`].
    sum: u32,
}

impl Open {
    fn new() -> Self {
        Open { copies: Vec::new(), revoked: Vec::new(), unsound: false, sum: !0 }
    }
}

/// Goes from the log's start to where it was cut.
fn scan<R: ReadAt>(log: &Log<'_, R>) -> Result<Found, ReadError> {
    let mut found = Found::default();
    let Some(start) = log.start else { return Ok(found) };
    let mut open = Open::new();
    let mut last_time = 0;
    // Blocks that were gone by; a log that has no end other than its length ends there.
    let mut done = 0;
    while done < log.len() {
        let sequence = log.sequence.wrapping_add(found.transactions as u32);
        let bytes = log.read(log.behind(start, done))?;
        if u32_be(&bytes, 0) != MAGIC || u32_be(&bytes, 8) != sequence {
            break;
        }
        done += 1;
        match u32_be(&bytes, 4) {
            DESCRIPTOR => {
                open.unsound |= !log.is_sound(&bytes);
                let from = open.copies.len();
                tags(log, &bytes, &mut open.copies);
                if done + (open.copies.len() - from) as u64 > log.len() {
                    break;
                }
                if log.sums == Sums::Transactions {
                    open.sum = transaction_sum(open.sum, &bytes);
                }
                for copy in &mut open.copies[from..] {
                    (copy.number, copy.transaction) = (log.behind(start, done), found.transactions);
                    done += 1;
                    if log.sums == Sums::Transactions {
                        open.sum = transaction_sum(open.sum, &log.read(copy.number)?);
                    }
                }
            }
            REVOKE => {
                open.unsound |= !log.is_sound(&bytes);
                if !revokes(log, &bytes, &mut open.revoked) {
                    open.unsound = true;
                }
            }
            COMMIT => {
                let time = u64_be(&bytes, 48);
                let sound = log.is_sound_commit(&bytes, open.sum);
                if open.unsound || !sound {
                    // Blocks of an earlier filesystem, which began to count at the same number, are older than what was read.
                    let stale = time < last_time;
                    // A commit block that was being written when the power went is the last.
                    let cut = !open.unsound && !goes_on(log, log.behind(start, done), sequence.wrapping_add(1))?;
                    if stale || cut {
                        break;
                    }
                    return damaged(format!("the checksum of transaction {sequence} in its journal is wrong"));
                }
                last_time = time;
                let Open { copies, revoked, .. } = std::mem::replace(&mut open, Open::new());
                found.copies.extend(copies);
                found.revoked.extend(revoked.into_iter().map(|block| (block, found.transactions)));
                found.transactions += 1;
            }
            _ => break,
        }
    }
    Ok(found)
}

/// Whether the transaction `sequence` begins at the block `number` of the log.
fn goes_on<R: ReadAt>(log: &Log<'_, R>, number: u64, sequence: u32) -> Result<bool, ReadError> {
    let bytes = log.read(number)?;
    Ok(u32_be(&bytes, 0) == MAGIC && u32_be(&bytes, 8) == sequence)
}

/// Adds the tags of a descriptor block; which blocks of the log they stand for is the caller's to say.
fn tags<R: ReadAt>(log: &Log<'_, R>, bytes: &[u8], copies: &mut Vec<Copied>) {
    // `journal_block_tag3_t`, or `journal_block_tag_t` without the fields that the features do not ask for.
    let high = if log.wide { 4 } else { 0 };
    let (size, tag3) = match log.sums {
        Sums::Blocks { wide: true, .. } => (16, true),
        Sums::Blocks { wide: false, .. } => (10 + high, false),
        Sums::None | Sums::Transactions => (8 + high, false),
    };
    let end = bytes.len() - log.tail();
    let mut at = HEADER;
    while at + size <= end {
        let flags = u16_be(bytes, at + 6);
        let upper = if log.wide { u64::from(u32_be(bytes, at + 8)) << 32 } else { 0 };
        copies.push(Copied {
            block: u64::from(u32_be(bytes, at)) | upper,
            number: 0,
            escaped: flags & ESCAPED != 0,
            sum: if tag3 { u32_be(bytes, at + 12) } else { u16_be(bytes, at + 4).into() },
            transaction: 0,
        });
        at += size + if flags & SAME_UUID == 0 { 16 } else { 0 };
        if flags & LAST != 0 {
            break;
        }
    }
}

/// Adds the records of a revoke block; false where its length makes no sense.
fn revokes<R: ReadAt>(log: &Log<'_, R>, bytes: &[u8], revoked: &mut Vec<u64>) -> bool {
    // `r_count`: bytes in use, the header included.
    let count = u32_be(bytes, HEADER) as usize;
    let Some(records) = bytes[..bytes.len() - log.tail()].get(REVOKE_HEADER..count) else { return false };
    if log.wide {
        revoked.extend(records.chunks_exact(8).map(|record| u64_be(record, 0)));
    } else {
        revoked.extend(records.chunks_exact(4).map(|record| u64::from(u32_be(record, 0))));
    }
    true
}
