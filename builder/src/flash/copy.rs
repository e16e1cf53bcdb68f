//! Copies the ranges of a block map on several threads, and reads them back: every byte is hashed on its way, both times.
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Error, Result, bail};
use kscratch_formats::bmap::{BlockMap, Mapped};
use kscratch_formats::bytes::ReadAt;
use sha2::{Digest as _, Sha256};

use super::heldback::HeldBack;
use super::interrupt::Interrupt;
use super::target::{Buffer, Target};
use crate::console::{Console, Progress};
use crate::digest::CHUNK;

/// Requests that are on their way to the device at once: enough for a queue, few for a stick that has none.
const THREADS: usize = 4;

/// Writes all ranges, but for what is held back, of which zeros are written.
pub(super) fn write(
    disk: &(impl ReadAt + Sync),
    target: &Target,
    map: &BlockMap,
    held: &HeldBack,
    interrupt: &Interrupt,
    console: &Console,
) -> Result<()> {
    each(map, interrupt, &console.bytes("writing", map.mapped()).into(), |range, offset, bytes, hash| {
        disk.read_at(offset, bytes).with_context(|| format!("reading the image at byte {offset}"))?;
        hash.update(&*bytes);
        held.take_out(offset, bytes);
        target.write(offset, bytes)?;
        is_last(range, offset, bytes, hash, "the image is not what its block map says")
    })
}

/// Reads all ranges back; what is held back counts as if it were there.
pub(super) fn read_back(
    target: &Target,
    map: &BlockMap,
    held: &HeldBack,
    interrupt: &Interrupt,
    console: &Console,
) -> Result<()> {
    each(map, interrupt, &console.bytes("reading back", map.mapped()).into(), |range, offset, bytes, hash| {
        target.read(offset, bytes)?;
        held.put_in(offset, bytes);
        hash.update(&*bytes);
        is_last(range, offset, bytes, hash, "the device does not give back what was written to it")
    })
}

/// Compares the digest behind a range's last piece.
fn is_last(range: &Mapped, offset: u64, bytes: &[u8], hash: &mut Sha256, wrong: &str) -> Result<()> {
    if offset + bytes.len() as u64 == range.bytes.end && hash.clone().finalize()[..] != range.sha256 {
        bail!("{wrong}: the bytes {} to {} have another digest", range.bytes.start, range.bytes.end);
    }
    Ok(())
}

/// Calls `work` for the pieces of every range in order; ranges are worked on by several threads, and the first error ends all.
fn each(
    map: &BlockMap,
    interrupt: &Interrupt,
    progress: &Mutex<Progress>,
    work: impl Fn(&Mapped, u64, &mut [u8], &mut Sha256) -> Result<()> + Sync,
) -> Result<()> {
    let (next, failed) = (AtomicUsize::new(0), Mutex::<Option<Error>>::default());
    let one = |range: &Mapped, buffer: &mut Buffer| -> Result<()> {
        let mut hash = Sha256::new();
        for offset in (range.bytes.start..range.bytes.end).step_by(CHUNK as usize) {
            interrupt.check()?;
            let len = (range.bytes.end - offset).min(CHUNK);
            work(range, offset, &mut buffer.bytes()[..len as usize], &mut hash)?;
            progress.lock().unwrap_or_else(PoisonError::into_inner).add(len);
        }
        Ok(())
    };
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut buffer = Buffer::new(CHUNK as usize);
                while let Some(range) = map.ranges.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = one(range, &mut buffer) {
                        next.store(map.ranges.len(), Ordering::Relaxed);
                        failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}
