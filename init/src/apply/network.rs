//! Turns the network steps of a plan into what the kernel's links, addresses and routes are, and reads them back as facts.
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use ipnet::{IpNet, Ipv4Net};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

pub mod lent;
mod route;

use crate::facts;
use kscratch_netlink::{LinkNews, Netlink};
pub use route::{Route, remove_route, routes, set_route};

/// What rtnetlink says of one link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Name, e.g. `eth0`.
    pub name: String,
    /// The kernel's number for it.
    pub index: u32,
    /// Hardware address; empty for links that have none.
    pub mac: Vec<u8>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Whether it was brought up.
    pub up: bool,
    /// Whether it can carry packets now: the cable is in, the other side is there.
    pub carrier: bool,
    /// Whether it is a bridge.
    pub bridge: bool,
    /// Whether it is Ethernet with a device behind it, as opposed to bridges, veth, VXLAN and the loopback.
    pub hardware: bool,
    /// Whether it is a bond, a VLAN or a bridge.
    pub made: bool,
    /// Hardware address that it came with, where the kernel knows it: a bond gives its members another one.
    pub permanent: Option<Vec<u8>>,
    /// Index of the bond or bridge that it is a member of.
    pub controller: Option<u32>,
}

/// Lists the links of this network namespace.
///
/// # Errors
/// rtnetlink does not answer.
pub fn links(netlink: &mut Netlink) -> Result<Vec<Link>> {
    let answers = netlink.list(RouteNetlinkMessage::GetLink(LinkMessage::default())).context("listing links")?;
    Ok(answers.iter().filter_map(read_link).collect())
}

/// Finds a link by its name.
///
/// # Errors
/// rtnetlink does not answer.
pub fn link(netlink: &mut Netlink, name: &str) -> Result<Option<Link>> {
    Ok(links(netlink)?.into_iter().find(|link| link.name == name))
}

/// Finds a link by its name, and lists those that are there where it is not.
///
/// # Errors
/// rtnetlink does not answer, or there is no such link.
pub fn existing_link(netlink: &mut Netlink, name: &str) -> Result<Link> {
    let mut names = Vec::new();
    for link in links(netlink)? {
        if link.name == name {
            return Ok(link);
        }
        names.push(link.name);
    }
    bail!("there is no link {name} (there are: {})", names.join(", "))
}

/// Brings a link up, setting its MTU first where given. It may be up already.
///
/// # Errors
/// There is no such link, or it refuses (an MTU that the device cannot do).
pub fn link_up(netlink: &mut Netlink, name: &str, mtu: Option<u32>) -> Result<Link> {
    let link = existing_link(netlink, name)?;
    if let Some(mtu) = mtu.filter(|mtu| *mtu != link.mtu) {
        set_link(netlink, link.index, vec![LinkAttribute::Mtu(mtu)], false)
            .with_context(|| format!("setting the MTU of {name} to {mtu}"))?;
    }
    set_link(netlink, link.index, Vec::new(), true).with_context(|| format!("bringing up {name}"))?;
    existing_link(netlink, name)
}

/// Waits, by the kernel's event, until a link can carry packets. Says whether it can.
///
/// # Errors
/// There is no such link, or rtnetlink does not answer.
pub fn wait_for_carrier(netlink: &mut Netlink, name: &str, within: Duration) -> Result<bool> {
    let end = Instant::now() + within;
    // Subscribed before asking: what happens in between is news, not lost.
    let news = LinkNews::open()?;
    loop {
        if existing_link(netlink, name)?.carrier {
            return Ok(true);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || !news.wait(left)? {
            return Ok(false);
        }
        news.read()?;
    }
}

/// Removes a link where it is there; says whether it was.
///
/// # Errors
/// The kernel refuses.
pub fn remove_link(netlink: &mut Netlink, name: &str) -> Result<bool> {
    let Some(link) = link(netlink, name)? else { return Ok(false) };
    let mut message = LinkMessage::default();
    message.header.index = link.index;
    netlink.change(RouteNetlinkMessage::DelLink(message), 0).with_context(|| format!("removing the link {name}"))?;
    Ok(true)
}

/// Makes a link of a kind that needs only a name (a bridge).
///
/// # Errors
/// The kernel refuses, or there is a link of that name.
pub(super) fn make_link(netlink: &mut Netlink, name: &str, kind: InfoKind, mac: [u8; 6], mtu: u32) -> Result<()> {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Address(mac.to_vec()),
        LinkAttribute::Mtu(mtu),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]),
    ];
    netlink
        .change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
        .with_context(|| format!("making the link {name}"))
}

/// IPv4 addresses of a link with their prefix lengths.
///
/// # Errors
/// rtnetlink does not answer.
pub fn addresses(netlink: &mut Netlink, index: u32) -> Result<Vec<Ipv4Net>> {
    let all = addresses_of(netlink, index, AddressFamily::Inet)?;
    Ok(all
        .into_iter()
        .filter_map(|address| if let IpNet::V4(address) = address { Some(address) } else { None })
        .collect())
}

fn addresses_of(netlink: &mut Netlink, index: u32, family: AddressFamily) -> Result<Vec<IpNet>> {
    let mut message = AddressMessage::default();
    message.header.family = family;
    let answers = netlink.list(RouteNetlinkMessage::GetAddress(message)).context("listing addresses")?;
    Ok(answers.iter().filter_map(|answer| read_address(answer, index)).collect())
}

/// Gives a link an address. It may have it already, and may have others.
///
/// # Errors
/// There is no such link, or the kernel refuses.
pub fn add_address(netlink: &mut Netlink, name: &str, address: Ipv4Net) -> Result<()> {
    let link = existing_link(netlink, name)?;
    if addresses(netlink, link.index)?.contains(&address) {
        return Ok(());
    }
    netlink
        .change(
            RouteNetlinkMessage::NewAddress(address_message(link.index, address.into())),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
        .with_context(|| format!("giving {name} the address {address}"))
}

/// Gives a link addresses of both families, in this order; says whether it lacked one. `alone`: it has no other IPv4 addresses then.
///
/// # Errors
/// There is no such link, or the kernel refuses.
pub fn set_addresses(netlink: &mut Netlink, name: &str, addresses: &[IpNet], alone: bool) -> Result<bool> {
    let link = existing_link(netlink, name)?;
    let mut has = addresses_of(netlink, link.index, AddressFamily::Unspec)?;
    let before = has.clone();
    for other in before.iter().filter(|address| alone && address.addr().is_ipv4() && !addresses.contains(address)) {
        remove_address(netlink, name, *other)?;
        // The kernel takes the others of its network with it.
        has = addresses_of(netlink, link.index, AddressFamily::Unspec)?;
    }
    let lacking: Vec<&IpNet> = addresses.iter().filter(|address| !has.contains(address)).collect();
    for address in &lacking {
        let message = RouteNetlinkMessage::NewAddress(address_message(link.index, **address));
        netlink
            .change(message, NLM_F_CREATE | NLM_F_REPLACE)
            .with_context(|| format!("giving {name} the address {address}"))?;
    }
    Ok(!lacking.is_empty())
}

/// Takes an address from a link where it has it.
///
/// # Errors
/// There is no such link, or the kernel refuses.
pub fn remove_address(netlink: &mut Netlink, name: &str, address: IpNet) -> Result<()> {
    let link = existing_link(netlink, name)?;
    let removed = netlink.change(RouteNetlinkMessage::DelAddress(address_message(link.index, address)), 0);
    match removed {
        Err(error) if errno(&error) == Some(rustix::io::Errno::ADDRNOTAVAIL) => Ok(()),
        other => other.with_context(|| format!("taking the address {address} from {name}")),
    }
}

/// Makes an address the only IPv4 address of a link.
///
/// # Errors
/// There is no such link, or the kernel refuses.
pub fn set_only_address(netlink: &mut Netlink, name: &str, address: Ipv4Net) -> Result<()> {
    let link = existing_link(netlink, name)?;
    for other in addresses(netlink, link.index)? {
        if other != address {
            remove_address(netlink, name, other.into())?;
        }
    }
    add_address(netlink, name, address)
}

/// The links with hardware behind them, with their addresses, by name: what [`facts::Facts::links`] holds.
///
/// # Errors
/// rtnetlink does not answer.
pub fn hardware_links(netlink: &mut Netlink) -> Result<BTreeMap<String, facts::Link>> {
    facts_of(netlink, |link| link.hardware && !link.made)
}

/// Bonds, VLANs and bridges, but for those of pods, by name: what [`facts::Facts::made`] holds.
///
/// # Errors
/// rtnetlink does not answer.
pub fn made_links(netlink: &mut Netlink) -> Result<BTreeMap<String, facts::Link>> {
    facts_of(netlink, |link| link.made && !["cbr0", "docker0"].contains(&link.name.as_str()))
}

fn facts_of(netlink: &mut Netlink, wanted: fn(&Link) -> bool) -> Result<BTreeMap<String, facts::Link>> {
    // Of several default routes the kernel takes the one with the smallest metric.
    let default = routes(netlink)?.into_iter().filter(|route| route.destination.prefix_len() == 0);
    let default = default.min_by_key(|route| route.metric.unwrap_or(0)).and_then(|route| route.link);
    let mut found = BTreeMap::new();
    for link in links(netlink)?.into_iter().filter(wanted) {
        let mac = link.permanent.as_deref().filter(|mac| mac.iter().any(|byte| *byte != 0)).unwrap_or(&link.mac);
        let Ok(mac) = <[u8; 6]>::try_from(mac) else { continue };
        let addresses = addresses(netlink, link.index)?;
        let default_route = default == Some(link.index);
        found.insert(link.name, facts::Link { mac, mtu: link.mtu, addresses, default_route });
    }
    Ok(found)
}

/// The kernel's error at the root of a chain.
pub(super) fn errno(error: &anyhow::Error) -> Option<rustix::io::Errno> {
    rustix::io::Errno::from_io_error(error.root_cause().downcast_ref::<io::Error>()?)
}

pub(super) fn set_link(netlink: &mut Netlink, index: u32, attributes: Vec<LinkAttribute>, up: bool) -> Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    if up {
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
    }
    message.attributes = attributes;
    netlink.change(RouteNetlinkMessage::SetLink(message), 0)
}

/// Reads an answer or an event that tells of a link.
pub fn read_link(message: &RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let flags = message.header.flags;
    let mut link = Link {
        name: String::new(),
        index: message.header.index,
        mac: Vec::new(),
        mtu: 0,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        bridge: false,
        hardware: false,
        made: false,
        permanent: None,
        controller: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(mac) => link.mac.clone_from(mac),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::LinkInfo(infos) => {
                let is = |kind| infos.contains(&LinkInfo::Kind(kind));
                link.bridge = is(InfoKind::Bridge);
                link.made = link.bridge || is(InfoKind::Bond) || is(InfoKind::Vlan);
            }
            LinkAttribute::PermAddress(mac) => link.permanent = Some(mac.clone()),
            // Zero where it has left one.
            LinkAttribute::Controller(index) => link.controller = Some(*index).filter(|index| *index != 0),
            // Only a link that a driver bound to a device has a parent on a bus.
            LinkAttribute::ParentDevName(_) => link.hardware = message.header.link_layer_type == LinkLayerType::Ether,
            _ => {}
        }
    }
    Some(link)
}

fn read_address(message: &RouteNetlinkMessage, index: u32) -> Option<IpNet> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    // IFA_LOCAL is the link's own address, IFA_ADDRESS the far end's on point-to-point links (linux/if_addr.h); IPv6 has the second alone.
    let own = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address @ IpAddr::V4(_)) | AddressAttribute::Address(address @ IpAddr::V6(_)) => {
            Some(*address)
        }
        _ => None,
    })?;
    (message.header.index == index).then(|| IpNet::new(own, message.header.prefix_len).ok())?
}

fn address_message(index: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address);
    message.header.prefix_len = address.prefix_len();
    message.header.index = index;
    message.header.scope = AddressScope::Universe;
    let ip = address.addr();
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    // /31 and /32 have no broadcast address (RFC 3021).
    if let IpNet::V4(address) = address
        && address.prefix_len() < 31
    {
        message.attributes.push(AddressAttribute::Broadcast(address.broadcast()));
    }
    message
}

fn family(net: IpNet) -> AddressFamily {
    match net {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    }
}
