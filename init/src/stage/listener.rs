//! Turns the kernel's socket for uevents into events, in order and with a deadline.
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

use crate::uevent::Uevent;

/// The kernel's uevents from the moment it is opened.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
}

/// What a wait brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// One event.
    Event(Uevent),
    /// Some events were lost (`ENOBUFS`): look at everything again.
    Lost,
    /// Nothing until the deadline.
    Nothing,
}

impl Listener {
    /// Opens the socket (`NETLINK_KOBJECT_UEVENT`, group 1: the kernel's own messages).
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open() -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(KOBJECT_UEVENT),
        )?;
        bind(&socket, &SocketAddrNetlink::new(0, 1))?;
        Ok(Self { socket })
    }

    /// Waits for the next event until `deadline`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn next(&self, deadline: Instant) -> io::Result<Heard> {
        // Larger than any uevent (UEVENT_BUFFER_SIZE is 2048).
        let mut buffer = [0_u8; 8192];
        loop {
            match recv(&self.socket, buffer.as_mut_slice(), RecvFlags::empty()) {
                Ok((_, length)) => {
                    if let Some(event) = Uevent::parse(&buffer[..length.min(buffer.len())]) {
                        return Ok(Heard::Event(event));
                    }
                }
                Err(rustix::io::Errno::NOBUFS) => return Ok(Heard::Lost),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(Heard::Nothing);
                    }
                    self.wait(left)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn wait(&self, left: Duration) -> io::Result<()> {
        let time = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&time)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Heard, Listener};

    #[test]
    fn the_kernels_socket_opens_and_a_wait_ends() {
        let listener = Listener::open().unwrap();
        let deadline = Instant::now() + Duration::from_millis(20);
        while listener.next(deadline).unwrap() != Heard::Nothing {}
        assert!(Instant::now() >= deadline);
    }
}
