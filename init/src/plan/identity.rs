//! Renders who the machine is to its own programs: its name, its address, and the files that libc reads about them.
use std::fmt::Write;
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use kscratch_metadata::{Link, Role, RoleMetadata, is_node_name};

use super::clusterca::{self, Change};
use super::links;
use crate::facts::Facts;

/// The node's name: as the metadata says, else the one that it joined its cluster under, else as DHCP suggests, else made of the machine's
/// identity, which stays over boots. A server that is slow once, or suggests another name, makes no other node of it.
pub(super) fn name(metadata: &RoleMetadata, facts: &Facts) -> String {
    if let Some(name) = metadata.node.name.as_ref().or(joined_as(metadata, facts)) {
        return name.clone();
    }
    if let Some(name) = suggested(facts) {
        return name;
    }
    let id: String = facts.machine_id.chars().take(8).collect();
    format!("kscratch-{id}")
}

/// The name of the certificate that a node's kubelet has.
fn joined_as<'a>(metadata: &RoleMetadata, facts: &'a Facts) -> Option<&'a String> {
    let member = metadata.role == Role::Node
        && metadata.cluster.is_some()
        && facts.joined
        && clusterca::change(metadata, facts) == Change::None;
    facts.node_name.as_ref().filter(|_| member)
}

/// The name that DHCP suggests, if it is fit for a node.
fn suggested(facts: &Facts) -> Option<String> {
    let name = facts.dhcp_hostname.as_deref().map(str::to_ascii_lowercase);
    name.filter(|name| is_node_name(name) && name != "localhost")
}

/// What there is to tell of a name that DHCP suggests in vain.
pub(super) fn passed_over(metadata: &RoleMetadata, facts: &Facts) -> Option<String> {
    let (suggested, joined) = (suggested(facts)?, joined_as(metadata, facts)?);
    (metadata.node.name.is_none() && suggested != *joined).then(|| {
        format!("the DHCP server calls this machine {suggested}; it stays {joined}, as which it joined its cluster (node.name in the metadata gives it another name)")
    })
}

/// The address under which others reach the node, and its link. The link is the first of these that has an IPv4 address: the primary one, one that
/// is there, the one with the default route, the one whose own default route has the smallest metric, the first by name. The address is the link's
/// first fixed one, else the one that it has.
#[must_use]
pub fn uplink(metadata: &RoleMetadata, facts: &Facts) -> Option<(String, Ipv4Net)> {
    let mut links = links::wanted(metadata, facts).unwrap_or_default();
    links.retain(|link| !link.is_member());
    links.sort_by_cached_key(|link| {
        let fact = link.name.as_ref().and_then(|name| facts.link(name));
        let default_route = fact.is_some_and(|fact| fact.default_route);
        let metric = links::default_metric(&link.spec).map_or(u64::MAX, u64::from);
        (!link.spec.primary, !link.there, !default_route, metric, link.name.clone())
    });
    // What masters share is beside a machine's own address, and another's in the next moment.
    let shared = metadata.control_plane.as_ref().and_then(|control_plane| control_plane.virtual_address);
    links.into_iter().find_map(|link| {
        let name = link.name?;
        let has = || facts.link(&name)?.addresses.iter().find(|address| Some(address.addr()) != shared).copied();
        let address = fixed(&link.spec).or_else(has)?;
        Some((name, address))
    })
}

/// The first fixed IPv4 address of a link.
pub(super) fn fixed(link: &Link) -> Option<Ipv4Net> {
    link.addresses.iter().find_map(|address| match address {
        IpNet::V4(address) => Some(*address),
        IpNet::V6(_) => None,
    })
}

/// Whether a link has a fixed IPv4 address: what a lease brings it is beside that, and never the node's.
#[must_use]
pub fn is_fixed(metadata: &RoleMetadata, facts: &Facts, link: &str) -> bool {
    let links = links::wanted(metadata, facts).unwrap_or_default();
    links.iter().any(|wanted| wanted.name.as_deref() == Some(link) && fixed(&wanted.spec).is_some())
}

/// The name servers that the machine asks: as the metadata says, else as DHCP does.
pub(super) fn name_servers<'a>(metadata: &'a RoleMetadata, facts: &'a Facts) -> impl Iterator<Item = &'a Ipv4Addr> {
    let named = &metadata.network.dns_servers;
    let servers = if named.is_empty() { &facts.dns_servers } else { named };
    // MAXNS of resolv.conf(5): further ones are not read, and kubelet warns about each pod.
    servers.iter().filter(|server| !server.is_loopback()).take(3)
}

/// resolv.conf(5). kubelet hands it to pods, so no loopback address may stand in it, and one of IPv6, which they cannot ask, only where it is better
/// than none.
pub(super) fn resolv_conf(metadata: &RoleMetadata, facts: &Facts) -> String {
    let network = &metadata.network;
    let six = facts.names6();
    let leased = if facts.dns_search.is_empty() { &six.search } else { &facts.dns_search };
    let search = if network.search.is_empty() { leased } else { &network.search };
    let mut text = String::new();
    for server in name_servers(metadata, facts) {
        let _ = writeln!(text, "nameserver {server}");
    }
    if text.is_empty() {
        for server in six.servers.iter().take(3) {
            let _ = writeln!(text, "nameserver {server}");
        }
    }
    if !search.is_empty() {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    text
}

/// hosts(5): the machine finds itself without asking anybody.
pub(super) fn hosts(name: &str, address: Option<Ipv4Net>) -> String {
    // 127.0.1.1 is Debian's place for a name without a permanent address.
    let own = address.map_or(Ipv4Addr::new(127, 0, 1, 1), |address| address.addr());
    let short = name.split('.').next().unwrap_or(name);
    let names = if short == name { name.to_owned() } else { format!("{name} {short}") };
    format!("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n{own} {names}\n")
}
