//! Turns what the cluster says of its machines into the ranges that this one sends packets to, and names those that it does not.
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use crate::node::Node;

/// A machine as its Node says. Both lists may hold both families; of what follows, IPv4 is made so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// When the Node was made, as text that sorts as time does.
    pub created: String,
    /// Its internal addresses.
    pub addresses: Vec<IpAddr>,
    /// Its pods' ranges.
    pub ranges: Vec<IpNet>,
}

impl Peer {
    /// What a Node says.
    pub fn of(node: &Node) -> Self {
        Self { created: node.created(), addresses: node.addresses("InternalIP").collect(), ranges: node.pod_ranges() }
    }

    /// Its pods' IPv4 range.
    pub fn range(&self) -> Option<Ipv4Net> {
        self.ranges.iter().find_map(|range| match range {
            IpNet::V4(range) => Some(range.trunc()),
            IpNet::V6(_) => None,
        })
    }

    fn address(&self) -> Option<Ipv4Addr> {
        self.addresses.iter().find_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        })
    }
}

/// Machines by their Nodes' names.
pub type Peers = BTreeMap<String, Peer>;

/// What this machine is.
#[derive(Debug, Clone, Copy)]
pub struct Own<'a> {
    /// Its Node's name.
    pub node: &'a str,
    /// Its address.
    pub address: Ipv4Addr,
    /// The range that all pods' addresses are of.
    pub cluster: Ipv4Net,
    /// The networks of its link, where others must be on it.
    pub on_link: Option<&'a [Ipv4Net]>,
}

/// What is to be reached, and what is not.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Ranges, and the addresses of the machines that have them.
    pub ranges: BTreeMap<Ipv4Net, Ipv4Addr>,
    /// Nodes that are left out, and why.
    pub left_out: BTreeMap<String, String>,
}

/// Decides what is to be reached. Of two nodes whose ranges overlap, the older one has it: a node that comes later takes nothing away from others.
/// A node that has no range yet is left out without a word.
pub fn reach(peers: &Peers, own: Own<'_>) -> Reach {
    let mut found = Reach::default();
    let mut taken: Vec<(Ipv4Net, &str)> =
        peers.get(own.node).and_then(Peer::range).map(|range| (range, own.node)).into_iter().collect();
    let mut others: Vec<_> = peers.iter().filter(|(name, _)| *name != own.node).collect();
    others.sort_by_key(|(name, peer)| (&peer.created, *name));
    for (name, peer) in others {
        let Some(range) = peer.range() else { continue };
        match way(range, peer, own, &taken) {
            Ok(address) => {
                taken.push((range, name));
                found.ranges.insert(range, address);
            }
            Err(why) => {
                found.left_out.insert(name.clone(), why);
            }
        }
    }
    found
}

fn way(range: Ipv4Net, peer: &Peer, own: Own<'_>, taken: &[(Ipv4Net, &str)]) -> Result<Ipv4Addr, String> {
    if !own.cluster.contains(&range) || range == own.cluster {
        return Err(format!("its range {range} is no part of the cluster's {}", own.cluster));
    }
    let overlaps = |other: &Ipv4Net| other.contains(&range) || range.contains(other);
    if let Some((other, name)) = taken.iter().find(|(other, _)| overlaps(other)) {
        return Err(format!("its range {range} overlaps {other} of {name}"));
    }
    let Some(address) = peer.address() else { return Err("it has no internal IPv4 address".to_owned()) };
    if address == own.address {
        return Err(format!("it says that it has this machine's address {address}"));
    }
    if own.cluster.contains(&address) || address.is_loopback() || address.is_multicast() || address.is_unspecified() {
        return Err(format!("its address {address} cannot be a machine's"));
    }
    match own.on_link {
        Some(networks) if !networks.iter().any(|network| network.contains(&address)) => {
            let networks: Vec<_> = networks.iter().map(|network| network.trunc().to_string()).collect();
            Err(format!("its address {address} is not on this machine's link ({})", networks.join(", ")))
        }
        _ => Ok(address),
    }
}

#[cfg(test)]
mod tests {
    use super::{Own, Peer, Peers, Reach, reach};

    fn peer(created: &str, address: &str, range: &str) -> Peer {
        Peer {
            created: created.to_owned(),
            addresses: address.split(' ').filter(|text| !text.is_empty()).map(|text| text.parse().unwrap()).collect(),
            ranges: range.split(' ').filter(|text| !text.is_empty()).map(|text| text.parse().unwrap()).collect(),
        }
    }

    fn check(others: &[(&str, Peer)], routed: bool, want: &[&str]) {
        let mut peers: Peers = others.iter().map(|(name, peer)| ((*name).to_owned(), peer.clone())).collect();
        peers.insert("n1".to_owned(), peer("2026-01-02", "192.168.7.11", "10.244.1.0/24"));
        let networks = ["192.168.7.11/24".parse().unwrap()];
        let own = Own {
            node: "n1",
            address: "192.168.7.11".parse().unwrap(),
            cluster: "10.244.0.0/16".parse().unwrap(),
            on_link: routed.then_some(&networks),
        };
        let Reach { ranges, left_out } = reach(&peers, own);
        let mut lines: Vec<_> = ranges.iter().map(|(range, address)| format!("{range} at {address}")).collect();
        lines.extend(left_out.iter().map(|(name, why)| format!("{name}: {why}")));
        assert_eq!(lines, want);
    }

    #[test]
    fn others_are_reached_and_this_machine_is_not_a_peer() {
        let others = [
            ("n2", peer("2026-01-03", "192.168.7.12", "10.244.2.0/24")),
            ("n3", peer("2026-01-03", "fd00::3 192.168.7.13", "fd01::/64 10.244.3.0/24")),
            ("n4", peer("2026-01-03", "192.168.7.14", "")),
        ];
        check(&others, true, &["10.244.2.0/24 at 192.168.7.12", "10.244.3.0/24 at 192.168.7.13"]);
        check(&[], true, &[]);
    }

    #[test]
    fn a_machine_elsewhere_is_reached_by_the_overlay_alone() {
        let others = [("n2", peer("2026", "192.168.8.12", "10.244.2.0/24"))];
        check(&others, true, &["n2: its address 192.168.8.12 is not on this machine's link (192.168.7.0/24)"]);
        check(&others, false, &["10.244.2.0/24 at 192.168.8.12"]);
    }

    #[test]
    fn nobody_takes_what_is_not_his() {
        let rows = [
            ("192.168.7.12", "0.0.0.0/0", "n9: its range 0.0.0.0/0 is no part of the cluster's 10.244.0.0/16"),
            ("192.168.7.12", "10.244.0.0/16", "n9: its range 10.244.0.0/16 is no part of the cluster's 10.244.0.0/16"),
            ("192.168.7.12", "10.96.0.0/24", "n9: its range 10.96.0.0/24 is no part of the cluster's 10.244.0.0/16"),
            ("192.168.7.12", "10.244.1.128/25", "n9: its range 10.244.1.128/25 overlaps 10.244.1.0/24 of n1"),
            ("192.168.7.12", "10.244.0.0/22", "n9: its range 10.244.0.0/22 overlaps 10.244.1.0/24 of n1"),
            ("192.168.7.11", "10.244.2.0/24", "n9: it says that it has this machine's address 192.168.7.11"),
            ("10.244.1.7", "10.244.2.0/24", "n9: its address 10.244.1.7 cannot be a machine's"),
            ("127.0.0.1", "10.244.2.0/24", "n9: its address 127.0.0.1 cannot be a machine's"),
            ("", "10.244.2.0/24", "n9: it has no internal IPv4 address"),
            ("fd00::1", "10.244.2.0/24", "n9: it has no internal IPv4 address"),
        ];
        for (address, range, want) in rows {
            check(&[("n9", peer("2026", address, range))], false, &[want]);
        }
    }

    #[test]
    fn the_older_of_two_keeps_its_range() {
        let others = [
            ("a-new", peer("2026-06-01", "192.168.7.66", "10.244.2.0/24")),
            ("n2", peer("2026-01-01", "192.168.7.12", "10.244.2.0/24")),
        ];
        check(
            &others,
            true,
            &["10.244.2.0/24 at 192.168.7.12", "a-new: its range 10.244.2.0/24 overlaps 10.244.2.0/24 of n2"],
        );
    }
}
