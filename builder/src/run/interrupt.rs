//! Turns SIGHUP, SIGINT and SIGTERM into the end of the machine, so that nothing of it stays behind.
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};

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
        // Without /proc it is not known which are ignored.
        let heeded = heeded(&fs::read_to_string("/proc/self/status").unwrap_or_default());
        let mask: SigSet = heeded.into_iter().collect();
        mask.thread_block().context("blocking signals")?;
        let own = interrupt.clone();
        let wait = move || {
            while let Ok(signal) = mask.wait() {
                if !own.running.load(Ordering::SeqCst) {
                    std::process::exit(status(signal).into());
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

/// The exit status that shells give to a program which a signal has ended.
pub(super) fn status(signal: Signal) -> u8 {
    u8::try_from(128 + signal as i32).unwrap_or(1)
}

/// The signals that end a machine, by this process's `/proc/PID/status` (proc_pid_status(5)). Those that who started it has it ignore, as nohup(1) does,
/// are left alone: blocked, they would come all the same.
fn heeded(status: &str) -> Vec<Signal> {
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    let all = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM];
    all.into_iter().filter(|signal| ignored & (1 << (*signal as i32 - 1)) == 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: &str, want: &[Signal]) {
        assert_eq!(heeded(status), want);
    }

    #[test]
    fn a_signal_is_heeded_unless_it_is_ignored() {
        let [hangup, interrupt, end] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM];
        check("", &[hangup, interrupt, end]);
        // SIGPIPE, as in every program of Rust.
        check("Name:\tx\nSigBlk:\t0000000000004003\nSigIgn:\t0000000000001000\n", &[hangup, interrupt, end]);
        check("SigIgn:\t0000000000000001\n", &[interrupt, end]);
        check("SigIgn:\t0000000000001002\n", &[hangup, end]);
    }

    #[test]
    fn the_first_signal_counts() {
        let seen = Interrupt::default();
        assert_eq!(seen.signal(), None);
        seen.signal.store(Signal::SIGTERM as i32, Ordering::SeqCst);
        assert_eq!(seen.signal(), Some(Signal::SIGTERM));
        assert_eq!((status(Signal::SIGHUP), status(Signal::SIGINT), status(Signal::SIGTERM)), (129, 130, 143));
    }
}
