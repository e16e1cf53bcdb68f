//! A node that has joined is called something else, and is given to another cluster; both times it comes back.
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use kscratch_tests::cluster::{BOOT, Cluster, SOON};
use serde_json::Value;

use crate::heard::Heard;
use crate::newcomers::{with_a_token_that_nobody_knows, with_the_ca_of_another_cluster};

const ROLE: &str = "machines/n2/role.toml";

/// n2 with another role, switched on.
fn given<'a>(cluster: &'a Cluster, role: &str) -> Heard<'a> {
    cluster.power("off", &["n2"]);
    fs::write(cluster.file(ROLE), role).unwrap();
    let heard = Heard::of(cluster, "n2");
    cluster.power("on", &["n2"]);
    heard
}

/// Whether a node is Ready.
fn is_ready(cluster: &Cluster, node: &str) -> bool {
    let (_, text) = cluster.api().get(&format!("/api/v1/nodes/{node}"));
    let node: Value = serde_json::from_str(&text).unwrap_or_default();
    kscratch_tests::dump::is_ready(&node)
}

/// Under another name it is another node; under its own it is the one that it was, without anybody's leave.
pub fn to_another_name_and_back(cluster: &Cluster) {
    let role = fs::read_to_string(cluster.file(ROLE)).unwrap();
    let range = "pod_range = \"10.244.77.0/24\"\n";
    assert!(role.contains(range), "n2 has a range of its own: {role}");
    let renamed = role.replace("name = \"n2\"", "name = \"n3\"").replace(range, "");
    let node = given(cluster, &renamed);
    node.wait("this machine joined its cluster as n2 and is called n3 now: it joins again, as n3, with its token");
    let end = Instant::now() + BOOT;
    while !is_ready(cluster, "n3") {
        assert!(Instant::now() < end, "n3 is not Ready");
        thread::sleep(Duration::from_secs(2));
    }
    let (code, text) = cluster.api().get("/api/v1/nodes/n2");
    assert_eq!(code, 200, "the old Node stays until somebody deletes it: {text}");
    // Though that has its address, too.
    let log = "/api/v1/namespaces/kube-system/pods/hello-n3/log?tailLines=1";
    cluster.api().wait_for(log, BOOT, |(code, _)| *code == 200);
    let (_, text) = cluster.api().get("/api/v1/nodes/n3");
    assert!(text.contains("\"podCIDR\"") && !text.contains("10.244.77.0/24"), "{text}");
    // A token is not needed for a name that the machine had.
    let node = given(cluster, &with_a_token_that_nobody_knows(&role));
    node.wait(
        "this machine joined its cluster as n3 and is called n2 now: it takes up the certificate that it had as n2",
    );
    crate::is_healthy(cluster);
    cluster.kubectl(&["delete", "node", "n3"]).succeeded();
    given(cluster, &role).wait("service kubelet: ready");
    crate::is_healthy(cluster);
}

/// It leaves its certificates aside then, and has them again when it is given back: a slip in the metadata costs nothing.
pub fn to_another_cluster_and_back(cluster: &Cluster) {
    let role = fs::read_to_string(cluster.file(ROLE)).unwrap();
    let node = given(cluster, &with_the_ca_of_another_cluster(cluster, &role));
    node.wait(r"this machine joined another cluster \(its CA is not in cluster\.ca\): its certificates of that are put aside, and it joins this cluster with its token");
    node.wait("whoever answers there cannot prove to be this machine's cluster");
    let node = given(cluster, &with_a_token_that_nobody_knows(&role));
    node.wait("this machine is back from another cluster: it takes up the certificates that it had in this one");
    node.wait("service identities: ready");
    crate::is_healthy(cluster);
    // By the certificate that its kubelet has as a server.
    let log = "/api/v1/namespaces/kube-system/pods/hello-n2/log?tailLines=1";
    cluster.api().wait_for(log, SOON, |(code, _)| *code == 200);
}
