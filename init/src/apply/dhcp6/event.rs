//! What a DHCPv6 client is told, and what it wants done.
use std::fmt;
use std::net::Ipv6Addr;

use super::Lease;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// A lease is wanted, and the link has an address of its own to ask from.
    Start,
    /// A packet came to port 546 of the link.
    Received {
        /// The packet.
        bytes: &'a [u8],
        /// The neighbour that sent it.
        from: Ipv6Addr,
    },
    /// [`super::Client::next_deadline`] has come.
    Timer,
    /// The link was away and is back: perhaps on another network.
    LinkBack,
    /// Another machine on the link has the address that was given.
    Duplicate,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send a message from port 546 to port 547 of all servers and relays on the link (RFC 8415, 7.1).
    Send(Vec<u8>),
    /// Use this lease. Told again when it is renewed.
    Hold(Lease),
    /// The lease is over: its address must not be used any more.
    Lose(Lease, Loss),
}

/// Why a lease is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Its time is, and nobody renewed it.
    Ended,
    /// A server says that it does not hold.
    Refused(Ipv6Addr),
    /// A server gave another address.
    Replaced,
    /// Another machine has the address.
    Duplicate,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended => f.write_str("no DHCPv6 server renewed it"),
            Self::Refused(server) => write!(f, "the DHCPv6 server {server} refuses it"),
            Self::Replaced => f.write_str("the DHCPv6 server gives another one"),
            Self::Duplicate => f.write_str("another machine on the link has it"),
        }
    }
}
