//! A machine boots with a wrong clock, with another address, with a full disk.
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use kscratch_tests::cluster::{Cluster, SOON, pod};
use serde_json::{Value, json};

use crate::is_healthy;

/// The kubelet waits five minutes before it believes that a pressure is over.
const PRESSURE: Duration = Duration::from_secs(12 * 60);

fn boots_at(cluster: &Cluster, machine: &str, clock: &str) -> usize {
    cluster.power("off", &[machine]);
    let from = cluster.console(machine).len();
    cluster.power("on", &[machine, "--clock", clock]);
    from
}

#[track_caller]
fn wait_for(cluster: &Cluster, machine: &str, from: usize, words: &str) {
    let end = Instant::now() + SOON;
    while !cluster.console(machine).get(from..).unwrap_or_default().contains(words) {
        assert!(Instant::now() < end, "{machine} does not say: {words}");
        thread::sleep(Duration::from_millis(200));
    }
}

/// An empty battery: the clock is lifted, and the machine is Ready without anybody's help.
pub fn a_clock_that_is_years_behind(cluster: &Cluster) {
    for machine in ["n1", "m1"] {
        let from = boots_at(cluster, machine, "2019-01-01T00:00:00");
        wait_for(cluster, machine, from, "the clock says 2019-01-01T00:00");
        is_healthy(cluster);
        cluster.power("off", &[machine]);
        cluster.power("on", &[machine]);
    }
    is_healthy(cluster);
}

/// Nobody can know that such a clock is wrong. While it lasts the machine is out of the cluster; when it is right again all is as it was.
pub fn a_clock_that_is_years_ahead(cluster: &Cluster) {
    // After the end of the cluster's CA, and for the master after the end of its own certificates, which it makes anew.
    for (machine, clock, words) in [
        ("n1", "2041-01-01T00:00:00", "and the cluster's CA ended on "),
        ("m1", "2028-06-01T00:00:00", "service steward: started"),
    ] {
        let from = boots_at(cluster, machine, clock);
        wait_for(cluster, machine, from, words);
        wait_for(cluster, machine, from, "service kubelet: started");
        thread::sleep(Duration::from_secs(60));
        cluster.power("off", &[machine]);
        cluster.power("on", &[machine]);
        is_healthy(cluster);
    }
}

/// A pod fills its node's disk, and the power goes when nothing can be written any more: kubelet throws the pod out, and its files with it.
pub fn a_disk_that_is_full(cluster: &Cluster) {
    let mut hog = pod("hog", "n1");
    hog["spec"]["volumes"] = json!([{ "name": "data", "emptyDir": {} }]);
    hog["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "data", "mountPath": "/data" }]);
    cluster.apply(&[hog]);
    cluster.address_of("hog");
    let fill = "/api/v1/namespaces/default/pods/hog:9999/proxy/fill?path=/data/zeros";
    // The API server waits a minute for each answer.
    cluster.api().wait_for(fill, PRESSURE, |(code, text)| *code == 200 && text.contains("No space left on device"));
    cluster.power("cut", &["n1"]);
    cluster.power("on", &["n1"]);
    cluster.settle();
    let end = Instant::now() + PRESSURE;
    loop {
        let pressed = cluster.api().items("/api/v1/nodes").iter().any(|node| {
            let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|one| one["type"] == "DiskPressure" && one["status"] == "True")
        });
        let (code, text) = cluster.api().get("/api/v1/namespaces/default/pods/hog");
        let hog: Value = serde_json::from_str(&text).unwrap_or_default();
        if code == 200 && hog["status"]["phase"] == "Failed" && hog["status"]["reason"] == "Evicted" && !pressed {
            break;
        }
        assert!(Instant::now() < end, "pressure {pressed}; the pod: {}", hog["status"]);
        thread::sleep(Duration::from_secs(5));
    }
    cluster.kubectl(&["delete", "pod", "hog"]).succeeded();
    // It was thrown out too, perhaps: a pod of nobody does not come back by itself.
    cluster.kubectl(&["delete", "pod", "a1", "eye-n1", "--ignore-not-found"]).succeeded();
    crate::begin(cluster);
}

/// A node whose metadata named an address gets one by DHCP instead: the others route to it there, and its certificate follows.
pub fn an_address_that_changes(cluster: &Cluster) {
    let file = cluster.file("machines/n1/role.toml");
    let role = fs::read_to_string(&file).unwrap();
    let (head, rest) = role.split_once("[network.static]").expect("n1 has a fixed address");
    let rest = rest.split_once("\n[").map_or(String::new(), |(_, rest)| format!("[{rest}"));
    cluster.power("off", &["n1"]);
    fs::write(&file, format!("{head}{rest}")).unwrap();
    cluster.power("on", &["n1"]);
    is_healthy(cluster);
    let nodes = cluster.api().items("/api/v1/nodes");
    let n1 = nodes.iter().find(|node| node["metadata"]["name"] == "n1").expect("there is a node n1");
    let address = n1["status"]["addresses"][0]["address"].as_str().unwrap_or_default();
    assert!(address.starts_with("192.168.76.1") && address.len() == "192.168.76.100".len(), "{address}");
    // Through the kubelet at its new address, whose certificate must name it.
    cluster.kubectl(&["logs", "--namespace", "kube-system", "hello-n1"]).succeeded();
}
