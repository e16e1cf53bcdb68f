//! Three masters: the address that they share moves from one to another, whose power went or who was switched off; one is lost, the others go on, and it comes back with an empty disk as the member that it was;
//! one is removed, and knows it.
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use kscratch_tests::cluster::{BOOT, Cluster, MAPS, SOON, eye};
use serde_json::Value;

use crate::heard::Heard;

/// Whoever asks at the endpoint is answered by another master when the one that has the address loses its power.
pub fn the_address_moves(cluster: &Cluster) {
    let first = holder(cluster);
    cluster.makes_map("at-the-first", SOON);
    cluster.power("cut", &[&first]);
    // The lease is left alone for fifteen seconds. What else it takes is etcd's: its members may have to choose another leader first.
    cluster.makes_map("at-the-next", SOON);
    let second = holder(cluster);
    assert_ne!(second, first, "who is off has the address");
    let console = cluster.console(&second);
    assert!(console.contains("192.168.76.5 is on this machine now"), "{console}");
    comes_back(cluster, &first);
    cluster.makes_map("with-all-three", SOON);
    assert_eq!(holder(cluster), second, "{first} has come back and taken what another had");
    // One that goes in order gives it back while its API server still serves, and nobody waits for its lease to end.
    let heard = Heard::of(cluster, &second);
    cluster.power("off", &[&second]);
    let said = heard.said();
    assert!(said.contains("192.168.76.5 is free for another machine"), "{said}");
    cluster.makes_map("after-an-orderly-end", SOON);
    assert_ne!(holder(cluster), second, "who is off has the address");
    comes_back(cluster, &second);
}

/// Switches a master on, and waits until it is one again: what the cluster says of its node may be from before.
#[track_caller]
fn comes_back(cluster: &Cluster, master: &str) {
    let heard = Heard::of(cluster, master);
    cluster.power("on", &[master]);
    heard.wait("service steward: ready");
    cluster.settle();
}

/// The node whose machine has the address that masters share, as the cluster says.
#[track_caller]
fn holder(cluster: &Cluster) -> String {
    let path = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kscratch-endpoint";
    let (_, text) = cluster.api().wait_for(path, SOON, |(code, _)| *code == 200);
    let lease: Value = serde_json::from_str(&text).unwrap();
    lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
}

pub fn one_of_three_is_lost_and_replaced(cluster: &Cluster) {
    cluster.makes_map("with-three", SOON);
    cluster.power("cut", &["m3"]);
    fs::remove_file(cluster.file("machines/m3/disk.qcow2")).unwrap();
    // Two of three are most of them. The API server may have to find another member first.
    cluster.makes_map("with-two", BOOT);
    let from = cluster.console("m3").len();
    comes_back(cluster, "m3");
    let said = cluster.console("m3");
    let said = said.get(from..).unwrap_or_default();
    assert!(said.contains("etcd's member m3 has lost its data: it is replaced"), "{said}");
    // With m2 away, what m3 has is needed for a majority.
    cluster.power("cut", &["m2"]);
    cluster.makes_map("with-the-new-one", BOOT);
    let maps = cluster.api().items(MAPS);
    for name in ["with-three", "with-two", "with-the-new-one"] {
        assert!(maps.iter().any(|map| map["metadata"]["name"] == name), "{name} is lost");
    }
}

/// Its Node is deleted, and it is no member of etcd any more: not now, and not when it is switched on again.
pub fn one_is_removed_for_good(cluster: &Cluster) {
    comes_back(cluster, "m2");
    cluster.apply(&[eye("m1")]);
    let peers = |count: usize| {
        let connected = |text: &str| {
            text.lines().filter(|line| line.starts_with("etcd_network_active_peers{") && line.ends_with(" 1")).count()
        };
        cluster.ask_for("eye-m1", "/http?port=2381&path=/metrics", |text| connected(text) == count);
    };
    peers(2);
    cluster.api().wait_for("/api/v1/nodes/m2", BOOT, |(_, text)| text.contains("kscratch/etcd-member"));
    let from = cluster.console("m2").len();
    // It comes back when the Node is gone, and the Node goes when the member is.
    cluster.kubectl(&["delete", "node", "m2", "--timeout=20m"]).succeeded();
    let told =
        |machine: &str| cluster.console(machine).contains("Node m2 was deleted: m2 is no member of etcd any more");
    assert!(told("m1") || told("m3"), "no steward says that it removed m2");
    peers(1);
    cluster.makes_map("with-two-members", SOON);
    // The machine notices while it runs, and when it boots.
    let says_so_after = |from: usize| {
        let end = Instant::now() + BOOT;
        while !cluster
            .console("m2")
            .get(from..)
            .unwrap_or_default()
            .contains("this master was removed from its cluster for good")
        {
            assert!(Instant::now() < end, "m2 does not say that it was removed");
            thread::sleep(Duration::from_secs(2));
        }
    };
    says_so_after(from);
    cluster.power("cut", &["m2"]);
    let from = cluster.console("m2").len();
    cluster.power("on", &["m2"]);
    says_so_after(from);
    // It disturbs nobody.
    cluster.makes_map("while-it-runs", SOON);
    let nodes = cluster.api().items("/api/v1/nodes");
    assert!(nodes.iter().all(|node| node["metadata"]["name"] != "m2"), "{nodes:?}");
}
