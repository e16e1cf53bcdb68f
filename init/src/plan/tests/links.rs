//! Plans of networks with several links, which address of them is the node's, and what becomes of an earlier plan.
use std::net::Ipv4Addr;

use expect_test::{Expect, expect};

use super::{check_network, cluster, facts, role, two_links};
use crate::facts::{Facts, Link};
use crate::plan::{links_of, network, superseded, uplink};

/// Two cards as one, two networks on it, and a switch on one of those.
const BONDED: &str = r#"
[network.links.left]
mac = "52:54:00:00:00:01"
[network.links.eth0]
[network.links.bond0]
bond = { members = ["left", "eth0"], mode = "802.3ad", lacp_rate = "fast", hash_policy = "layer3+4" }
mtu = 9000
dhcp4 = true
[network.links."bond0.7"]
vlan = { over = "bond0", id = 7 }
addresses = ["192.168.7.20/24", "2001:db8:7::20/64"]
routes = [{ gateway = "192.168.7.1", metric = 50 }, { destination = "10.8.0.0/16", gateway = "192.168.7.254" }]
accept_ra = false
[network.links.br9]
bridge.members = ["bond0.9"]
dhcp4 = true
optional = true
[network.links."bond0.9"]
vlan = { over = "bond0", id = 9 }
"#;

#[test]
fn links_come_behind_those_that_carry_them() {
    check_network(
        &role(BONDED),
        &two_links(),
        expect![[r#"
        phase network
          up lo
          make bond0, a bond of eth1, eth0, 802.3ad, miimon 100, lacp rate fast, hash policy layer3+4
          up bond0 mtu 9000
          dhcp bond0 metric 100
          make bond0.7, VLAN 7 of bond0
          sysctl net/ipv6/conf/bond0.7/accept_ra = 0
          sysctl net/ipv6/conf/bond0.7/autoconf = 0
          up bond0.7
          address 192.168.7.20/24, 2001:db8:7::20/64 on bond0.7
          make bond0.9, VLAN 9 of bond0
          up bond0.9
          make br9, a bridge of bond0.9
          up br9
          dhcp br9 metric 101, not waited for
          route 0.0.0.0/0 via 192.168.7.1 on bond0.7 metric 50
          route 10.8.0.0/16 via 192.168.7.254 on bond0.7
    "#]],
    );
    let plan = network(&role(BONDED), &two_links()).unwrap();
    assert_eq!(links_of(&plan).into_iter().collect::<Vec<_>>(), ["bond0", "bond0.7", "bond0.9", "br9", "eth0", "eth1"]);
}

#[test]
fn a_bond_that_asks_looks_at_no_carrier() {
    let bond = "[network.links.eth0]\n[network.links.bond0]\nbond = { members = [\"eth0\"], mode = \"active-backup\", primary = \"eth0\", \
        arp_interval = 200, arp_targets = [\"192.168.7.1\", \"192.168.7.2\"] }\ndhcp4 = true\n";
    check_network(
        &role(bond),
        &facts(),
        expect![[r#"
        phase network
          up lo
          make bond0, a bond of eth0, active-backup, arp interval 200, arp targets 192.168.7.1, 192.168.7.2, primary eth0
          up bond0
          dhcp bond0 metric 100
    "#]],
    );
}

#[test]
fn what_is_not_there_is_told_and_the_rest_comes_up() {
    check_network(
        &role(BONDED),
        &facts(),
        expect![[r#"
        phase network
          up lo
          note link left (52:54:00:00:00:01) is not there; it is taken up when it comes (the machine has eth0 (52:54:00:12:34:56))
          make bond0, a bond of eth0, 802.3ad, miimon 100, lacp rate fast, hash policy layer3+4
          up bond0 mtu 9000
          dhcp bond0 metric 100
          make bond0.7, VLAN 7 of bond0
          sysctl net/ipv6/conf/bond0.7/accept_ra = 0
          sysctl net/ipv6/conf/bond0.7/autoconf = 0
          up bond0.7
          address 192.168.7.20/24, 2001:db8:7::20/64 on bond0.7
          make bond0.9, VLAN 9 of bond0
          up bond0.9
          make br9, a bridge of bond0.9
          up br9
          dhcp br9 metric 101, not waited for
          route 0.0.0.0/0 via 192.168.7.1 on bond0.7 metric 50
          route 10.8.0.0/16 via 192.168.7.254 on bond0.7
    "#]],
    );
    let absent = "[network.links.eth5]\ndhcp4 = true\noptional = true\n[network.links.eth6]\nmac = \"52:54:00:00:00:66\"\n[network.links.v]\nvlan = { over = \"eth6\", id = 3 }\naddresses = [\"192.168.8.2/24\"]\nroutes = [{ gateway = \"192.168.8.1\" }]\n";
    check_network(
        &role(absent),
        &facts(),
        expect![[r#"
        phase network
          up lo
          note link eth5, which is optional, is not there; it is taken up when it comes (the machine has eth0 (52:54:00:12:34:56))
          note link eth6 (52:54:00:00:00:66) is not there; it is taken up when it comes (the machine has eth0 (52:54:00:12:34:56))
          note link v is not made: eth6, which carries it, is not there
    "#]],
    );
    let mut none = facts();
    none.links.clear();
    check_network(
        &role("[network]\ninterface = \"52:54:00:00:00:09\"\n"),
        &none,
        expect![[r#"
        phase network
          up lo
          note link 52:54:00:00:00:09 is not there; it is taken up when it comes (the machine has no network card)
    "#]],
    );
    check_network(
        &role("[network]\ninterface = \"ens3\"\nstatic.address = \"192.168.7.2/24\"\n"),
        &facts(),
        expect![[r#"
            phase network
              up lo
              note link ens3 is not there; it is taken up when it comes (the machine has eth0 (52:54:00:12:34:56))
        "#]],
    );
}

#[test]
fn a_machine_of_a_cluster_waits_for_one_lease_where_it_has_no_other_address() {
    let link = |name: &str, what: &str| format!("[network.links.{name}]\n{what}\n");
    let (optional, required) = ("dhcp4 = true\noptional = true", "dhcp4 = true");
    let both = |one: &str, other: &str| format!("{}{}", link("eth0", one), link("eth1", other));
    for (links, want) in [
        (both(optional, optional), true),
        (both(optional, "dhcp6 = true"), true),
        (both(optional, required), false),
        (both(optional, "addresses = [\"192.168.7.2/24\"]"), false),
        (both(optional, &format!("{optional}\naddresses = [\"192.168.7.2/24\"]")), false),
        // Who is not there gives no lease.
        (format!("{}{}", both(optional, optional), link("eth5", required)), true),
        (link("eth5", optional), false),
        (String::new(), false),
    ] {
        let waits = |metadata| {
            network(&metadata, &two_links()).unwrap().to_string().ends_with("  wait for a lease of any link\n")
        };
        assert_eq!(waits(cluster(&links)), want, "{links}");
        // Nothing but its own files is made of its address.
        assert!(!waits(role(&links)), "{links}");
    }
}

/// Both cards have addresses, and the machine has made a bond, too.
fn busy(default_route: &str) -> Facts {
    let mut facts = two_links();
    let link = |last, name: &str| Link {
        mac: [0x52, 0x54, 0, 0, 0, last],
        mtu: 1500,
        addresses: vec![format!("192.168.{last}.2/24").parse().unwrap()],
        default_route: name == default_route,
    };
    facts.links.insert("eth0".into(), link(0, "eth0"));
    facts.links.insert("eth1".into(), link(1, "eth1"));
    facts.made.insert("br0".into(), link(9, "br0"));
    facts
}

#[test]
fn the_nodes_address_is_of_one_link() {
    let two = |eth0: &str, eth1: &str| role(&format!("[network.links.eth0]\n{eth0}\n[network.links.eth1]\n{eth1}\n"));
    let check = |metadata: &kscratch_metadata::RoleMetadata, facts: &Facts, want: &str| {
        let found = uplink(metadata, facts).map(|(link, address)| format!("{address} on {link}"));
        assert_eq!(found.unwrap_or_default(), want);
    };
    let (dhcp, fixed) = ("dhcp4 = true", "addresses = [\"2001:db8::7/64\", \"192.168.5.7/24\", \"192.168.5.8/24\"]");
    check(&two(dhcp, dhcp), &busy(""), "192.168.0.2/24 on eth0");
    check(&two(dhcp, dhcp), &busy("eth1"), "192.168.1.2/24 on eth1");
    check(&two(dhcp, "dhcp4 = true\nprimary = true"), &busy("eth0"), "192.168.1.2/24 on eth1");
    check(&two(dhcp, fixed), &busy("eth1"), "192.168.5.7/24 on eth1");
    let routed = format!("{fixed}\nroutes = [{{ gateway = \"192.168.5.1\" }}]");
    check(&two(dhcp, &routed), &busy(""), "192.168.5.7/24 on eth1");
    check(&two(dhcp, &routed), &busy("eth0"), "192.168.0.2/24 on eth0");
    // A primary link that is not there yet keeps its address; another gives way.
    check(&two(dhcp, &format!("{fixed}\nprimary = true")), &facts(), "192.168.5.7/24 on eth1");
    check(&two(dhcp, &routed), &facts(), "10.0.2.15/24 on eth0");
    let bridged = role("[network.links.eth0]\n[network.links.br0]\nbridge.members = [\"eth0\"]\ndhcp4 = true\n");
    check(&bridged, &busy("br0"), "192.168.9.2/24 on br0");
    // Other cards than those that are named are left alone.
    check(&role("[network.links.eth1]\ndhcp4 = true\n"), &busy("eth0"), "192.168.1.2/24 on eth1");
    let mut shared = cluster("[network.links.eth0]\ndhcp4 = true\n");
    shared.control_plane.get_or_insert_default().virtual_address = Some(Ipv4Addr::new(192, 168, 0, 2));
    check(&shared, &busy("eth0"), "");
}

#[test]
fn an_overlap_is_found_on_links_that_were_made() {
    let mut facts = busy("eth0");
    facts.made.get_mut("br0").unwrap().addresses = vec!["10.244.0.9/16".parse().unwrap()];
    let error = crate::plan::node(&role(""), &facts).unwrap_err();
    assert_eq!(error.to_string(), "node.pod_range 10.244.0.0/24 overlaps 10.244.0.9/16, the network of br0");
}

#[track_caller]
fn check_superseded(before: &str, after: &str, want: Expect) {
    let plan = |text| network(&role(text), &two_links()).unwrap();
    let steps = superseded(&plan(before), &plan(after));
    want.assert_eq(&steps.iter().map(|step| format!("{step}\n")).collect::<String>());
}

#[test]
fn an_earlier_plan_makes_way() {
    check_superseded(BONDED, BONDED, expect![""]);
    check_superseded(
        BONDED,
        "[network]\ninterface = \"eth0\"\n",
        expect![[r#"
        remove route 10.8.0.0/16 via 192.168.7.254 on bond0.7
        remove route 0.0.0.0/0 via 192.168.7.1 on bond0.7 metric 50
        remove link br9
        remove link bond0.9
        remove address 2001:db8:7::20/64 of bond0.7
        remove address 192.168.7.20/24 of bond0.7
        remove link bond0.7
        remove link bond0
    "#]],
    );
    let more = BONDED.replace("\"192.168.7.20/24\", ", "\"192.168.7.21/24\", ").replace("metric = 50", "metric = 60");
    check_superseded(
        BONDED,
        &more,
        expect![[r#"
        remove route 0.0.0.0/0 via 192.168.7.1 on bond0.7 metric 50
        remove address 192.168.7.20/24 of bond0.7
    "#]],
    );
}
