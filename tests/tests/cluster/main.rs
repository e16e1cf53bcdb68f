//! Brings up whole clusters in each network mode and holds them against requirements' acceptance list (A1–A6).
//!
//! With one of them the gate takes longer than it may: like [`faults`](../faults/main.rs), they are run by their own command.
mod access;
mod conformance;
mod controlplane;
mod membership;
mod network;

use std::thread;
use std::time::Instant;

use kscratch_tests::cluster::{Cluster, SOON, eye, pod, proxy_mode};
use kscratch_tests::step::step;
use serde_json::Value;

/// What a cluster of two machines has where: the node comes while pods run on the master, and there is no third machine to be waited for.
const TWO: Cast = Cast { machines: &["m1", "n1"], late: "n1", pair: "n1", single: "m1" };
/// The same in one of three, with pods that talk from node to node.
const THREE: Cast = Cast { machines: &["m1", "n1", "n2"], late: "n2", pair: "n1", single: "n2" };
/// The kubelet of the master, and a port of its node.
const FORWARDS: [&str; 5] = ["--outside", "--forward", "0:m1:10250", "--forward", "0:m1:30080"];

#[test]
fn a_routed_cluster() {
    let cluster = accepted("routed", "1500", &TWO, &[]);
    step("outside", || network::reaches_outside(&cluster));
    step("a node is asked", || membership::a_node_tells_how_it_is(&cluster, TWO.late));
    step("a node is removed", || membership::a_node_that_is_removed_is_forgotten(&cluster, &TWO));
    step("down", || cluster.command(&["down", "lab"]).succeeded());
    let tokens = std::fs::read_to_string(cluster.file("secrets/tokens.toml")).unwrap();
    assert!(tokens.contains("token"), "the identity outlives the machines");
}

/// The other network mode, and a node that starts anew because it is told to.
#[test]
fn an_overlay_cluster() {
    let cluster = accepted("overlay", "1450", &TWO, &[]);
    step("outside", || network::reaches_outside(&cluster));
    step("a node is told", || membership::a_node_that_is_told_to_starts_anew(&cluster, &TWO));
    step("a node is removed", || membership::a_node_that_is_removed_is_forgotten(&cluster, &TWO));
}

/// Disks of their own, a node that loses its power, and upstream's conformance suite as far as it can be asked offline.
#[test]
fn a_conforming_cluster() {
    let cluster = accepted("routed", "1500", &THREE, &["--docker-disk", "8GiB", "--etcd-disk", "2GiB"]);
    step("dns", || controlplane::dns_stays_where_its_image_is(&cluster));
    step("disks", || {
        for (machine, place) in [("m1", "/var/lib/etcd"), ("m1", "/var/lib/docker"), (THREE.pair, "/var/lib/docker")] {
            membership::has_a_disk_of_its_own(&cluster, machine, place);
        }
    });
    step("a node is cut", || membership::a_node_that_is_cut_comes_back(&cluster, &THREE));
    conformance::holds(&cluster);
}

/// Which machines there are, and which of them have what pods.
struct Cast {
    /// All of them, by name.
    machines: &'static [&'static str],
    /// The one that comes while pods run on those before it.
    late: &'static str,
    /// The node that has the pods `a1` and `a2`.
    pair: &'static str,
    /// The node that has `b1`.
    single: &'static str,
}

impl Cast {
    /// The address of a machine, as `cluster up` gives it: masters from 10, nodes from 20.
    fn address(machine: &str) -> String {
        let (first, number) =
            if let Some(number) = machine.strip_prefix('m') { (9, number) } else { (19, &machine[1..]) };
        format!("192.168.76.{}", first + number.parse::<u8>().expect("a machine has a number"))
    }

    /// The machine's eye.
    fn eye(machine: &str) -> String {
        format!("eye-{machine}")
    }

    fn eyes(&self) -> impl Iterator<Item = String> {
        self.machines.iter().copied().map(Self::eye)
    }
}

/// A cluster in which all is well that is asked of every one; its last machine came while pods ran. `mtu` is that of a pod's link; `more` goes to
/// `cluster up`.
fn accepted(mode: &str, mtu: &str, cast: &Cast, more: &[&str]) -> Cluster {
    let nodes = u8::try_from(cast.machines.len() - 1).expect("a cluster is small");
    let cluster = Cluster::up(mode, 1, nodes - 1, &[&FORWARDS, more].concat());
    let pair = || ["a1", "a2"].map(|name| pod(name, cast.pair));
    step("pods", || {
        let mut first: Vec<Value> =
            cast.machines.iter().filter(|name| **name != cast.late).map(|name| eye(name)).collect();
        first.extend(pair().into_iter().filter(|_| cast.pair != cast.late));
        cluster.apply(&first);
    });
    step("control plane", || {
        controlplane::is_well(&cluster);
        controlplane::says_its_version(&cluster);
        controlplane::writes_down_who_asks(&cluster);
    });
    step("secrets", || access::secrets_are_encrypted(&cluster));
    let deleted = controlplane::loses_its_own_objects(&cluster);
    step("one more node", || cluster.grow(nodes));
    step("own objects", || controlplane::has_them_again(&cluster, &deleted));
    step("nodes", || {
        controlplane::has_these_nodes(&cluster, cast.machines);
        let mut last = vec![eye(cast.late), access::with_the_secret(pod("b1", cast.single))];
        last.extend(pair().into_iter().filter(|_| cast.pair == cast.late));
        cluster.apply(&last);
        membership::every_node_has_a_range_and_routes_to_the_others(&cluster, cast);
    });
    step("strangers", || access::nobody_gets_in(&cluster, cast));
    step("network", || {
        let proxy = cluster.ask(&Cast::eye(cast.pair), "/http?port=10249&path=/proxyMode");
        assert_eq!(proxy.trim(), proxy_mode(mode), "kube-proxy's mode");
        network::holds(&cluster, mtu, cast);
    });
    step("access", || {
        access::kubectl_gets_in(&cluster);
        access::services_may_do_no_more_than_they_need(&cluster);
        access::nodes_keep_to_themselves(&cluster, cast);
    });
    cluster
}

/// Asks until something is so.
#[track_caller]
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < end, "{what}: not within {} s", SOON.as_secs());
        thread::sleep(std::time::Duration::from_secs(2));
    }
}
