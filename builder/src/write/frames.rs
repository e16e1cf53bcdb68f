//! Turns pieces into zstd frames in order, compressed on all cores, and their lengths into the table by which readers seek.
//!
//! The table is that of "Zstandard Seekable Format" 0.1.0: a skippable frame, which plain `zstd -d` passes over.
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use zstd::bulk::Compressor;

use super::parallel::{CHUNK, Piece, Sink};

/// Bytes of the disk in a frame.
pub(crate) const FRAME: u64 = 4 * CHUNK;
/// `Skippable_Magic_Number` of the seek table.
pub(crate) const SKIPPABLE_MAGIC: u32 = 0x184D_2A5E;
/// `Seekable_Magic_Number`, the file's last four bytes.
pub(crate) const SEEKABLE_MAGIC: u32 = 0x8F92_EAB1;
const LEVEL: i32 = 3;
/// Frames that may wait for their turn: enough that a thread with an easy part of the disk need not wait for one with a hard part.
const WAITING: usize = 8;

/// Frames on their way into the file.
pub(super) struct Frames<'a> {
    file: &'a File,
    state: Mutex<State>,
    room: Condvar,
    /// Compressors and buffers that nobody uses at the moment: memory that is fresh for every frame costs more than its writing.
    compressors: Mutex<Vec<Compressor<'static>>>,
    buffers: Mutex<Vec<Vec<u8>>>,
}

#[derive(Default)]
struct State {
    /// First byte on the disk of the frame whose turn it is.
    next: u64,
    /// Finished frames by their first byte on the disk, with their plain length.
    waiting: BTreeMap<u64, (Vec<u8>, usize)>,
    /// Compressed and plain length of every frame.
    lengths: Vec<(u32, u32)>,
    /// A frame of zeros alone, made once.
    zeros: Option<Vec<u8>>,
    failed: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Frames<'a> {
    pub(super) fn new(file: &'a File) -> Self {
        Frames {
            file,
            state: Mutex::default(),
            room: Condvar::new(),
            compressors: Mutex::default(),
            buffers: Mutex::default(),
        }
    }

    /// The seek table that follows the frames.
    pub(super) fn finish(self) -> Result<Vec<u8>> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut table = Vec::new();
        table.extend_from_slice(&SKIPPABLE_MAGIC.to_le_bytes());
        table.extend_from_slice(&u32::try_from(state.lengths.len() * 8 + 9)?.to_le_bytes());
        for (compressed, plain) in &state.lengths {
            table.extend_from_slice(&compressed.to_le_bytes());
            table.extend_from_slice(&plain.to_le_bytes());
        }
        table.extend_from_slice(&u32::try_from(state.lengths.len())?.to_le_bytes());
        table.push(0); // Seek_Table_Descriptor: no checksums
        table.extend_from_slice(&SEEKABLE_MAGIC.to_le_bytes());
        Ok(table)
    }

    fn compressed(&self, piece: &Piece<'_>) -> Result<Vec<u8>> {
        let zeros = piece.spans.is_empty() && piece.bytes.len() as u64 == FRAME;
        if zeros && let Some(frame) = lock(&self.state).zeros.clone() {
            return Ok(frame);
        }
        let known = lock(&self.compressors).pop();
        let mut compressor = known.map_or_else(|| Compressor::new(LEVEL), Ok).context("starting to compress")?;
        let mut frame = lock(&self.buffers).pop().unwrap_or_default();
        frame.clear();
        frame.reserve(zstd::compress_bound(piece.bytes.len()));
        compressor.compress_to_buffer(piece.bytes, &mut frame).context("compressing a part of the disk")?;
        lock(&self.compressors).push(compressor);
        if zeros {
            lock(&self.state).zeros = Some(frame.clone());
        }
        Ok(frame)
    }

    /// Writes the frames whose turn has come.
    fn write(&self, state: &mut State) -> Result<()> {
        while let Some((frame, plain)) = state.waiting.remove(&state.next) {
            let mut file = self.file;
            file.write_all(&frame).with_context(|| format!("writing the frame of byte {}", state.next))?;
            state.lengths.push((u32::try_from(frame.len())?, u32::try_from(plain)?));
            state.next += FRAME;
            // A copy of the zeros is no buffer.
            if frame.capacity() as u64 >= FRAME {
                lock(&self.buffers).push(frame);
            }
        }
        Ok(())
    }
}

impl Sink for Frames<'_> {
    fn piece_len(&self) -> u64 {
        FRAME
    }

    fn put(&self, piece: &Piece<'_>) -> Result<()> {
        let frame = self.compressed(piece)?;
        let mut state = lock(&self.state);
        // Whose turn it is never waits: the others wait for it.
        while state.waiting.len() >= WAITING && state.next != piece.offset && !state.failed {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.failed {
            bail!("another thread failed");
        }
        state.waiting.insert(piece.offset, (frame, piece.bytes.len()));
        self.write(&mut state)?;
        self.room.notify_all();
        Ok(())
    }

    fn give_up(&self) {
        lock(&self.state).failed = true;
        self.room.notify_all();
    }
}
