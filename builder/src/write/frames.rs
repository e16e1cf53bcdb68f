//! Turns pieces into zstd frames in order, compressed on all cores, and their lengths into the table by which readers seek.
//!
//! The table is that of "Zstandard Seekable Format" 0.1.0: a skippable frame, which plain `zstd -d` passes over.
use std::fs::File;
use std::io::Write;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};

use super::parallel::{CHUNK, Piece, Sink};

/// Bytes of the disk in a frame.
pub(crate) const FRAME: u64 = 4 * CHUNK;
/// `Skippable_Magic_Number` of the seek table.
pub(crate) const SKIPPABLE_MAGIC: u32 = 0x184D_2A5E;
/// `Seekable_Magic_Number`, the file's last four bytes.
pub(crate) const SEEKABLE_MAGIC: u32 = 0x8F92_EAB1;
const LEVEL: i32 = 3;

/// Frames on their way into the file.
pub(super) struct Frames<'a> {
    file: &'a File,
    state: Mutex<State>,
    turn: Condvar,
}

#[derive(Default)]
struct State {
    /// First byte on the disk of the frame whose turn it is.
    next: u64,
    /// Compressed and plain length of every frame.
    lengths: Vec<(u32, u32)>,
    /// A frame of zeros alone, made once.
    zeros: Option<Vec<u8>>,
    failed: bool,
}

impl<'a> Frames<'a> {
    pub(super) fn new(file: &'a File) -> Self {
        Frames { file, state: Mutex::default(), turn: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
}

impl Sink for Frames<'_> {
    fn piece_len(&self) -> u64 {
        FRAME
    }

    fn put(&self, piece: &Piece<'_>) -> Result<()> {
        let known =
            if piece.spans.is_empty() && piece.bytes.len() as u64 == FRAME { self.lock().zeros.clone() } else { None };
        let frame = match known {
            Some(frame) => frame,
            None => zstd::bulk::compress(piece.bytes, LEVEL).context("compressing a part of the disk")?,
        };
        let mut state = self.lock();
        while state.next != piece.offset && !state.failed {
            state = self.turn.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.failed {
            bail!("another thread failed");
        }
        let mut file = self.file;
        file.write_all(&frame).with_context(|| format!("writing the frame of byte {}", piece.offset))?;
        state.lengths.push((u32::try_from(frame.len())?, u32::try_from(piece.bytes.len())?));
        state.next += FRAME;
        if piece.spans.is_empty() && state.zeros.is_none() {
            state.zeros = Some(frame);
        }
        self.turn.notify_all();
        Ok(())
    }

    fn give_up(&self) {
        self.lock().failed = true;
        self.turn.notify_all();
    }
}
