//! Words of the command line and what becomes of them on a machine with two cards.
use expect_test::{Expect, expect};
use kscratch_metadata::{Mac, RoleMetadata, to_toml};
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use super::Words;
use crate::cmdline::CommandLine;

const CARDS: [(&str, Mac); 2] = [("eth0", Mac([0x52, 0x54, 0, 0, 0, 1])), ("eth1", Mac([0x52, 0x54, 0, 0, 0, 2]))];

/// The links as metadata would say them, and what is told.
#[track_caller]
fn check(text: &str, want: Expect) {
    let words = CommandLine::parse(text).network;
    let mut lines = words.faults.clone();
    let network = words.network(&CARDS, &mut lines);
    let mut said: String = lines.iter().map(|line| format!("# {line}\n")).collect();
    let mut metadata = RoleMetadata::standalone();
    metadata.network.dns_servers.clone_from(&words.dns_servers);
    metadata.network.links = network.unwrap_or_default().links;
    let text = to_toml(&metadata).unwrap();
    let own = text.split_once("[network]\n").unwrap().1.split("\n[docker]").next().unwrap();
    let default = ["mode = \"routed\"", "proxy_mode = \"nftables\"", "masquerade = true"];
    own.lines().filter(|line| !default.contains(line)).for_each(|line| said += &format!("{line}\n"));
    want.assert_eq(said.trim());
}

#[test]
fn methods() {
    check("quiet root=x", expect![""]);
    check("ip=dhcp", expect![""]);
    check(
        "ip=off",
        expect![[r#"
        [network.links.eth0]
        dhcp4 = false
        primary = false
        optional = false

        [network.links.eth1]
        dhcp4 = false
        primary = false
        optional = false"#]],
    );
    check(
        "ip=auto6",
        expect![[r#"
        [network.links.eth0]
        dhcp4 = false
        accept_ra = true
        primary = false
        optional = false

        [network.links.eth1]
        dhcp4 = false
        accept_ra = true
        primary = false
        optional = false"#]],
    );
    check(
        "ip=eth1:dhcp:1400",
        expect![[r#"
        [network.links.eth1]
        dhcp4 = true
        mtu = 1400
        primary = false
        optional = false"#]],
    );
    check(
        "ip=eth1:dhcp ip=dhcp",
        expect![[r#"
        [network.links.eth0]
        dhcp4 = true
        primary = false
        optional = true

        [network.links.eth1]
        dhcp4 = true
        primary = false
        optional = false"#]],
    );
    check(
        "ip=dhcp6",
        expect![[r#"
        [network.links.eth0]
        dhcp4 = false
        dhcp6 = true
        primary = false
        optional = false

        [network.links.eth1]
        dhcp4 = false
        dhcp6 = true
        primary = false
        optional = false"#]],
    );
    check(
        "ip=eth1:dhcp ip=eth1:dhcp6:1400",
        expect![[r#"
        [network.links.eth1]
        dhcp4 = true
        dhcp6 = true
        mtu = 1400
        primary = false
        optional = false"#]],
    );
    check(
        "ip=eth0:off ip=eth1:auto6",
        expect![[r#"
        [network.links.eth0]
        dhcp4 = false
        primary = false
        optional = false

        [network.links.eth1]
        dhcp4 = false
        accept_ra = true
        primary = false
        optional = false"#]],
    );
    check(
        "ip=eth0:ibft ip=eth0:dhcp:1500:52:54:00:00:00:09 ip=eth0:dhcp:15 team=team0:eth0",
        expect![[r##"
            # ip=eth0:ibft on the kernel command line is passed over: "ibft" is no way to an address that kscratch knows (dhcp, dhcp6, auto6, none)
            # ip=eth0:dhcp:1500:52:54:00:00:00:09 on the kernel command line is passed over: kscratch gives no card another hardware address
            # ip=eth0:dhcp:15 on the kernel command line is passed over: "15" is no MTU (576 to 65535)
            # team=team0:eth0 on the kernel command line is passed over: kscratch makes bonds (bond=), and no teams"##]],
    );
}

#[test]
fn fixed_addresses_and_routes() {
    check(
        "ip=192.168.7.20::192.168.7.1:255.255.255.0:host:eth0:none:192.168.7.2:192.168.7.3 nameserver=192.168.7.2",
        expect![[r#"
            dns_servers = [
                "192.168.7.2",
                "192.168.7.3",
            ]

            [network.links.eth0]
            dhcp4 = false
            addresses = ["192.168.7.20/24"]
            primary = false
            optional = false

            [[network.links.eth0.routes]]
            gateway = "192.168.7.1""#]],
    );
    check(
        "ip=192.168.7.20::192.168.7.1:24:::none:1400",
        expect!["# an ip= on the kernel command line is passed over: it names no link, and there are eth0, eth1"],
    );
    check(
        "ip=192.168.7.20::192.168.7.1:24:::none ip=eth1:dhcp",
        expect![[r#"
            [network.links.eth0]
            dhcp4 = false
            addresses = ["192.168.7.20/24"]
            primary = false
            optional = false

            [[network.links.eth0.routes]]
            gateway = "192.168.7.1"

            [network.links.eth1]
            dhcp4 = true
            primary = false
            optional = false"#]],
    );
    check(
        "bond=bond0:eth0,eth1:mode=1 ip=192.168.7.20:::24:::off",
        expect![[r#"
        [network.links.bond0]
        dhcp4 = false
        addresses = ["192.168.7.20/24"]
        primary = false
        optional = false

        [network.links.bond0.bond]
        members = [
            "eth0",
            "eth1",
        ]
        mode = "active-backup"
        miimon = 100

        [network.links.eth0]
        dhcp4 = false
        primary = false
        optional = false

        [network.links.eth1]
        dhcp4 = false
        primary = false
        optional = false"#]],
    );
    check(
        "ip=[2001:db8::20]::[2001:db8::1]:64:host:eth0:none ip=[2001:db8::21]:::::eth0:dhcp nameserver=[2001:db8::53]",
        expect![[r##"
            # nameserver=[2001:db8::53] on the kernel command line is passed over: 2001:db8::53 is an IPv6 address, which pods cannot ask for names

            [network.links.eth0]
            dhcp4 = true
            addresses = [
                "2001:db8::20/64",
                "2001:db8::21/64",
            ]
            primary = false
            optional = false

            [[network.links.eth0.routes]]
            gateway = "2001:db8::1""##]],
    );
    check(
        "rd.route=10.8.0.0/16:192.168.7.254 ip=192.168.7.20:::24::eth0:none rd.route=[2001:db8:3::/48]:[fe80::1]:eth1 rd.route=10.9.0.0/255.255.0.0:10.1.1.1",
        expect![[r##"
            # rd.route=10.9.0.0/255.255.0.0:10.1.1.1 on the kernel command line is passed over: no ip= word gives a link an address beside its gateway: name the link behind it

            [network.links.eth0]
            dhcp4 = false
            addresses = ["192.168.7.20/24"]
            primary = false
            optional = false

            [[network.links.eth0.routes]]
            destination = "10.8.0.0/16"
            gateway = "192.168.7.254"

            [network.links.eth1]
            dhcp4 = false
            primary = false
            optional = false

            [[network.links.eth1.routes]]
            destination = "2001:db8:3::/48"
            gateway = "fe80::1""##]],
    );
    check(
        "ip=192.168.7.20::192.168.8.1:24::eth0:none",
        expect![[r#"
        # eth0.routes[0].gateway: 192.168.8.1 lies in none of the link's networks
        # the kernel command line's words of the network are passed over: they make no sense together"#]],
    );
    check(
        "ip=192.168.7.20:1.2.3.4::24::eth0:none ip=192.168.7.20:::33::eth0:none ip=192.168.7.300:::24::eth0 ip=[::1 ip=x",
        expect![[r##"
            # ip=192.168.7.20:1.2.3.4::24::eth0:none on the kernel command line is passed over: a peer's address is nothing that kscratch sets
            # ip=192.168.7.20:::33::eth0:none on the kernel command line is passed over: "33" is no netmask of 192.168.7.20
            # ip=192.168.7.300:::24::eth0 on the kernel command line is passed over: "192.168.7.300" is no address
            # ip=[::1 on the kernel command line is passed over: a bracket is not closed
            # ip=x on the kernel command line is passed over: "x" is no way to an address that kscratch knows (dhcp, dhcp6, auto6, none)"##]],
    );
}

#[test]
fn links_that_are_made() {
    check(
        "bond",
        expect![[r#"
        [network.links.bond0]
        dhcp4 = true
        primary = false
        optional = false

        [network.links.bond0.bond]
        members = [
            "eth0",
            "eth1",
        ]
        mode = "balance-rr"
        miimon = 100

        [network.links.eth0]
        dhcp4 = false
        primary = false
        optional = false

        [network.links.eth1]
        dhcp4 = false
        primary = false
        optional = false"#]],
    );
    check(
        "bond=bond1:eth0,eth1:mode=802.3ad,miimon=50,lacp_rate=fast,xmit_hash_policy=layer3+4:9000 vlan=bond1.0042:bond1 ip=bond1.0042:dhcp",
        expect![[r#"
            [network.links.bond1]
            dhcp4 = false
            mtu = 9000
            primary = false
            optional = false

            [network.links.bond1.bond]
            members = [
                "eth0",
                "eth1",
            ]
            mode = "802.3ad"
            miimon = 50
            lacp_rate = "fast"
            hash_policy = "layer3+4"

            [network.links."bond1.0042"]
            dhcp4 = true
            primary = false
            optional = false

            [network.links."bond1.0042".vlan]
            over = "bond1"
            id = 42

            [network.links.eth0]
            dhcp4 = false
            primary = false
            optional = false

            [network.links.eth1]
            dhcp4 = false
            primary = false
            optional = false"#]],
    );
    check(
        "bond=bond0:eth0:mode=1,arp_interval=200,arp_ip_target=192.168.7.1;192.168.7.2 ip=bond0:dhcp",
        expect![[r#"
        [network.links.bond0]
        dhcp4 = true
        primary = false
        optional = false

        [network.links.bond0.bond]
        members = ["eth0"]
        mode = "active-backup"
        arp_interval = 200
        arp_targets = [
            "192.168.7.1",
            "192.168.7.2",
        ]

        [network.links.eth0]
        dhcp4 = false
        primary = false
        optional = false"#]],
    );
    check(
        "bond=bond0:eth0:mode=4,miimon=100,arp_interval=200 ip=bond0:dhcp",
        expect![[r#"
        # bond0.bond.arp_interval: is nothing for the mode 802.3ad
        # bond0.bond.arp_interval: asks for nobody
        # bond0.bond.miimon: stands beside arp_interval, and a bond has one monitor
        # the kernel command line's words of the network are passed over: they make no sense together"#]],
    );
    check(
        "bridge=br0:eth0 ip=br0:dhcp ip=eth1:off",
        expect![[r#"
        [network.links.br0]
        dhcp4 = true
        primary = false
        optional = false

        [network.links.br0.bridge]
        members = ["eth0"]
        stp = false

        [network.links.eth0]
        dhcp4 = false
        primary = false
        optional = false

        [network.links.eth1]
        dhcp4 = false
        primary = false
        optional = false"#]],
    );
    check(
        "ifname=lan:52:54:00:00:00:02 vlan=vlan7:lan ip=vlan7:dhcp",
        expect![[r#"
        [network.links.lan]
        mac = "52:54:00:00:00:02"
        dhcp4 = false
        primary = false
        optional = false

        [network.links.vlan7]
        dhcp4 = true
        primary = false
        optional = false

        [network.links.vlan7.vlan]
        over = "lan"
        id = 7"#]],
    );
    check(
        "bond=bond0:eth0:mode=fast bond=b:eth0:updelay=5 bond=c:eth0:arp_ip_target=gateway vlan=vlan4095:eth0 bridge=cbr0:eth0 ifname=a:b",
        expect![[r##"
            # ifname=a:b on the kernel command line is passed over: "b" is no hardware address
            # bond=bond0:eth0:mode=fast on the kernel command line is passed over: "fast" is no mode of a bond
            # bond=b:eth0:updelay=5 on the kernel command line is passed over: "updelay" is no option of a bond that kscratch sets
            # bond=c:eth0:arp_ip_target=gateway on the kernel command line is passed over: "gateway" is no arp_ip_target of a bond
            # bridge=cbr0:eth0 on the kernel command line is passed over: "cbr0" is no name of a link
            # vlan=vlan4095:eth0 on the kernel command line is passed over: its name has no number between 1 and 4094: write vlan5 or eth0.5"##]],
    );
    check(
        "bond=bond0:eth0 bridge=br0:eth0 ip=bond0:dhcp",
        expect![[r#"
        # br0.bridge: eth0 is a member of bond0 too
        # the kernel command line's words of the network are passed over: they make no sense together"#]],
    );
    check(
        "vlan=vlan5:vlan6 vlan=vlan6:vlan5 ip=vlan5:dhcp",
        expect![[r#"
        # vlan5.vlan: vlan5 is carried by itself
        # the kernel command line's words of the network are passed over: they make no sense together"#]],
    );
}

#[test]
fn what_is_left_of_words_that_fail_has_to_be_a_network() {
    let all = "the kernel command line's words of the network are passed over";
    let alone = format!("{all}: without the one above they give no link that is there an address");
    for (text, last) in [
        ("bond=bond0:eth0,eth1:mode=fast ip=bond0:dhcp", Some(alone.as_str())),
        ("bond=bond0:eth0,eth1:mode=fast vlan=vlan5:bond0 ip=vlan5:dhcp", Some(&alone)),
        ("ifname=lan:x ip=192.168.7.9:::24::lan:none", Some(&alone)),
        ("vlan=vlan4095:eth0 ip=eth0:off ip=vlan4095:dhcp", Some(&alone)),
        ("bond=bond0:eth0,eth1 ip=bond0:ibft ip=eth9:dhcp", Some(&alone)),
        ("ip=192.168.7.9:::24:::none ip=eth0:off ip=eth1:off", Some(&alone)),
        // Something is left.
        ("vlan=vlan4095:eth0 ip=192.168.7.9:::24::eth0:none", None),
        ("ip=192.168.7.9:::33::eth1:none ip=eth0:dhcp", None),
        ("ip=ibft vlan=vlan5:eth0 ip=vlan5:dhcp", None),
        ("vlan=vlan4095:eth0 ip=eth0:dhcp6", None),
        // The card may come, and nothing has failed.
        ("ip=eth9:dhcp", None),
        ("rd.route=x ip=eth9:dhcp", None),
    ] {
        let words = CommandLine::parse(text).network;
        let mut lines = Vec::new();
        let network = words.network(&CARDS, &mut lines);
        assert_eq!((network.is_none(), lines.last().map(String::as_str)), (last.is_some(), last), "{text}");
    }
    let words = CommandLine::parse("vlan=vlan5:eth0 ip=vlan5:dhcp").network;
    let mut lines = Vec::new();
    assert_eq!(words.network(&[("eth0", CARDS[0].1), ("vlan5", CARDS[1].1)], &mut lines), None);
    let card = "vlan5: is a link to be made, and the machine has a network card of that name".to_owned();
    assert_eq!(lines, [card, format!("{all}: they make no sense together")]);
}

proptest! {
    #[test]
    fn arbitrary_words_never_panic(text in "\\PC{0,60}", key in 0_usize..8, value in "[a-z0-9.:,=/\\[\\]-]{0,60}") {
        let words = CommandLine::parse(&text).network;
        let _ = words.network(&CARDS, &mut Vec::new());
        let words = Words::read([(super::KEYS[key], value.as_str()), ("ip", "eth0:dhcp")].into_iter());
        // Whatever makes sense is what metadata may say, too.
        if let Some(network) = words.network(&CARDS, &mut Vec::new()) {
            prop_assert!(kscratch_metadata::link_problems(&network).is_empty());
        }
    }

    #[test]
    fn an_address_is_what_was_written(host in 1_u8..255, prefix in 8_u8..=30, dotted in any::<bool>(), six in any::<u16>()) {
        let net = ipnet::Ipv4Net::new(std::net::Ipv4Addr::new(10, 1, 2, host), prefix).unwrap();
        let mask = if dotted { net.netmask().to_string() } else { prefix.to_string() };
        let text = format!("ip=10.1.2.{host}:::{mask}::eth0:none ip=[2001:db8::{six:x}]:::64::eth1:none");
        let words = CommandLine::parse(&text).network;
        prop_assert!(words.faults.is_empty(), "{:?}", words.faults);
        prop_assert_eq!(words.links["eth0"].addresses[0], ipnet::IpNet::V4(net));
        prop_assert_eq!(words.links["eth1"].addresses[0].prefix_len(), 64);
    }
}
