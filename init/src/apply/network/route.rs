//! Turns routes into those of the kernel's main table, and reads that back.
use std::net::IpAddr;

use anyhow::{Context as _, Result};
use ipnet::{IpNet, Ipv4Net};
use kscratch_netlink::Netlink;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{errno, family};

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Which addresses, `0.0.0.0/0` for all.
    pub destination: IpNet,
    /// Through which neighbour; none for addresses on the link itself.
    pub gateway: Option<IpAddr>,
    /// Index of the link; none where the gateway tells it.
    pub link: Option<u32>,
    /// Smaller is preferred; none is the kernel's 0.
    pub metric: Option<u32>,
}

/// Sets a route; one to the same destination (and of the same metric) is replaced.
///
/// # Errors
/// The kernel refuses (a gateway that is on no link).
pub fn set_route(netlink: &mut Netlink, route: Route) -> Result<()> {
    netlink.change(RouteNetlinkMessage::NewRoute(route_message(route)), NLM_F_CREATE | NLM_F_REPLACE).with_context(
        || match route.gateway {
            Some(gateway) => format!("setting the route to {} through {gateway}", route.destination),
            None => format!("setting the route to {}", route.destination),
        },
    )
}

/// Removes a route; it may be gone already.
///
/// # Errors
/// The kernel refuses.
pub fn remove_route(netlink: &mut Netlink, route: Route) -> Result<()> {
    let removed = netlink.change(RouteNetlinkMessage::DelRoute(route_message(route)), 0);
    match removed {
        Err(error) if errno(&error) == Some(rustix::io::Errno::SRCH) => Ok(()),
        other => other.with_context(|| format!("removing the route to {}", route.destination)),
    }
}

/// Routes of the main table that somebody set (the kernel's own, which come with addresses, are left out).
///
/// # Errors
/// rtnetlink does not answer.
pub fn routes(netlink: &mut Netlink) -> Result<Vec<Route>> {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    let answers = netlink.list(RouteNetlinkMessage::GetRoute(message)).context("listing routes")?;
    Ok(answers.iter().filter_map(read_route).collect())
}

fn route_address(ip: IpAddr) -> RouteAddress {
    match ip {
        IpAddr::V4(ip) => RouteAddress::Inet(ip),
        IpAddr::V6(ip) => RouteAddress::Inet6(ip),
    }
}

fn route_message(route: Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(route.destination);
    message.header.destination_prefix_length = route.destination.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    // IPv6 has no scopes of routes.
    let on_link = route.gateway.is_none() && route.destination.addr().is_ipv4();
    message.header.scope = if on_link { RouteScope::Link } else { RouteScope::Universe };
    message.attributes.push(RouteAttribute::Destination(route_address(route.destination.network())));
    message.attributes.extend(route.gateway.map(|gateway| RouteAttribute::Gateway(route_address(gateway))));
    if let Some(link) = route.link {
        message.attributes.push(RouteAttribute::Oif(link));
        // Clouds give an address with a /32 and a gateway outside of it; the link is named, so it is meant (ip-route(8), onlink).
        if route.gateway.is_some_and(|gateway| gateway.is_ipv4()) {
            message.header.flags |= RouteFlags::Onlink;
        }
    }
    message.attributes.extend(route.metric.map(RouteAttribute::Priority));
    message
}

fn read_route(message: &RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    let header = &message.header;
    if header.table != RouteHeader::RT_TABLE_MAIN
        || header.protocol == RouteProtocol::Kernel
        || header.kind != RouteType::Unicast
    {
        return None;
    }
    let mut route = Route { destination: Ipv4Net::default().into(), gateway: None, link: None, metric: None };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => {
                route.destination = Ipv4Net::new(*ip, header.destination_prefix_length).ok()?.into();
            }
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => route.gateway = Some((*ip).into()),
            RouteAttribute::Oif(index) => route.link = Some(*index),
            RouteAttribute::Priority(metric) => route.metric = Some(*metric),
            _ => {}
        }
    }
    Some(route)
}
