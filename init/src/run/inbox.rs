//! Lets the phases of the boot, which run in a thread of their own, hand services and leases to the event loop.
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use rustix::event::EventfdFlags;

use super::eventloop::LeaseChanged;
use crate::apply::lease::Keeper;
use crate::log::monotonic;
use crate::plan::Service;
use crate::supervise::Reason;

/// What is handed over.
pub enum Message {
    /// A service to run.
    Service(Box<Service>),
    /// Leases to be kept, one per link and family.
    Leases {
        /// The leases.
        leases: Vec<Keeper>,
        /// Told when one of them was renewed with other contents, replaced or lost.
        changed: LeaseChanged,
    },
    /// One more lease to be kept, of a link that came; in the place of an earlier one of that name and family.
    Lease(Box<Keeper>),
    /// Somebody wants to know each time that a service gets ready.
    Watch {
        /// The service.
        name: &'static str,
        /// Told, in the loop: it must not take long.
        told: Box<dyn FnMut() + Send>,
    },
    /// Somebody wants the last lines of a service's output.
    Recent {
        /// The service.
        name: &'static str,
        /// Told them, in the loop: it must not take long.
        told: Box<dyn FnOnce(Vec<String>) + Send>,
    },
    /// All phases are done; no further service comes.
    Booted,
    /// The machine is to stop.
    Stop(Reason),
}

/// The loop's end: readable when there is a message.
#[derive(Debug)]
pub struct Inbox {
    messages: Receiver<Message>,
    bell: Arc<OwnedFd>,
    taken: Arc<AtomicU64>,
}

/// The boot's end.
#[derive(Debug, Clone)]
pub struct Sender {
    messages: mpsc::Sender<Message>,
    bell: Arc<OwnedFd>,
    /// Milliseconds since the kernel's start.
    taken: Arc<AtomicU64>,
}

/// Makes both ends.
///
/// # Errors
/// The kernel has no descriptor left.
pub fn pair() -> io::Result<(Sender, Inbox)> {
    let bell = Arc::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let (sender, messages) = mpsc::channel();
    let taken = Arc::new(AtomicU64::new(now()));
    Ok((
        Sender { messages: sender, bell: Arc::clone(&bell), taken: Arc::clone(&taken) },
        Inbox { messages, bell, taken },
    ))
}

impl Sender {
    /// Hands something over. A loop that has ended has no use for it any more.
    pub fn send(&self, message: Message) {
        if self.messages.send(message).is_ok() {
            self.knock();
        }
    }

    /// Wakes the loop, which then takes what there is, be it nothing.
    pub fn knock(&self) {
        // It fails only where the bell is rung so often already that it could not be heard any better.
        let _ = rustix::io::write(&*self.bell, &1_u64.to_ne_bytes());
    }

    /// When the loop took what there was last, as time since the kernel's start.
    #[must_use]
    pub fn taken(&self) -> Duration {
        Duration::from_millis(self.taken.load(Ordering::Relaxed))
    }
}

fn now() -> u64 {
    u64::try_from(monotonic().as_millis()).unwrap_or(u64::MAX)
}

impl Inbox {
    /// Everything that has come.
    pub fn take(&self) -> Vec<Message> {
        // First the bell, then the messages: one that comes in between rings again.
        let _ = rustix::io::read(&*self.bell, &mut [0_u8; 8]);
        self.taken.store(now(), Ordering::Relaxed);
        self.messages.try_iter().collect()
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::{Message, pair};

    #[test]
    fn the_bell_rings_until_the_messages_are_taken() {
        let (sender, inbox) = pair().unwrap();
        let rings = || {
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            poll(&mut [PollFd::new(&inbox, PollFlags::IN)], Some(&now)).unwrap() == 1
        };
        assert!(!rings());
        sender.send(Message::Booted);
        sender.send(Message::Booted);
        assert!(rings());
        assert_eq!(inbox.take().len(), 2);
        assert!(!rings() && inbox.take().is_empty());
    }

    #[test]
    fn a_knock_wakes_the_loop_and_says_when_it_turned() {
        let (sender, inbox) = pair().unwrap();
        let before = sender.taken();
        std::thread::sleep(std::time::Duration::from_millis(5));
        sender.knock();
        assert_eq!(sender.taken(), before);
        assert!(inbox.take().is_empty());
        assert!(sender.taken() > before);
    }
}
