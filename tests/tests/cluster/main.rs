//! Brings up whole clusters in each network mode and holds them against requirements' acceptance list (A1–A6).
mod access;
#[cfg(feature = "faults")]
mod conformance;
mod controlplane;
mod membership;
mod network;

use std::thread;
use std::time::Instant;

use kscratch_tests::cluster::{Cluster, SOON, eye, pod, proxy_mode};
use kscratch_tests::step::step;

#[test]
fn a_routed_cluster() {
    let cluster = Cluster::up("routed", 1, 1, &["--outside", "--forward", "0:n1:10250", "--forward", "0:n1:30080"]);
    accept(&cluster, "routed", "1500");
    step("outside", || network::reaches_outside(&cluster));
    step("a node is cut", || membership::a_node_that_is_cut_comes_back(&cluster));
    step("a node is asked", || membership::a_node_tells_how_it_is(&cluster));
    step("a node is told", || membership::a_node_that_is_told_to_starts_anew(&cluster));
    step("a node is removed", || membership::a_node_that_is_removed_is_forgotten(&cluster));
    step("down", || cluster.command(&["down", "lab"]).succeeded());
    let tokens = std::fs::read_to_string(cluster.file("secrets/tokens.toml")).unwrap();
    assert!(tokens.contains("token"), "the identity outlives the machines");
}

#[test]
fn an_overlay_cluster() {
    let cluster = Cluster::up("overlay", 1, 1, &["--outside", "--forward", "0:n1:10250", "--forward", "0:n1:30080"]);
    accept(&cluster, "overlay", "1450");
    step("outside", || network::reaches_outside(&cluster));
    step("a node is cut", || membership::a_node_that_is_cut_comes_back(&cluster));
    step("a node is removed", || membership::a_node_that_is_removed_is_forgotten(&cluster));
}

/// Upstream's conformance suite as far as it can be asked offline: too long for the gate, see [`faults`](../faults/main.rs).
#[cfg(feature = "faults")]
#[test]
fn a_conforming_cluster() {
    let cluster = Cluster::up("routed", 1, 1, &["--forward", "0:n1:10250", "--forward", "0:n1:30080"]);
    accept(&cluster, "routed", "1500");
    conformance::holds(&cluster);
}

/// What is asked of every cluster; it gets a second node on the way. `mtu` is that of a pod's link.
fn accept(cluster: &Cluster, mode: &str, mtu: &str) {
    step("pods", || cluster.apply(&[eye("m1"), eye("n1"), pod("a1", "n1"), pod("a2", "n1")]));
    step("control plane", || {
        controlplane::is_well(cluster);
        controlplane::says_its_version(cluster);
        controlplane::writes_down_who_asks(cluster);
    });
    step("strangers", || access::nobody_gets_in(cluster));
    step("secrets", || access::secrets_are_encrypted(cluster));
    let deleted = controlplane::loses_its_own_objects(cluster);
    // A node that comes later: n1 gets its route while pods run there.
    step("a second node", || cluster.grow(2));
    step("own objects", || controlplane::has_them_again(cluster, &deleted));
    step("nodes", || {
        controlplane::has_these_nodes(cluster, &["m1", "n1", "n2"]);
        cluster.apply(&[eye("n2"), access::with_the_secret(pod("b1", "n2"))]);
        membership::every_node_has_a_range_and_routes_to_the_others(cluster);
    });
    step("dns", || controlplane::dns_stays_where_its_image_is(cluster));
    step("network", || {
        let proxy = cluster.ask("eye-n1", "/http?port=10249&path=/proxyMode");
        assert_eq!(proxy.trim(), proxy_mode(mode), "kube-proxy's mode");
        network::holds(cluster, mtu);
    });
    step("access", || {
        access::kubectl_gets_in(cluster);
        access::services_may_do_no_more_than_they_need(cluster);
        access::nodes_keep_to_themselves(cluster);
    });
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
