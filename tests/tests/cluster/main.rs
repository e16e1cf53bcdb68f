//! Brings up whole clusters in each network mode and holds them against requirements' acceptance list (A1–A6).
mod access;
mod conformance;
mod membership;
mod network;

use std::thread;
use std::time::Instant;

use kscratch_tests::cluster::{Cluster, SOON, eye, pod, proxy_mode};
use serde_json::Value;

#[test]
fn a_routed_cluster() {
    let cluster = Cluster::up("routed", 1, 1, &["--outside", "--forward", "0:n1:10250", "--forward", "0:n1:30080"]);
    accept(&cluster, "routed", "1500");
    network::reaches_outside(&cluster);
    conformance::holds(&cluster);
    membership::a_node_that_is_cut_comes_back(&cluster);
    membership::a_node_that_is_removed_is_forgotten(&cluster);
    cluster.command(&["down", "lab"]).succeeded();
    let tokens = std::fs::read_to_string(cluster.file("secrets/tokens.toml")).unwrap();
    assert!(tokens.contains("token"), "the identity outlives the machines");
}

#[test]
fn an_overlay_cluster() {
    let cluster = Cluster::up("overlay", 1, 1, &["--forward", "0:n1:10250", "--forward", "0:n1:30080"]);
    accept(&cluster, "overlay", "1450");
    membership::a_node_that_is_removed_is_forgotten(&cluster);
}

/// What is asked of every cluster; it gets a second node on the way. `mtu` is that of a pod's link.
fn accept(cluster: &Cluster, mode: &str, mtu: &str) {
    cluster.apply(&[eye("m1"), eye("n1"), pod("a1", "n1"), pod("a2", "n1")]);
    control_plane(cluster);
    access::nobody_gets_in(cluster);
    access::secrets_are_encrypted(cluster);
    // A node that comes later: n1 gets its route while pods run there.
    cluster.grow(2);
    cluster.apply(&[eye("n2"), pod("b1", "n2")]);
    membership::every_node_has_a_range_and_routes_to_the_others(cluster);
    let proxy = cluster.ask("eye-n1", "/http?port=10249&path=/proxyMode");
    assert_eq!(proxy.trim(), proxy_mode(mode), "kube-proxy's mode");
    network::holds(cluster, mtu);
    access::kubectl_gets_in(cluster);
    access::agents_may_do_no_more_than_they_need(cluster);
    access::nodes_keep_to_themselves(cluster);
}

/// A1–A3: mirror pods of a control plane that runs in docker, the cluster's DNS, and health where it is asked for.
fn control_plane(cluster: &Cluster) {
    let api = cluster.api();
    let pods = api.items("/api/v1/namespaces/kube-system/pods");
    for name in ["etcd-m1", "kube-apiserver-m1", "kube-controller-manager-m1", "kube-scheduler-m1"] {
        assert!(pods.iter().any(|pod| pod["metadata"]["name"] == name), "{name} is not among the pods");
    }
    let page = "/api/v1/namespaces/kube-system/pods/hello-n1:8080/proxy/";
    let (_, hello) = api.wait_for(page, SOON, |(code, _)| *code == 200);
    assert!(hello.starts_with("hello from hello-n1 at 10.244."), "{hello}");
    api.wait_for("/apis/apps/v1/namespaces/kube-system/deployments/coredns", SOON, |(code, text)| {
        let deployment: Value = serde_json::from_str(text).unwrap_or_default();
        *code == 200 && deployment["status"]["availableReplicas"] == 2
    });
    assert_eq!(cluster.ask("eye-m1", "/http?port=2381&path=/readyz"), "ok\n");
    let containers = cluster.ask("eye-m1", "/unix?socket=/run/docker.sock&path=/containers/json");
    let containers: Vec<Value> = serde_json::from_str(&containers).unwrap();
    for component in ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
        let runs =
            |one: &Value| one["Labels"]["io.kubernetes.container.name"] == component && one["State"] == "running";
        assert!(containers.iter().any(runs), "docker runs no {component}");
    }
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
