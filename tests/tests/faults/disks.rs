//! A machine's disk is full, or its state is damaged.
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use kscratch_tests::api::Answer;
use kscratch_tests::cluster::{BOOT, Cluster, MAPS, pod};
use kscratch_tests::disk::partitions;
use kscratch_tests::dump::is_ready;
use kscratch_tests::node_image;
use kscratch_tests::program::tool;
use serde_json::{Value, json};

use crate::heard::Heard;
use crate::is_healthy;

/// What a machine says that booted with a full disk.
const GIVEN_AWAY: &str =
    r"state is full \([0-9]+ MiB left\): the [0-9]+ MiB that were kept back for this are given away";
/// The kubelet waits five minutes, of an emulated clock, before it believes that a pressure is over.
const PRESSURE: Duration = Duration::from_secs(30 * 60);

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
    cluster.makes_map("after-it-was-full", PRESSURE);
    keeps(cluster, "before-it-was-full");
    cluster.kubectl(&["delete", "pod", "eye-m1", "--ignore-not-found"]).succeeded();
    crate::begin(cluster);
}

/// The power goes when a master's disk is full, by a pod that the kubelet may not throw out: the master comes up all the same, and does what its
/// administrator says.
pub fn a_power_cut_of_a_master_whose_disk_is_full(cluster: &Cluster) {
    assert_eq!(cluster.make_map("before-the-cut"), 201);
    let mut hog = pod("hog", "m1");
    // A second one keeps their image from being thrown out in the moment between the hog's end and that of its files.
    let mut other = pod("other", "m1");
    for pod in [&mut hog, &mut other] {
        pod["spec"]["priorityClassName"] = json!("system-node-critical");
    }
    cluster.apply(&[other]);
    fill_with(cluster, hog);
    // Down to the disk: a power cut leaves it as full as it is.
    cluster.api().wait_for(&format!("{FILL}&sync=yes"), PRESSURE, is_full);
    cluster.power("cut", &["m1"]);
    let master = Heard::of(cluster, "m1");
    cluster.power("on", &["m1"]);
    master.wait(GIVEN_AWAY);
    let end = Instant::now() + BOOT;
    while cluster.kubectl(&["delete", "pod", "hog", "--timeout=60s"]).code != 0 && cluster.api().get(HOG).0 != 404 {
        assert!(Instant::now() < end, "the pod that fills m1's disk cannot be deleted");
        thread::sleep(Duration::from_secs(5));
    }
    cluster.makes_map("after-the-cut", PRESSURE);
    keeps(cluster, "before-the-cut");
    wait_for_room(cluster);
    // Nothing of what came with the image was thrown out with the rest.
    for component in ["kube-controller-manager", "kube-scheduler"] {
        let pod = format!("/api/v1/namespaces/kube-system/pods/{component}-m1");
        cluster.api().wait_for(&pod, PRESSURE, |(_, text)| is_ready(&serde_json::from_str(text).unwrap_or_default()));
    }
    cluster.kubectl(&["delete", "pod", "eye-m1", "other", "--ignore-not-found"]).succeeded();
    crate::begin(cluster);
}

/// Its superblock, and then worse: the one is put right, and the other is told, and nothing is done to it.
pub fn a_masters_state_that_is_damaged(cluster: &Cluster) {
    assert_eq!(cluster.make_map("before-the-damage"), 201);
    let disk = cluster.file("machines/m1/disk.qcow2");
    let partitions = partitions(node_image::master_with_probe());
    let (recorder, state) = (&partitions[3], &partitions[4]);
    assert_eq!((recorder.name.as_str(), state.name.as_str()), ("recorder", "state"));
    let damage = |from: u64, length: u64| {
        let write = format!("write -P 0x55 {} {length}", state.start + from);
        tool("qemu-io", "qemu-utils", ["-c".as_ref(), write.as_ref(), disk.as_os_str()]).succeeded();
        Heard::of(cluster, "m1")
    };
    cluster.power("off", &["m1"]);
    // `s_blocks_count_lo` and `s_r_blocks_count_lo`, so that the checksum is wrong too.
    let master = damage(1024 + 4, 8);
    cluster.power("on", &["m1"]);
    master.wait("the superblock of /dev/vd[a-z]5 is damaged, and its copy is taken");
    is_healthy(cluster);
    keeps(cluster, "before-the-damage");

    cluster.power("off", &["m1"]);
    let (whole, damaged) = (disk.with_file_name("whole.qcow2"), disk.with_file_name("damaged.qcow2"));
    fs::copy(&disk, &whole).unwrap();
    let master = damage(0, 1 << 20);
    fs::copy(&disk, &damaged).unwrap();
    cluster.power("on", &["m1"]);
    master.wait("should be state, but holds something that is no ext4");
    master
        .wait("the control plane is not started: the cluster's data are on the state partition, which cannot be used");
    cluster.power("off", &["m1"]);
    // The recorder alone has something of that boot.
    for part in [format!("offset=0,size={}", recorder.start), format!("offset={}", state.start)] {
        let of = |file: &Path| {
            format!("driver=raw,{part},file.driver=qcow2,file.file.driver=file,file.file.filename={}", file.display())
        };
        let (now, before) = (of(&disk), of(&damaged));
        let same = tool("qemu-img", "qemu-utils", ["compare", "--image-opts", now.as_str(), before.as_str()]);
        let same = same.succeeded().stdout;
        assert!(same.contains("Images are identical"), "{part}: {same}");
    }
    fs::rename(&whole, &disk).unwrap();
    fs::remove_file(&damaged).unwrap();
    cluster.power("on", &["m1"]);
    is_healthy(cluster);
    keeps(cluster, "before-the-damage");
}

/// What etcd had acknowledged is there.
#[track_caller]
fn keeps(cluster: &Cluster, map: &str) {
    let (code, text) = cluster.api().get(&format!("{MAPS}/{map}"));
    assert_eq!(code, 200, "what etcd had acknowledged is lost: {text}");
}

const HOG: &str = "/api/v1/namespaces/default/pods/hog";
const FILL: &str = "/api/v1/namespaces/default/pods/hog:9999/proxy/fill?path=/data/zeros";
/// Phase and reason of a pod that kubelet threw out.
const EVICTED: [&str; 2] = ["Failed", "Evicted"];

/// Makes the pod that fills the disk of its node when it is asked to.
fn start_to_fill(cluster: &Cluster, node: &str) {
    fill_with(cluster, pod("hog", node));
}

fn fill_with(cluster: &Cluster, mut hog: Value) {
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
    let end = Instant::now() + PRESSURE;
    while phase(cluster) != EVICTED {
        assert!(Instant::now() < end, "the pod: {:?}", phase(cluster));
        thread::sleep(Duration::from_secs(5));
    }
    wait_for_room(cluster);
    cluster.kubectl(&["delete", "pod", "hog"]).succeeded();
}

/// Waits until no node says that its disk is full.
#[track_caller]
fn wait_for_room(cluster: &Cluster) {
    let pressed = || {
        let (code, text) = cluster.api().get("/api/v1/nodes");
        let nodes: Value = serde_json::from_str(&text).unwrap_or_default();
        let conditions = |node: &Value| node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let presses = |one: &Value| one["type"] == "DiskPressure" && one["status"] == "True";
        // Nobody knows as long as nobody answers.
        code != 200 || nodes["items"].as_array().into_iter().flatten().flat_map(conditions).any(|one| presses(&one))
    };
    let end = Instant::now() + PRESSURE;
    while pressed() {
        assert!(Instant::now() < end, "a node's disk is still full");
        thread::sleep(Duration::from_secs(5));
    }
}
