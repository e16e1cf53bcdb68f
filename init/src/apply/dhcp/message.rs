//! Turns DHCP requests into bytes, and a server's bytes into a lease that is fit for use (RFC 2131, RFC 2132, RFC 3442).
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use dhcproto::v4::{DhcpOption, Flags, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable as _, Decoder, Encodable as _, Encoder};
use ipnet::Ipv4Net;

/// Leases are not taken for less; a server's slip must not make the machine ask without pause.
const SHORTEST_LEASE: Duration = Duration::from_secs(10);
/// "For ever" (RFC 2131 3.3); a hundred years on our clock.
const INFINITE: u32 = u32::MAX;
/// Bytes before the options: the fixed fields and the cookie (RFC 2131, section 2).
const HEAD: usize = 240;
/// What tells DHCP from BOOTP (RFC 2131, section 3).
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// IPv4 does not work below this (RFC 791).
const SMALLEST_MTU: u16 = 576;

/// Kinds of messages that a client sends or hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Discover,
    Offer,
    Request,
    Ack,
    Nak,
}

/// What a server gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Our address and the link's range.
    pub address: Ipv4Net,
    /// Who gave it.
    pub server: Ipv4Addr,
    /// Routes in the server's order, the default route among them.
    pub routes: Vec<Route>,
    /// Name servers in the server's order.
    pub dns_servers: Vec<Ipv4Addr>,
    /// Domains in which short names are looked up.
    pub search: Vec<String>,
    /// Host name for us.
    pub host_name: Option<String>,
    /// Time servers.
    pub time_servers: Vec<Ipv4Addr>,
    /// MTU of the link in bytes.
    pub mtu: Option<u32>,
    /// For how long it holds.
    pub valid_for: Duration,
    /// T1: when to ask the server for more.
    pub renew_after: Duration,
    /// T2: when to ask any server for more.
    pub rebind_after: Duration,
}

/// A route of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Which addresses.
    pub destination: Ipv4Net,
    /// Through whom; none for addresses on the link itself.
    pub gateway: Option<Ipv4Addr>,
}

impl Lease {
    /// Whether another lease gives the same, for however long: servers spread T1 and T2 by chance (RFC 2131, 4.4.5), so that every
    /// renewal brings others.
    #[must_use]
    pub fn gives_as(&self, other: &Self) -> bool {
        let Self { valid_for, renew_after, rebind_after, .. } = *self;
        *self == Self { valid_for, renew_after, rebind_after, ..other.clone() }
    }
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {} for {} s", self.address, self.server, self.valid_for.as_secs())
    }
}

/// A message to a server.
pub(super) struct Request<'a> {
    pub kind: Kind,
    pub xid: u32,
    pub mac: [u8; 6],
    pub seconds: u16,
    /// Our address while we renew it, else 0.0.0.0 (`ciaddr`).
    pub own: Ipv4Addr,
    pub wanted: Option<Ipv4Addr>,
    pub server: Option<Ipv4Addr>,
    pub host_name: Option<&'a str>,
    /// Whether the answer has to be a broadcast: before the address is ours, the kernel takes no other.
    pub broadcast: bool,
}

impl Request<'_> {
    /// The message's bytes. (Encoding what is built here cannot fail; should it, an empty packet is sent and nobody answers.)
    pub(super) fn encode(&self) -> Vec<u8> {
        let none = Ipv4Addr::UNSPECIFIED;
        let mut message = Message::new_with_id(self.xid, self.own, none, none, none, &self.mac);
        message.set_secs(self.seconds);
        message.set_flags(if self.broadcast { Flags::default().set_broadcast() } else { Flags::default() });
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(match self.kind {
            Kind::Discover => MessageType::Discover,
            Kind::Offer => MessageType::Offer,
            Kind::Request => MessageType::Request,
            Kind::Ack => MessageType::Ack,
            Kind::Nak => MessageType::Nak,
        }));
        // Type 1 (Ethernet) and the address: the same machine is the same client at every boot (RFC 2132 9.14).
        let mut identifier = vec![1];
        identifier.extend(self.mac);
        options.insert(DhcpOption::ClientIdentifier(identifier));
        options.insert(DhcpOption::MaxMessageSize(1472));
        if let Some(wanted) = self.wanted {
            options.insert(DhcpOption::RequestedIpAddress(wanted));
        }
        if let Some(server) = self.server {
            options.insert(DhcpOption::ServerIdentifier(server));
        }
        if let Some(name) = self.host_name {
            options.insert(DhcpOption::Hostname(name.to_owned()));
        }
        options.insert(DhcpOption::ParameterRequestList(vec![
            OptionCode::SubnetMask,
            // RFC 3442: before the router, for servers that send only as much as fits.
            OptionCode::ClasslessStaticRoute,
            OptionCode::Router,
            OptionCode::DomainNameServer,
            OptionCode::Hostname,
            OptionCode::DomainName,
            OptionCode::DomainSearch,
            OptionCode::InterfaceMtu,
            OptionCode::NtpServers,
            OptionCode::AddressLeaseTime,
            OptionCode::ServerIdentifier,
            OptionCode::Renewal,
            OptionCode::Rebinding,
        ]));
        let mut bytes = Vec::with_capacity(400);
        if message.encode(&mut Encoder::new(&mut bytes)).is_err() {
            bytes.clear();
        }
        // BOOTP's least length; some relays drop what is shorter (RFC 951).
        if !bytes.is_empty() && bytes.len() < 300 {
            bytes.resize(300, 0);
        }
        bytes
    }
}

/// A server's message for us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub kind: Kind,
    /// What it gives; of a refusal only `server` means something.
    pub lease: Lease,
}

impl Reply {
    /// Reads a packet. `None` for everything that is not a sound answer to our request: it may be anybody's.
    pub(super) fn parse(bytes: &[u8], xid: u32, mac: [u8; 6]) -> Option<Self> {
        let message = Message::decode(&mut Decoder::new(&sound(bytes)?)).ok()?;
        if message.opcode() != Opcode::BootReply || message.xid() != xid || message.chaddr() != mac {
            return None;
        }
        let kind = match message.opts().msg_type()? {
            MessageType::Offer => Kind::Offer,
            MessageType::Ack => Kind::Ack,
            MessageType::Nak => Kind::Nak,
            _ => return None,
        };
        let server = match message.opts().get(OptionCode::ServerIdentifier) {
            Some(DhcpOption::ServerIdentifier(server)) if is_host(*server) => *server,
            // RFC 2131, table 3, wants one, and QEMU's server (libslirp) gives none.
            None if kind == Kind::Nak && is_host(message.siaddr()) => message.siaddr(),
            _ => return None,
        };
        let lease = match kind {
            Kind::Nak => empty_lease(server),
            _ => read_lease(&message, server)?,
        };
        Some(Self { kind, lease })
    }
}

/// Keeps of a packet what we read of it. dhcproto panics (it asserts lengths) on some options that no client asks for, and on an address longer
/// than its field; PID 1 must not fall to a packet, so only what was asked for gets to it, in the lengths of RFC 2132.
fn sound(bytes: &[u8]) -> Option<Vec<u8>> {
    let (head, mut options) = bytes.split_at_checked(HEAD)?;
    if !head.ends_with(&COOKIE) || head[2] != 6 {
        return None;
    }
    let mut kept = head.to_vec();
    while let Some((&code, rest)) = options.split_first() {
        match code {
            0 => options = rest,
            255 => break,
            _ => {
                let (&length, rest) = rest.split_first()?;
                let (value, rest) = rest.split_at_checked(usize::from(length))?;
                let fits = match code {
                    1 | 51 | 54 | 58 | 59 => length == 4,
                    3 | 6 | 42 => length > 0 && length % 4 == 0,
                    26 => length == 2,
                    53 => length == 1,
                    12 | 15 | 119 | 121 => length > 0,
                    _ => false,
                };
                if fits {
                    kept.extend([code, length]);
                    kept.extend(value);
                }
                options = rest;
            }
        }
    }
    kept.push(255);
    Some(kept)
}

fn empty_lease(server: Ipv4Addr) -> Lease {
    Lease {
        address: Ipv4Net::default(),
        server,
        routes: Vec::new(),
        dns_servers: Vec::new(),
        search: Vec::new(),
        host_name: None,
        time_servers: Vec::new(),
        mtu: None,
        valid_for: Duration::ZERO,
        renew_after: Duration::ZERO,
        rebind_after: Duration::ZERO,
    }
}

fn read_lease(message: &Message, server: Ipv4Addr) -> Option<Lease> {
    let options = message.opts();
    let own = message.yiaddr();
    if !is_host(own) {
        return None;
    }
    let mut lease = empty_lease(server);
    let mut netmask = None;
    let mut routers = Vec::new();
    let mut classless = None;
    let (mut valid, mut renew, mut rebind) = (None, None, None);
    for (_, option) in options.iter() {
        match option {
            DhcpOption::SubnetMask(mask) => {
                netmask = ipnet::ipv4_mask_to_prefix(*mask).ok().filter(|length| *length > 0)
            }
            DhcpOption::Router(list) => routers.clone_from(list),
            DhcpOption::ClasslessStaticRoute(list) => classless = Some(list.clone()),
            DhcpOption::DomainNameServer(list) => lease.dns_servers = hosts(list),
            DhcpOption::NtpServers(list) => lease.time_servers = hosts(list),
            DhcpOption::Hostname(name) => lease.host_name = domain(name),
            DhcpOption::InterfaceMtu(mtu) => lease.mtu = (*mtu >= SMALLEST_MTU).then_some(u32::from(*mtu)),
            DhcpOption::AddressLeaseTime(seconds) => valid = Some(*seconds),
            DhcpOption::Renewal(seconds) => renew = Some(*seconds),
            DhcpOption::Rebinding(seconds) => rebind = Some(*seconds),
            _ => {}
        }
    }
    lease.address = Ipv4Net::new(own, netmask.unwrap_or_else(|| class_prefix(own))).ok()?;
    lease.routes = routes(classless, &routers);
    lease.search = search(message);
    (lease.valid_for, lease.renew_after, lease.rebind_after) = times(valid?, renew, rebind);
    Some(lease)
}

/// Lease, T1 and T2; the latter two where they are missing or out of order are 1/2 and 7/8 (RFC 2131 4.4.5).
fn times(valid: u32, renew: Option<u32>, rebind: Option<u32>) -> (Duration, Duration, Duration) {
    let seconds =
        |value: u32| Duration::from_secs(if value == INFINITE { 100 * 365 * 86_400 } else { u64::from(value) });
    let valid = seconds(valid).max(SHORTEST_LEASE);
    let rebind = rebind.map(seconds).filter(|time| !time.is_zero() && *time < valid).unwrap_or(valid * 7 / 8);
    let renew =
        renew.map(seconds).filter(|time| !time.is_zero() && *time < rebind).unwrap_or((valid / 2).min(rebind * 4 / 7));
    (valid, renew, rebind)
}

/// RFC 3442: where there are classless routes, the router option does not count.
fn routes(classless: Option<Vec<(Ipv4Net, Ipv4Addr)>>, routers: &[Ipv4Addr]) -> Vec<Route> {
    match classless.filter(|list| !list.is_empty()) {
        Some(list) => list
            .into_iter()
            .filter(|(_, gateway)| gateway.is_unspecified() || is_host(*gateway))
            .map(|(destination, gateway)| Route {
                destination: destination.trunc(),
                gateway: (!gateway.is_unspecified()).then_some(gateway),
            })
            .collect(),
        None => hosts(routers)
            .first()
            .map(|gateway| Route { destination: Ipv4Net::default(), gateway: Some(*gateway) })
            .into_iter()
            .collect(),
    }
}

fn search(message: &Message) -> Vec<String> {
    if let Some(DhcpOption::DomainSearch(names)) = message.opts().get(OptionCode::DomainSearch) {
        return names.iter().filter_map(|name| domain(&name.to_string())).collect();
    }
    match message.opts().get(OptionCode::DomainName) {
        Some(DhcpOption::DomainName(names)) => names.split_ascii_whitespace().filter_map(domain).collect(),
        _ => Vec::new(),
    }
}

/// A name as it may stand in resolv.conf or be a host name. These come from whoever answers first on the link: anything else would let
/// them write lines of their own into our files.
pub(in crate::apply) fn domain(text: &str) -> Option<String> {
    let name = text.trim_end_matches(['.', '\0']);
    let sound = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    (name.len() <= 253 && name.split('.').all(sound)).then(|| name.to_ascii_lowercase())
}

fn hosts(list: &[Ipv4Addr]) -> Vec<Ipv4Addr> {
    list.iter().copied().filter(|address| is_host(*address)).collect()
}

fn is_host(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_broadcast() || address.is_multicast() || address.is_loopback())
}

/// The range of an address in the days before netmasks (RFC 791), for servers that send none.
fn class_prefix(address: Ipv4Addr) -> u8 {
    match address.octets()[0] {
        0..=127 => 8,
        128..=191 => 16,
        _ => 24,
    }
}
