//! Starts work beside the boot, in threads that leave every signal to the event loop.
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::SigSet;

use crate::log;
use crate::run::inbox::{Message, Sender};
use crate::supervise::Reason;

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

/// Does work on which the machine depends, such as the boot's phases. Where it panics, which the hook of PID 1 has told by then, the machine is half of
/// what it was to be, and nobody would do the other half: it starts anew after this time, in order, since services may run.
pub fn or_start_anew<T>(sender: &Sender, after: Duration, work: impl FnOnce() -> T) -> Option<T> {
    let done = catch_unwind(AssertUnwindSafe(work)).ok();
    if done.is_none() {
        log::line("boot failed: kscratch-init has a fault; the line above says where");
        log::hint(format_args!("read the lines above; the machine starts anew in {} s", after.as_secs()));
        thread::sleep(after);
        sender.send(Message::Stop(Reason::Fault));
    }
    done
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::or_start_anew;
    use crate::run::inbox::{self, Message};
    use crate::supervise::Reason;

    #[test]
    fn a_panic_in_the_phases_starts_the_machine_anew() {
        let (sender, inbox) = inbox::pair().unwrap();
        assert_eq!(or_start_anew(&sender, Duration::ZERO, || 7), Some(7));
        assert!(inbox.take().is_empty());
        assert_eq!(or_start_anew(&sender, Duration::ZERO, || -> u8 { panic!("a fault") }), None);
        assert!(matches!(inbox.take()[..], [Message::Stop(Reason::Fault)]));
    }
}
