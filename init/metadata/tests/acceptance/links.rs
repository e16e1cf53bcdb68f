//! Every field of a link is read.
use std::net::Ipv4Addr;

use kscratch_metadata::{BondMode, HashPolicy, LacpRate, Link, Vlan, parse, to_toml};

#[test]
fn every_field_of_a_link_is_read() {
    let text = r#"
version = 1
role = "node"
[network]
dns_servers = ["192.168.7.1"]
[network.links.left]
mac = "52:54:00:00:00:01"
[network.links.eth1]
[network.links.bond0]
bond = { members = ["left", "eth1"], mode = "802.3ad", miimon = 50, lacp_rate = "fast", hash_policy = "layer3+4" }
mtu = 9000
addresses = ["2001:db8::20/64", "192.168.7.20/24"]
routes = [
  { gateway = "192.168.7.1", metric = 5 },
  { destination = "10.8.0.0/16", gateway = "192.168.7.254" },
  { gateway = "fe80::1" },
]
accept_ra = false
primary = true
[network.links."bond0.7"]
vlan = { over = "bond0", id = 7 }
[network.links.br0]
bridge = { members = ["bond0.7"], stp = true }
dhcp4 = true
dhcp6 = true
metric = 200
optional = true
"#;
    let read = parse(text).map_err(|errors| errors.to_string()).unwrap();
    let links = &read.network.links;
    assert_eq!(links.keys().collect::<Vec<_>>(), ["bond0", "bond0.7", "br0", "eth1", "left"]);
    assert_eq!(links["eth1"], Link::default());
    let bond = links["bond0"].bond.as_ref().unwrap();
    assert_eq!((bond.mode, bond.miimon, bond.lacp_rate), (BondMode::Lacp, Some(50), Some(LacpRate::Fast)));
    assert_eq!(bond.hash_policy, Some(HashPolicy::Layer3And4));
    assert_eq!(links["bond0"].below().collect::<Vec<_>>(), ["left", "eth1"]);
    assert_eq!(links["bond0"].routes[2].leads_to().unwrap().to_string(), "::/0");
    assert_eq!(links["bond0.7"].vlan, Some(Vlan { over: "bond0".into(), id: 7 }));
    let br0 = &links["br0"];
    assert_eq!((br0.dhcp4, br0.metric, br0.optional, br0.bridge.as_ref().unwrap().stp), (true, Some(200), true, true));
    // Its routes are announced by routers, unless that is turned off.
    assert_eq!((br0.dhcp6, br0.accept_ra, br0.announced()), (true, None, Some(true)));
    assert_eq!((links["bond0"].announced(), links["bond0.7"].announced()), (Some(false), None));
    assert_eq!(parse(&to_toml(&read).unwrap()).unwrap(), read);
    assert!(!read.network.leaves_links_open());
}

#[test]
fn a_bond_looks_at_carriers_or_asks_by_arp() {
    let bond = |options: &str| {
        let links = format!(
            "[network.links.eth0]\n[network.links.bond0]\ndhcp4 = true\nbond = {{ members = [\"eth0\"]{options} }}\n"
        );
        let read =
            parse(&format!("version = 1\nrole = \"node\"\n{links}")).map_err(|errors| errors.to_string()).unwrap();
        assert_eq!(parse(&to_toml(&read).unwrap()).unwrap(), read);
        let bond = read.network.links["bond0"].bond.clone().unwrap();
        (bond.miimon, bond.arp_interval, bond.arp_targets)
    };
    assert_eq!(bond(""), (Some(100), None, Vec::new()));
    let targets = vec![Ipv4Addr::new(192, 168, 7, 254), Ipv4Addr::new(192, 168, 7, 1)];
    let asks = ", arp_interval = 200, arp_targets = [\"192.168.7.254\", \"192.168.7.1\"]";
    assert_eq!(bond(asks), (None, Some(200), targets));
}
