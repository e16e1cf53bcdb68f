//! Turns ranges to be reached into rows of the kernel's tables, and two states of these tables into the changes between them.
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// A hardware address.
pub type Mac = [u8; 6];

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hop {
    /// The neighbour that passes packets on.
    pub via: Ipv4Addr,
    /// Number of the link it is on.
    pub link: u32,
}

/// The rows that are the agent's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tables {
    /// Routes.
    pub routes: BTreeMap<Ipv4Net, Hop>,
    /// Hardware addresses of neighbours on the overlay's device.
    pub neighbours: BTreeMap<Ipv4Addr, Mac>,
    /// The machines behind hardware addresses on the overlay's device.
    pub forwarding: BTreeSet<(Mac, Ipv4Addr)>,
}

impl Tables {
    /// Each range is reached through its machine's address on the link of this number.
    pub fn routed(ranges: &BTreeMap<Ipv4Net, Ipv4Addr>, link: u32) -> Self {
        let routes = ranges.iter().map(|(range, address)| (*range, Hop { via: *address, link })).collect();
        Self { routes, ..Self::default() }
    }

    /// Each range is reached through the overlay's device of this number. The neighbour there is the range's network address, which no pod has.
    pub fn overlay(ranges: &BTreeMap<Ipv4Net, Ipv4Addr>, link: u32) -> Self {
        let mut tables = Self::default();
        for (range, address) in ranges {
            let via = range.network();
            tables.routes.insert(*range, Hop { via, link });
            tables.neighbours.insert(via, mac(*address));
            tables.forwarding.insert((mac(*address), *address));
        }
        tables
    }
}

/// The hardware address of a machine's overlay device: locally administered, and not of the ones that cbr0 and pods have (`0a:58`).
pub fn mac(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    [0x0e, 0x6b, a, b, c, d]
}

/// A change of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A route that nobody wants.
    DropRoute(Ipv4Net, Hop),
    /// A neighbour that nobody wants.
    DropNeighbour(Ipv4Addr, Mac),
    /// A machine that nobody wants behind a hardware address.
    DropForwarding(Mac, Ipv4Addr),
    /// A machine behind a hardware address.
    SetForwarding(Mac, Ipv4Addr),
    /// A neighbour, in the place of the one that has its address.
    SetNeighbour(Ipv4Addr, Mac),
    /// A route, in the place of the one to its range.
    SetRoute(Ipv4Net, Hop),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |mac: &Mac| mac.map(|byte| format!("{byte:02x}")).join(":");
        match self {
            Self::DropRoute(range, hop) => write!(f, "removing the route to {range} through {}", hop.via),
            Self::DropNeighbour(address, _) => write!(f, "removing the overlay's neighbour {address}"),
            Self::DropForwarding(mac, address) => write!(f, "removing {} from the overlay ({})", address, text(mac)),
            Self::SetForwarding(mac, address) => write!(f, "adding {} to the overlay ({})", address, text(mac)),
            Self::SetNeighbour(address, mac) => write!(f, "adding the overlay's neighbour {address} ({})", text(mac)),
            Self::SetRoute(range, hop) => write!(f, "setting the route to {range} through {}", hop.via),
        }
    }
}

/// The changes that make one state the other, in an order in which the kernel takes them: what a row leans on is there before it.
pub fn difference(is: &Tables, wanted: &Tables) -> Vec<Change> {
    let mut changes = Vec::new();
    let gone = is.routes.iter().filter(|(range, _)| !wanted.routes.contains_key(*range));
    changes.extend(gone.map(|(range, hop)| Change::DropRoute(*range, *hop)));
    let gone = is.neighbours.iter().filter(|(address, _)| !wanted.neighbours.contains_key(*address));
    changes.extend(gone.map(|(address, mac)| Change::DropNeighbour(*address, *mac)));
    changes.extend(is.forwarding.difference(&wanted.forwarding).map(|(mac, at)| Change::DropForwarding(*mac, *at)));
    changes.extend(wanted.forwarding.difference(&is.forwarding).map(|(mac, at)| Change::SetForwarding(*mac, *at)));
    let new = wanted.neighbours.iter().filter(|(address, mac)| is.neighbours.get(*address) != Some(mac));
    changes.extend(new.map(|(address, mac)| Change::SetNeighbour(*address, *mac)));
    let new = wanted.routes.iter().filter(|(range, hop)| is.routes.get(*range) != Some(hop));
    changes.extend(new.map(|(range, hop)| Change::SetRoute(*range, *hop)));
    changes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;

    use ipnet::Ipv4Net;

    use super::{Tables, difference};

    fn ranges(rows: &[(&str, &str)]) -> BTreeMap<Ipv4Net, Ipv4Addr> {
        rows.iter().map(|(range, address)| (range.parse().unwrap(), address.parse().unwrap())).collect()
    }

    #[track_caller]
    fn check(is: &Tables, wanted: &Tables, want: &[&str]) {
        let changes: Vec<_> = difference(is, wanted).iter().map(ToString::to_string).collect();
        assert_eq!(changes, want);
    }

    #[test]
    fn nothing_changes_nothing() {
        let tables = Tables::overlay(&ranges(&[("10.244.2.0/24", "192.168.7.12")]), 4);
        check(&tables, &tables, &[]);
        check(&Tables::default(), &Tables::default(), &[]);
    }

    #[test]
    fn routes_come_go_and_change() {
        let before = Tables::routed(
            &ranges(&[
                ("10.244.2.0/24", "192.168.7.12"),
                ("10.244.3.0/24", "192.168.7.13"),
                ("10.244.4.0/24", "192.168.7.14"),
            ]),
            2,
        );
        let after = Tables::routed(
            &ranges(&[
                ("10.244.2.0/24", "192.168.7.12"),
                ("10.244.3.0/24", "192.168.7.33"),
                ("10.244.5.0/24", "192.168.7.15"),
            ]),
            2,
        );
        check(
            &before,
            &after,
            &[
                "removing the route to 10.244.4.0/24 through 192.168.7.14",
                "setting the route to 10.244.3.0/24 through 192.168.7.33",
                "setting the route to 10.244.5.0/24 through 192.168.7.15",
            ],
        );
    }

    #[test]
    fn an_overlay_is_made_from_below_and_unmade_from_above() {
        let overlay = Tables::overlay(&ranges(&[("10.244.2.0/24", "192.168.7.12")]), 4);
        check(
            &Tables::default(),
            &overlay,
            &[
                "adding 192.168.7.12 to the overlay (0e:6b:c0:a8:07:0c)",
                "adding the overlay's neighbour 10.244.2.0 (0e:6b:c0:a8:07:0c)",
                "setting the route to 10.244.2.0/24 through 10.244.2.0",
            ],
        );
        check(
            &overlay,
            &Tables::default(),
            &[
                "removing the route to 10.244.2.0/24 through 10.244.2.0",
                "removing the overlay's neighbour 10.244.2.0",
                "removing 192.168.7.12 from the overlay (0e:6b:c0:a8:07:0c)",
            ],
        );
    }

    #[test]
    fn a_machine_whose_address_changes_leaves_nothing_behind() {
        check(
            &Tables::overlay(&ranges(&[("10.244.2.0/24", "192.168.7.12")]), 4),
            &Tables::overlay(&ranges(&[("10.244.2.0/24", "192.168.7.22")]), 4),
            &[
                "removing 192.168.7.12 from the overlay (0e:6b:c0:a8:07:0c)",
                "adding 192.168.7.22 to the overlay (0e:6b:c0:a8:07:16)",
                "adding the overlay's neighbour 10.244.2.0 (0e:6b:c0:a8:07:16)",
            ],
        );
    }
}
