//! Turns network steps into links, addresses, routes and leases of real network namespaces, and reads them back with iproute2.
//!
//! Each test runs itself again below `unshare --net`, which needs root. Needs iproute2, util-linux, nftables and dnsmasq-base.
mod namespace;

use std::time::Duration;

use kscratch_init::apply::dhcp::{Change, Keeper};
use kscratch_init::apply::{bridge, firewall, network};
use kscratch_init::log::monotonic;
use kscratch_init::sys::Linux;
use kscratch_netlink::Netlink;
use namespace::server::{Server, wait_until};
use namespace::{addresses, in_namespace, run};

#[test]
fn a_bridge_made_twice_is_the_same() {
    in_namespace("a_bridge_made_twice_is_the_same", || {
        let mut netlink = Netlink::open().unwrap();
        bridge::ensure(&mut netlink, "cbr0", "10.244.3.1/24".parse().unwrap(), 1450).unwrap();
        let first = network::existing_link(&mut netlink, "cbr0").unwrap();
        bridge::ensure(&mut netlink, "cbr0", "10.244.3.1/24".parse().unwrap(), 1450).unwrap();
        assert_eq!(
            network::existing_link(&mut netlink, "cbr0").unwrap(),
            first,
            "nothing changes, its number included"
        );
        assert!(first.bridge && first.up && !first.hardware);
        assert_eq!(addresses("cbr0"), ["10.244.3.1/24"]);
        let text = run("ip -d link show cbr0");
        assert!(text.contains("mtu 1450") && text.contains("0a:58:0a:f4:03:01") && text.contains("bridge "), "{text}");
    });
}

#[test]
fn a_wrong_bridge_is_corrected_and_keeps_its_ports() {
    in_namespace("a_wrong_bridge_is_corrected_and_keeps_its_ports", || {
        run("ip link add cbr0 type bridge");
        run("ip addr add 10.9.9.9/16 dev cbr0");
        run("ip addr add 10.244.3.1/16 dev cbr0");
        run("ip link add port type veth peer name pod");
        run("ip link set port master cbr0");
        let mut netlink = Netlink::open().unwrap();
        bridge::ensure(&mut netlink, "cbr0", "10.244.3.1/24".parse().unwrap(), 1400).unwrap();
        assert_eq!(addresses("cbr0"), ["10.244.3.1/24"], "the same address with another prefix is another one");
        assert!(run("ip link show master cbr0").contains("port@pod"));
        assert!(run("ip link show cbr0").contains("mtu 1400"));
    });
}

#[test]
fn a_link_of_the_name_that_is_no_bridge_makes_way() {
    in_namespace("a_link_of_the_name_that_is_no_bridge_makes_way", || {
        run("ip link add cbr0 type veth peer name other");
        let mut netlink = Netlink::open().unwrap();
        bridge::ensure(&mut netlink, "cbr0", "10.244.3.1/24".parse().unwrap(), 1500).unwrap();
        assert!(network::existing_link(&mut netlink, "cbr0").unwrap().bridge);
    });
}

#[test]
fn links_addresses_and_routes() {
    in_namespace("links_addresses_and_routes", || {
        let mut netlink = Netlink::open().unwrap();
        run("ip link add one type veth peer name two");
        assert!(network::remove_link(&mut netlink, "docker0").is_ok_and(|was| !was), "a link that is not there");
        run("ip link add docker0 type bridge");
        assert!(network::remove_link(&mut netlink, "docker0").is_ok_and(|was| was));
        assert!(network::link(&mut netlink, "docker0").unwrap().is_none());

        let link = network::link_up(&mut netlink, "one", Some(1300)).unwrap();
        assert!(link.up && link.mtu == 1300);
        network::add_address(&mut netlink, "one", "10.9.0.7/24".parse().unwrap()).unwrap();
        network::add_address(&mut netlink, "one", "10.9.0.7/24".parse().unwrap()).unwrap();
        network::add_address(&mut netlink, "one", "10.9.1.7/24".parse().unwrap()).unwrap();
        assert_eq!(addresses("one"), ["10.9.0.7/24", "10.9.1.7/24"]);
        network::set_only_address(&mut netlink, "one", "10.9.0.7/24".parse().unwrap()).unwrap();
        assert_eq!(network::addresses(&mut netlink, link.index).unwrap(), ["10.9.0.7/24".parse().unwrap()]);
        network::remove_address(&mut netlink, "one", "10.9.5.5/24".parse().unwrap()).unwrap();
        // The second of a network goes with the first, and is wanted.
        run("ip addr add 10.9.3.1/24 dev one");
        run("ip addr add 10.9.3.2/24 dev one");
        let both = ["10.9.0.7/24".parse().unwrap(), "10.9.3.2/24".parse().unwrap()];
        network::set_addresses(&mut netlink, "one", &both, true).unwrap();
        assert_eq!(addresses("one"), ["10.9.0.7/24", "10.9.3.2/24"]);
        network::set_only_address(&mut netlink, "one", "10.9.0.7/24".parse().unwrap()).unwrap();

        network::link_up(&mut netlink, "two", None).unwrap();
        let route = |to: &str, gateway: &str| network::Route {
            destination: to.parse().unwrap(),
            gateway: Some(gateway.parse().unwrap()),
            link: None,
            metric: None,
        };
        network::set_route(&mut netlink, route("0.0.0.0/0", "10.9.0.1")).unwrap();
        network::set_route(&mut netlink, route("0.0.0.0/0", "10.9.0.2")).unwrap();
        network::set_route(&mut netlink, route("10.244.5.0/24", "10.9.0.5")).unwrap();
        let text = run("ip -4 route show proto static");
        assert_eq!(
            text.split_whitespace().collect::<Vec<_>>().join(" "),
            "default via 10.9.0.2 dev one 10.244.5.0/24 via 10.9.0.5 dev one"
        );
        let found = network::routes(&mut netlink).unwrap();
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|route| route.link == Some(link.index)));
        assert!(network::hardware_links(&mut netlink).unwrap().is_empty(), "veth has no hardware");
    });
}

#[test]
fn errors_name_the_thing_and_the_reason() {
    in_namespace("errors_name_the_thing_and_the_reason", || {
        let mut netlink = Netlink::open().unwrap();
        let words = |error: anyhow::Error| format!("{error:#}");
        assert_eq!(
            words(network::link_up(&mut netlink, "eth9", None).unwrap_err()),
            "there is no link eth9 (there are: lo)"
        );
        let route = network::Route {
            destination: "0.0.0.0/0".parse().unwrap(),
            gateway: Some("192.0.2.1".parse().unwrap()),
            link: None,
            metric: None,
        };
        assert_eq!(
            words(network::set_route(&mut netlink, route).unwrap_err()),
            "setting the route to 0.0.0.0/0 through 192.0.2.1: Network is unreachable (os error 101)"
        );
        run("ip link add one type veth peer name two");
        assert_eq!(
            words(network::link_up(&mut netlink, "one", Some(1_000_000)).unwrap_err()),
            "setting the MTU of one to 1000000: Invalid argument (os error 22)"
        );
    });
}

#[test]
fn carrier_is_waited_for_by_event() {
    in_namespace("carrier_is_waited_for_by_event", || {
        let mut netlink = Netlink::open().unwrap();
        run("ip link add one type veth peer name two");
        network::link_up(&mut netlink, "one", None).unwrap();
        assert!(!network::wait_for_carrier(&mut netlink, "one", Duration::from_millis(50)).unwrap());
        let start = monotonic();
        let other = std::thread::spawn(|| run("ip link set two up"));
        assert!(network::wait_for_carrier(&mut netlink, "one", Duration::from_secs(20)).unwrap());
        assert!(monotonic() - start < Duration::from_secs(15));
        other.join().unwrap();
    });
}

#[test]
fn rulesets_are_loaded_whole_or_not_at_all() {
    in_namespace("rulesets_are_loaded_whole_or_not_at_all", || {
        firewall::load(
            &Linux,
            "table inet kscratch {\n chain forward { type filter hook forward priority 0; accept; }\n}\n",
        )
        .unwrap();
        assert!(run("nft list ruleset").contains("table inet kscratch"));
        let error = format!(
            "{:#}",
            firewall::load(&Linux, "table inet other { }\ntable inet kscratch { chian x { } }\n").unwrap_err()
        );
        assert!(
            error.starts_with("loading the firewall's ruleset: nft ended with status 1: /dev/stdin:2:")
                && error.contains("chian"),
            "{error}"
        );
        assert!(!run("nft list ruleset").contains("other"));

        firewall::remove_stale(&Linux).unwrap();
        firewall::load(&Linux, "table ip nat {\n chain DOCKER { }\n}\n").unwrap();
        firewall::remove_stale(&Linux).unwrap();
        let left = run("nft list ruleset");
        assert!(!left.contains("nat") && left.contains("kscratch"), "{left}");
    });
}

/// Keeps a lease as the event loop does, on a clock that a test may move, until `done` says so.
fn keep(
    keeper: &mut Keeper,
    clock: impl Fn() -> Duration,
    what: &str,
    mut done: impl FnMut(&[Change], &Keeper) -> bool,
) {
    wait_until(what, || {
        let mut changes = keeper.readable(clock());
        changes.extend(keeper.timer(clock()));
        done(&changes, keeper)
    });
}

#[test]
fn a_lease_from_a_real_server_is_taken_renewed_and_lost() {
    in_namespace("a_lease_from_a_real_server_is_taken_renewed_and_lost", || {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(folder.path());
        let log = || server.log();

        let mut keeper = Keeper::start("client", Some("node-1".into()), 0x1234_5678, 99, monotonic()).unwrap();
        let lease =
            keeper.acquire(Duration::from_secs(30), monotonic).unwrap_or_else(|error| panic!("{error:#}\n{}", log()));
        assert_eq!(lease.to_string(), "10.9.0.50/24 from 10.9.0.1 for 120 s");
        assert_eq!(lease.dns_servers, ["10.9.0.2".parse::<std::net::Ipv4Addr>().unwrap(), "10.9.0.3".parse().unwrap()]);
        assert_eq!(lease.search, ["a.example", "b.example"]);
        assert_eq!(lease.time_servers, ["10.9.0.4".parse::<std::net::Ipv4Addr>().unwrap()]);
        assert_eq!(lease.mtu, Some(1400));
        assert_eq!(addresses("client"), ["10.9.0.50/24"]);
        assert!(run("ip link show client").contains("mtu 1400"));
        assert!(run("ip -4 route").contains("default via 10.9.0.1 dev client"));
        assert!(
            std::fs::read_to_string(folder.path().join("leases-10.9.0.50")).unwrap().contains("node-1"),
            "the server knows our name"
        );

        // A minute on, at T1, the server hears a second request, by unicast, and nothing changes for us.
        let acks = || log().matches("DHCPACK").count();
        let before = acks();
        let at_renewal = || monotonic() + Duration::from_secs(61);
        keep(&mut keeper, at_renewal, "a renewal", |changes, _| {
            assert!(changes.is_empty(), "{changes:?}");
            acks() > before
        });
        keep(&mut keeper, at_renewal, "the server's answer", |_, keeper| {
            keeper.next_deadline().is_some_and(|deadline| deadline > at_renewal() + Duration::from_secs(30))
        });

        // The server is gone. After the lease's time the address is gone too, and a lease is looked for again.
        drop(server);
        let later = || monotonic() + Duration::from_secs(300);
        let mut seen = Vec::new();
        keep(&mut keeper, later, "the end of the lease", |changes, keeper| {
            seen.extend(changes.iter().map(ToString::to_string));
            keeper.lease().is_none()
        });
        assert_eq!(seen, ["lost its lease of 10.9.0.50/24: no DHCP server renewed it; looking for another"]);
        assert!(addresses("client").is_empty());
        assert!(!run("ip -4 route").contains("default"));
        assert!(keeper.next_deadline().is_some());
    });
}

/// The old address goes before the new one comes: the link never has two of a server's.
#[test]
fn another_address_of_the_server_takes_the_place_of_the_old_one() {
    in_namespace("another_address_of_the_server_takes_the_place_of_the_old_one", || {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Server::start(folder.path());
        let mut keeper = Keeper::start("client", None, 0x1234_5678, 99, monotonic()).unwrap();
        keeper
            .acquire(Duration::from_secs(30), monotonic)
            .unwrap_or_else(|error| panic!("{error:#}\n{}", server.log()));
        assert_eq!(addresses("client"), ["10.9.0.50/24"]);
        let fixed = || run("ip -4 route").contains("10.8.0.0/16 via 10.9.0.7 dev client");
        let (destination, gateway) = ("10.8.0.0/16".parse().unwrap(), Some("10.9.0.7".parse().unwrap()));
        let route = network::Route {
            destination,
            gateway,
            link: Some(network::existing_link(&mut Netlink::open().unwrap(), "client").unwrap().index),
            metric: None,
        };
        network::set_route(&mut Netlink::open().unwrap(), route).unwrap();
        keeper.plan(vec![network::Route { link: None, ..route }], None);
        assert!(fixed());
        server.give("10.9.0.60");
        let at_renewal = || monotonic() + Duration::from_secs(61);
        let mut seen = Vec::new();
        keep(&mut keeper, at_renewal, "the other address", |changes, keeper| {
            seen.extend(changes.iter().map(ToString::to_string));
            if changes.iter().any(|change| matches!(change, Change::Lost(..))) && keeper.lease().is_none() {
                assert!(addresses("client").is_empty());
                assert!(fixed(), "routes of the plan outlive a lease");
            }
            keeper.lease().is_some_and(|lease| lease.address.addr().octets()[3] == 60)
        });
        assert_eq!(
            seen,
            [
                "lost its lease of 10.9.0.50/24: the DHCP server 10.9.0.1 refuses it; looking for another",
                "has 10.9.0.60/24 from 10.9.0.1 for 120 s"
            ]
        );
        assert_eq!(addresses("client"), ["10.9.0.60/24"]);
        assert!(fixed());
        assert!(run("ip -4 route").contains("default via 10.9.0.1 dev client"));
    });
}

/// What else a server says keeps a machine from nothing: an MTU that the link cannot have, or one where the metadata say another.
#[test]
fn an_address_comes_whatever_else_a_server_says() {
    in_namespace("an_address_comes_whatever_else_a_server_says", || {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Server::start(folder.path());
        // The server says 1400; a macvlan has no more than the link below it.
        run("ip link set client up mtu 1300");
        run("ip link add above link client type macvlan mode bridge");
        let take = |server: &Server, link: &str, mtu: Option<u32>| {
            let mut keeper = Keeper::start(link, None, 0x1234_5678, 99, monotonic()).unwrap();
            keeper.plan(Vec::new(), mtu);
            keeper
                .acquire(Duration::from_secs(30), monotonic)
                .unwrap_or_else(|error| panic!("{error:#}\n{}", server.log()));
            assert!(run(&format!("ip link show {link}")).contains("mtu 1300"));
        };
        take(&server, "above", None);
        assert_eq!(addresses("above"), ["10.9.0.50/24"]);
        server.give("10.9.0.60");
        take(&server, "client", Some(1300));
        assert_eq!(addresses("client"), ["10.9.0.60/24"]);
    });
}

/// A bond has an address by chance until its first member gives it its own.
#[test]
fn a_link_that_gets_another_address_asks_anew_by_that() {
    in_namespace("a_link_that_gets_another_address_asks_anew_by_that", || {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(folder.path());
        let mut keeper = Keeper::start("client", None, 0x1234_5678, 99, monotonic()).unwrap();
        run("ip link set client address 52:54:00:00:00:99");
        let link = network::existing_link(&mut Netlink::open().unwrap(), "client").unwrap();
        keeper.link_changed(&link, monotonic());
        keeper
            .acquire(Duration::from_secs(30), monotonic)
            .unwrap_or_else(|error| panic!("{error:#}\n{}", server.log()));
        let log = server.log();
        assert!(log.lines().any(|line| line.contains("DHCPACK") && line.contains("52:54:00:00:00:99")), "{log}");
    });
}

#[test]
fn a_link_without_a_server_says_so() {
    in_namespace("a_link_without_a_server_says_so", || {
        run("ip link add client type veth peer name server");
        let mut keeper = Keeper::start("client", None, 1, 1, monotonic()).unwrap();
        let error = keeper.acquire(Duration::from_secs(1), monotonic).unwrap_err();
        assert_eq!(error.to_string(), "no DHCP server answered on client in 1 s (it has no carrier)");
    });
}
