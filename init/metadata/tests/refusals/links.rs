//! What is refused of `[network.links]`, link by link and between them.
use expect_test::expect;

use crate::check;

#[test]
fn a_link_is_one_thing_and_carried_by_others() {
    check(
        "[network.links.eth0]\ndhcp4 = true\n[network.links.bond0]\nbond.members = [\"eth0\", \"eht1\"]\nmac = \"52:54:00:00:00:01\"\nvlan = { over = \"eth0\", id = 5 }\n",
        expect![[r#"
            role.toml:3:10: network.links: gives this machine no IPv4 address; write `dhcp4 = true` or `addresses = ["192.168.7.20/24"]` into one of its tables
            role.toml:4:9: network.links.eth0.dhcp4: is of a member of bond0, which has none of its own; move it to [network.links.bond0]
            role.toml:5:1: network.links.bond0: is a bond and a vlan; give each a table of its own
            role.toml:6:1: network.links.bond0.bond: there is no link "eht1"; add [network.links.eht1] (an empty table is the card of that name), or correct the name
            role.toml:7:7: network.links.bond0.mac: tells a card, and this link is a bond; remove it, or move it to a card's table
            role.toml:8:17: network.links.bond0.vlan.over: eth0 is a member of bond0, which takes all of its packets; write over = "bond0""#]],
    );
    check(
        "[network.links.a]\nbond.members = [\"b\"]\n[network.links.b]\nvlan = { over = \"a\", id = 5 }\n[network.links.c]\ndhcp4 = true\n",
        expect![[r#"
            role.toml:4:1: network.links.a.bond: b is a vlan, and a bond's members are cards; name the cards themselves
            role.toml:4:1: network.links.a.bond: a is carried by itself; name other links below it"#]],
    );
    check(
        "[network.links.a]\nbridge.members = [\"c\"]\n[network.links.b]\nbridge.members = [\"a\", \"c\"]\ndhcp4 = true\n[network.links.c]\naddresses = [\"192.168.7.2/24\"]\n",
        expect![[r#"
            role.toml:6:1: network.links.b.bridge: a is a bridge, and a bridge cannot be a member of another; name its members instead
            role.toml:6:1: network.links.b.bridge: c is a member of a too; let it be a member of one of them
            role.toml:9:13: network.links.c.addresses: is of a member of b, which has none of its own; move it to [network.links.b]"#]],
    );
    check(
        "[network.links.a]\nbond.members = [\"c\"]\ndhcp4 = true\n[network.links.v]\nvlan = { over = \"c\", id = 1 }\n[network.links.w]\nvlan = { over = \"c\", id = 1 }\n[network.links.c]\nmtu = 1400\n",
        expect![[r#"
            role.toml:7:17: network.links.v.vlan.over: c is a member of a, which takes all of its packets; write over = "a"
            role.toml:9:27: network.links.w.vlan.id: 1 on c is the VLAN of v too; give each its own number
            role.toml:11:7: network.links.c.mtu: is of a member of a, which has none of its own; move it to [network.links.a]"#]],
    );
}

#[test]
fn options_of_a_bond_go_with_its_mode() {
    check(
        "[network.links.bond0]\nbond = { members = [\"eth0\"], mode = \"active-backup\", lacp_rate = \"fast\", hash_policy = \"layer2\", primary = \"eth1\" }\ndhcp4 = true\n[network.links.eth0]\n",
        expect![[r#"
            role.toml:4:66: network.links.bond0.bond.lacp_rate: says nothing in the mode active-backup; remove it, or set mode = "802.3ad"
            role.toml:4:88: network.links.bond0.bond.hash_policy: says nothing in the mode active-backup; remove it, or set mode to balance-xor, 802.3ad or balance-tlb
            role.toml:4:108: network.links.bond0.bond.primary: "eth1" is no member of this bond; name one of its members"#]],
    );
    check(
        "[network.links.eth0]\n[network.links.bond0]\nbond = { members = [\"eth0\"], mode = \"802.3ad\", arp_interval = 200, miimon = 100 }\ndhcp4 = true\n",
        expect![[r#"
            role.toml:5:63: network.links.bond0.bond.arp_interval: is nothing for the mode 802.3ad; use miimon, or set mode to balance-rr, active-backup, balance-xor or broadcast
            role.toml:5:63: network.links.bond0.bond.arp_interval: asks for nobody; add arp_targets, addresses that always answer: the gateway's, for one
            role.toml:5:77: network.links.bond0.bond.miimon: stands beside arp_interval, and a bond has one monitor; remove one of the two"#]],
    );
    let targets: Vec<String> = (1..=17).map(|host| format!("\"10.0.0.{host}\"")).collect();
    check(
        &format!(
            "[network.links.eth0]\n[network.links.bond0]\ndhcp4 = true\n[network.links.bond0.bond]\nmembers = [\"eth0\"]\narp_targets = [{}]\n",
            targets.join(", ")
        ),
        expect![[r#"
            role.toml:8:15: network.links.bond0.bond.arp_targets: names 17 addresses, of which the kernel takes 16; name fewer
            role.toml:8:15: network.links.bond0.bond.arp_targets: is asked for by nobody; add arp_interval = 200, milliseconds between two questions, or remove it"#]],
    );
    check(
        "[network.links.eth0]\n[network.links.bond0.bond]\nmembers = [\"eth0\"]\narp_interval = 10001\narp_targets = [\"2001:db8::1\", \"127.0.0.1\"]\n",
        expect![[r#"
            role.toml:6:16: network.links.bond0.bond.arp_interval: 10001 is larger than 10000; give a value between 1 and 10000
            role.toml:7:16: network.links.bond0.bond.arp_targets[0]: "2001:db8::1" is an IPv6 address; give an IPv4 address: version 1 knows only IPv4
            role.toml:7:31: network.links.bond0.bond.arp_targets[1]: 127.0.0.1 is of 127.0.0.0/8, the loopback range; give an address of the network that the machines are on"#]],
    );
    check(
        "[network.links.bond0]\nbond = { members = [], mode = \"lacp\", miimon = 0, lacp_rate = \"faster\" }\n",
        expect![[r#"
            role.toml:4:20: network.links.bond0.bond.members: names no link; name at least one
            role.toml:4:31: network.links.bond0.bond.mode: "lacp" is not known; use one of balance-rr, active-backup, balance-xor, broadcast, 802.3ad, balance-tlb, balance-alb
            role.toml:4:48: network.links.bond0.bond.miimon: 0 is smaller than 1; give a value between 1 and 10000
            role.toml:4:63: network.links.bond0.bond.lacp_rate: "faster" is not known; use one of slow, fast"#]],
    );
    check(
        "[network.links.bond0.bond]\nmode = \"broadcast\"\n",
        expect![[r#"role.toml:3:1: network.links.bond0.bond.members: is missing; write `members = ["eth0", "eth1"]`"#]],
    );
}

#[test]
fn names_numbers_and_addresses() {
    check(
        "[network.links.cbr0]\n[network.links.kscratch-vx]\n[network.links.\"52:54:00:00:00:01\"]\n[network.links.\"eth%d\"]\n[network.links.averyverylongname]\n",
        expect![[r#"
            role.toml:3:1: network.links.cbr0: "cbr0" is no link to the outside; give the name or the hardware address of a network card
            role.toml:4:1: network.links.kscratch-vx: "kscratch-vx" is the name of the pods' overlay; give the link another name
            role.toml:5:1: network.links."52:54:00:00:00:01": "52:54:00:00:00:01" is a hardware address; give the table a name of yours, and write `mac = "52:54:00:00:00:01"` in it
            role.toml:6:1: network.links."eth%d": "eth%d" is no name of a link; leave out the `%`
            role.toml:7:1: network.links.averyverylongname: "averyverylongname" is no name of a link; give a name like eth0 (at most 15 characters) or a hardware address like 52:54:00:12:34:56"#]],
    );
    check(
        "[network.links.v]\nvlan = { over = \"v\", id = 4095 }\n[network.links.w.vlan]\n",
        expect![[r#"
        role.toml:4:27: network.links.v.vlan.id: 4095 is larger than 4094; give a value between 1 and 4094
        role.toml:5:1: network.links.w.vlan.over: is missing; write `over = "eth0"`, the link that carries it
        role.toml:5:1: network.links.w.vlan.id: is missing; write `id = 42`, its number"#]],
    );
    check(
        "[network.links.eth0]\naddresses = [\"192.168.7.0/24\", \"192.168.7.2\", \"2001:db8::1\", \"ff02::1/64\", \"10.1.0.2/16\", \"10.1.0.2/16\"]\n",
        expect![[r#"
            role.toml:4:14: network.links.eth0.addresses[0]: 192.168.7.0 is the network's own or its broadcast address; give the address of a host
            role.toml:4:32: network.links.eth0.addresses[1]: "192.168.7.2" has no prefix length; write it like 192.168.7.2/24
            role.toml:4:47: network.links.eth0.addresses[2]: "2001:db8::1" has no prefix length; write it like 2001:db8::1/64
            role.toml:4:62: network.links.eth0.addresses[3]: ff02::1/64 is no address of a host; write it like 2001:db8::20/64
            role.toml:4:91: network.links.eth0.addresses[5]: is the same as network.links.eth0.addresses[0]; remove one of the two"#]],
    );
    check(
        "[network.links.eth0]\naddresses = [\"192.168.7.2/24\", \"10.244.0.9/16\"]\n[network.links.eth1]\naddresses = [\"192.168.7.2/24\"]\n",
        expect![[r#"
            role.toml:4:32: network.links.eth0.addresses[1]: 10.244.0.9/16 overlaps node.pod_range (the default), 10.244.0.0/24; move one of the two: set node.pod_range or this address
            role.toml:6:14: network.links.eth1.addresses[0]: 192.168.7.2 is an address of eth0 too; give each address once"#]],
    );
    check(
        "[network.links.eth0]\ndhcp = true\n[network.links.eth1]\nmac = \"01:54:00:00:00:01\"\n",
        expect![[r#"
        role.toml:4:1: network.links.eth0.dhcp: there is no such field; did you mean "dhcp4"?
        role.toml:6:7: network.links.eth1.mac: 01:54:00:00:00:01 is no network card's address; give that of one of the machine's cards"#]],
    );
}

#[test]
fn a_gateway_may_be_a_neighbour_that_no_network_has() {
    let text = |address: &str, routes: &str| {
        format!("version = 1\nrole = \"node\"\n[network.links.eth0]\naddresses = [{address:?}]\nroutes = [{routes}]\n")
    };
    for (address, routes, accepted) in [
        ("203.0.113.9/32", "{ gateway = \"10.0.0.1\" }", true),
        ("203.0.113.9/31", "{ gateway = \"10.0.0.1\" }", false),
        ("203.0.113.9/32", "{ gateway = \"203.0.113.9\" }", false),
        ("203.0.113.9/31", "{ gateway = \"10.0.0.1\" }, { destination = \"10.0.0.1/32\" }", true),
        ("203.0.113.9/31", "{ gateway = \"10.0.0.1\" }, { destination = \"10.0.0.2/32\" }", false),
    ] {
        assert_eq!(kscratch_metadata::parse(&text(address, routes)).is_ok(), accepted, "{address} {routes}");
    }
}

#[test]
fn routes_lead_through_neighbours() {
    check(
        "[network.links.eth0]\naddresses = [\"192.168.7.2/24\", \"2001:db8::2/64\"]\nroutes = [\n{ gateway = \"192.168.8.1\" },\n{ gateway = \"192.168.7.255\", metric = 1 },\n{ gateway = \"192.168.7.2\", metric = 2 },\n{ destination = \"10.8.0.0/16\", gateway = \"2001:db8::1\" },\n{ gateway = \"fe80::1\" },\n{ destination = \"2001:db8:9::/48\", gateway = \"2001:db9::1\" } ]\naccept_ra = false\n",
        expect![[r#"
            role.toml:6:13: network.links.eth0.routes[0].gateway: 192.168.8.1 lies in none of the link's networks; give a router's address of one of them, or the link an address beside it
            role.toml:7:13: network.links.eth0.routes[1].gateway: 192.168.7.255 is the network's own or its broadcast address; give the address of a router inside 192.168.7.0/24
            role.toml:8:13: network.links.eth0.routes[2].gateway: 192.168.7.2 is the link's own address; give the address of a router
            role.toml:9:42: network.links.eth0.routes[3].gateway: 2001:db8::1 is of another family than 10.8.0.0/16; give an address of the same family
            role.toml:11:46: network.links.eth0.routes[5].gateway: 2001:db9::1 lies in none of the link's networks; give a router's address of one of them, or the link an address beside it"#]],
    );
    check(
        "[network.links.eth0]\ndhcp4 = true\nroutes = [{}, { destination = \"10.8.1.0/16\" }, { destination = \"10.8.0.1\" }, { gateway = \"224.0.0.1\", metric = -1 }]\n",
        expect![[r#"
            role.toml:5:11: network.links.eth0.routes[0]: leads nowhere; write `gateway = "192.168.7.1"` for a default route, and `destination` for another
            role.toml:5:31: network.links.eth0.routes[1].destination: 10.8.1.0/16 is an address inside a range; write the range itself: 10.8.0.0/16
            role.toml:5:64: network.links.eth0.routes[2].destination: "10.8.0.1" has no prefix length; write 10.8.0.1/32 for this address alone
            role.toml:5:90: network.links.eth0.routes[3].gateway: 224.0.0.1 is no router's address; give the address of a router on the link
            role.toml:5:112: network.links.eth0.routes[3].metric: -1 is smaller than 0; give a value between 0 and 4294967295"#]],
    );
    check(
        "[network.links.eth0]\naddresses = [\"192.168.7.2/24\"]\nroutes = [{ gateway = \"192.168.7.1\" }, { destination = \"2001:db8::/48\" }]\naccept_ra = false\n[network.links.eth1]\naddresses = [\"192.168.8.2/24\"]\nroutes = [{ gateway = \"192.168.8.1\" }]\n",
        expect![[r#"
            role.toml:5:56: network.links.eth0.routes[1].destination: the link has no address of this family; give the link one, or the route a gateway
            role.toml:9:11: network.links.eth1.routes[0]: 0.0.0.0/0 has a route of the same metric on eth0 already; remove one of the two, or give them different metrics"#]],
    );
}

#[test]
fn a_machine_has_one_address_that_is_the_nodes() {
    check(
        "[network.links.eth0]\naddresses = [\"2001:db8::2/64\"]\nmtu = 1000\n",
        expect![[r#"
        role.toml:3:10: network.links: gives this machine no IPv4 address; write `dhcp4 = true` or `addresses = ["192.168.7.20/24"]` into one of its tables
        role.toml:5:7: network.links.eth0.mtu: 1000 is too small for IPv6; give at least 1280"#]],
    );
    check(
        "[network]\ninterface = \"eth0\"\nmtu = 1400\nstatic.address = \"192.168.7.3/24\"\n[network.links.eth0]\nprimary = true\n[network.links.eth1]\ndhcp4 = true\nprimary = true\n",
        expect![[r#"
            role.toml:4:13: network.interface: stands beside network.links; write it into the link's own table, [network.links.NAME], or remove the tables
            role.toml:5:7: network.mtu: stands beside network.links; write it into the link's own table, [network.links.NAME], or remove the tables
            role.toml:6:1: network.static: stands beside network.links; write it into the link's own table, [network.links.NAME], or remove the tables
            role.toml:8:11: network.links.eth0.primary: the node's address is IPv4, and this link has none; write `dhcp4 = true`, or give it an IPv4 address
            role.toml:11:11: network.links.eth1.primary: eth0 is the primary link too; let one of them be it"#]],
    );
    check(
        "[network.links.eth0]\nmtu = 1500\n[network.links.v]\nvlan = { over = \"eth0\", id = 9 }\ndhcp4 = true\nmtu = 9000\n",
        expect![
            "role.toml:8:7: network.links.v.mtu: 9000 is larger than that of eth0, 1500; make it no larger than that of the link below"
        ],
    );
}
