//! Machines that want to join with a wrong token, of another cluster, or under a name that is taken: clear words, and no storm.
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use kscratch_tests::cluster::{BOOT, Cluster, pod};
use kscratch_tests::program::kscratch;
use serde_json::Value;

use crate::heard::{BOOTS, Heard};

/// From power on to the words; a name that is taken is thought about for five minutes of the master's clock, and two or three of the host's go by for one of those.
const WORDS: Duration = Duration::from_secs(30 * 60);
/// For so long a machine that cannot join is watched.
const WATCH: Duration = Duration::from_secs(120);
/// No more starts of its kubelet, and no more requests, than this meanwhile.
const STORM: usize = 8;

/// The newcomer's metadata: n1's, of another name and address, and then as `change` makes it.
fn place(cluster: &Cluster, change: impl Fn(String) -> String) {
    let role = fs::read_to_string(cluster.file("machines/n1/role.toml")).unwrap();
    let role = role.replace("name = \"n1\"", "name = \"n2\"").replace("192.168.76.20/24", "192.168.76.21/24");
    let mac = "52:54:00:6b:73:14";
    assert!(role.contains("name = \"n2\"") && role.contains("192.168.76.21/24"), "{role}");
    let role = role.replace(mac, "52:54:00:6b:73:15");
    fs::create_dir_all(cluster.file("machines/n2")).unwrap();
    fs::write(cluster.file("machines/n2/role.toml"), change(role)).unwrap();
}

fn requests(cluster: &Cluster) -> usize {
    cluster.api().items("/apis/certificates.k8s.io/v1/certificatesigningrequests").len()
}

/// Boots it, and waits for its words; then watches whether it leaves the others in peace.
#[track_caller]
fn says(cluster: &Cluster, words: &str) {
    let from = cluster.console("n2").len();
    if cluster.file("machines/n2/disk.qcow2").exists() {
        cluster.power("on", &["n2"]);
    } else {
        let up = ["up", "lab", "--nodes", "2", "--timeout", "5", "--image-node"];
        let image = kscratch_tests::node_image::with_probe().display().to_string();
        // It cannot come up; that is told, and the machine goes on.
        assert_eq!(cluster.command(&[&up[..], &[&image]].concat()).code, 1);
    }
    let said = || cluster.console("n2").get(from..).unwrap_or_default().to_owned();
    let end = Instant::now() + WORDS;
    while !said().contains(words) {
        assert!(Instant::now() < end, "n2 does not say: {words}");
        thread::sleep(Duration::from_secs(1));
    }
    let starts = |text: &str| text.matches("service kubelet: started").count();
    let before = (starts(&said()), requests(cluster));
    thread::sleep(WATCH);
    let after = (starts(&said()), requests(cluster));
    assert!(after.0 - before.0 <= STORM && after.1 - before.1 <= STORM, "{before:?} became {after:?} in {WATCH:?}");
    assert!(said().matches(words).count() <= 4, "it says so again and again");
    cluster.power("off", &["n2"]);
}

/// The role of a machine, with a token of the right form.
pub fn with_a_token_that_nobody_knows(role: &str) -> String {
    let (head, rest) = role.split_once("token = \"").expect("there is a token");
    format!("{head}token = \"abcdef.0123456789abcdef{}", &rest[23..])
}

pub fn a_token_that_nobody_knows(cluster: &Cluster) {
    place(cluster, |role| with_a_token_that_nobody_knows(&role));
    says(cluster, "the cluster does not know this machine's join token");
}

/// The role of a machine, with the CA of a cluster that has just been made.
pub fn with_the_ca_of_another_cluster(cluster: &Cluster, role: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    kscratch(folder.path(), ["cluster", "new", "other", "--endpoint", "192.168.76.10"], BOOT).succeeded();
    let other = fs::read_to_string(folder.path().join("other/secrets/ca.crt")).unwrap();
    let own = fs::read_to_string(cluster.file("secrets/ca.crt")).unwrap();
    assert!(role.contains(own.trim()), "{role}");
    role.replace(own.trim(), other.trim())
}

pub fn a_ca_of_another_cluster(cluster: &Cluster) {
    place(cluster, |role| with_the_ca_of_another_cluster(cluster, &role));
    says(cluster, "whoever answers there cannot prove to be this machine's cluster");
}

pub fn a_name_that_is_taken(cluster: &Cluster) {
    place(cluster, |role| role.replace("name = \"n2\"", "name = \"n1\""));
    says(cluster, "there is a node n1 that is alive");
    crate::n1_serves(cluster);
}

/// With a range of its own choice, which the cluster then has for it, too.
pub fn and_then_it_joins(cluster: &Cluster) {
    place(cluster, |role| role.replace("name = \"n2\"", "name = \"n2\"\npod_range = \"10.244.77.0/24\""));
    cluster.power("on", &["n2"]);
    crate::is_healthy(cluster);
    let nodes = cluster.api().items("/api/v1/nodes");
    let node = nodes.iter().find(|node| node["metadata"]["name"] == "n2").expect("n2 has joined");
    assert_eq!(node["spec"]["podCIDR"], "10.244.77.0/24", "{node}");
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], "n2", "{node}");
    // Its pods have addresses of that, and are reached from another machine.
    cluster.apply(&[pod("c2", "n2")]);
    let address = cluster.address_of("c2");
    assert!(address.starts_with("10.244.77."), "{address}");
    cluster.ask("a1", &format!("/connect?host={address}&port=9999"));
}

/// A Node that somebody deleted is made anew by its kubelet's next start, and the range that it had is not given again so soon: the machine boots once more, with the other one.
pub fn one_whose_node_was_deleted_gets_another_range(cluster: &Cluster) {
    let range = || {
        let (_, text) = cluster.api().get("/api/v1/nodes/n1");
        let node: Value = serde_json::from_str(&text).unwrap_or_default();
        node["spec"]["podCIDR"].as_str().unwrap_or_default().to_owned()
    };
    let before = range();
    cluster.kubectl(&["delete", "pod", "a1", "eye-n1"]).succeeded();
    cluster.kubectl(&["delete", "node", "n1"]).succeeded();
    let node = Heard::of(cluster, "n1");
    cluster.power("reset", &["n1"]);
    node.wait(&format!(
        "the cluster gives this node [0-9./]+ for its pods, which have addresses of {}; the machine starts anew with it",
        regex::escape(&before)
    ));
    node.wait(&format!("(?s){BOOTS}.*{BOOTS}.*service kubelet: ready"));
    crate::begin(cluster);
    let now = range();
    assert!(now != before && !now.is_empty(), "{before} became {now}");
    let address = cluster.address_of("a1");
    assert!(now.strip_suffix("0/24").is_some_and(|start| address.starts_with(start)), "{address} is not of {now}");
    // From the master, which has a way to the new range and none to the old one.
    cluster.ask("eye-m1", &format!("/connect?host={address}&port=9999"));
    assert_eq!(node.times(BOOTS), 2, "n1 boots once when it is told to, and once for its range");
}
