//! Turns the words of `[network.links]` (names, addresses and routes of both families) into values, or into the fault they have.
use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::address::Interface;
use crate::read::{Fault, fault};
use crate::syntax;

/// The overlay's device, which the agent makes.
const OVERLAY: &str = "kscratch-vx";

/// The name of a link's table, which is the kernel's name of a link that is made.
pub(crate) fn link_name(text: &str) -> Result<(), Fault> {
    if text == OVERLAY {
        return Err(fault(format!("{text:?} is the name of the pods' overlay"), "give the link another name"));
    }
    // The kernel puts a number in place of a `%d`.
    if text.contains('%') {
        return Err(fault(format!("{text:?} is no name of a link"), "leave out the `%`"));
    }
    match syntax::interface(text)? {
        Interface::Name(_) => Ok(()),
        Interface::Mac(mac) => Err(fault(
            format!("{text:?} is a hardware address"),
            format!("give the table a name of yours, and write `mac = \"{mac}\"` in it"),
        )),
    }
}

/// `ADDRESS/PREFIX` of a host, of either family.
pub(crate) fn address(text: &str) -> Result<IpNet, Fault> {
    if let Ok(net) = text.parse::<Ipv6Net>() {
        let address = net.addr();
        if address.is_unspecified() || address.is_loopback() || address.is_multicast() || net.prefix_len() == 0 {
            return Err(fault(format!("{net} is no address of a host"), "write it like 2001:db8::20/64"));
        }
        return Ok(IpNet::V6(net));
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(fault(format!("{text:?} has no prefix length"), format!("write it like {text}/64")));
    }
    let net = syntax::address_in_network(text)?;
    if !is_host(net) {
        let what = format!("{} is the network's own or its broadcast address", net.addr());
        return Err(fault(what, "give the address of a host"));
    }
    Ok(IpNet::V4(net))
}

fn is_host(net: Ipv4Net) -> bool {
    net.prefix_len() >= 31 || (net.addr() != net.network() && net.addr() != net.broadcast())
}

/// A range of addresses that a route leads to.
pub(crate) fn destination(text: &str) -> Result<IpNet, Fault> {
    let net: IpNet = text.parse().map_err(|_| match text.parse::<IpAddr>() {
        Ok(address) => {
            let length = if address.is_ipv4() { 32 } else { 128 };
            fault(format!("{text:?} has no prefix length"), format!("write {text}/{length} for this address alone"))
        }
        Err(_) => fault(format!("{text:?} is no ADDRESS/PREFIX"), "write it like 10.8.0.0/16 or 2001:db8:8::/48"),
    })?;
    if net != net.trunc() {
        return Err(fault(
            format!("{net} is an address inside a range"),
            format!("write the range itself: {}", net.trunc()),
        ));
    }
    if net.addr().is_multicast() || net.addr().is_loopback() {
        return Err(fault(format!("{net} is no range of other machines"), "give the range of a network"));
    }
    Ok(net)
}

/// A neighbour of either family.
pub(crate) fn gateway(text: &str) -> Result<IpAddr, Fault> {
    let address: IpAddr = text
        .parse()
        .map_err(|_| fault(format!("{text:?} is no address"), "write it like 192.168.7.1 or 2001:db8::1"))?;
    let broadcast = IpAddr::V4(std::net::Ipv4Addr::BROADCAST);
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() || address == broadcast {
        return Err(fault(format!("{address} is no router's address"), "give the address of a router on the link"));
    }
    Ok(address)
}
