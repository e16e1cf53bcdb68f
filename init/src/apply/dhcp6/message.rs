//! Turns DHCPv6 requests into bytes, and a server's bytes into a lease that is fit for use (RFC 8415, RFC 3646, RFC 4704, RFC 5908).
use std::fmt;
use std::net::Ipv6Addr;
use std::time::Duration;

use dhcproto::v6::{DhcpOption, DhcpOptions, IAAddr, IANA, NtpSuboption, ORO, OptionCode, Status, UnknownOption};
use dhcproto::{Decodable as _, Decoder, Encodable as _, Encoder};

use super::Identity;
use super::sound::{HEAD, sound};
use crate::apply::dhcp::domain;

/// Leases are not taken for less; a server's slip must not make the machine ask without pause.
const SHORTEST_LEASE: Duration = Duration::from_secs(10);
/// What [`INFINITE`] is on our clock: a hundred years.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 86_400);
/// "For ever" (RFC 8415, 7.7).
const INFINITE: u32 = u32::MAX;
/// What SOL_MAX_RT may be, in seconds (RFC 8415, 21.24).
const SOL_MAX_RT: std::ops::RangeInclusive<u32> = 60..=86_400;

/// The server may put our name into the DNS (RFC 4704, 4.1: the S bit).
const UPDATES_DNS: u8 = 1;

/// Kinds of messages that a client sends or hears, by their numbers (RFC 8415, 7.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Solicit = 1,
    Advertise = 2,
    Request = 3,
    Confirm = 4,
    Renew = 5,
    Rebind = 6,
    Reply = 7,
    Decline = 9,
}

/// What a server gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Our address. Nothing is said of the network around it.
    pub address: Ipv6Addr,
    /// The neighbour that said so: the server, or what carries its word onto the link.
    pub server: Ipv6Addr,
    /// Who the server says it is.
    pub server_id: Vec<u8>,
    /// Name servers in the server's order.
    pub dns_servers: Vec<Ipv6Addr>,
    /// Domains in which short names are looked up.
    pub search: Vec<String>,
    /// Time servers, addresses or names, in the server's order.
    pub time_servers: Vec<String>,
    /// For how long something new may begin with the address.
    pub preferred_for: Duration,
    /// For how long it holds.
    pub valid_for: Duration,
    /// T1: when to ask the server for more.
    pub renew_after: Duration,
    /// T2: when to ask any server for more.
    pub rebind_after: Duration,
}

impl Lease {
    /// Whether another lease gives the same, for however long.
    #[must_use]
    pub fn gives_as(&self, other: &Self) -> bool {
        let Self { preferred_for, valid_for, renew_after, rebind_after, .. } = *self;
        *self == Self { preferred_for, valid_for, renew_after, rebind_after, ..other.clone() }
    }

    /// For how long the address is preferred and valid, as the kernel counts it, in seconds.
    #[must_use]
    pub fn lifetimes(&self) -> (u32, u32) {
        let seconds = |time: Duration| {
            if time >= FOREVER { INFINITE } else { u32::try_from(time.as_secs()).unwrap_or(INFINITE) }
        };
        (seconds(self.preferred_for), seconds(self.valid_for))
    }
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {} for {} s", self.address, self.server, self.valid_for.as_secs())
    }
}

/// A message to a server, or to all.
pub(super) struct Request<'a> {
    pub kind: Kind,
    /// 24 bits.
    pub xid: u32,
    pub identity: &'a Identity,
    /// What we are called; a name without a dot is in whatever domain the server puts it.
    pub host_name: Option<&'a str>,
    /// Since the exchange began.
    pub elapsed: Duration,
    /// Who alone is meant.
    pub server_id: Option<&'a [u8]>,
    /// The address that it is about.
    pub address: Option<Ipv6Addr>,
}

impl Request<'_> {
    /// The message's bytes. (Encoding what is built here cannot fail; should it, an empty packet is sent and nobody answers.)
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut options = DhcpOptions::new();
        options.insert(DhcpOption::ClientId(self.identity.duid.clone()));
        if let Some(server_id) = self.server_id {
            options.insert(DhcpOption::ServerId(server_id.to_vec()));
        }
        let mut inner = DhcpOptions::new();
        if let Some(addr) = self.address {
            let opts = DhcpOptions::new();
            inner.insert(DhcpOption::IAAddr(IAAddr { addr, preferred_life: 0, valid_life: 0, opts }));
        }
        options.insert(DhcpOption::IANA(IANA { id: self.identity.iaid, t1: 0, t2: 0, opts: inner }));
        // In hundredths of a second (RFC 8415, 21.9).
        let elapsed = u16::try_from(self.elapsed.as_millis() / 10).unwrap_or(u16::MAX);
        options.insert(DhcpOption::ElapsedTime(elapsed));
        // RFC 8415, 21.7: not in a Confirm or a Decline.
        if matches!(self.kind, Kind::Solicit | Kind::Request | Kind::Renew | Kind::Rebind) {
            let opts = vec![
                OptionCode::DomainNameServers,
                OptionCode::DomainSearchList,
                OptionCode::NtpServer,
                OptionCode::SolMaxRt,
            ];
            options.insert(DhcpOption::ORO(ORO { opts }));
            // In these four alone, too (RFC 4704, 5).
            if let Some(name) = self.host_name.and_then(wire_name) {
                let name = [vec![UPDATES_DNS], name].concat();
                options.insert(DhcpOption::Unknown(UnknownOption::new(OptionCode::ClientFqdn, name)));
            }
        }
        if self.kind == Kind::Solicit {
            options.insert(DhcpOption::RapidCommit);
        }
        let mut encoded = Vec::with_capacity(200);
        if options.encode(&mut Encoder::new(&mut encoded)).is_err() {
            return Vec::new();
        }
        let [_, xid @ ..] = self.xid.to_be_bytes();
        let mut bytes = vec![self.kind as u8];
        bytes.extend(xid);
        bytes.extend(encoded);
        bytes
    }
}

/// Whom a message names, whatever addresses it gives.
#[derive(Debug, Default)]
struct Names {
    dns_servers: Vec<Ipv6Addr>,
    search: Vec<String>,
    time_servers: Vec<String>,
}

/// A server's message for us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub kind: Kind,
    /// What is given, of each address that is; what was there already is looked for first.
    leases: Vec<Lease>,
    /// Addresses that must not be used any more.
    withdrawn: Vec<Ipv6Addr>,
    /// The neighbour that it comes from.
    pub from: Ipv6Addr,
    pub server_id: Vec<u8>,
    /// Of offers, the largest is taken.
    pub preference: u8,
    /// Whether it answers a solicitation at once.
    pub rapid: bool,
    /// What is wrong, of the message or else of the link's addresses.
    pub status: Status,
    /// The longest wait between solicitations.
    pub longest_wait: Option<Duration>,
}

impl Reply {
    /// Reads a packet of a neighbour. `None` for everything that is not a sound answer to our request (RFC 8415, 16): it may be anybody's.
    pub(super) fn parse(bytes: &[u8], from: Ipv6Addr, xid: u32, identity: &Identity) -> Option<Self> {
        let sound = sound(bytes)?;
        let (head, options) = sound.split_at_checked(HEAD)?;
        let kind = match head[0] {
            2 => Kind::Advertise,
            7 => Kind::Reply,
            _ => return None,
        };
        if head[1..] != xid.to_be_bytes()[1..] {
            return None;
        }
        let options = DhcpOptions::decode(&mut Decoder::new(options)).ok()?;
        let mut reply = Self {
            kind,
            leases: Vec::new(),
            withdrawn: Vec::new(),
            from,
            server_id: Vec::new(),
            preference: 0,
            rapid: false,
            status: Status::Success,
            longest_wait: None,
        };
        let (mut client, mut association, mut names) = (None, None, Names::default());
        for option in options.iter() {
            match option {
                DhcpOption::ClientId(duid) => client = Some(duid),
                DhcpOption::ServerId(duid) => reply.server_id.clone_from(duid),
                DhcpOption::IANA(one) if one.id == identity.iaid => association = Some(one),
                DhcpOption::Preference(preference) => reply.preference = *preference,
                DhcpOption::RapidCommit => reply.rapid = true,
                DhcpOption::StatusCode(code) => reply.status = code.status,
                DhcpOption::DomainNameServers(list) => {
                    names.dns_servers = list.iter().copied().filter(|address| is_global(*address)).collect();
                }
                DhcpOption::DomainSearchList(list) => {
                    names.search = list.iter().filter_map(|name| domain(&name.to_string())).collect();
                }
                DhcpOption::NtpServer(list) => names.time_servers.extend(list.iter().filter_map(time_server)),
                DhcpOption::Unknown(option) if option.code() == OptionCode::SolMaxRt => {
                    reply.longest_wait = longest_wait(option.data());
                }
                _ => {}
            }
        }
        if client != Some(&identity.duid) || reply.server_id.is_empty() {
            return None;
        }
        if let Some(association) = association {
            reply.take(association, &names);
        }
        Some(reply)
    }

    /// The lease that it gives, of the address that we have, if that is one of them.
    pub(super) fn lease(&self, held: Option<Ipv6Addr>) -> Option<&Lease> {
        self.leases.iter().find(|lease| Some(lease.address) == held).or(self.leases.first())
    }

    /// Whether it says that an address must not be used any more.
    pub(super) fn withdraws(&self, address: Ipv6Addr) -> bool {
        self.withdrawn.contains(&address)
    }

    fn take(&mut self, association: &IANA, names: &Names) {
        for option in association.opts.iter() {
            let given = match option {
                DhcpOption::StatusCode(code) => {
                    if self.status == Status::Success {
                        self.status = code.status;
                    }
                    continue;
                }
                DhcpOption::IAAddr(given) if is_global(given.addr) => given,
                _ => continue,
            };
            let fault =
                |option: &DhcpOption| matches!(option, DhcpOption::StatusCode(code) if code.status != Status::Success);
            if given.valid_life == 0 || given.opts.iter().any(fault) {
                self.withdrawn.push(given.addr);
            } else if let Some(times) = times(association, given) {
                let (preferred_for, valid_for, renew_after, rebind_after) = times;
                self.leases.push(Lease {
                    address: given.addr,
                    server: self.from,
                    server_id: self.server_id.clone(),
                    dns_servers: names.dns_servers.clone(),
                    search: names.search.clone(),
                    time_servers: names.time_servers.clone(),
                    preferred_for,
                    valid_for,
                    renew_after,
                    rebind_after,
                });
            }
        }
    }
}

/// For how long it is preferred and valid, T1 and T2; the latter two, where the server leaves them to us, are 0.5 and 0.8 of what is preferred
/// (RFC 8415, 21.4). `None` where they are out of order.
fn times(association: &IANA, given: &IAAddr) -> Option<(Duration, Duration, Duration, Duration)> {
    let seconds = |value: u32| if value == INFINITE { FOREVER } else { Duration::from_secs(u64::from(value)) };
    let (t1, t2) = (association.t1, association.t2);
    if given.preferred_life > given.valid_life || (t1 > t2 && t2 > 0) {
        return None;
    }
    let (preferred, valid) = (seconds(given.preferred_life), seconds(given.valid_life).max(SHORTEST_LEASE));
    // One that is not preferred at all is asked for by what is left of it.
    let span = if preferred.is_zero() { valid } else { preferred };
    let rebind = if t2 == 0 { span * 4 / 5 } else { seconds(t2) };
    let rebind = rebind.clamp(SHORTEST_LEASE * 4 / 5, valid);
    let renew = if t1 == 0 { (span / 2).min(rebind) } else { seconds(t1) };
    let renew = renew.clamp(SHORTEST_LEASE / 2, rebind);
    Some((preferred, valid, renew, rebind))
}

/// A name as messages have it. One label is a part of a name: no root ends it (RFC 4704, 4.2). `None` where it is no name.
fn wire_name(name: &str) -> Option<Vec<u8>> {
    let name = domain(name)?;
    let mut bytes = Vec::with_capacity(name.len() + 2);
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).ok()?);
        bytes.extend(label.bytes());
    }
    if name.contains('.') {
        bytes.push(0);
    }
    Some(bytes)
}

/// A time server that can be asked; one that only calls out to a multicast group cannot (RFC 5908, 4).
fn time_server(option: &NtpSuboption) -> Option<String> {
    match option {
        NtpSuboption::ServerAddress(address) => is_global(*address).then(|| address.to_string()),
        NtpSuboption::FQDN(name) => domain(&name.to_string()),
        NtpSuboption::MulticastAddress(_) => None,
    }
}

fn longest_wait(data: &[u8]) -> Option<Duration> {
    let seconds = u32::from_be_bytes(data.try_into().ok()?);
    SOL_MAX_RT.contains(&seconds).then(|| Duration::from_secs(u64::from(seconds)))
}

/// Whether an address is one that a server can give, or that a name server or a time server can have: those of the link alone want the link's name beside them.
fn is_global(address: Ipv6Addr) -> bool {
    !(address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || address.is_unicast_link_local()
        || address.to_ipv4_mapped().is_some())
}
