//! Turns a DHCPv6 client's actions into packets on a link and into the link's address, for as long as the machine runs.
use std::fmt;
use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::BindToDevice;
use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::{Action, Client, Event, Identity, Lease, Loss};
use crate::apply::network::lent::{self, Standing};
use crate::apply::network::{self, Link};
use crate::log;
use kscratch_netlink::Netlink;

/// Ports of a server and of a client (RFC 8415, 7.2).
const SERVER: u16 = 547;
const CLIENT: u16 = 546;
/// All servers and relays on a link (RFC 8415, 7.1).
const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// Between two looks at how far the kernel is with an address, which takes a second or two as a rule.
const LOOK: Duration = Duration::from_millis(100);
/// What [`LOOK`] is after such a time: there is no carrier, or no IPv6.
const RARE_LOOK: Duration = Duration::from_secs(5);

/// What became of a link's lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The link has it now, and it can be used: it is new, or differs from what it was.
    Bound(Lease),
    /// It is over; the link's address is gone, and another is looked for.
    Lost(Lease, Loss),
    /// It could not be put on the link, or taken from it.
    Failed(String),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bound(lease) => write!(f, "has {lease}"),
            Self::Lost(lease, Loss::Replaced) => write!(f, "lost its lease of {}: {}", lease.address, Loss::Replaced),
            Self::Lost(lease, loss) => write!(f, "lost its lease of {}: {loss}; looking for another", lease.address),
            Self::Failed(reason) => f.write_str(reason),
        }
    }
}

/// What the kernel is still asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Awaited {
    /// The link's own address, which messages are sent from.
    LinkLocal,
    /// Whether another machine has the address of this lease, which is on the link already.
    Unique(Lease),
}

/// Keeps the lease of one link.
pub struct Keeper {
    link: String,
    firmware: String,
    index: u32,
    carrier: bool,
    client: Client,
    socket: UdpSocket,
    netlink: Netlink,
    held: Option<Lease>,
    awaited: Option<Awaited>,
    /// Since when, and when the kernel is asked next.
    awaited_since: Duration,
    next_look: Duration,
}

impl Keeper {
    /// Brings a link up, opens the socket, and asks for a lease once the link has an address to ask from. `firmware` as in [`Identity::new`],
    /// `host_name`, `xid` and `seed` as in [`Client::new`]; `now` is the caller's monotonic clock, the same in all calls.
    ///
    /// # Errors
    /// There is no such link, nothing to know the machine by, or port 546 is taken.
    pub fn start(
        link: &str,
        firmware: &str,
        host_name: Option<String>,
        xid: u32,
        seed: u64,
        now: Duration,
    ) -> Result<Self> {
        let mut netlink = Netlink::open()?;
        let facts = network::link_up(&mut netlink, link, None)?;
        let identity = Identity::new(firmware, &facts.mac, link)
            .with_context(|| format!("{link} has no Ethernet address, nor firmware a UUID, to ask for a lease with"))?;
        let socket = open(link).with_context(|| format!("opening a DHCPv6 socket on {link}"))?;
        Ok(Self {
            link: link.to_owned(),
            firmware: firmware.to_owned(),
            index: facts.index,
            carrier: facts.carrier,
            client: Client::new(identity, host_name, xid, seed),
            socket,
            netlink,
            held: None,
            awaited: Some(Awaited::LinkLocal),
            awaited_since: now,
            next_look: now,
        })
    }

    /// Whether the link could carry packets when it was looked at last.
    #[must_use]
    pub fn has_carrier(&self) -> bool {
        self.carrier
    }

    /// Name of the link.
    #[must_use]
    pub fn link(&self) -> &str {
        &self.link
    }

    /// The lease that the link has.
    #[must_use]
    pub fn lease(&self) -> Option<&Lease> {
        self.held.as_ref()
    }

    /// Why the link has no lease yet.
    #[must_use]
    pub fn why_none(&self) -> String {
        let link = &self.link;
        match (self.client.refused_by(), &self.awaited) {
            _ if !self.carrier => format!("no DHCPv6 server answered on {link} (it has no carrier)"),
            (_, Some(Awaited::LinkLocal)) => format!("{link} has no IPv6 address of its own yet to ask for one from"),
            (_, Some(Awaited::Unique(lease))) => {
                format!("{link} does not use {} yet: other machines are asked whether they have it", lease.address)
            }
            (Some(server), None) => format!("the DHCPv6 server {server} gives no address on {link}"),
            (None, None) => format!("no DHCPv6 server answered on {link}"),
        }
    }

    /// When [`Keeper::timer`] is wanted at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let look = self.awaited.as_ref().map(|_| self.next_look);
        self.client.next_deadline().into_iter().chain(look).min()
    }

    /// Does what is due.
    pub fn timer(&mut self, now: Duration) -> Vec<Change> {
        let mut changes = Vec::new();
        if self.awaited.is_some() && self.next_look <= now {
            changes.extend(self.look(now));
        }
        let actions = self.client.handle(Event::Timer, now);
        changes.extend(self.perform(actions, now));
        changes
    }

    /// Reads what came.
    pub fn readable(&mut self, now: Duration) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut buffer = [0; 2048];
        // Bounded: whoever floods the port must not keep the loop here.
        for _ in 0..32 {
            match self.socket.recv_from(&mut buffer) {
                // Servers and relays are neighbours, from whatever port; anybody else would be from afar.
                Ok((count, SocketAddr::V6(from))) if from.ip().is_unicast_link_local() => {
                    let received = Event::Received { bytes: &buffer[..count], from: *from.ip() };
                    let actions = self.client.handle(received, now);
                    changes.extend(self.perform(actions, now));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        changes
    }

    /// Told of every change of a link: one that comes back may be on another network.
    pub fn link_changed(&mut self, link: &Link, now: Duration) -> Vec<Change> {
        if link.index != self.index {
            return Vec::new();
        }
        // A bond takes the address of its first member, which may come late.
        let renamed = Identity::new(&self.firmware, &link.mac, &self.link)
            .is_some_and(|identity| self.client.is_known_as(identity));
        if link.carrier == std::mem::replace(&mut self.carrier, link.carrier) && !renamed {
            return Vec::new();
        }
        if !link.carrier {
            return Vec::new();
        }
        // The kernel begins with its own questions now.
        (self.awaited_since, self.next_look) = (now, now + LOOK);
        let mut changes = Vec::new();
        // It takes lent addresses from a link that is turned off.
        if let Some(lease) = self.client.lease().cloned()
            && let Err(error) = self.put(&lease)
        {
            changes.push(Change::Failed(format!("{error:#}")));
        }
        let actions = self.client.handle(Event::LinkBack, now);
        changes.extend(self.perform(actions, now));
        changes
    }

    /// Asks the kernel for what is awaited.
    fn look(&mut self, now: Duration) -> Vec<Change> {
        let Some(awaited) = self.awaited.take() else { return Vec::new() };
        let is_it = |address: Ipv6Addr| match &awaited {
            Awaited::LinkLocal => address.is_unicast_link_local(),
            Awaited::Unique(lease) => address == lease.address,
        };
        let standing = match lent::standing(&mut self.netlink, self.index, is_it) {
            Ok(standing) => standing,
            Err(error) => {
                log::debug(format_args!("link {}: {error:#}", self.link));
                Some(Standing::Tentative)
            }
        };
        match (awaited, standing) {
            (Awaited::LinkLocal, Some(Standing::Usable)) => {
                let actions = self.client.handle(Event::Start, now);
                self.perform(actions, now)
            }
            (Awaited::Unique(lease), Some(Standing::Usable)) => {
                self.held = Some(lease.clone());
                vec![Change::Bound(lease)]
            }
            // The kernel takes a lent address that another machine has from the link (addrconf_dad_stop in net/ipv6/addrconf.c).
            (Awaited::Unique(_), Some(Standing::Duplicate) | None) if self.carrier => {
                let actions = self.client.handle(Event::Duplicate, now);
                self.perform(actions, now)
            }
            (awaited, _) => {
                self.awaited = Some(awaited);
                let waited = now.saturating_sub(self.awaited_since);
                self.next_look = now + if waited < RARE_LOOK { LOOK } else { RARE_LOOK };
                Vec::new()
            }
        }
    }

    fn perform(&mut self, actions: Vec<Action>, now: Duration) -> Vec<Change> {
        let mut changes = Vec::new();
        for action in actions {
            match action {
                Action::Send(bytes) => {
                    // What cannot be sent now (the cable is out) is sent again by the timer.
                    let to = SocketAddrV6::new(SERVERS, SERVER, 0, self.index);
                    if let Err(error) = self.socket.send_to(&bytes, to) {
                        log::debug(format_args!("link {}: sending to DHCPv6 servers: {error}", self.link));
                    }
                }
                Action::Hold(lease) => match self.put(&lease) {
                    Ok(()) => changes.extend(self.hold(lease, now)),
                    Err(error) => changes.push(Change::Failed(format!("{error:#}"))),
                },
                Action::Lose(lease, loss) => {
                    self.held = None;
                    self.awaited = None;
                    let address = lent::whole(lease.address);
                    if let Err(error) = network::remove_address(&mut self.netlink, &self.link, address) {
                        changes.push(Change::Failed(format!("{error:#}")));
                    }
                    changes.push(Change::Lost(lease, loss));
                }
            }
        }
        changes
    }

    /// A renewed lease is used on; the address of a new one is used when the kernel has found it to be nobody else's.
    fn hold(&mut self, lease: Lease, now: Duration) -> Option<Change> {
        match &self.held {
            Some(held) if held.address == lease.address => {
                let differs = !held.gives_as(&lease);
                self.held = Some(lease.clone());
                differs.then_some(Change::Bound(lease))
            }
            _ => {
                self.awaited = Some(Awaited::Unique(lease));
                (self.awaited_since, self.next_look) = (now, now + LOOK);
                None
            }
        }
    }

    fn put(&mut self, lease: &Lease) -> Result<()> {
        let (preferred, valid) = lease.lifetimes();
        lent::lend(&mut self.netlink, self.index, lease.address, preferred, valid)
            .with_context(|| format!("giving {} its lease", self.link))
    }
}

impl AsFd for Keeper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A socket on port 546 of one link, which needs no address yet.
fn open(link: &str) -> Result<UdpSocket> {
    let socket: OwnedFd = rustix::net::socket_with(
        AddressFamily::INET6,
        SocketType::DGRAM,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        None,
    )?;
    setsockopt(&socket, BindToDevice, &link.into()).context("binding it to the link")?;
    set_ipv6_v6only(&socket, true)?;
    // One socket per link has the same port.
    set_socket_reuseaddr(&socket, true)?;
    let all = rustix::net::SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, CLIENT, 0, 0);
    rustix::net::bind(&socket, &all).context("binding it to port 546")?;
    Ok(UdpSocket::from(socket))
}
