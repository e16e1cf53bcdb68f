//! Turns the wait at the end of writing into work done beside it: what is written goes to the disk while the rest is being hashed.
use std::fs::File;
use std::io;
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result, anyhow};

use super::Progress;

/// Bytes that are written before they are sent to the disk: many at once, or the disk would be kept busy with small pieces.
const BATCH: u64 = 64 << 20;

/// Runs `write`, which tells its progress, and syncs `file` beside it.
pub(super) fn sync<T>(file: &File, progress: Progress<'_>, write: impl FnOnce(Progress<'_>) -> Result<T>) -> Result<T> {
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel::<u64>();
        let syncing = scope.spawn(move || {
            let mut waiting = 0;
            for bytes in receiver {
                waiting += bytes;
                if waiting >= BATCH {
                    file.sync_data()?;
                    waiting = 0;
                }
            }
            io::Result::Ok(())
        });
        let written = write(&|bytes| {
            progress(bytes);
            // Nobody listens any more after a failed sync, which is told below.
            sender.send(bytes).ok();
        });
        drop(sender);
        // The kernel tells a failed write once: whoever syncs must not lose the answer.
        let synced = syncing.join().map_err(|_| anyhow!("the syncing thread died"))?;
        synced.context("waiting until the file is on the disk")?;
        written
    })
}
