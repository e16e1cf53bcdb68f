//! A machine boots with a wrong clock, with another address.
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use kscratch_tests::cluster::{BOOT, Cluster, SOON};
use kscratch_tests::program::tool;
use serde_json::Value;

use crate::heard::{BOOTS, Heard};
use crate::is_healthy;

/// What a clock says so many days from now, as `power on --clock` takes it.
pub fn in_days(days: u32) -> String {
    let later = format!("+{days} days");
    let said = tool("date", "coreutils", ["--utc", "--date", &later, "+%Y-%m-%dT%H:%M:%S"]).succeeded();
    said.stdout.trim().to_owned()
}

fn boots_at<'a>(cluster: &'a Cluster, machine: &'a str, clock: &str) -> Heard<'a> {
    cluster.power("off", &[machine]);
    let heard = Heard::of(cluster, machine);
    cluster.power("on", &[machine, "--clock", clock]);
    heard
}

/// An empty battery: the clock is lifted, and the machine is Ready without anybody's help.
pub fn a_clock_that_is_years_behind(cluster: &Cluster) {
    for machine in ["n1", "m1"] {
        boots_at(cluster, machine, "2019-01-01T00:00:00").wait("the clock says 2019-01-01T00:00");
        is_healthy(cluster);
        cluster.power("off", &[machine]);
        cluster.power("on", &[machine]);
    }
    is_healthy(cluster);
}

/// Nobody can know that such a clock is wrong. While it lasts the node is out of the cluster; when it is right again all is as it was.
pub fn a_clock_that_is_years_ahead(cluster: &Cluster) {
    // After the end of the cluster's CA, which lasts for ten years.
    let node = boots_at(cluster, "n1", &in_days(15 * 365));
    for words in ["and the cluster's CA ended on ", "service kubelet: started", "(identities|routes): .* failed: "] {
        node.wait(words);
    }
    let ready = || {
        let (_, text) = cluster.api().get("/api/v1/nodes/n1");
        let node: Value = serde_json::from_str(&text).unwrap_or_default();
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready = conditions.into_iter().find(|one| one["type"] == "Ready").unwrap_or_default();
        ready["status"].as_str().unwrap_or_default().to_owned()
    };
    let end = Instant::now() + SOON;
    while ready() != "Unknown" {
        assert!(Instant::now() < end, "the cluster takes a kubelet's word whose certificate has ended: {}", ready());
        thread::sleep(Duration::from_secs(2));
    }
    comes_back(cluster, "n1");
}

/// After the end of the master's own certificates, which it makes anew, and of the administrator's, whom it then does not know any more.
pub fn a_masters_clock_that_is_years_ahead(cluster: &Cluster) {
    let master = boots_at(cluster, "m1", &in_days(560));
    master.wait(r"made certificate /var/lib/kubernetes/kube-apiserver/apiserver\.crt until [0-9-]+: it has ended on ");
    let (end, healthy) = (Instant::now() + BOOT, (200, "ok".to_owned()));
    while cluster.api().get_as_nobody("/readyz") != healthy {
        assert!(Instant::now() < end, "m1 does not serve: {:?}", cluster.api().get_as_nobody("/readyz"));
        thread::sleep(Duration::from_secs(2));
    }
    assert_eq!(cluster.api().get("/api/v1/nodes").0, 401, "the administrator's certificate has ended");
    comes_back(cluster, "m1");
}

/// The clock is right at the next start, and the cluster is what it was.
#[track_caller]
fn comes_back(cluster: &Cluster, machine: &str) {
    cluster.power("off", &[machine]);
    cluster.power("on", &[machine]);
    is_healthy(cluster);
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
    is_reached_at(cluster, "192.168.76.10");
}

/// The cable is out for a moment, and DHCP has another address for the node when it asks whether it may keep its own: it starts anew with that.
pub fn an_address_that_changes_while_it_runs(cluster: &Cluster) {
    let node = Heard::of(cluster, "n1");
    cluster.command(&["dhcp", "lab", "--first", "192.168.76.130"]).succeeded();
    cluster.command(&["cable", "lab", "n1", "--down"]).succeeded();
    // Shorter than anything that a cluster would notice.
    thread::sleep(Duration::from_secs(5));
    cluster.command(&["cable", "lab", "n1"]).succeeded();
    node.wait("this machine booted with 192.168.76.10[0-9] and has 192.168.76.13[0-9] now: it starts anew with that");
    node.wait(&format!("(?s){BOOTS}.*service kubelet: ready"));
    is_healthy(cluster);
    is_reached_at(cluster, "192.168.76.13");
    assert_eq!(node.times(BOOTS), 1, "n1 starts anew once");
}

/// The cluster knows n1 by an address that begins so.
#[track_caller]
fn is_reached_at(cluster: &Cluster, begins: &str) {
    let nodes = cluster.api().items("/api/v1/nodes");
    let n1 = nodes.iter().find(|node| node["metadata"]["name"] == "n1").expect("there is a node n1");
    let address = n1["status"]["addresses"][0]["address"].as_str().unwrap_or_default();
    assert!(address.starts_with(begins), "{address}");
    // Through the kubelet at its new address, whose certificate must name it.
    cluster.kubectl(&["logs", "--namespace", "kube-system", "hello-n1"]).succeeded();
}
