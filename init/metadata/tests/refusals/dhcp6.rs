//! Links with DHCPv6.
use expect_test::expect;

use super::check;

#[test]
fn dhcpv6_where_it_makes_no_sense() {
    check(
        "[network.links.bond0]\nbond.members = [\"eth0\"]\ndhcp4 = true\nmtu = 1000\ndhcp6 = true\n[network.links.eth0]\ndhcp6 = true\n[network.links.eth1]\ndhcp6 = 1\n",
        expect!["role.toml:11:9: network.links.eth1.dhcp6: is an integer; give true or false"],
    );
    check(
        "[network.links.bond0]\nbond.members = [\"eth0\"]\nmtu = 1000\ndhcp6 = true\n[network.links.eth0]\ndhcp6 = true\n",
        expect![[r#"
            role.toml:3:10: network.links: gives this machine no IPv4 address; write `dhcp4 = true` or `addresses = ["192.168.7.20/24"]` into one of its tables
            role.toml:5:7: network.links.bond0.mtu: 1000 is too small for IPv6; give at least 1280
            role.toml:8:9: network.links.eth0.dhcp6: is of a member of bond0, which has none of its own; move it to [network.links.bond0]"#]],
    );
}
