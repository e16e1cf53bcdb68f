//! A machine boots with a wrong clock, with another address, with a full disk.
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use kscratch_tests::api::Answer;
use kscratch_tests::cluster::{BOOT, Cluster, MAPS, SOON, pod};
use kscratch_tests::program::tool;
use serde_json::{Value, json};

use crate::heard::Heard;
use crate::is_healthy;

/// The kubelet waits five minutes before it believes that a pressure is over.
const PRESSURE: Duration = Duration::from_secs(12 * 60);

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

/// A pod fills its node's disk, and the power goes when nothing can be written any more: kubelet throws the pod out, and its files with it.
pub fn a_disk_that_is_full(cluster: &Cluster) {
    start_to_fill(cluster, "n1");
    // The API server waits a minute for each answer.
    cluster.api().wait_for(FILL, PRESSURE, is_full);
    cluster.power("cut", &["n1"]);
    cluster.power("on", &["n1"]);
    cluster.settle();
    is_thrown_out(cluster);
    // It was thrown out too, perhaps: a pod of nobody does not come back by itself.
    cluster.kubectl(&["delete", "pod", "a1", "eye-n1", "--ignore-not-found"]).succeeded();
    crate::begin(cluster);
}

/// The same where etcd has its data: what it has acknowledged stays, and it takes more once there is space.
pub fn a_masters_disk_that_is_full(cluster: &Cluster) {
    assert_eq!(cluster.make_map("before-it-was-full"), 201);
    start_to_fill(cluster, "m1");
    // It may be thrown out before it is asked again, and the API server may be away meanwhile.
    cluster.api().wait_for(FILL, PRESSURE, |answer| is_full(answer) || phase(cluster) == EVICTED);
    is_thrown_out(cluster);
    let end = Instant::now() + PRESSURE;
    // What was acknowledged to nobody may have been written.
    while !matches!(cluster.make_map("after-it-was-full"), 201 | 409) {
        assert!(Instant::now() < end, "there is space again, and nothing can be written");
        thread::sleep(Duration::from_secs(2));
    }
    let (code, text) = cluster.api().get(&format!("{MAPS}/before-it-was-full"));
    assert_eq!(code, 200, "what etcd had acknowledged is lost: {text}");
    cluster.kubectl(&["delete", "pod", "eye-m1", "--ignore-not-found"]).succeeded();
    crate::begin(cluster);
}

const HOG: &str = "/api/v1/namespaces/default/pods/hog";
const FILL: &str = "/api/v1/namespaces/default/pods/hog:9999/proxy/fill?path=/data/zeros";
/// Phase and reason of a pod that kubelet threw out.
const EVICTED: [&str; 2] = ["Failed", "Evicted"];

/// Makes the pod that fills the disk of its node when it is asked to.
fn start_to_fill(cluster: &Cluster, node: &str) {
    let mut hog = pod("hog", node);
    hog["spec"]["volumes"] = json!([{ "name": "data", "emptyDir": {} }]);
    hog["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "data", "mountPath": "/data" }]);
    cluster.apply(&[hog]);
    cluster.address_of("hog");
}

fn is_full((code, text): &Answer) -> bool {
    *code == 200 && text.contains("No space left on device")
}

fn phase(cluster: &Cluster) -> [String; 2] {
    let (_, text) = cluster.api().get(HOG);
    let hog: Value = serde_json::from_str(&text).unwrap_or_default();
    ["phase", "reason"].map(|field| hog["status"][field].as_str().unwrap_or_default().to_owned())
}

/// Waits until the hog is thrown out and no node says that its disk is full; then the hog is deleted.
#[track_caller]
fn is_thrown_out(cluster: &Cluster) {
    let pressed = || {
        let (code, text) = cluster.api().get("/api/v1/nodes");
        let nodes: Value = serde_json::from_str(&text).unwrap_or_default();
        let conditions = |node: &Value| node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let presses = |one: &Value| one["type"] == "DiskPressure" && one["status"] == "True";
        // Nobody knows as long as nobody answers.
        code != 200 || nodes["items"].as_array().into_iter().flatten().flat_map(conditions).any(|one| presses(&one))
    };
    let end = Instant::now() + PRESSURE;
    while pressed() || phase(cluster) != EVICTED {
        assert!(Instant::now() < end, "pressure {}; the pod: {:?}", pressed(), phase(cluster));
        thread::sleep(Duration::from_secs(5));
    }
    cluster.kubectl(&["delete", "pod", "hog"]).succeeded();
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
