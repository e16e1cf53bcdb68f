//! Plans of links with DHCPv6, and whom a machine with such leases asks for names.
use std::net::Ipv6Addr;

use expect_test::expect;

use super::{check_network, facts, role, two_links};
use crate::facts::{Facts, Names6};
use crate::plan::identity::resolv_conf;

#[test]
fn routes_are_taken_of_announcements_unless_that_is_turned_off() {
    check_network(
        &role(
            "[network.links.eth0]\ndhcp4 = true\ndhcp6 = true\n[network.links.eth1]\ndhcp6 = true\noptional = true\naccept_ra = false\n",
        ),
        &two_links(),
        expect![[r#"
            phase network
              up lo
              sysctl net/ipv6/conf/eth0/accept_ra = 2
              sysctl net/ipv6/conf/eth0/autoconf = 1
              up eth0
              dhcp eth0 metric 100
              dhcp6 eth0
              sysctl net/ipv6/conf/eth1/accept_ra = 0
              sysctl net/ipv6/conf/eth1/autoconf = 0
              up eth1
              dhcp6 eth1, not waited for
        "#]],
    );
}

#[test]
fn name_servers_of_ipv6_are_better_than_none() {
    let server = |last| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last);
    let names = |servers: &[u16], search: &str| Names6 {
        servers: servers.iter().map(|last| server(*last)).collect(),
        search: vec![search.into()],
    };
    let leased6 = [("eth0".to_owned(), names(&[1, 2], "six")), ("eth1".to_owned(), names(&[2, 3, 4], "other"))].into();
    let both = Facts { leased6, ..facts() };
    let none = Facts { dns_servers: Vec::new(), ..both.clone() };
    let named = role("[network]\ndns_servers = [\"9.9.9.9\"]\nsearch = [\"own\"]\n");
    let six = "nameserver 2001:db8::1\nnameserver 2001:db8::2\nnameserver 2001:db8::3\nsearch six\n";
    for (metadata, facts, want) in [
        (role(""), &both, "nameserver 10.0.2.3\nsearch six\n"),
        (role(""), &none, six),
        (named, &none, "nameserver 9.9.9.9\nsearch own\n"),
    ] {
        assert_eq!(resolv_conf(&metadata, facts), want);
    }
    assert_eq!(both.name_server_lines(&[]).lines().count(), 5, "of a machine without pods");
}
