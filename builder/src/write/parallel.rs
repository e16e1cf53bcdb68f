//! Turns an image into pieces of bytes on all cores: each is read, hashed and put while it is in the processor's cache.
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Error, Result};
use kscratch_formats::image::{Data, Extent, Image};
use sha2::{Digest as _, Sha256};

use super::{Contents, Progress};
pub(super) use crate::digest::CHUNK;
use crate::tree::Content;

/// Spans begin and end at multiples of this, so that holes stay holes and no block is read to be written.
const BLOCK: usize = 4096;
/// Holes shorter than this are written as zeros: cheaper than a further system call.
const SMALL_HOLE: usize = 32 << 10;
/// More threads than this gain nothing: the disk is the limit.
const THREADS: usize = 8;

/// A piece of the disk.
pub(super) struct Piece<'a> {
    /// First byte on the disk.
    pub offset: u64,
    /// Its bytes; zeros outside of `spans`.
    pub bytes: &'a [u8],
    /// The parts that are not holes.
    pub spans: &'a [Range<usize>],
}

/// What takes pieces. Every piece is put once, in any order, holes included, from several threads.
pub(super) trait Sink: Sync {
    /// Bytes of a piece, a multiple of [`CHUNK`].
    fn piece_len(&self) -> u64;
    /// Takes a piece.
    fn put(&self, piece: &Piece<'_>) -> Result<()>;
    /// Called when a thread fails: nobody may go on waiting.
    fn give_up(&self) {}
}

/// The chunks that are not all zeros, with the SHA-256 of each.
pub(super) type Chunks = Vec<(u64, [u8; 32])>;

/// Puts all pieces of the image; gives the chunks for the disk digest, in order.
pub(super) fn run(
    image: &Image<Content>,
    contents: &Contents,
    sink: &impl Sink,
    progress: Progress<'_>,
) -> Result<Chunks> {
    let next = AtomicU64::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS);
    let results: Mutex<(Chunks, Option<Error>)> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let done = work(image, contents, sink, &next, progress);
                let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                match done {
                    Ok(chunks) => results.0.extend(chunks),
                    Err(error) => {
                        // The first error is the cause; the others find nothing left to do.
                        results.1.get_or_insert(error);
                        next.store(image.len, Ordering::Relaxed);
                        sink.give_up();
                    }
                }
            });
        }
    });
    let (mut chunks, error) = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = error {
        return Err(error);
    }
    chunks.sort_unstable_by_key(|(offset, _)| *offset);
    Ok(chunks)
}

fn work(
    image: &Image<Content>,
    contents: &Contents,
    sink: &impl Sink,
    next: &AtomicU64,
    progress: Progress<'_>,
) -> Result<Chunks> {
    let piece = sink.piece_len();
    let mut buffer = vec![0; usize::try_from(piece)?];
    let mut chunks = Chunks::new();
    loop {
        let offset = next.fetch_add(piece, Ordering::Relaxed);
        if offset >= image.len {
            return Ok(chunks);
        }
        let bytes = &mut buffer[..(image.len - offset).min(piece) as usize];
        let (spans, filled) = fill(&image.extents, contents, offset, bytes)?;
        if !spans.is_empty() {
            for (at, chunk) in (offset..).step_by(CHUNK as usize).zip(bytes.chunks(CHUNK as usize)) {
                if chunk.iter().any(|byte| *byte != 0) {
                    chunks.push((at, Sha256::digest(chunk).into()));
                }
            }
        }
        sink.put(&Piece { offset, bytes, spans: &spans })?;
        if !spans.is_empty() {
            bytes.fill(0);
            progress(filled);
        }
    }
}

/// Reads what stands at `offset` into `bytes`, which hold zeros; gives the spans that are not holes and the bytes read.
fn fill(
    extents: &[Extent<Content>],
    contents: &Contents,
    offset: u64,
    bytes: &mut [u8],
) -> Result<(Vec<Range<usize>>, u64)> {
    let end = offset + bytes.len() as u64;
    let first = extents.partition_point(|extent| extent.offset + extent.data.len() <= offset);
    let mut spans: Vec<Range<usize>> = Vec::new();
    let mut filled = 0;
    for extent in extents[first..].iter().take_while(|extent| extent.offset < end) {
        let skip = offset.saturating_sub(extent.offset);
        let from = (extent.offset.max(offset) - offset) as usize;
        let to = ((extent.offset + extent.data.len()).min(end) - offset) as usize;
        match &extent.data {
            Data::Bytes(literal) => bytes[from..to].copy_from_slice(&literal[skip as usize..][..to - from]),
            Data::Content { id, offset, .. } => contents.read(id, offset + skip, &mut bytes[from..to])?,
        }
        filled += (to - from) as u64;
        let span = from / BLOCK * BLOCK..to.next_multiple_of(BLOCK).min(bytes.len());
        match spans.last_mut() {
            Some(last) if span.start < last.end + SMALL_HOLE => last.end = last.end.max(span.end),
            _ => spans.push(span),
        }
    }
    Ok((spans, filled))
}
