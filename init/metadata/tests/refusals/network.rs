//! `[network]`: links, addresses, gateways, name servers and modes that cannot work.
use expect_test::expect;

use crate::check;

#[test]
fn network() {
    for (interface, want) in [
        (
            "52:54:00:12:34",
            expect![[
                r#"role.toml:4:13: network.interface: "52:54:00:12:34" is no hardware address; write it like 52:54:00:12:34:56"#
            ]],
        ),
        (
            "52:54:00:12:34:5g",
            expect![[
                r#"role.toml:4:13: network.interface: "52:54:00:12:34:5g" is no hardware address; write it like 52:54:00:12:34:56"#
            ]],
        ),
        (
            "an interface",
            expect![[
                r#"role.toml:4:13: network.interface: "an interface" is no name of a link; give a name like eth0 (at most 15 characters) or a hardware address like 52:54:00:12:34:56"#
            ]],
        ),
        (
            "cbr0",
            expect![[
                r#"role.toml:4:13: network.interface: "cbr0" is no link to the outside; give the name or the hardware address of a network card"#
            ]],
        ),
    ] {
        check(&format!("[network]\ninterface = \"{interface}\"\n"), want);
    }
    check(
        "[network.static]\ngateway = \"10.0.0.1\"\n",
        expect![[
            r#"role.toml:3:1: network.static.address: is missing; write `address = "192.168.7.20/24"`, or remove the table for DHCP"#
        ]],
    );
    check(
        "[network.static]\naddress = \"192.168.7.20/24\"\ngateway = \"192.168.8.1\"\n",
        expect![
            "role.toml:5:11: network.static.gateway: 192.168.8.1 lies outside 192.168.7.0/24, the network of network.static.address; give the address of a router inside 192.168.7.0/24"
        ],
    );
    check(
        "[network.static]\naddress = \"192.168.7.0/24\"\ngateway = \"192.168.7.255\"\n",
        expect![[r#"
            role.toml:4:11: network.static.address: 192.168.7.0 is the network's own or its broadcast address; give the address of a host
            role.toml:5:11: network.static.gateway: 192.168.7.255 is the network's own or its broadcast address; give the address of a router inside 192.168.7.0/24"#]],
    );
    check(
        "[network.static]\naddress = \"192.168.7.2/24\"\ngateway = \"192.168.7.2\"\n",
        expect![
            "role.toml:5:11: network.static.gateway: 192.168.7.2 is the machine's own address; give the address of a router inside 192.168.7.0/24"
        ],
    );
    check(
        "[network]\nmode = \"vxlan\"\ndns_servers = [\"127.0.0.53\", \"::1\", \"x\"]\n",
        expect![[r#"
            role.toml:4:8: network.mode: "vxlan" is no mode; use "routed" or "overlay"
            role.toml:5:16: network.dns_servers[0]: 127.0.0.53 is a loopback address, which means another machine in every pod; give the address of a server on the network
            role.toml:5:30: network.dns_servers[1]: "::1" is an IPv6 address; give an IPv4 address: version 1 knows only IPv4
            role.toml:5:37: network.dns_servers[2]: "x" is no IPv4 address; write it like 192.168.7.10"#]],
    );
    check(
        "[network]\nproxy_mode = \"ipvs\"\n",
        expect![[
            r#"role.toml:4:14: network.proxy_mode: "ipvs" is no mode of kube-proxy; use "nftables" or "iptables""#
        ]],
    );
    check(
        "[network]\ndns_servers = [\"9.9.9.9\", \"8.8.8.8\", \"9.9.9.9\"]\n",
        expect!["role.toml:4:38: network.dns_servers[2]: is the same as network.dns_servers[0]; remove one of the two"],
    );
    check(
        "[network]\ndns_servers = [\"9.9.9.1\", \"9.9.9.2\", \"9.9.9.3\", \"9.9.9.4\"]\n",
        expect!["role.toml:4:15: network.dns_servers: 4 name servers, of which resolvers read 3; name at most 3"],
    );
}
