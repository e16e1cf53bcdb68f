//! Turns a DHCP client's actions into packets on a link and into the link's address and routes, for as long as the machine runs.
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::BindToDevice;
use rustix::event::{PollFd, PollFlags};
use rustix::net::sockopt::{set_socket_broadcast, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketAddrV4, SocketFlags, SocketType};

use super::{Action, Client, Event, Lease, Loss};
use crate::apply::network::{self, Link};
use crate::log;
use kscratch_netlink::Netlink;

/// Ports of a server and of a client (RFC 2131 4.1).
const SERVER: u16 = 67;
const CLIENT: u16 = 68;

/// What became of a link's lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The link has it now: it is new, or differs from what it was.
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

/// Keeps the lease of one link.
pub struct Keeper {
    link: String,
    index: u32,
    carrier: bool,
    client: Client,
    socket: UdpSocket,
    netlink: Netlink,
    held: Option<Lease>,
    metric: Option<u32>,
    planned: Vec<network::Route>,
    planned_mtu: Option<u32>,
}

impl Keeper {
    /// Brings a link up, opens the socket and asks for a lease. `xid` and `seed` as in [`Client::new`]; `now` is the caller's monotonic
    /// clock, the same in all calls.
    ///
    /// # Errors
    /// There is no such link, it has no Ethernet address, or port 68 is taken.
    pub fn start(link: &str, host_name: Option<String>, xid: u32, seed: u64, now: Duration) -> Result<Self> {
        let mut netlink = Netlink::open()?;
        let facts = network::link_up(&mut netlink, link, None)?;
        let Ok(mac) = <[u8; 6]>::try_from(facts.mac.as_slice()) else {
            bail!("{link} has no Ethernet address to ask for a lease with")
        };
        let socket = open(link).with_context(|| format!("opening a DHCP socket on {link}"))?;
        let mut keeper = Self {
            link: link.to_owned(),
            index: facts.index,
            carrier: facts.carrier,
            client: Client::new(mac, host_name, xid, seed),
            socket,
            netlink,
            held: None,
            metric: None,
            planned: Vec::new(),
            planned_mtu: None,
        };
        let actions = keeper.client.handle(Event::Start, now);
        keeper.perform(actions);
        Ok(keeper)
    }

    /// Waits for the first lease and puts it on the link. `clock` is the clock of `now` elsewhere.
    ///
    /// # Errors
    /// Nobody gave one in time, or it could not be put on the link.
    pub fn acquire(&mut self, within: Duration, clock: fn() -> Duration) -> Result<Lease> {
        let end = clock() + within;
        loop {
            let now = clock();
            let mut changes = self.timer(now);
            changes.extend(self.readable(now));
            for change in changes {
                match change {
                    Change::Bound(lease) => return Ok(lease),
                    Change::Failed(reason) => bail!(reason),
                    Change::Lost(..) => {}
                }
            }
            if now >= end {
                bail!(
                    "{} in {} s{}",
                    self.why_none(),
                    within.as_secs(),
                    if self.carrier { "" } else { " (it has no carrier)" }
                );
            }
            let next = self.next_deadline().map_or(end, |deadline| deadline.min(end));
            let timeout =
                rustix::time::Timespec::try_from(next.saturating_sub(now)).context("waiting for a DHCP server")?;
            match rustix::event::poll(&mut [PollFd::new(self, PollFlags::IN)], Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("waiting for a DHCP server"),
            }
        }
    }

    /// The same, with a metric for the routes that leases bring: of links with a default route each, the smallest is preferred.
    #[must_use]
    pub fn with_metric(self, metric: Option<u32>) -> Self {
        Self { metric, ..self }
    }

    /// Takes the link's fixed IPv4 routes, which the kernel removes with the link's last address: they are set again after each change. An MTU that is
    /// planned for the link is its own, whatever a server says.
    pub fn plan(&mut self, routes: Vec<network::Route>, mtu: Option<u32>) {
        self.planned = routes;
        self.planned_mtu = mtu;
    }

    /// Metric of the routes that its leases bring.
    #[must_use]
    pub fn metric(&self) -> Option<u32> {
        self.metric
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

    /// The server that refused what it had offered, since there was a lease last.
    #[must_use]
    pub fn refused_by(&self) -> Option<Ipv4Addr> {
        self.client.refused_by()
    }

    /// Why the link has no lease yet.
    #[must_use]
    pub fn why_none(&self) -> String {
        match self.refused_by() {
            Some(server) => format!("the DHCP server {server} refuses what it offers on {}", self.link),
            None => format!("no DHCP server answered on {}", self.link),
        }
    }

    /// When [`Keeper::timer`] is wanted at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.client.next_deadline()
    }

    /// Does what is due.
    pub fn timer(&mut self, now: Duration) -> Vec<Change> {
        let actions = self.client.handle(Event::Timer, now);
        self.perform(actions)
    }

    /// Reads what came.
    pub fn readable(&mut self, now: Duration) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut buffer = [0; 2048];
        // Bounded: whoever floods the port must not keep the loop here.
        for _ in 0..32 {
            match self.socket.recv_from(&mut buffer) {
                Ok((count, SocketAddr::V4(from))) if from.port() == SERVER => {
                    let actions = self.client.handle(Event::Received(&buffer[..count]), now);
                    changes.extend(self.perform(actions));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Also ICMP's "port unreachable" for what was sent: reading it clears it.
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
        // A bond takes the address of its first member, which may come late; servers know a machine by it.
        let renamed = <[u8; 6]>::try_from(link.mac.as_slice()).is_ok_and(|mac| self.client.has_address(mac));
        if link.carrier == std::mem::replace(&mut self.carrier, link.carrier) && !renamed {
            return Vec::new();
        }
        if !link.carrier {
            return Vec::new();
        }
        let actions = self.client.handle(Event::LinkBack, now);
        self.perform(actions)
    }

    fn perform(&mut self, actions: Vec<Action>) -> Vec<Change> {
        let mut changes = Vec::new();
        for action in actions {
            match action {
                Action::Send { bytes, to } => {
                    // What cannot be sent now (the cable is out) is sent again by the timer.
                    if let Err(error) = self.socket.send_to(&bytes, (to, SERVER)) {
                        log::debug(format_args!("link {}: sending to DHCP server {to}: {error}", self.link));
                    }
                }
                Action::Hold(lease) => match self.put(&lease) {
                    Ok(()) => {
                        let differs = !self.held.as_ref().is_some_and(|held| held.gives_as(&lease));
                        self.held = Some(lease.clone());
                        changes.extend(differs.then_some(Change::Bound(lease)));
                    }
                    Err(error) => changes.push(Change::Failed(format!("{error:#}"))),
                },
                Action::Lose(lease, loss) => {
                    self.held = None;
                    // Routes through the address go with it.
                    if let Err(error) = network::remove_address(&mut self.netlink, &self.link, lease.address.into()) {
                        changes.push(Change::Failed(format!("{error:#}")));
                    }
                    self.set_planned();
                    changes.push(Change::Lost(lease, loss));
                }
            }
        }
        changes
    }

    /// The address is the lease. Of what else a server says, that which cannot be done is told, and keeps the machine from nothing.
    fn put(&mut self, lease: &Lease) -> Result<()> {
        if let (Some(mtu), None) = (lease.mtu, self.planned_mtu) {
            let done = network::link_up(&mut self.netlink, &self.link, Some(mtu)).map(drop);
            self.tell(done);
        }
        network::add_address(&mut self.netlink, &self.link, lease.address)?;
        for route in &lease.routes {
            let route = network::Route {
                destination: route.destination.into(),
                gateway: route.gateway.map(Into::into),
                link: Some(self.index),
                metric: self.metric,
            };
            let done = network::set_route(&mut self.netlink, route);
            self.tell(done);
        }
        self.set_planned();
        Ok(())
    }

    fn set_planned(&mut self) {
        for route in self.planned.clone() {
            let done = network::set_route(&mut self.netlink, network::Route { link: Some(self.index), ..route });
            self.tell(done);
        }
    }

    fn tell(&self, done: Result<()>) {
        if let Err(error) = done {
            log::line(format_args!("link {}: {error:#}", self.link));
        }
    }
}

impl AsFd for Keeper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A socket on port 68 of one link, which needs no address: it is bound to the device, and answers come as broadcasts.
fn open(link: &str) -> Result<UdpSocket> {
    let socket: OwnedFd = rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        None,
    )?;
    setsockopt(&socket, BindToDevice, &link.into()).context("binding it to the link")?;
    set_socket_broadcast(&socket, true)?;
    // One socket per link has the same port.
    set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT)).context("binding it to port 68")?;
    Ok(UdpSocket::from(socket))
}
