//! Turns IPv6 addresses that are lent for a time into those of a link, and reads whether they can be used.
use std::net::{IpAddr, Ipv6Addr};

use anyhow::{Context as _, Result};
use ipnet::{IpNet, Ipv6Net};
use kscratch_netlink::Netlink;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, CacheInfo};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{address_message, read_address};

/// How far the kernel is with its question whether another one on the link has the address (RFC 4862, 5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Another one has it.
    Duplicate,
    /// It asks, and lets nobody use the address meanwhile.
    Tentative,
    /// It may be used.
    Usable,
}

/// Lends a link an address, or lends it anew: for so many seconds, after the first number of which nothing new begins with it. `u32::MAX` is for ever.
///
/// # Errors
/// There is no such link, or the kernel refuses.
pub fn lend(netlink: &mut Netlink, index: u32, address: Ipv6Addr, preferred: u32, valid: u32) -> Result<()> {
    let mut message = address_message(index, whole(address));
    // An address is all that DHCPv6 gives: what else is on the link, routers say (RFC 5942, 4).
    message.attributes.push(AddressAttribute::Flags(AddressFlags::Noprefixroute));
    let mut times = CacheInfo::default();
    (times.ifa_preferred, times.ifa_valid) = (preferred, valid);
    message.attributes.push(AddressAttribute::CacheInfo(times));
    netlink
        .change(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)
        .with_context(|| format!("lending the link the address {address}"))
}

/// An address and nothing beside it.
#[must_use]
pub fn whole(address: Ipv6Addr) -> IpNet {
    IpNet::V6(Ipv6Net::from(address))
}

/// The best standing of those addresses of a link that are wanted; `None` where it has none of them.
///
/// # Errors
/// rtnetlink does not answer.
pub fn standing(netlink: &mut Netlink, index: u32, wanted: impl Fn(Ipv6Addr) -> bool) -> Result<Option<Standing>> {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet6;
    let answers = netlink.list(RouteNetlinkMessage::GetAddress(message)).context("listing IPv6 addresses")?;
    let standing = answers.iter().filter_map(|answer| match read_address(answer, index)?.addr() {
        IpAddr::V6(address) if wanted(address) => Some(read_standing(answer)),
        _ => None,
    });
    Ok(standing.max())
}

fn read_standing(message: &RouteNetlinkMessage) -> Standing {
    let RouteNetlinkMessage::NewAddress(message) = message else { return Standing::Tentative };
    let flags = message.header.flags;
    if flags.contains(AddressHeaderFlags::Dadfailed) {
        Standing::Duplicate
    } else if flags.contains(AddressHeaderFlags::Tentative) && !flags.contains(AddressHeaderFlags::Optimistic) {
        Standing::Tentative
    } else {
        Standing::Usable
    }
}
