//! Checks the rules that hold between links: who carries whom, who has addresses, and that each route's gateway is where the link is.
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use crate::error::Problem;
use crate::links::{Bond, BondMode, Link, MOST_ARP_TARGETS, Route};
use crate::read::{Reader, fault, quoted};
use crate::role::{Network, RoleMetadata};

const LINKS: &str = "network.links";
type Links = BTreeMap<String, Link>;

/// Reports every rule that is broken, unless a link is wrong in itself.
pub(crate) fn check(reader: &mut Reader<'_>, metadata: &RoleMetadata) {
    let links = &metadata.network.links;
    if links.is_empty() || reader.faulty_below(LINKS) {
        return;
    }
    short_form_beside(reader);
    let ranges = match &metadata.cluster {
        Some(cluster) => {
            vec![("cluster.pod_range", cluster.pod_range), ("cluster.service_range", cluster.service_range)]
        }
        None => metadata.node_pod_range().map(|range| ("node.pod_range", range)).into_iter().collect(),
    };
    let shared = metadata.control_plane.as_ref().and_then(|control_plane| control_plane.virtual_address);
    if let Some(member_of) = between(reader, links, &ranges, shared) {
        primary(reader, links, &member_of);
    }
}

/// What is wrong with links that were not read of metadata: all the rules but those that want an IPv4 address. Empty where nothing is.
pub fn link_problems(network: &Network) -> Vec<String> {
    let mut reader = Reader::new();
    between(&mut reader, &network.links, &[], None);
    let told = |problem: Problem| {
        format!("{}: {}", problem.field.strip_prefix("network.links.").unwrap_or(&problem.field), problem.what)
    };
    reader.take_problems().into_iter().map(told).collect()
}

/// Rules between links; gives who is a member of whom, where no link is carried by itself.
fn between<'l>(
    reader: &mut Reader<'_>,
    links: &'l Links,
    ranges: &[(&str, Ipv4Net)],
    shared: Option<Ipv4Addr>,
) -> Option<BTreeMap<&'l str, &'l str>> {
    let mut member_of: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, link) in links {
        one_kind(reader, name, link);
        below(reader, links, name, link);
        for member in link.members() {
            let other = member_of.insert(member, name);
            if let Some(other) = other.filter(|_| links.contains_key(member)) {
                let what = format!("{member} is a member of {other} too");
                reader.fault_at(&at(name, kind(link)), fault(what, "let it be a member of one of them"));
            }
        }
        if let Some(bond) = &link.bond {
            bond_options(reader, name, bond);
        }
    }
    if loops(reader, links) {
        return None;
    }
    networks_told_apart(reader, links);
    for (name, link) in links {
        match member_of.get(name.as_str()) {
            Some(of) => member(reader, links, name, link, of),
            None => routes(reader, name, link),
        }
        mtu(reader, links, name, link);
    }
    addresses(reader, links, ranges, shared);
    same_ways(reader, links);
    Some(member_of)
}

fn at(name: &str, field: &str) -> String {
    let name = quoted(name);
    if field.is_empty() { format!("{LINKS}.{name}") } else { format!("{LINKS}.{name}.{field}") }
}

fn kind(link: &Link) -> &'static str {
    match (&link.bond, &link.vlan, &link.bridge) {
        (Some(_), _, _) => "bond",
        (_, Some(_), _) => "vlan",
        (_, _, Some(_)) => "bridge",
        _ => "",
    }
}

/// One shape or the other: what both said would have to be guessed.
fn short_form_beside(reader: &mut Reader<'_>) {
    for field in ["network.interface", "network.static", "network.mtu"] {
        if reader.given(field) {
            let fix = "write it into the link's own table, [network.links.NAME], or remove the tables";
            reader.fault_at(field, fault("stands beside network.links", fix));
        }
    }
}

fn one_kind(reader: &mut Reader<'_>, name: &str, link: &Link) {
    let given = [("bond", link.bond.is_some()), ("vlan", link.vlan.is_some()), ("bridge", link.bridge.is_some())];
    let given: Vec<&str> = given.iter().filter(|(_, given)| *given).map(|(kind, _)| *kind).collect();
    if let [first, second, ..] = given.as_slice() {
        let what = format!("is a {first} and a {second}");
        reader.fault_at(&at(name, ""), fault(what, "give each a table of its own"));
    }
    if let (Some(_), [kind, ..]) = (link.mac, given.as_slice()) {
        let what = format!("tells a card, and this link is a {kind}");
        reader.fault_at(&at(name, "mac"), fault(what, "remove it, or move it to a card's table"));
    }
}

/// What carries a link is there, and can carry it.
fn below(reader: &mut Reader<'_>, links: &Links, name: &str, link: &Link) {
    for other in link.below() {
        let field = at(name, kind(link));
        let Some(found) = links.get(other) else {
            let fix = format!("add [{}] (an empty table is the card of that name), or correct the name", at(other, ""));
            reader.fault_at(&field, fault(format!("there is no link {other:?}"), fix));
            continue;
        };
        let (what, fix) = match (kind(link), kind(found)) {
            ("bond", "bond" | "vlan" | "bridge") => ("a bond's members are cards", "name the cards themselves"),
            ("bridge", "bridge") => ("a bridge cannot be a member of another", "name its members instead"),
            _ => continue,
        };
        reader.fault_at(&field, fault(format!("{other} is a {}, and {what}", kind(found)), fix));
    }
}

/// Options that the kernel would refuse, or pass over.
fn bond_options(reader: &mut Reader<'_>, name: &str, bond: &Bond) {
    let mode = bond.mode;
    let mut report = |field: &str, what: String, fix: &str| {
        reader.fault_at(&at(name, &format!("bond.{field}")), fault(what, fix));
    };
    if bond.lacp_rate.is_some() && mode != BondMode::Lacp {
        report(
            "lacp_rate",
            format!("says nothing in the mode {}", mode.word()),
            "remove it, or set mode = \"802.3ad\"",
        );
    }
    if bond.hash_policy.is_some() && !mode.hashes() {
        let fix = "remove it, or set mode to balance-xor, 802.3ad or balance-tlb";
        report("hash_policy", format!("says nothing in the mode {}", mode.word()), fix);
    }
    arp_monitor(bond, &mut report);
    let Some(primary) = &bond.primary else { return };
    if !mode.has_primary() {
        let fix = "remove it, or set mode to active-backup, balance-tlb or balance-alb";
        report("primary", format!("says nothing in the mode {}", mode.word()), fix);
    } else if !bond.members.contains(primary) {
        report("primary", format!("{primary:?} is no member of this bond"), "name one of its members");
    }
}

/// A bond looks at carriers or asks by ARP, and whoever asks has somebody to ask for.
fn arp_monitor(bond: &Bond, report: &mut impl FnMut(&str, String, &str)) {
    if bond.arp_targets.len() > MOST_ARP_TARGETS {
        let what = format!("names {} addresses, of which the kernel takes {MOST_ARP_TARGETS}", bond.arp_targets.len());
        report("arp_targets", what, "name fewer");
    }
    if bond.arp_interval.is_none() {
        if !bond.arp_targets.is_empty() {
            let fix = "add arp_interval = 200, milliseconds between two questions, or remove it";
            report("arp_targets", "is asked for by nobody".to_owned(), fix);
        }
        return;
    }
    if !bond.mode.asks() {
        let fix = "use miimon, or set mode to balance-rr, active-backup, balance-xor or broadcast";
        report("arp_interval", format!("is nothing for the mode {}", bond.mode.word()), fix);
    }
    if bond.arp_targets.is_empty() {
        let fix = "add arp_targets, addresses that always answer: the gateway's, for one";
        report("arp_interval", "asks for nobody".to_owned(), fix);
    }
    if bond.miimon.is_some() {
        report("miimon", "stands beside arp_interval, and a bond has one monitor".to_owned(), "remove one of the two");
    }
}

/// Whether a link is carried by itself.
fn loops(reader: &mut Reader<'_>, links: &Links) -> bool {
    fn reaches<'l>(links: &'l Links, from: &'l str, to: &str, seen: &mut BTreeSet<&'l str>) -> bool {
        let below = links.get(from).map(|link| link.below().collect::<Vec<_>>()).unwrap_or_default();
        below.into_iter().any(|next| next == to || (seen.insert(next) && reaches(links, next, to, seen)))
    }
    let looped = links.keys().find(|name| reaches(links, name, name, &mut BTreeSet::new()));
    if let Some(name) = looped {
        let field = at(name, links.get(name).map_or("", kind));
        reader.fault_at(&field, fault(format!("{name} is carried by itself"), "name other links below it"));
    }
    looped.is_some()
}

/// Two links that are the same one.
fn networks_told_apart(reader: &mut Reader<'_>, links: &Links) {
    let (mut vlans, mut macs) = (BTreeMap::new(), BTreeMap::new());
    for (name, link) in links {
        if let Some(vlan) = &link.vlan
            && let Some(other) = vlans.insert((&vlan.over, vlan.id), name)
        {
            let what = format!("{} on {} is the VLAN of {other} too", vlan.id, vlan.over);
            reader.fault_at(&at(name, "vlan.id"), fault(what, "give each its own number"));
        }
        if let Some(mac) = link.mac
            && let Some(other) = macs.insert(mac, name)
        {
            let what = format!("{mac} is the hardware address of {other} too");
            reader.fault_at(&at(name, "mac"), fault(what, "give each its own"));
        }
    }
}

/// A member's packets are those of the link that it is a member of.
fn member(reader: &mut Reader<'_>, links: &Links, name: &str, link: &Link, of: &str) {
    let bonded = links.get(of).is_some_and(|of| of.bond.is_some());
    let fields = [
        ("dhcp4", link.dhcp4),
        ("dhcp6", link.dhcp6),
        ("addresses", !link.addresses.is_empty()),
        ("accept_ra", link.accept_ra == Some(true)),
        ("routes", !link.routes.is_empty()),
        ("primary", link.primary),
        ("mtu", link.mtu.is_some() && bonded),
    ];
    for (field, given) in fields {
        if given {
            let what = format!("is of a member of {of}, which has none of its own");
            reader.fault_at(&at(name, field), fault(what, format!("move it to [{}]", at(of, ""))));
        }
    }
    if bonded
        && let Some((over, _)) =
            links.iter().find(|(_, other)| other.vlan.as_ref().is_some_and(|vlan| vlan.over == name))
    {
        let what = format!("{name} is a member of {of}, which takes all of its packets");
        reader.fault_at(&at(over, "vlan.over"), fault(what, format!("write over = {of:?}")));
    }
}

fn mtu(reader: &mut Reader<'_>, links: &Links, name: &str, link: &Link) {
    let Some(mtu) = link.mtu else { return };
    let ipv6 = link.addresses.iter().any(|net| net.addr().is_ipv6()) || link.dhcp6 || link.accept_ra == Some(true);
    // RFC 8200, section 5.
    if ipv6 && mtu < 1280 {
        reader.fault_at(&at(name, "mtu"), fault(format!("{mtu} is too small for IPv6"), "give at least 1280"));
    }
    let over = link.vlan.as_ref().and_then(|vlan| Some((&vlan.over, links.get(&vlan.over)?.mtu?)));
    if let Some((over, most)) = over.filter(|(_, most)| mtu > *most) {
        let what = format!("{mtu} is larger than that of {over}, {most}");
        reader.fault_at(&at(name, "mtu"), fault(what, "make it no larger than that of the link below"));
    }
}

/// A gateway is a neighbour; what DHCP and routers bring is not known yet.
fn routes(reader: &mut Reader<'_>, name: &str, link: &Link) {
    for (index, route) in link.routes.iter().enumerate() {
        let field = |key: &str| at(name, &format!("routes[{index}].{key}"));
        let (Some(to), gateway) = (route.leads_to(), route.gateway) else { continue };
        if let Some(gateway) = gateway {
            if to.addr().is_ipv4() != gateway.is_ipv4() {
                let what = format!("{gateway} is of another family than {to}");
                reader.fault_at(&field("gateway"), fault(what, "give an address of the same family"));
            } else if let Err((what, fix)) = neighbour(link, gateway) {
                reader.fault_at(&field("gateway"), fault(what, fix));
            }
        } else if link.addresses.iter().all(|net| net.addr().is_ipv4() != to.addr().is_ipv4())
            && !learns(link, to.addr())
        {
            let fix = "give the link one, or the route a gateway";
            reader.fault_at(&field("destination"), fault("the link has no address of this family", fix));
        }
    }
}

/// Whether a link gets addresses of a family that are not written here.
fn learns(link: &Link, like: IpAddr) -> bool {
    if like.is_ipv4() { link.dhcp4 } else { link.dhcp6 || link.accept_ra != Some(false) }
}

fn neighbour(link: &Link, gateway: IpAddr) -> Result<(), (String, String)> {
    let near = |net: &&IpNet| net.contains(&gateway);
    if link.addresses.iter().any(|net| net.addr() == gateway) {
        return Err((format!("{gateway} is the link's own address"), "give the address of a router".to_owned()));
    }
    let unicast_local = matches!(gateway, IpAddr::V6(ip) if ip.is_unicast_link_local());
    match link.addresses.iter().find(near) {
        Some(IpNet::V4(net))
            if net.prefix_len() < 31 && [net.network(), net.broadcast()].map(IpAddr::V4).contains(&gateway) =>
        {
            let what = format!("{gateway} is the network's own or its broadcast address");
            Err((what, format!("give the address of a router inside {}", net.trunc())))
        }
        Some(_) => Ok(()),
        None if unicast_local || learns(link, gateway) || on_link(link, gateway) => Ok(()),
        None => {
            let what = format!("{gateway} lies in none of the link's networks");
            Err((what, "give a router's address of one of them, or the link an address beside it".to_owned()))
        }
    }
}

/// Whether an IPv4 gateway is a neighbour although no network of the link has it: clouds give an address with a /32, and a router outside of that;
/// or a route without a gateway says that it is on the link.
fn on_link(link: &Link, gateway: IpAddr) -> bool {
    let alone = |net: &IpNet| matches!(net, IpNet::V4(net) if net.prefix_len() == 32);
    let leads = |route: &Route| route.gateway.is_none() && route.leads_to().is_some_and(|to| to.contains(&gateway));
    gateway.is_ipv4() && (link.addresses.iter().any(alone) || link.routes.iter().any(leads))
}

/// Addresses are each machine's and link's own, and none is of the pods or services.
fn addresses(reader: &mut Reader<'_>, links: &Links, ranges: &[(&str, Ipv4Net)], shared: Option<Ipv4Addr>) {
    let mut seen: BTreeMap<IpAddr, &str> = BTreeMap::new();
    for (name, link) in links {
        for (index, net) in link.addresses.iter().enumerate() {
            let field = at(name, &format!("addresses[{index}]"));
            if let Some(other) = seen.insert(net.addr(), name) {
                let what = format!("{} is an address of {other} too", net.addr());
                reader.fault_at(&field, fault(what, "give each address once"));
            }
            let IpNet::V4(net) = net else { continue };
            let over = |(_, range): &&(&str, Ipv4Net)| range.contains(&net.network()) || net.contains(&range.network());
            if let Some((with, range)) = ranges.iter().find(over).filter(|(with, _)| !reader.faulty(with)) {
                let default = if reader.given(with) { "" } else { " (the default)" };
                let what = format!("{net} overlaps {with}{default}, {range}");
                reader.fault_at(&field, fault(what, format!("move one of the two: set {with} or this address")));
            }
            if shared == Some(net.addr()) {
                let what = format!("{} is what the masters share, control_plane.virtual_address", net.addr());
                reader.fault_at(&field, fault(what, "give the link an address of this machine's own"));
            }
        }
    }
}

/// The kernel keeps one route of each destination and metric.
fn same_ways(reader: &mut Reader<'_>, links: &Links) {
    let mut ways: BTreeMap<(IpNet, u32), &str> = BTreeMap::new();
    for (name, link) in links {
        for (index, route) in link.routes.iter().enumerate() {
            let Route { metric, .. } = route;
            let Some(to) = route.leads_to() else { continue };
            if let Some(other) = ways.insert((to, metric.unwrap_or(0)), name) {
                let what = format!("{to} has a route of the same metric on {other} already");
                let fix = "remove one of the two, or give them different metrics";
                reader.fault_at(&at(name, &format!("routes[{index}]")), fault(what, fix));
            }
        }
    }
}

/// The node's address is of one link; all that a cluster does to a node, it does by IPv4.
fn primary(reader: &mut Reader<'_>, links: &Links, member_of: &BTreeMap<&str, &str>) {
    let has_ipv4 = |link: &Link| link.dhcp4 || link.addresses.iter().any(|net| net.addr().is_ipv4());
    if !links.iter().any(|(name, link)| has_ipv4(link) && !member_of.contains_key(name.as_str())) {
        let fix = "write `dhcp4 = true` or `addresses = [\"192.168.7.20/24\"]` into one of its tables";
        return reader.fault_at(LINKS, fault("gives this machine no IPv4 address", fix));
    }
    let mut first: Option<&String> = None;
    for (name, link) in links.iter().filter(|(_, link)| link.primary) {
        if let Some(other) = first {
            let what = format!("{other} is the primary link too");
            reader.fault_at(&at(name, "primary"), fault(what, "let one of them be it"));
        } else if !has_ipv4(link) && !member_of.contains_key(name.as_str()) {
            let fix = "write `dhcp4 = true`, or give it an IPv4 address";
            reader.fault_at(&at(name, "primary"), fault("the node's address is IPv4, and this link has none", fix));
        }
        first.get_or_insert(name);
    }
}

/// Whether an address that masters share lies in one of a machine's networks, as far as those are known.
pub(crate) fn reaches(links: &Links, address: Ipv4Addr) -> bool {
    let near = |net: &IpNet| net.contains(&IpAddr::V4(address));
    links.is_empty() || links.values().any(|link| link.dhcp4 || link.addresses.iter().any(near))
}
