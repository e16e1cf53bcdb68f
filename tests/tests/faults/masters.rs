//! Three masters: one is lost, the others go on, and it comes back with an empty disk as the member that it was.
use std::fs;
use std::thread;
use std::time::Instant;

use kscratch_tests::cluster::{BOOT, Cluster};

fn write(cluster: &Cluster, name: &str) -> u16 {
    let object = format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}}}}"#);
    cluster.api().post("/api/v1/namespaces/default/configmaps", &object).0
}

pub fn one_of_three_is_lost_and_replaced(cluster: &Cluster) {
    assert_eq!(write(cluster, "with-three"), 201);
    cluster.power("cut", &["m3"]);
    fs::remove_file(cluster.file("machines/m3/disk.qcow2")).unwrap();
    // Two of three are most of them. The API server may have to find another member first.
    let end = Instant::now() + BOOT;
    while write(cluster, "with-two") != 201 {
        assert!(Instant::now() < end, "nothing can be written with two members of three");
        thread::sleep(std::time::Duration::from_secs(2));
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
    while write(cluster, "with-the-new-one") != 201 {
        assert!(Instant::now() < end, "the member that was replaced is none");
        thread::sleep(std::time::Duration::from_secs(2));
    }
    let maps = cluster.api().items("/api/v1/namespaces/default/configmaps");
    for name in ["with-three", "with-two", "with-the-new-one"] {
        assert!(maps.iter().any(|map| map["metadata"]["name"] == name), "{name} is lost");
    }
}
