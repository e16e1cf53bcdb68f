//! Starts work beside the boot, in threads that leave every signal to the event loop.
use std::thread;

use anyhow::{Context, Result};
use nix::sys::signal::SigSet;

use crate::log;

/// Makes this thread take no signals. They belong to the event loop alone: one that a thread takes that does not wait for it is lost.
pub fn leave_signals() {
    if let Err(error) = SigSet::all().thread_block() {
        log::line(format_args!("blocking signals in a thread: {error}"));
    }
}

/// Runs `work` in a thread of this name.
///
/// # Errors
/// The kernel has no thread left.
pub fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
        leave_signals();
        work();
    });
    thread.map(drop).with_context(|| format!("starting the thread {name}"))
}
