//! Turns one rtnetlink request into the kernel's answers to it, synchronously.
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// Multicast group of link changes (`RTNLGRP_LINK`, linux/rtnetlink.h).
const LINK_GROUP: u32 = 1;

/// A socket to rtnetlink of the network namespace that it was opened in.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens the socket.
    ///
    /// # Errors
    /// The kernel has no sockets left, or no rtnetlink.
    pub fn open() -> Result<Self> {
        let socket = bound().context("opening a socket to rtnetlink")?;
        // The kernel answers while it handles the request; should it ever not, an error is better than a boot that hangs.
        rustix::net::sockopt::set_socket_timeout(
            &socket,
            rustix::net::sockopt::Timeout::Recv,
            Some(Duration::from_secs(5)),
        )
        .context("bounding the wait for rtnetlink's answers")?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Asks for a change and waits for the kernel's acknowledgement. `flags` are those of a change (`NLM_F_CREATE` …).
    ///
    /// # Errors
    /// The kernel's error, as an [`io::Error`] at the root of the chain.
    pub fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<()> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        self.answers().map(drop)
    }

    /// Asks for a list.
    ///
    /// # Errors
    /// The kernel's error, as an [`io::Error`] at the root of the chain.
    pub fn list(&mut self, message: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>> {
        self.send(message, NLM_F_REQUEST | NLM_F_DUMP)?;
        self.answers()
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0).context("sending to rtnetlink")?;
        Ok(())
    }

    fn answers(&mut self) -> Result<Vec<RouteNetlinkMessage>> {
        let mut found = Vec::new();
        loop {
            let (bytes, _) = self.socket.recv_from_full().context("reading rtnetlink's answer")?;
            for packet in packets(&bytes) {
                let packet = packet?;
                if packet.header.sequence_number != self.sequence {
                    continue;
                }
                match packet.payload {
                    NetlinkPayload::Done(_) => return Ok(found),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(found),
                    NetlinkPayload::Error(error) => return Err(error.to_io().into()),
                    NetlinkPayload::InnerMessage(message) => found.push(message),
                    NetlinkPayload::Overrun(_) => bail!("rtnetlink lost a part of its answer"),
                    _ => {}
                }
            }
        }
    }
}

/// A socket on which the kernel tells of links that come, go and change.
pub struct LinkNews {
    socket: Socket,
}

impl LinkNews {
    /// Opens the socket. What happens from now on can be read from it.
    ///
    /// # Errors
    /// As [`Netlink::open`].
    pub fn open() -> Result<Self> {
        let socket = bound().context("opening a socket for link events")?;
        socket.add_membership(LINK_GROUP).context("subscribing to link events")?;
        socket.set_non_blocking(true).context("making the link event socket non-blocking")?;
        Ok(Self { socket })
    }

    /// Takes everything that is there. `None` says that news were lost and the state must be asked for.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn read(&self) -> Result<Option<Vec<RouteNetlinkMessage>>> {
        let mut found = Vec::new();
        loop {
            match self.socket.recv_from_full() {
                Ok((bytes, _)) => found.extend(packets(&bytes).flatten().filter_map(|packet| match packet.payload {
                    NetlinkPayload::InnerMessage(message) => Some(message),
                    _ => None,
                })),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Some(found)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) => {
                    return Ok(None);
                }
                Err(error) => return Err(error).context("reading link events"),
            }
        }
    }

    /// Waits until there are news or the time is over; says which.
    ///
    /// # Errors
    /// The kernel refuses to wait.
    pub fn wait(&self, within: Duration) -> Result<bool> {
        let timeout = rustix::time::Timespec::try_from(within).context("waiting for link events")?;
        let mut fds = [rustix::event::PollFd::new(self, rustix::event::PollFlags::IN)];
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(true),
            Err(error) => Err(error).context("waiting for link events"),
        }
    }
}

impl AsFd for LinkNews {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn bound() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// Cuts what one read gave into packets; each begins on a multiple of four bytes (`NLMSG_ALIGN`).
fn packets(bytes: &[u8]) -> impl Iterator<Item = Result<NetlinkMessage<RouteNetlinkMessage>>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let packet = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).context("reading rtnetlink's answer");
        // A packet of an unreadable form still says how long it is; without that the rest is lost.
        let length = rest.first_chunk().map_or(0, |length| u32::from_ne_bytes(*length)) as usize;
        let next = length.next_multiple_of(4);
        rest = if length < 16 { &[] } else { rest.get(next..).unwrap_or_default() };
        Some(packet)
    })
}
