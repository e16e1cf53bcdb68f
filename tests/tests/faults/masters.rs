//! Three masters: the address that they share moves from one to another; one is lost, the others go on, and it comes back with an empty disk as the member that it was;
//! one is removed, and knows it.
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use kscratch_tests::cluster::{BOOT, Cluster, MAPS, SOON, eye};
use serde_json::Value;

/// Whoever asks at the endpoint is answered by another master when the one that has the address loses its power.
pub fn the_address_moves(cluster: &Cluster) {
    let first = holder(cluster);
    assert_eq!(cluster.make_map("at-the-first"), 201);
    cluster.power("cut", &[&first]);
    let begun = Instant::now();
    // The lease is left alone for fifteen seconds. What else it takes is etcd's: its members may have to choose another leader first.
    // It may also be there already: what was acknowledged to nobody may have been written.
    while !matches!(cluster.make_map("at-the-next"), 201 | 409) {
        assert!(begun.elapsed() < SOON, "nobody has taken the address of {first}");
        thread::sleep(Duration::from_secs(2));
    }
    let second = holder(cluster);
    assert_ne!(second, first, "who is off has the address");
    let console = cluster.console(&second);
    assert!(console.contains("192.168.76.5 is on this machine now"), "{console}");
    cluster.power("on", &[&first]);
    cluster.settle();
    assert_eq!(cluster.make_map("with-all-three"), 201);
    assert_eq!(holder(cluster), second, "{first} has come back and taken what another had");
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
    assert_eq!(cluster.make_map("with-three"), 201);
    cluster.power("cut", &["m3"]);
    fs::remove_file(cluster.file("machines/m3/disk.qcow2")).unwrap();
    // Two of three are most of them. The API server may have to find another member first.
    let end = Instant::now() + BOOT;
    while cluster.make_map("with-two") != 201 {
        assert!(Instant::now() < end, "nothing can be written with two members of three");
        thread::sleep(Duration::from_secs(2));
    }
    let from = cluster.console("m3").len();
    cluster.power("on", &["m3"]);
    cluster.settle();
    let said = cluster.console("m3");
    let said = said.get(from..).unwrap_or_default();
    assert!(said.contains("etcd's member m3 has lost its data: it is replaced"), "{said}");
    // With m2 away, what m3 has is needed for a majority.
    cluster.power("cut", &["m2"]);
    let end = Instant::now() + BOOT;
    while cluster.make_map("with-the-new-one") != 201 {
        assert!(Instant::now() < end, "the member that was replaced is none");
        thread::sleep(Duration::from_secs(2));
    }
    let maps = cluster.api().items(MAPS);
    for name in ["with-three", "with-two", "with-the-new-one"] {
        assert!(maps.iter().any(|map| map["metadata"]["name"] == name), "{name} is lost");
    }
}

/// Its Node is deleted, and it is no member of etcd any more: not now, and not when it is switched on again.
pub fn one_is_removed_for_good(cluster: &Cluster) {
    cluster.settle();
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
    assert_eq!(cluster.make_map("with-two-members"), 201);
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
            thread::sleep(std::time::Duration::from_secs(2));
        }
    };
    says_so_after(from);
    cluster.power("cut", &["m2"]);
    let from = cluster.console("m2").len();
    cluster.power("on", &["m2"]);
    says_so_after(from);
    // It disturbs nobody.
    let end = Instant::now() + SOON;
    while cluster.make_map("while-it-runs") != 201 {
        assert!(Instant::now() < end, "nothing can be written beside a master that was removed");
        thread::sleep(std::time::Duration::from_secs(2));
    }
    let nodes = cluster.api().items("/api/v1/nodes");
    assert!(nodes.iter().all(|node| node["metadata"]["name"] != "m2"), "{nodes:?}");
}
