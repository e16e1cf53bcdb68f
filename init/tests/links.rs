//! Turns the steps of a network with several links into bridges, addresses of both families, routes and leases of real network namespaces.
//!
//! Bonds and VLANs are tried in a virtual machine (tests/tests/hardware.rs): not every kernel that tests run on has them. Needs what network.rs does.
mod namespace;

use std::time::Duration;

use kscratch_init::apply::steps::Machine;
use kscratch_init::apply::{links, network};
use kscratch_init::log::monotonic;
use kscratch_init::plan::{Made, Phase, Plan, Step, superseded};
use kscratch_init::sys::Linux;
use kscratch_netlink::Netlink;
use namespace::server::Server;
use namespace::{addresses, in_namespace, run};

fn bridge(members: &[&str], stp: bool) -> Made {
    Made::Bridge { members: members.iter().map(|member| (*member).to_owned()).collect(), stp }
}

fn plan(steps: Vec<Step>) -> Plan {
    Plan { phases: vec![Phase { name: "network", steps }] }
}

fn up(link: &str) -> Step {
    Step::LinkUp { link: link.to_owned(), mtu: None }
}

/// `ip route` without the words that differ between versions of iproute2.
fn routes(family: &str) -> String {
    let text = run(&format!("ip {family} route show"));
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_bridge_has_the_members_and_options_that_it_should() {
    in_namespace("a_bridge_has_the_members_and_options_that_it_should", || {
        let mut netlink = Netlink::open().unwrap();
        for pair in ["a", "b", "c"] {
            run(&format!("ip link add {pair}0 type veth peer name {pair}1"));
        }
        let index = |netlink: &mut Netlink| network::existing_link(netlink, "br0").unwrap().index;
        assert!(links::ensure(&mut netlink, "br0", &bridge(&["a0", "b0"], false)).unwrap(), "it is made");
        let first = index(&mut netlink);
        assert!(!links::ensure(&mut netlink, "br0", &bridge(&["a0", "b0"], false)).unwrap(), "it is as it should be");
        assert!(!links::ensure(&mut netlink, "br0", &bridge(&["b0", "c0"], false)).unwrap(), "other members");
        assert_eq!(index(&mut netlink), first);
        let members = run("ip -o link show master br0");
        // One that is neither a card nor a link of ours is somebody's who put it there: a pod's.
        assert!(["a0@", "b0@", "c0@"].iter().all(|member| members.contains(member)), "{members}");
        assert!(links::ensure(&mut netlink, "br0", &bridge(&["b0"], true)).unwrap(), "other options make another one");
        assert!(run("ip -d link show br0").contains("stp_state 1"));
        // One of the name that is something else makes way.
        run("ip link add br1 type veth peer name br1x");
        assert!(links::ensure(&mut netlink, "br1", &bridge(&[], false)).unwrap());
        assert!(network::made_links(&mut netlink).unwrap().keys().eq(["br0", "br1"]));
    });
}

#[test]
fn addresses_and_routes_of_both_families() {
    in_namespace("addresses_and_routes_of_both_families", || {
        let mut netlink = Netlink::open().unwrap();
        run("ip link add one type veth peer name two");
        run("ip link set two up");
        run("ip addr add 10.1.1.1/24 dev one");
        run("ip link set one up");
        let nets = ["192.168.7.20/24", "2001:db8::20/64", "192.168.8.20/24"].map(|net| net.parse().unwrap());
        assert!(network::set_addresses(&mut netlink, "one", &nets, true).unwrap());
        assert!(!network::set_addresses(&mut netlink, "one", &nets, true).unwrap(), "it has them");
        assert_eq!(addresses("one"), ["192.168.7.20/24", "192.168.8.20/24"]);
        assert!(run("ip -6 -o addr show dev one").contains("2001:db8::20/64"));

        let link = network::existing_link(&mut netlink, "one").unwrap().index;
        let route = |to: &str, gateway: Option<&str>, metric| network::Route {
            destination: to.parse().unwrap(),
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            link: Some(link),
            metric,
        };
        let all = [
            route("0.0.0.0/0", Some("192.168.7.1"), Some(50)),
            route("0.0.0.0/0", Some("192.168.8.1"), Some(60)),
            route("10.8.0.0/16", None, None),
            route("::/0", Some("fe80::1"), None),
            route("2001:db8:9::/48", Some("2001:db8::1"), Some(7)),
        ];
        for _ in 0..2 {
            all.iter().for_each(|route| network::set_route(&mut netlink, *route).unwrap());
        }
        let (four, six) = (routes("-4"), routes("-6"));
        for want in ["default via 192.168.7.1 dev one proto static metric 50", "10.8.0.0/16 dev one proto static"] {
            assert_eq!(four.matches(want).count(), 1, "{want}: {four}");
        }
        for want in ["2001:db8:9::/48 via 2001:db8::1 dev one proto static metric 7", "default via fe80::1 dev one"] {
            assert_eq!(six.matches(want).count(), 1, "{want}: {six}");
        }
        for route in all {
            network::remove_route(&mut netlink, route).unwrap();
            network::remove_route(&mut netlink, route).unwrap();
        }
        assert!(!routes("-4").contains("static") && !routes("-6").contains("static"));
    });
}

#[test]
fn a_plan_is_applied_again_without_a_trace_and_makes_way_for_another() {
    in_namespace("a_plan_is_applied_again_without_a_trace_and_makes_way_for_another", || {
        run("ip link add one type veth peer name two");
        run("ip link set two up");
        let net = |net: &str| net.parse().unwrap();
        let first = plan(vec![
            Step::MakeLink { link: "br0".into(), made: bridge(&["one"], false) },
            up("one"),
            up("br0"),
            Step::Addresses {
                link: "br0".into(),
                addresses: vec![net("192.168.7.20/24"), net("2001:db8::20/64")],
                alone: true,
            },
            Step::Route {
                destination: net("0.0.0.0/0"),
                gateway: Some("192.168.7.1".parse().unwrap()),
                link: Some("br0".into()),
                metric: Some(5),
            },
        ]);
        let folder = tempfile::tempdir().unwrap();
        let mut machine = Machine::new(&Linux, folder.path(), "0123456789abcdef0123456789abcdef");
        machine.plan(&first).unwrap();
        let seen =
            || format!("{}{}{}", run("ip link show br0"), run("ip -o addr show dev br0 scope global"), routes("-4"));
        let once = seen();
        assert!(once.contains("192.168.7.20/24") && once.contains("default via 192.168.7.1 dev br0"), "{once}");
        machine.plan(&first).unwrap();
        // What counts down or comes of itself is no difference.
        assert_eq!(seen().replace(" tentative", ""), once.replace(" tentative", ""));

        let second = plan(vec![
            up("one"),
            Step::Addresses { link: "one".into(), addresses: vec![net("192.168.9.20/24")], alone: true },
        ]);
        machine.plan(&plan(superseded(&first, &second))).unwrap();
        machine.plan(&second).unwrap();
        assert_eq!(addresses("one"), ["192.168.9.20/24"]);
        assert!(!run("ip link show").contains("br0") && !routes("-4").contains("default"));
    });
}

#[test]
fn leases_have_their_metric_and_optional_ones_are_not_waited_for() {
    in_namespace("leases_have_their_metric_and_optional_ones_are_not_waited_for", || {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(folder.path());
        run("ip link add dead type veth peer name end");
        let dhcp = |link: &str, metric, optional| Step::Dhcp { link: link.into(), metric: Some(metric), optional };
        let mut machine = Machine::new(&Linux, folder.path(), "0123456789abcdef0123456789abcdef");
        let begun = monotonic();
        machine
            .plan(&plan(vec![up("client"), dhcp("client", 100, false), up("dead"), dhcp("dead", 101, true)]))
            .unwrap_or_else(|error| panic!("{error:#}\n{}", server.log()));
        assert_eq!(addresses("client"), ["10.9.0.50/24"]);
        assert!(routes("-4").contains("default via 10.9.0.1 dev client proto static metric 100"), "{}", routes("-4"));
        assert_eq!(machine.leases.len(), 2);
        assert!(monotonic() - begun < Duration::from_secs(20));
        // A phase that asks for nothing waits for nobody, and one that asks again only as long as others are given.
        let begun = monotonic();
        run("ip link add bare type veth peer name cut");
        machine.plan(&plan(vec![dhcp("client", 100, false), dhcp("bare", 101, false)])).unwrap();
        let took = monotonic() - begun;
        assert!(took < Duration::from_secs(20), "{took:?}");
        machine.plan(&plan(vec![up("bare")])).unwrap();
        assert!(monotonic() - begun < took + Duration::from_secs(1));
        let optional = vec![dhcp("bare", 101, true), Step::AnyLease];
        machine.plan(&plan(optional)).unwrap();
        assert!(monotonic() - begun < took + Duration::from_secs(1), "there is a lease");
        // With another metric, the lease is given up and asked for anew.
        let other = plan(vec![dhcp("client", 7, false)]);
        machine.keep_leases_of(&other).unwrap();
        assert!(machine.leases.is_empty() && addresses("client").is_empty());
        machine.plan(&other).unwrap_or_else(|error| panic!("{error:#}\n{}", server.log()));
        assert!(routes("-4").contains("metric 7"));
    });
}

#[test]
fn a_carrier_that_comes_late_is_asked_at_once_and_one_that_does_not_come_is_named() {
    in_namespace("a_carrier_that_comes_late_is_asked_at_once_and_one_that_does_not_come_is_named", || {
        run("ip link add client type veth peer name server");
        let folder = tempfile::tempdir().unwrap();
        let mut machine = Machine::new(&Linux, folder.path(), "0123456789abcdef0123456789abcdef");
        machine.lease_within = Duration::from_millis(300);
        let dhcp = plan(vec![Step::Dhcp { link: "client".into(), metric: None, optional: false }]);
        let error = machine.plan(&dhcp).unwrap_err().to_string();
        assert_eq!(error, "no DHCP server answered on client (it has no carrier); it is asked on");
        // The first question went nowhere, and the second is due in a second. The carrier comes before that.
        machine.lease_within = Duration::from_millis(700);
        let other = std::thread::spawn(|| run("ip link set server up"));
        let error = machine.plan(&dhcp).unwrap_err().to_string();
        other.join().unwrap();
        assert_eq!(error, "no DHCP server answered on client; it is asked on");
        assert!(machine.leases[0].has_carrier());
    });
}
