//! Turns DHCP messages and the passing of time into messages to send and leases to hold (RFC 2131): a pure state machine.
//!
//! [`keeper::Keeper`] is the socket around it.
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

pub mod keeper;
mod message;
#[cfg(test)]
mod tests;

pub use keeper::{Change, Keeper};
pub(super) use message::domain;
use message::{Kind, Reply, Request};
pub use message::{Lease, Route};

/// Waits for an answer before a message is sent again. RFC 2131 4.1 says 4, 8, 16, 32, 64 s; the quick first one is for links whose
/// switch swallows the first packets.
const RETRANSMISSIONS: [Duration; 6] = [
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
    Duration::from_secs(32),
    Duration::from_secs(64),
];
/// A server that offered and does not acknowledge is left after so many requests; so is the question whether a lease holds still.
const REQUESTS: usize = 4;
/// Shortest wait between two messages of a renewal (RFC 2131 4.4.5 says 60 s, which suits leases of hours; shorter ones exist).
const SHORTEST_RENEWAL_WAIT: Duration = Duration::from_secs(1);
/// What [`SHORTEST_RENEWAL_WAIT`] is for leases of an hour and more.
const RENEWAL_WAIT: Duration = Duration::from_secs(60);

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// A lease is wanted.
    Start,
    /// A packet came to port 68 of the link.
    Received(&'a [u8]),
    /// [`Client::next_deadline`] has come.
    Timer,
    /// The link was away and is back: perhaps on another network.
    LinkBack,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send a message from port 68 to port 67 of an address (`255.255.255.255` for all on the link).
    Send {
        /// The message.
        bytes: Vec<u8>,
        /// Where to.
        to: Ipv4Addr,
    },
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
    Refused(Ipv4Addr),
    /// A server gave another address.
    Replaced,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended => f.write_str("no DHCP server renewed it"),
            Self::Refused(server) => write!(f, "the DHCP server {server} refuses it"),
            Self::Replaced => f.write_str("the DHCP server gives another one"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Nothing is wanted yet.
    Idle,
    /// DISCOVER was sent.
    Selecting { tries: usize, next: Duration },
    /// An offer was taken; REQUEST was sent.
    Requesting { offer: Reply, tries: usize, sent: Duration, next: Duration },
    /// A lease is held until `times.expire`.
    Bound { lease: Lease, times: Times },
    /// T1 is over: the server is asked.
    Renewing { lease: Lease, times: Times, sent: Duration, next: Duration },
    /// T2 is over: any server is asked.
    Rebinding { lease: Lease, times: Times, sent: Duration, next: Duration },
    /// The link was away: whoever serves this network now is asked whether the lease holds here (RFC 2131 4.4.2, INIT-REBOOT). A request
    /// to renew would not do: it names no address that is wanted, and many a server gives another one then, or nothing, instead of refusing it.
    Rebooting { lease: Lease, times: Times, tries: usize, sent: Duration, next: Duration },
}

/// When a lease's parts end, on the caller's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times {
    renew: Duration,
    rebind: Duration,
    expire: Duration,
}

/// A DHCP client of one link.
#[derive(Debug, Clone)]
pub struct Client {
    mac: [u8; 6],
    host_name: Option<String>,
    /// Of the exchange under way; the next one has the next number.
    xid: u32,
    jitter: Jitter,
    state: State,
    /// Since when a lease is looked for, for the `secs` field.
    since: Duration,
    /// Who refused last what it had offered; none once there is a lease.
    refused_by: Option<Ipv4Addr>,
}

impl Client {
    /// A client for a link. `xid` should differ from that of other machines on the link; `seed` spreads the retransmissions of machines
    /// that were switched on together. Neither needs to be secret.
    #[must_use]
    pub fn new(mac: [u8; 6], host_name: Option<String>, xid: u32, seed: u64) -> Self {
        Self {
            mac,
            host_name,
            xid,
            jitter: Jitter(seed | 1),
            state: State::Idle,
            since: Duration::ZERO,
            refused_by: None,
        }
    }

    /// The link's address is this one; whether it was another. With a lease the client goes on as the one that got it.
    pub fn has_address(&mut self, mac: [u8; 6]) -> bool {
        self.lease().is_none() && std::mem::replace(&mut self.mac, mac) != mac
    }

    /// The lease that is held.
    #[must_use]
    pub fn lease(&self) -> Option<&Lease> {
        match &self.state {
            State::Bound { lease, .. }
            | State::Renewing { lease, .. }
            | State::Rebinding { lease, .. }
            | State::Rebooting { lease, .. } => Some(lease),
            State::Idle | State::Selecting { .. } | State::Requesting { .. } => None,
        }
    }

    /// The server that refused what it had offered, since there was a lease last.
    #[must_use]
    pub fn refused_by(&self) -> Option<Ipv4Addr> {
        self.refused_by
    }

    /// When [`Event::Timer`] is wanted at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        match &self.state {
            State::Idle => None,
            State::Selecting { next, .. } | State::Requesting { next, .. } => Some(*next),
            State::Bound { times, .. } => Some(times.renew),
            State::Renewing { times, next, .. } => Some((*next).min(times.rebind)),
            State::Rebinding { times, next, .. } | State::Rebooting { times, next, .. } => {
                Some((*next).min(times.expire))
            }
        }
    }

    /// Takes one event and says what is to be done. `now` is any clock that does not go back.
    pub fn handle(&mut self, event: Event<'_>, now: Duration) -> Vec<Action> {
        match event {
            Event::Start if self.state == State::Idle => self.discover(now),
            Event::Start => Vec::new(),
            Event::Received(bytes) => match Reply::parse(bytes, self.xid, self.mac) {
                Some(reply) => self.received(reply, now),
                None => Vec::new(),
            },
            Event::Timer if self.next_deadline().is_some_and(|deadline| deadline <= now) => self.timer(now),
            Event::Timer => Vec::new(),
            Event::LinkBack => self.link_back(now),
        }
    }

    fn discover(&mut self, now: Duration) -> Vec<Action> {
        self.xid = self.xid.wrapping_add(1);
        self.since = now;
        self.state = State::Selecting { tries: 0, next: now + self.wait(0) };
        vec![self.broadcast(Kind::Discover, None, None, Ipv4Addr::UNSPECIFIED, now)]
    }

    fn received(&mut self, reply: Reply, now: Duration) -> Vec<Action> {
        match (&self.state, reply.kind) {
            (State::Selecting { .. }, Kind::Offer) => {
                let request = self.broadcast(
                    Kind::Request,
                    Some(reply.lease.address.addr()),
                    Some(reply.lease.server),
                    Ipv4Addr::UNSPECIFIED,
                    now,
                );
                let next = now + self.wait(0);
                self.state = State::Requesting { offer: reply, tries: 1, sent: now, next };
                vec![request]
            }
            (State::Requesting { offer, sent, .. }, Kind::Ack) if offer.lease.server == reply.lease.server => {
                let sent = *sent;
                self.hold(reply.lease, sent)
            }
            (State::Requesting { offer, .. }, Kind::Nak) if offer.lease.server == reply.lease.server => {
                // Not at once: a server that offers what it then refuses would be asked without end.
                self.refused_by = Some(reply.lease.server);
                let next = now + self.wait(1);
                self.state = State::Selecting { tries: 1, next };
                Vec::new()
            }
            (
                State::Renewing { lease, sent, .. }
                | State::Rebinding { lease, sent, .. }
                | State::Rebooting { lease, sent, .. },
                Kind::Ack,
            ) => {
                let (old, sent) = (lease.clone(), *sent);
                let mut actions = Vec::new();
                if old.address != reply.lease.address {
                    actions.push(Action::Lose(old, Loss::Replaced));
                }
                actions.extend(self.hold(reply.lease, sent));
                actions
            }
            (
                State::Renewing { lease, .. } | State::Rebinding { lease, .. } | State::Rebooting { lease, .. },
                Kind::Nak,
            ) => {
                let mut actions = vec![Action::Lose(lease.clone(), Loss::Refused(reply.lease.server))];
                actions.extend(self.discover(now));
                actions
            }
            _ => Vec::new(),
        }
    }

    /// A lease counts from when it was asked for, not from when the answer came (RFC 2131 4.4.1).
    fn hold(&mut self, lease: Lease, sent: Duration) -> Vec<Action> {
        let times = Times {
            renew: sent + lease.renew_after,
            rebind: sent + lease.rebind_after,
            expire: sent + lease.valid_for,
        };
        self.state = State::Bound { lease: lease.clone(), times };
        self.refused_by = None;
        vec![Action::Hold(lease)]
    }

    fn timer(&mut self, now: Duration) -> Vec<Action> {
        match self.state.clone() {
            State::Idle => Vec::new(),
            State::Selecting { tries, .. } => {
                let tries = tries + 1;
                self.state = State::Selecting { tries, next: now + self.wait(tries) };
                vec![self.broadcast(Kind::Discover, None, None, Ipv4Addr::UNSPECIFIED, now)]
            }
            State::Requesting { tries, .. } if tries >= REQUESTS => self.discover(now),
            State::Requesting { offer, tries, .. } => {
                let lease = &offer.lease;
                let request = self.broadcast(
                    Kind::Request,
                    Some(lease.address.addr()),
                    Some(lease.server),
                    Ipv4Addr::UNSPECIFIED,
                    now,
                );
                let next = now + self.wait(tries);
                self.state = State::Requesting { offer, tries: tries + 1, sent: now, next };
                vec![request]
            }
            State::Bound { lease, times } => {
                self.xid = self.xid.wrapping_add(1);
                self.since = now;
                self.renew(lease, times, now)
            }
            State::Renewing { lease, times, .. } if now < times.rebind => self.renew(lease, times, now),
            State::Renewing { lease, times, .. } => self.rebind(lease, times, now),
            State::Rebinding { lease, times, .. } if now < times.expire => self.rebind(lease, times, now),
            State::Rebinding { lease, .. } => self.end(lease, now),
            State::Rebooting { lease, times, .. } if now >= times.expire => self.end(lease, now),
            State::Rebooting { lease, times, tries, .. } if tries < REQUESTS => self.reboot(lease, times, tries, now),
            // Nobody said that it does not hold (RFC 2131 3.2, 4).
            State::Rebooting { lease, times, .. } if now < times.renew => {
                self.state = State::Bound { lease, times };
                Vec::new()
            }
            State::Rebooting { lease, times, .. } => self.renew(lease, times, now),
        }
    }

    fn end(&mut self, lease: Lease, now: Duration) -> Vec<Action> {
        let mut actions = vec![Action::Lose(lease, Loss::Ended)];
        actions.extend(self.discover(now));
        actions
    }

    fn link_back(&mut self, now: Duration) -> Vec<Action> {
        match self.state.clone() {
            State::Idle => Vec::new(),
            // Whoever was asked did not hear it; the waits begin anew.
            State::Selecting { .. } | State::Requesting { .. } => self.discover(now),
            State::Bound { lease, times }
            | State::Renewing { lease, times, .. }
            | State::Rebinding { lease, times, .. }
            | State::Rebooting { lease, times, .. } => {
                if now >= times.expire {
                    return self.end(lease, now);
                }
                self.xid = self.xid.wrapping_add(1);
                self.since = now;
                self.reboot(lease, times, 0, now)
            }
        }
    }

    /// Asks once more after `tries` requests: a switch may swallow what comes first from a port that was away.
    fn reboot(&mut self, lease: Lease, times: Times, tries: usize, now: Duration) -> Vec<Action> {
        let request = self.broadcast(Kind::Request, Some(lease.address.addr()), None, Ipv4Addr::UNSPECIFIED, now);
        let next = now + self.wait(tries);
        self.state = State::Rebooting { lease, times, tries: tries + 1, sent: now, next };
        vec![request]
    }

    fn renew(&mut self, lease: Lease, times: Times, now: Duration) -> Vec<Action> {
        if now >= times.rebind {
            return self.rebind(lease, times, now);
        }
        let bytes = self.request(Kind::Request, None, None, lease.address.addr(), false, now);
        let to = lease.server;
        self.state = State::Renewing { next: halfway(now, times.rebind, &lease), lease, times, sent: now };
        vec![Action::Send { bytes, to }]
    }

    fn rebind(&mut self, lease: Lease, times: Times, now: Duration) -> Vec<Action> {
        if now >= times.expire {
            return self.end(lease, now);
        }
        let request = self.broadcast(Kind::Request, None, None, lease.address.addr(), now);
        self.state = State::Rebinding { next: halfway(now, times.expire, &lease), lease, times, sent: now };
        vec![request]
    }

    fn broadcast(
        &self,
        kind: Kind,
        wanted: Option<Ipv4Addr>,
        server: Option<Ipv4Addr>,
        own: Ipv4Addr,
        now: Duration,
    ) -> Action {
        Action::Send { bytes: self.request(kind, wanted, server, own, true, now), to: Ipv4Addr::BROADCAST }
    }

    fn request(
        &self,
        kind: Kind,
        wanted: Option<Ipv4Addr>,
        server: Option<Ipv4Addr>,
        own: Ipv4Addr,
        broadcast: bool,
        now: Duration,
    ) -> Vec<u8> {
        let request = Request {
            kind,
            xid: self.xid,
            mac: self.mac,
            seconds: u16::try_from(now.saturating_sub(self.since).as_secs()).unwrap_or(u16::MAX),
            own,
            wanted,
            server,
            host_name: self.host_name.as_deref(),
            broadcast,
        };
        request.encode()
    }

    fn wait(&mut self, tries: usize) -> Duration {
        let wait = RETRANSMISSIONS[tries.min(RETRANSMISSIONS.len() - 1)];
        // RFC 2131 4.1: plus or minus a second; a quarter for the quick one.
        let spread = if wait < Duration::from_secs(4) { 500 } else { 2000 };
        wait + Duration::from_millis(self.jitter.below(spread)) - Duration::from_millis(spread / 2)
    }
}

/// RFC 2131 4.4.5: half of what is left, but not too often.
fn halfway(now: Duration, end: Duration, lease: &Lease) -> Duration {
    let shortest = if lease.valid_for >= Duration::from_secs(3600) { RENEWAL_WAIT } else { SHORTEST_RENEWAL_WAIT };
    now + (end.saturating_sub(now) / 2).max(shortest)
}

/// A row of numbers that look like chance (xorshift64); the seed comes from outside, so that tests repeat.
#[derive(Debug, Clone)]
pub(super) struct Jitter(pub(super) u64);

impl Jitter {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
