//! Nodes come, go and come back: ranges, routes, identity (A3, A5).
use std::collections::BTreeSet;
use std::time::Duration;

use kscratch_tests::cluster::{Cluster, SOON, eye};
use kscratch_tests::program::{self, Said};
use serde_json::Value;

use super::{Cast, wait_until};

/// Longer than `node reboot --wait` waits by itself.
const TOLD: Duration = Duration::from_secs(11 * 60);

/// The node's route table as it stands in `/proc/net/route`: destinations of 24 bits.
fn routes(cluster: &Cluster, eye: &str) -> Vec<String> {
    let table = cluster.ask(eye, "/read?path=/proc/1/net/route");
    let destination = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (number, mask) = (words.get(1)?, words.get(7)?);
        // The kernel prints an address in network order as a little-endian number.
        let [d, c, b, a] = u32::from_str_radix(number, 16).ok()?.to_be_bytes();
        (*mask == "00FFFFFF").then(|| format!("{a}.{b}.{c}.{d}/24"))
    };
    table.lines().skip(1).filter_map(destination).collect()
}

/// Every node has a range of its own, and every node a route to it.
pub fn every_node_has_a_range_and_routes_to_the_others(cluster: &Cluster, cast: &Cast) {
    let nodes = cluster.api().items("/api/v1/nodes");
    // Which one a node gets is Kubernetes' choice: it passes one over where two of its workers look at one node.
    let ranges: BTreeSet<&str> = nodes.iter().filter_map(|node| node["spec"]["podCIDR"].as_str()).collect();
    assert_eq!(ranges.len(), nodes.len(), "{ranges:?}");
    assert!(ranges.iter().all(|range| range.starts_with("10.244.") && range.ends_with(".0/24")), "{ranges:?}");
    for eye in cast.eyes() {
        cluster.address_of(&eye);
        wait_until(&format!("{eye} sees routes to {ranges:?}"), || {
            let routes = routes(cluster, &eye);
            ranges.iter().all(|range| routes.iter().any(|route| route == range))
        });
    }
    says_hello(cluster, cast.late);
}

/// The pod that every node's image has of its own.
fn says_hello(cluster: &Cluster, node: &str) {
    let page = format!("/api/v1/namespaces/kube-system/pods/hello-{node}:8080/proxy/");
    let (_, hello) = cluster.api().wait_for(&page, SOON, |(code, _)| *code == 200);
    assert!(hello.starts_with(&format!("hello from hello-{node} at 10.244.")), "{hello}");
}

/// What is mounted there is on another disk than state.
pub fn has_a_disk_of_its_own(cluster: &Cluster, machine: &str, place: &str) {
    let mounts = cluster.ask(&Cast::eye(machine), "/read?path=/proc/1/mounts");
    let disk = |place: &str| {
        let line = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|words| words[1] == place)?;
        Some(line[0].trim_end_matches(|letter: char| letter.is_ascii_digit()).to_owned())
    };
    let (own, state) = (disk(place), disk("/var"));
    assert!(
        own.is_some() && state.is_some() && own != state,
        "{machine}: {place} is on {own:?}, state on {state:?}:\n{mounts}"
    );
}

/// A power cut (A5): it comes back as what it was, with the certificates that it had, and with its pods.
pub fn a_node_that_is_cut_comes_back(cluster: &Cluster, cast: &Cast) {
    let requests = || cluster.api().items("/apis/certificates.k8s.io/v1/certificatesigningrequests").len();
    let before = requests();
    cluster.power("cut", &[cast.late]);
    cluster.power("on", &[cast.late]);
    cluster.settle();
    says_hello(cluster, cast.late);
    cluster.ask(&Cast::eye(cast.late), "/peer");
    assert_eq!(requests(), before, "a machine that comes back asks for no new certificate");
}

/// `kscratch-image node` with the administrator's kubeconfig.
fn node(cluster: &Cluster, args: &[&str]) -> Said {
    let kubeconfig = cluster.file("machines/admin.kubeconfig").display().to_string();
    let args = ["node"].iter().chain(args).copied().chain(["--kubeconfig", kubeconfig.as_str()]);
    program::kscratch(&program::scratch(), args, TOLD).succeeded()
}

/// How it is, and its logs, by way of the API server.
pub fn a_node_tells_how_it_is(cluster: &Cluster, name: &str) {
    let said = node(cluster, &["status", name]).stdout;
    let (ready, address) = (format!("{name}: Ready\n"), format!("address    {}\n", Cast::address(name)));
    for wanted in [&ready, &address, "kubelet v", " in use, ", " pods\n"] {
        assert!(said.contains(wanted), "{wanted:?} is not in\n{said}");
    }
    let names = node(cluster, &["logs", name]).stdout;
    assert!(
        ["kubelet.log", "dockerd.log", "routes.log"].iter().all(|name| names.lines().any(|line| line == *name)),
        "{names}"
    );
    let lines = node(cluster, &["logs", name, "kubelet", "--tail", "3"]).stdout;
    assert_eq!(lines.lines().count(), 3, "{lines}");
}

/// Its pods are ended first and say so; those that come with the machine come back with it.
pub fn a_node_that_is_told_to_starts_anew(cluster: &Cluster, cast: &Cast) {
    node(cluster, &["reboot", cast.late, "--wait"]);
    let console = cluster.console(cast.late);
    for wanted in [
        "identities: kubernetes-admin asks for a reboot of this machine",
        "stopping: asked for by the cluster",
        "inhibitor: the kubelet is done with its pods (",
    ] {
        assert!(console.contains(wanted), "{wanted:?} is not in\n{console}");
    }
    let eye = eye(cast.late);
    let path = format!("/api/v1/namespaces/default/pods/{}", Cast::eye(cast.late));
    // Its end stands there, unless the API server was slower than the machine; then the kubelet takes it up again, which counts.
    cluster.api().wait_for(&path, SOON, |(_, pod)| {
        let status = serde_json::from_str::<Value>(pod).unwrap_or_default()["status"].take();
        let told = status["phase"] == "Failed" && status["reason"] == "Terminated";
        told || status["containerStatuses"][0]["restartCount"].as_u64().is_some_and(|count| count > 0)
    });
    says_hello(cluster, cast.late);
    // Nobody keeps a pod that no controller has: another like it takes its place.
    cluster.kubectl(&["delete", "pod", &Cast::eye(cast.late)]).succeeded();
    cluster.apply(&[eye]);
}

/// A node that is switched off and deleted: nobody has a route to its range any more.
pub fn a_node_that_is_removed_is_forgotten(cluster: &Cluster, cast: &Cast) {
    let nodes = cluster.api().items("/api/v1/nodes");
    let removed = nodes.iter().find(|node| node["metadata"]["name"] == cast.late).expect("it is a node");
    let range = Value::as_str(&removed["spec"]["podCIDR"]).expect("it has a range").to_owned();
    cluster.power("off", &[cast.late]);
    cluster.kubectl(&["delete", "node", cast.late]).succeeded();
    for eye in cast.eyes().filter(|eye| *eye != Cast::eye(cast.late)) {
        wait_until(&format!("{eye} forgets the route to {range}"), || !routes(cluster, &eye).contains(&range));
    }
}
