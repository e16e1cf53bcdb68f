//! Turns a root as it was fetched and proved, in Zstandard frames, into the file of the filesystem, on all processors and without its zeros.
use std::fs::File;
use std::num::NonZero;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::fs::{FallocateFlags, fallocate};
use zstd::bulk::Decompressor;

use crate::log;
use crate::seekable::{self, Frame};

/// Bytes that are written or left out as one: what memory is given out in.
const PAGE: usize = 4096;
const ZEROS: [u8; PAGE] = [0; PAGE];
/// More threads than this gain nothing.
const THREADS: usize = 8;

/// Unpacks all of `packed` into `whole`, which is empty. What is unpacked of `packed` gives its memory back at once, so that both together take little
/// more than the larger one.
///
/// # Errors
/// The file is no such one, or memory is too little.
pub fn all(packed: &File, whole: &File) -> Result<()> {
    let frames = seekable::read(&mut &*packed).context("reading the fetched root")?;
    let len = frames.last().map_or(0, |frame| frame.plain_at + u64::from(frame.plain));
    whole.set_len(len).context("making the root's file")?;
    let next = AtomicUsize::new(0);
    let count = thread::available_parallelism().map_or(1, NonZero::get).min(THREADS);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(|| some(packed, whole, &frames, &next))).collect();
        let ended = |thread: thread::ScopedJoinHandle<'_, Result<()>>| {
            thread.join().unwrap_or_else(|_| Err(anyhow!("a thread has a fault; the line above says where")))
        };
        threads.into_iter().try_for_each(ended)
    })
    .context("unpacking the root")
}

/// Unpacks one frame after the other that nobody else is at.
fn some(packed: &File, whole: &File, frames: &[Frame], next: &AtomicUsize) -> Result<()> {
    let mut decoder = Decompressor::new().context("beginning to unpack")?;
    let (mut input, mut output) = (Vec::new(), Vec::new());
    // The last frame that was all zeros: most of a root's free space is frames like it.
    let mut zeros = Vec::new();
    while let Some(frame) = frames.get(next.fetch_add(1, Ordering::Relaxed)) {
        input.resize(frame.packed as usize, 0);
        packed.read_exact_at(&mut input, frame.at).context("reading what was fetched")?;
        if input == zeros {
            continue;
        }
        output.resize(frame.plain as usize, 0);
        let len = decoder.decompress_to_buffer(&input, output.as_mut_slice());
        let len = len.with_context(|| format!("the frame at byte {}", frame.at))?;
        ensure!(len == output.len(), "the frame at byte {} holds {len} bytes and not {}", frame.at, frame.plain);
        if !write(whole, &output, frame.plain_at)? && frame.plain_at % PAGE as u64 == 0 {
            zeros.clone_from(&input);
        }
        give_back(packed, frame);
    }
    Ok(())
}

/// Writes what is not zeros; says whether there was any.
fn write(whole: &File, bytes: &[u8], at: u64) -> Result<bool> {
    let runs = runs(bytes);
    for run in &runs {
        let place = at + run.start as u64;
        let some = bytes.get(run.clone()).unwrap_or_default();
        whole.write_all_at(some, place).with_context(|| format!("writing byte {place} of the root"))?;
    }
    Ok(!runs.is_empty())
}

/// Where pages stand that are not all zeros, neighbours as one.
fn runs(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (number, page) in bytes.chunks(PAGE).enumerate().filter(|(_, page)| !ZEROS.starts_with(page)) {
        let (start, end) = (number * PAGE, number * PAGE + page.len());
        match runs.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => runs.push(start..end),
        }
    }
    runs
}

/// A frame that cannot be given back costs its memory until the end, and no more.
fn give_back(packed: &File, frame: &Frame) {
    let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    if let Err(error) = fallocate(packed, how, frame.at, u64::from(frame.packed)) {
        log::debug(format_args!("giving back memory of the fetched root: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::{PAGE, all, runs};
    use crate::seekable::tests::file;

    fn frame(bytes: &[u8]) -> (Vec<u8>, u32) {
        (zstd::bulk::compress(bytes, 3).unwrap(), u32::try_from(bytes.len()).unwrap())
    }

    fn packed(frames: &[(Vec<u8>, u32)]) -> File {
        let mut packed = tempfile::tempfile().unwrap();
        packed.write_all(&file(frames, false)).unwrap();
        packed
    }

    #[test]
    fn frames_become_the_file_without_their_zeros() {
        let block = 16 * PAGE;
        let mut first = vec![0; block];
        first[5 * PAGE..7 * PAGE].fill(7);
        let parts = [first, vec![0; block], vec![0; block], vec![9; block], b"the end".to_vec()];
        let frames: Vec<_> = parts.iter().map(|part| frame(part)).collect();
        let (packed, mut whole) = (packed(&frames), tempfile::tempfile().unwrap());
        all(&packed, &whole).unwrap();
        let mut bytes = Vec::new();
        whole.rewind().unwrap();
        whole.read_to_end(&mut bytes).unwrap();
        assert!(bytes == parts.concat());
        // Nineteen pages have something in them.
        assert_eq!(whole.metadata().unwrap().blocks() * 512, 19 * PAGE as u64);
    }

    #[test]
    fn what_is_no_such_file_is_told() {
        let whole = tempfile::tempfile().unwrap();
        let error = |packed: &File| format!("{:#}", all(packed, &whole).unwrap_err());
        let mut no = tempfile::tempfile().unwrap();
        no.write_all(b"root").unwrap();
        assert_eq!(error(&no), "reading the fetched root: it does not end with a seek table");
        let damaged = packed(&[frame(b"one"), frame(b"two")]);
        damaged.write_all_at(&[0; 4], 0).unwrap();
        assert!(error(&damaged).starts_with("unpacking the root: the frame at byte 0: "), "{}", error(&damaged));
        let short = packed(&[(frame(b"one").0, 9)]);
        assert_eq!(error(&short), "unpacking the root: the frame at byte 0 holds 3 bytes and not 9");
    }

    #[test]
    fn runs_are_whole_pages() {
        let found =
            |bytes: &[u8]| -> Vec<(usize, usize)> { runs(bytes).iter().map(|run| (run.start, run.end)).collect() };
        let mut bytes = vec![0; 3 * PAGE + 5];
        assert!(found(&bytes).is_empty() && found(&[]).is_empty());
        bytes[PAGE] = 1;
        assert_eq!(found(&bytes), [(PAGE, 2 * PAGE)]);
        bytes[3 * PAGE + 4] = 1;
        assert_eq!(found(&bytes), [(PAGE, 2 * PAGE), (3 * PAGE, 3 * PAGE + 5)]);
        bytes[2 * PAGE] = 1;
        assert_eq!(found(&bytes), [(PAGE, 3 * PAGE + 5)]);
    }
}
