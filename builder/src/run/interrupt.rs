//! Turns SIGHUP, SIGINT and SIGTERM into the end of the machine, so that nothing of it stays behind.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::signals;

/// Whether somebody wants the machine to end.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    /// The first signal's number; 0 for none.
    signal: Arc<AtomicI32>,
    running: Arc<AtomicBool>,
}

impl Interrupt {
    /// Begins to watch. To be called before any other thread is started: one that does not know of it would have the signal end the program. What is
    /// started from here on has these signals blocked.
    ///
    /// Before a machine is begun, the program ends at once. Then it does not, at a second signal neither: where a terminal is closed, its shell passes on
    /// the signal that the kernel sends as well.
    ///
    /// # Errors
    /// The kernel does not let signals be blocked, or has no thread left.
    pub fn watch() -> Result<Interrupt> {
        let interrupt = Interrupt::default();
        let mask = signals::heeded(&[Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM]);
        mask.thread_block().context("blocking signals")?;
        let own = interrupt.clone();
        let wait = move || {
            while let Ok(signal) = mask.wait() {
                if !own.running.load(Ordering::SeqCst) {
                    std::process::exit(signals::exit_status(signal).into());
                }
                // The first one says how it ended.
                let _ = own.signal.compare_exchange(0, signal as i32, Ordering::SeqCst, Ordering::SeqCst);
            }
        };
        thread::Builder::new().name("signals".to_owned()).spawn(wait).context("starting a thread for signals")?;
        Ok(interrupt)
    }

    /// From here on a signal ends nothing by itself.
    pub(super) fn begin(&self) {
        self.running.store(true, Ordering::SeqCst);
    }

    /// The signal that came first, if one did.
    pub(super) fn signal(&self) -> Option<Signal> {
        Signal::try_from(self.signal.load(Ordering::SeqCst)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_counts() {
        let seen = Interrupt::default();
        assert_eq!(seen.signal(), None);
        seen.signal.store(Signal::SIGTERM as i32, Ordering::SeqCst);
        assert_eq!(seen.signal(), Some(Signal::SIGTERM));
    }
}
