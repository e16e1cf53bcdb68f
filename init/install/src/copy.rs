//! Copies the ranges of a block map on several threads, and reads them back: every byte is hashed on its way, both times.
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Error, Result, bail};
use kscratch_formats::bmap::{BlockMap, Mapped};
use kscratch_formats::bytes::ReadAt;
use sha2::{Digest as _, Sha256};

use crate::heldback::HeldBack;
use crate::onto::Step;
use crate::target::{Buffer, Target};

/// Bytes that are written at once, and the longest ranges that block maps made here have.
pub const PIECE: u64 = 1 << 20;
/// Requests that are on their way to the device at once: enough for a queue, few for a stick that has none.
const THREADS: usize = 4;

/// Who watches the work, from several threads.
pub trait Watch: Sync {
    /// A step begins, of so many bytes.
    fn begins(&self, step: Step, bytes: u64);
    /// Asked before every piece.
    ///
    /// # Errors
    /// The work is to end here; it fails with this.
    fn go_on(&self) -> Result<()>;
    /// So many more bytes of the step are done.
    fn done(&self, bytes: u64);
}

/// Writes all ranges, but for what is held back, of which zeros are written.
pub(crate) fn write(
    disk: &(impl ReadAt + Sync),
    target: &Target,
    map: &BlockMap,
    held: &HeldBack,
    watch: &impl Watch,
) -> Result<()> {
    each(map, watch, |range, offset, bytes, hash| {
        disk.read_at(offset, bytes).with_context(|| format!("reading the image at byte {offset}"))?;
        hash.update(&*bytes);
        held.take_out(offset, bytes);
        // Before the last piece of a range is written: what is not the image never is.
        is_last(range, offset, bytes, hash, "the image is not what its block map says")?;
        target.write(offset, bytes)
    })
}

/// Reads all ranges back; what is held back counts as if it were there.
pub(crate) fn read_back(target: &Target, map: &BlockMap, held: &HeldBack, watch: &impl Watch) -> Result<()> {
    each(map, watch, |range, offset, bytes, hash| {
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
    watch: &impl Watch,
    work: impl Fn(&Mapped, u64, &mut [u8], &mut Sha256) -> Result<()> + Sync,
) -> Result<()> {
    let (next, failed) = (AtomicUsize::new(0), Mutex::<Option<Error>>::default());
    let one = |range: &Mapped, buffer: &mut Buffer| -> Result<()> {
        let mut hash = Sha256::new();
        for offset in (range.bytes.start..range.bytes.end).step_by(PIECE as usize) {
            watch.go_on()?;
            let len = (range.bytes.end - offset).min(PIECE);
            work(range, offset, &mut buffer.bytes()[..len as usize], &mut hash)?;
            watch.done(len);
        }
        Ok(())
    };
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut buffer = Buffer::new(PIECE as usize);
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
