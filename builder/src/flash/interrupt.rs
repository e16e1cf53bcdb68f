//! Turns SIGINT and SIGTERM into an error of the work that is going on, so that it can say what the device is now.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::console::Console;
use crate::signals;

/// The work was stopped by a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stopped by {}", .0.as_str())]
pub struct Interrupted(Signal);

impl Interrupted {
    /// The exit status that shells give to a program which a signal has ended.
    #[must_use]
    pub fn status(self) -> u8 {
        signals::exit_status(self.0)
    }

    /// Whether an error is this one.
    #[must_use]
    pub fn of(error: &anyhow::Error) -> Option<Interrupted> {
        error.chain().find_map(|cause| cause.downcast_ref().copied())
    }
}

/// Whether somebody wants the work to end.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    /// The signal's number; 0 for none.
    signal: Arc<AtomicI32>,
    writing: Arc<AtomicBool>,
}

impl Interrupt {
    /// Begins to watch. To be called before any other thread is started: one that does not know of it would have the signal end the program.
    ///
    /// Before something is written, and at the second signal, the program ends at once.
    ///
    /// # Errors
    /// The kernel does not let signals be blocked, or has no thread left.
    pub fn watch(console: &Console) -> Result<Interrupt> {
        let interrupt = Interrupt::default();
        let mask = signals::heeded(&[Signal::SIGINT, Signal::SIGTERM]);
        mask.thread_block().context("blocking signals")?;
        let (own, console) = (interrupt.clone(), console.clone());
        let wait = move || {
            while let Ok(signal) = mask.wait() {
                let status = i32::from(Interrupted(signal).status());
                if !own.writing.load(Ordering::SeqCst) {
                    console.say("nothing was written");
                    std::process::exit(status);
                }
                if own.signal.swap(signal as i32, Ordering::SeqCst) != 0 {
                    std::process::exit(status);
                }
                console.say("stopping: what is on its way to the device is waited for");
            }
        };
        thread::Builder::new().name("signals".to_owned()).spawn(wait).context("starting a thread for signals")?;
        Ok(interrupt)
    }

    /// From here on a signal ends nothing by itself.
    pub(super) fn begin(&self) {
        self.writing.store(true, Ordering::SeqCst);
    }

    /// An error where there was a signal.
    pub(super) fn check(&self) -> Result<(), Interrupted> {
        match Signal::try_from(self.signal.load(Ordering::SeqCst)) {
            Ok(signal) => Err(Interrupted(signal)),
            Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use anyhow::{Context, Error};
    use nix::sys::signal::Signal;

    use super::{Interrupt, Interrupted};

    #[test]
    fn a_signal_is_an_error_that_is_known_behind_others() {
        let interrupt = Interrupt::default();
        assert_eq!(interrupt.check(), Ok(()));
        interrupt.signal.store(Signal::SIGTERM as i32, Ordering::SeqCst);
        let error = Error::from(interrupt.check().unwrap_err()).context("flashing").context("once more");
        assert_eq!(Interrupted::of(&error), Some(Interrupted(Signal::SIGTERM)));
        assert_eq!(Interrupted::of(&error).map(Interrupted::status), Some(143));
        assert_eq!(error.root_cause().to_string(), "stopped by SIGTERM");
        let other = Err::<(), _>(std::io::Error::other("x")).context("flashing").unwrap_err();
        assert_eq!(Interrupted::of(&other), None);
    }
}
