//! Checks the rules that hold between fields: ranges that must not overlap, addresses that must lie inside a range.
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::address::Endpoint;
use crate::disks;
use crate::linkrules;
use crate::logs;
use crate::read::{Reader, fault};
use crate::role::{Cluster, Role, RoleMetadata, Static};

/// Reports every rule that is broken. A rule is left out where a field that it needs is wrong in itself: one mistake, one message.
pub(crate) fn check(reader: &mut Reader<'_>, metadata: &RoleMetadata) {
    ranges_apart(reader, metadata);
    if let Some(cluster) = &metadata.cluster {
        dns_inside(reader, cluster);
        node_range_inside(reader, cluster, metadata.node.pod_range);
        endpoint_outside(reader, cluster);
        if metadata.role == Role::Node {
            joinable(reader, cluster);
        }
    } else if metadata.join.token.is_some() {
        let fix = "add [cluster] with endpoint and ca, or remove the token";
        reader.fault_at("join.token", fault("there is no cluster to join", fix));
    }
    control_plane(reader, metadata);
    if let Some(fixed) = &metadata.network.fixed {
        static_address(reader, fixed);
    }
    linkrules::check(reader, metadata);
    disks::check(reader, metadata);
    logs::check(reader, &metadata.logs);
    // resolv.conf(5): MAXNS is 3, and kubelet warns about every pod where there are more.
    if metadata.network.dns_servers.len() > 3 {
        let what = format!("{} name servers, of which resolvers read 3", metadata.network.dns_servers.len());
        reader.fault_at("network.dns_servers", fault(what, "name at most 3"));
    }
    let taints = &metadata.node.taints;
    for (index, taint) in taints.iter().enumerate() {
        let same = |other: &&crate::role::Taint| (&other.key, other.effect) == (&taint.key, taint.effect);
        if let Some(first) = taints.iter().take(index).find(same) {
            let what = format!("{taint} and {first} have the same key and effect");
            reader.fault_at("node.taints", fault(what, "remove one of the two"));
        }
    }
}

/// R1: pod, service and host networks do not overlap; both names are given.
fn ranges_apart(reader: &mut Reader<'_>, metadata: &RoleMetadata) {
    let mut ranges: Vec<(&str, Ipv4Net)> = Vec::new();
    match &metadata.cluster {
        Some(cluster) => {
            ranges.push(("cluster.pod_range", cluster.pod_range));
            ranges.push(("cluster.service_range", cluster.service_range));
        }
        None => ranges.extend(metadata.node_pod_range().map(|range| ("node.pod_range", range))),
    }
    if let Some(fixed) = &metadata.network.fixed {
        ranges.push(("network.static.address", fixed.address));
    }
    for (index, (second, second_range)) in ranges.iter().enumerate() {
        for (first, first_range) in ranges.iter().take(index) {
            let (a, b) = (first_range, second_range);
            let overlap = a.contains(&b.network()) || b.contains(&a.network());
            if !overlap || reader.faulty(first) || reader.faulty(second) {
                continue;
            }
            // The message goes to the one that was written; a default is moved by writing the other.
            let (at, other, mine, theirs) =
                if reader.given(second) { (second, first, b, a) } else { (first, second, a, b) };
            let default = if reader.given(other) { "" } else { " (the default)" };
            let what = format!("{mine} overlaps {other}{default}, {theirs}");
            reader.fault_at(at, fault(what, format!("move one of the two: set {at} or {other}")));
        }
    }
}

fn dns_inside(reader: &mut Reader<'_>, cluster: &Cluster) {
    let (range, dns) = (cluster.service_range, cluster.dns_address);
    if reader.faulty("cluster.service_range") || reader.faulty("cluster.dns_address") {
        return;
    }
    let default = Cluster::default_dns_address(range);
    let what = if !range.contains(&dns) {
        format!("{dns} lies outside cluster.service_range, {range}")
    } else if dns == range.network() || dns == range.broadcast() {
        format!("{dns} is the first or last address of cluster.service_range, {range}")
    } else if u32::from(dns) == u32::from(range.network()) + 1 {
        format!("{dns} is the address of the service `kubernetes`")
    } else {
        return;
    };
    let fix = format!("give an address inside it, e.g. {default}");
    reader.fault_at("cluster.dns_address", fault(what, fix));
}

fn node_range_inside(reader: &mut Reader<'_>, cluster: &Cluster, range: Option<Ipv4Net>) {
    let Some(range) = range else { return };
    if reader.faulty("cluster.pod_range") || cluster.pod_range.contains(&range) {
        return;
    }
    let what = format!("{range} lies outside cluster.pod_range, {}", cluster.pod_range);
    let fix = format!("give a part of {}", cluster.pod_range);
    reader.fault_at("node.pod_range", fault(what, fix));
}

fn endpoint_outside(reader: &mut Reader<'_>, cluster: &Cluster) {
    let Some(Ok(host)) = cluster.endpoint.as_ref().map(|e| e.host.parse::<Ipv4Addr>()) else {
        return;
    };
    let ranges = [("cluster.pod_range", cluster.pod_range), ("cluster.service_range", cluster.service_range)];
    for (name, range) in ranges {
        if range.contains(&host) && !reader.faulty(name) {
            let what = format!("{host} lies inside {name}, {range}");
            let fix = "give the address under which the masters are reached from outside";
            reader.fault_at("cluster.endpoint", fault(what, fix));
        }
    }
}

/// R8: a node needs to know where the cluster is and how the cluster proves itself.
fn joinable(reader: &mut Reader<'_>, cluster: &Cluster) {
    if cluster.endpoint.is_none() && !reader.given("cluster.endpoint") {
        let fix = "write `endpoint = \"HOST:6443\"`, or remove [cluster] for a node that stands alone";
        reader.fault_at("cluster.endpoint", fault("is missing", fix));
    }
    if cluster.ca.is_none() && !reader.given("cluster.ca") {
        let fix = "paste the cluster's CA certificate: without it any machine could pose as the cluster";
        reader.fault_at("cluster.ca", fault("is missing", fix));
    }
}

/// A master has a whole identity or none; nobody else has any of it (R7).
fn control_plane(reader: &mut Reader<'_>, metadata: &RoleMetadata) {
    let Some(control_plane) = &metadata.control_plane else {
        if metadata.role == Role::Master && metadata.cluster.as_ref().is_some_and(|cluster| cluster.ca.is_some()) {
            keys_missing(reader);
        }
        return;
    };
    if metadata.role == Role::Node {
        let fix = "remove [control_plane]: a node must not hold a cluster's keys; or write role = \"master\"";
        return reader.fault_at("control_plane", fault("is for masters only", fix));
    }
    let ca = metadata.cluster.as_ref().and_then(|cluster| cluster.ca.as_ref());
    match (ca, &control_plane.secrets) {
        (None, Some(_)) if !reader.faulty("cluster") => {
            let fix = "add [cluster] with endpoint and ca, as `kscratch-image cluster metadata` writes it";
            reader.fault_at("cluster.ca", fault("is missing beside control_plane.secrets", fix));
        }
        (Some(_), None) if !reader.given("control_plane.secrets") => {
            keys_missing(reader);
        }
        _ => {}
    }
    let stands = ["cluster.ca", "control_plane.secrets"].iter().any(|field| reader.given(field));
    if control_plane.etcd.join && ca.is_none() && control_plane.secrets.is_none() && !stands {
        let fix = "add [cluster] and [control_plane.secrets], as `kscratch-image cluster metadata` writes them";
        let what = "this master has no cluster's identity, and would make a cluster of its own";
        reader.fault_at("control_plane.etcd.join", fault(what, fix));
    }
    let (members, name) = (&control_plane.etcd.members, &metadata.node.name);
    if !members.is_empty() && !name.as_ref().is_some_and(|name| members.contains_key(name)) {
        let fix = "give this machine's node.name an address among them";
        reader.fault_at("control_plane.etcd.members", fault("does not name this machine", fix));
    }
    if let Some(address) = control_plane.virtual_address {
        virtual_address(reader, metadata, address);
    }
}

/// The address that masters share is nobody's own, lies where they are, and is what the endpoint leads to.
fn virtual_address(reader: &mut Reader<'_>, metadata: &RoleMetadata, address: Ipv4Addr) {
    const FIELD: &str = "control_plane.virtual_address";
    const FREE: &str = "give an address of the masters' network that no machine has";
    let fixed = metadata.network.fixed.as_ref().filter(|_| !reader.faulty("network.static.address"));
    if let Some(fixed) = fixed {
        let net = fixed.address;
        let what = if address == net.addr() {
            Some("is the machine's own address, network.static.address".to_owned())
        } else if fixed.gateway == Some(address) {
            Some("is the gateway's address, network.static.gateway".to_owned())
        } else if !net.contains(&address) {
            Some(format!("lies outside {}, the network of network.static.address", net.trunc()))
        } else {
            (!is_host(net, address)).then(|| "is the network's own or its broadcast address".to_owned())
        };
        if let Some(what) = what {
            reader.fault_at(FIELD, fault(format!("{address} {what}"), FREE));
        }
    }
    if !linkrules::reaches(&metadata.network.links, address) && !reader.faulty_below("network.links") {
        let what = format!("{address} lies in none of the networks of network.links");
        reader.fault_at(FIELD, fault(what, FREE));
    }
    let members = metadata.control_plane.iter().flat_map(|control_plane| &control_plane.etcd.members);
    if let Some((name, _)) = members.into_iter().find(|(_, member)| **member == address) {
        reader
            .fault_at(FIELD, fault(format!("{address} is the address of {name} in control_plane.etcd.members"), FREE));
    }
    let Some(cluster) = &metadata.cluster else { return };
    for (name, range) in [("cluster.pod_range", cluster.pod_range), ("cluster.service_range", cluster.service_range)] {
        if range.contains(&address) && !reader.faulty(name) {
            reader.fault_at(FIELD, fault(format!("{address} lies inside {name}, {range}"), FREE));
        }
    }
    let Some(endpoint) = &cluster.endpoint else { return };
    match endpoint.host.parse::<Ipv4Addr>() {
        Ok(host) if host != address => {
            let what = format!("{address} is another address than cluster.endpoint's, {host}");
            let fix = "make the two one: whoever asks the endpoint is to reach the master that has the address";
            reader.fault_at(FIELD, fault(what, fix));
        }
        Ok(_) if endpoint.port != Endpoint::DEFAULT_PORT => {
            let what = format!("port {} is not where a master that has the virtual address answers", endpoint.port);
            reader.fault_at("cluster.endpoint", fault(what, format!("write \"{address}:{}\"", Endpoint::DEFAULT_PORT)));
        }
        _ => {}
    }
}

/// Whether an address of a network can be a host's: not the network's own, nor its broadcast address, which those of two or fewer do not have.
fn is_host(net: Ipv4Net, address: Ipv4Addr) -> bool {
    net.prefix_len() >= 31 || (address != net.network() && address != net.broadcast())
}

fn keys_missing(reader: &mut Reader<'_>) {
    let fix = if reader.in_rack() {
        "give this master a role.toml of its own, or put [control_plane.secrets] into the secrets.toml on its own ESP"
    } else {
        "add [control_plane.secrets], or remove `ca` for a master that makes a cluster of its own"
    };
    reader.fault_at("cluster.ca", fault("is given, but not the keys that belong to it", fix));
}

fn static_address(reader: &mut Reader<'_>, fixed: &Static) {
    let net = fixed.address;
    if !is_host(net, net.addr()) {
        let what = format!("{} is the network's own or its broadcast address", net.addr());
        reader.fault_at("network.static.address", fault(what, "give the address of a host"));
    }
    let Some(gateway) = fixed.gateway else { return };
    let what = if !net.contains(&gateway) {
        format!("{gateway} lies outside {}, the network of network.static.address", net.trunc())
    } else if gateway == net.addr() {
        format!("{gateway} is the machine's own address")
    } else if !is_host(net, gateway) {
        format!("{gateway} is the network's own or its broadcast address")
    } else {
        return;
    };
    let fix = format!("give the address of a router inside {}", net.trunc());
    reader.fault_at("network.static.gateway", fault(what, fix));
}
