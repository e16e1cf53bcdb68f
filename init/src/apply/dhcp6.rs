//! Turns DHCPv6 messages and the passing of time into messages to send and leases to hold (RFC 8415): a pure state machine.
//!
//! [`keeper::Keeper`] is the socket around it.
use std::net::Ipv6Addr;
use std::time::Duration;

use dhcproto::v6::Status;

use crate::apply::dhcp::Jitter;

mod event;
mod identity;
pub mod keeper;
mod message;
mod retransmission;
mod sound;
#[cfg(test)]
mod tests;

pub use event::{Action, Event, Loss};
pub use identity::Identity;
pub use keeper::{Change, Keeper};
pub use message::Lease;
use message::{Kind, Reply, Request};
use retransmission::{CONFIRM, DECLINE, Pace, REBIND, RENEW, REQUEST, Retransmission, SOLICIT};

/// How long a server that offers what it then refuses, or gives what another machine has, is left in peace.
const PAUSE: Duration = Duration::from_secs(5);
/// An offer of this preference is taken at once (RFC 8415, 18.2.1).
const MOST_PREFERRED: u8 = 255;

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Nothing is wanted yet.
    Idle,
    /// Solicits again at that time.
    Pausing { until: Duration },
    /// SOLICIT was sent. Of the offers that come before the first wait is over, the best is taken.
    Selecting { best: Option<(u8, Lease)>, turns: Retransmission },
    /// REQUEST was sent to a server, for an address that it offered, or that it forgot.
    Requesting { server_id: Vec<u8>, address: Ipv6Addr, turns: Retransmission },
    /// A lease is held until `times.expire`.
    Bound { lease: Lease, times: Times },
    /// T1 is over: the server is asked.
    Renewing { lease: Lease, times: Times, turns: Retransmission },
    /// T2 is over: any server is asked.
    Rebinding { lease: Lease, times: Times, turns: Retransmission },
    /// The link was away: whoever serves this network now is asked whether the address belongs here (RFC 8415, 18.2.3).
    Confirming { lease: Lease, times: Times, turns: Retransmission },
    /// The server is told that another machine has its address (RFC 8415, 18.2.8).
    Declining { server_id: Vec<u8>, address: Ipv6Addr, turns: Retransmission },
}

/// When a lease's parts end, on the caller's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times {
    renew: Duration,
    rebind: Duration,
    expire: Duration,
}

/// A DHCPv6 client of one link, for one address.
#[derive(Debug, Clone)]
pub struct Client {
    identity: Identity,
    host_name: Option<String>,
    /// Of the exchange under way, 24 bits; the next one has the next number.
    xid: u32,
    jitter: Jitter,
    /// [`SOLICIT`], or what a server says of it (SOL_MAX_RT).
    soliciting: Pace,
    state: State,
    /// Who refused last to give an address; none once there is a lease.
    refused_by: Option<Ipv6Addr>,
}

impl Client {
    /// A client for a link, which tells servers the machine's name. `xid` should differ from that of other machines on the link; `seed` spreads the retransmissions of machines
    /// that were switched on together. Neither needs to be secret.
    #[must_use]
    pub fn new(identity: Identity, host_name: Option<String>, xid: u32, seed: u64) -> Self {
        let jitter = Jitter(seed | 1);
        Self { identity, host_name, xid, jitter, soliciting: SOLICIT, state: State::Idle, refused_by: None }
    }

    /// The link's address is another one by now; whether it makes another client. With a lease it goes on as the one that got it.
    pub fn is_known_as(&mut self, identity: Identity) -> bool {
        if self.lease().is_some() || self.identity == identity {
            return false;
        }
        self.identity = identity;
        true
    }

    /// The lease that is held.
    #[must_use]
    pub fn lease(&self) -> Option<&Lease> {
        self.held().map(|(lease, _)| lease)
    }

    fn held(&self) -> Option<(&Lease, Times)> {
        match &self.state {
            State::Bound { lease, times }
            | State::Renewing { lease, times, .. }
            | State::Rebinding { lease, times, .. }
            | State::Confirming { lease, times, .. } => Some((lease, *times)),
            _ => None,
        }
    }

    /// The server that refused to give an address, since there was a lease last.
    #[must_use]
    pub fn refused_by(&self) -> Option<Ipv6Addr> {
        self.refused_by
    }

    /// When [`Event::Timer`] is wanted at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        match &self.state {
            State::Idle => None,
            State::Pausing { until } => Some(*until),
            State::Selecting { turns, .. } | State::Requesting { turns, .. } | State::Declining { turns, .. } => {
                Some(turns.due())
            }
            State::Bound { times, .. } => Some(times.renew),
            State::Renewing { times, turns, .. } => Some(turns.due().min(times.rebind)),
            State::Rebinding { times, turns, .. } | State::Confirming { times, turns, .. } => {
                Some(turns.due().min(times.expire))
            }
        }
    }

    /// Takes one event and says what is to be done. `now` is any clock that does not go back.
    pub fn handle(&mut self, event: Event<'_>, now: Duration) -> Vec<Action> {
        match event {
            Event::Start if self.state == State::Idle => self.solicit(now),
            Event::Start => Vec::new(),
            Event::Received { bytes, from } => match Reply::parse(bytes, from, self.xid, &self.identity) {
                Some(reply) => self.received(&reply, now),
                None => Vec::new(),
            },
            Event::Timer if self.next_deadline().is_some_and(|deadline| deadline <= now) => self.timer(now),
            Event::Timer => Vec::new(),
            Event::LinkBack => self.link_back(now),
            Event::Duplicate => self.decline(now),
        }
    }

    fn received(&mut self, reply: &Reply, now: Duration) -> Vec<Action> {
        // RFC 8415, 18.2.9: also of an offer that is none.
        self.soliciting.longest = reply.longest_wait.or(self.soliciting.longest);
        match (self.state.clone(), reply.kind) {
            (State::Selecting { best, turns }, Kind::Advertise) => self.offered(reply, best, turns, now),
            (State::Selecting { turns, .. }, Kind::Reply) if reply.rapid => match reply.lease(None) {
                Some(lease) => self.hold(lease.clone(), turns.sent),
                None => self.note_refusal(reply),
            },
            (State::Requesting { server_id, address, turns }, Kind::Reply) if server_id == reply.server_id => {
                match reply.lease(Some(address)) {
                    Some(lease) => self.hold(lease.clone(), turns.sent),
                    None => {
                        self.state = State::Pausing { until: now + PAUSE };
                        self.note_refusal(reply)
                    }
                }
            }
            (State::Renewing { lease, turns, .. } | State::Rebinding { lease, turns, .. }, Kind::Reply) => {
                self.extended(reply, lease, turns.sent, now)
            }
            (State::Confirming { lease, times, .. }, Kind::Reply) => match reply.status {
                Status::Success => self.go_on(lease, times, now),
                Status::NotOnLink => self.lose(lease, Loss::Refused(reply.from), now),
                _ => Vec::new(),
            },
            (State::Declining { .. }, Kind::Reply) => {
                self.state = State::Pausing { until: now + PAUSE };
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// RFC 8415, 18.2.9: one without an address is no offer.
    fn offered(
        &mut self,
        reply: &Reply,
        best: Option<(u8, Lease)>,
        turns: Retransmission,
        now: Duration,
    ) -> Vec<Action> {
        let Some(lease) = reply.lease(None) else { return self.note_refusal(reply) };
        if turns.times > 1 || reply.preference == MOST_PREFERRED {
            return self.request(lease.server_id.clone(), lease.address, now);
        }
        let best = match best {
            Some(best) if best.0 >= reply.preference => best,
            _ => (reply.preference, lease.clone()),
        };
        self.state = State::Selecting { best: Some(best), turns };
        Vec::new()
    }

    fn note_refusal(&mut self, reply: &Reply) -> Vec<Action> {
        self.refused_by = Some(reply.from);
        Vec::new()
    }

    /// RFC 8415, 18.2.10.1.
    fn extended(&mut self, reply: &Reply, old: Lease, sent: Duration, now: Duration) -> Vec<Action> {
        if reply.status == Status::NoBinding {
            // It has forgotten us, and may give the same address again.
            let mut actions = vec![Action::Lose(old.clone(), Loss::Refused(reply.from))];
            actions.extend(self.request(reply.server_id.clone(), old.address, now));
            return actions;
        }
        match reply.lease(Some(old.address)) {
            Some(lease) => {
                let replaced = (lease.address != old.address).then_some(Action::Lose(old, Loss::Replaced));
                replaced.into_iter().chain(self.hold(lease.clone(), sent)).collect()
            }
            None if reply.withdraws(old.address) => self.lose(old, Loss::Refused(reply.from), now),
            None => Vec::new(),
        }
    }

    /// A lease counts from when it was asked for: the server's own count does not begin before.
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

    fn lose(&mut self, lease: Lease, loss: Loss, now: Duration) -> Vec<Action> {
        let mut actions = vec![Action::Lose(lease, loss)];
        actions.extend(self.solicit(now));
        actions
    }

    fn timer(&mut self, now: Duration) -> Vec<Action> {
        match self.state.clone() {
            State::Idle => Vec::new(),
            State::Pausing { .. } => self.solicit(now),
            State::Selecting { best: Some((_, offer)), .. } => self.request(offer.server_id, offer.address, now),
            State::Selecting { best: None, turns } => {
                let turns = turns.again(now, &mut self.jitter);
                let action = self.send(Kind::Solicit, None, None, &turns);
                self.state = State::Selecting { best: None, turns };
                vec![action]
            }
            State::Requesting { turns, .. } | State::Declining { turns, .. } if turns.is_over(now) => self.solicit(now),
            State::Requesting { server_id, address, turns } => {
                let turns = turns.again(now, &mut self.jitter);
                let action = self.send(Kind::Request, Some(&server_id), Some(address), &turns);
                self.state = State::Requesting { server_id, address, turns };
                vec![action]
            }
            State::Declining { server_id, address, turns } => {
                let turns = turns.again(now, &mut self.jitter);
                let action = self.send(Kind::Decline, Some(&server_id), Some(address), &turns);
                self.state = State::Declining { server_id, address, turns };
                vec![action]
            }
            State::Bound { lease, times } => self.renew(lease, times, None, now),
            State::Renewing { lease, times, turns } => self.renew(lease, times, Some(turns), now),
            State::Rebinding { lease, times, turns } => self.rebind(lease, times, Some(turns), now),
            State::Confirming { lease, times, .. } if now >= times.expire => self.lose(lease, Loss::Ended, now),
            // Nobody said that it does not belong here (RFC 8415, 18.2.3).
            State::Confirming { lease, times, turns } if turns.is_over(now) => self.go_on(lease, times, now),
            State::Confirming { lease, times, turns } => {
                let turns = turns.again(now, &mut self.jitter);
                let action = self.send(Kind::Confirm, None, Some(lease.address), &turns);
                self.state = State::Confirming { lease, times, turns };
                vec![action]
            }
        }
    }

    fn link_back(&mut self, now: Duration) -> Vec<Action> {
        match self.held() {
            None if self.state == State::Idle => Vec::new(),
            // Whoever was asked did not hear it; the waits begin anew.
            None => self.solicit(now),
            Some((lease, times)) => {
                let lease = lease.clone();
                if now >= times.expire {
                    return self.lose(lease, Loss::Ended, now);
                }
                let turns = self.exchange(CONFIRM, now);
                let action = self.send(Kind::Confirm, None, Some(lease.address), &turns);
                self.state = State::Confirming { lease, times, turns };
                vec![action]
            }
        }
    }

    fn decline(&mut self, now: Duration) -> Vec<Action> {
        let Some(lease) = self.lease().cloned() else { return Vec::new() };
        let turns = self.exchange(DECLINE, now);
        let action = self.send(Kind::Decline, Some(&lease.server_id), Some(lease.address), &turns);
        self.state = State::Declining { server_id: lease.server_id.clone(), address: lease.address, turns };
        vec![Action::Lose(lease, Loss::Duplicate), action]
    }

    /// The first one of RFC 8415 waits up to a second, so that machines that are switched on together do not ask together; the link's address was
    /// waited for as long, by chance as well (RFC 4862, 5.4.2).
    fn solicit(&mut self, now: Duration) -> Vec<Action> {
        self.next_exchange();
        let turns = Retransmission::soliciting(self.soliciting, now, &mut self.jitter);
        let action = self.send(Kind::Solicit, None, None, &turns);
        self.state = State::Selecting { best: None, turns };
        vec![action]
    }

    fn request(&mut self, server_id: Vec<u8>, address: Ipv6Addr, now: Duration) -> Vec<Action> {
        let turns = self.exchange(REQUEST, now);
        let action = self.send(Kind::Request, Some(&server_id), Some(address), &turns);
        self.state = State::Requesting { server_id, address, turns };
        vec![action]
    }

    /// A lease holds still, up to T1 or beyond.
    fn go_on(&mut self, lease: Lease, times: Times, now: Duration) -> Vec<Action> {
        if now < times.renew {
            self.state = State::Bound { lease, times };
            return Vec::new();
        }
        self.renew(lease, times, None, now)
    }

    fn renew(&mut self, lease: Lease, times: Times, before: Option<Retransmission>, now: Duration) -> Vec<Action> {
        if now >= times.rebind {
            return self.rebind(lease, times, None, now);
        }
        let turns = self.turns(RENEW, before, now);
        let action = self.send(Kind::Renew, Some(&lease.server_id), Some(lease.address), &turns);
        self.state = State::Renewing { lease, times, turns };
        vec![action]
    }

    fn rebind(&mut self, lease: Lease, times: Times, before: Option<Retransmission>, now: Duration) -> Vec<Action> {
        if now >= times.expire {
            return self.lose(lease, Loss::Ended, now);
        }
        let turns = self.turns(REBIND, before, now);
        let action = self.send(Kind::Rebind, None, Some(lease.address), &turns);
        self.state = State::Rebinding { lease, times, turns };
        vec![action]
    }

    fn turns(&mut self, pace: Pace, before: Option<Retransmission>, now: Duration) -> Retransmission {
        match before {
            Some(turns) => turns.again(now, &mut self.jitter),
            None => self.exchange(pace, now),
        }
    }

    fn exchange(&mut self, pace: Pace, now: Duration) -> Retransmission {
        self.next_exchange();
        Retransmission::begin(pace, now, &mut self.jitter)
    }

    fn next_exchange(&mut self) {
        self.xid = self.xid.wrapping_add(1) & 0xff_ffff;
    }

    fn send(&self, kind: Kind, to: Option<&[u8]>, address: Option<Ipv6Addr>, turns: &Retransmission) -> Action {
        let elapsed = turns.sent.saturating_sub(turns.begun);
        let (identity, host_name) = (&self.identity, self.host_name.as_deref());
        let request = Request { kind, xid: self.xid, identity, host_name, elapsed, server_id: to, address };
        Action::Send(request.encode())
    }
}
