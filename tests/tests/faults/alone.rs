//! A master that is told nothing begins a cluster of its own, and its disk gives away who may administer it: the recipe of the README.
use std::net::TcpListener;

use kscratch_qemu::Forward;
use kscratch_tests::api::Api;
use kscratch_tests::bench::{Bench, switch_off, wait};
use kscratch_tests::cluster::{BOOT, SOON};
use kscratch_tests::dump::is_ready;
use kscratch_tests::node_image;
use kscratch_tests::program::{SHORT, kscratch};
use serde_json::Value;

/// What it says when it makes the identity, which it does once.
const BEGINS: &str = "this master begins a cluster of its own; its identity is kept on state";

pub fn a_master_begins_a_cluster() {
    let bench = Bench::take();
    let folder = tempfile::tempdir().unwrap();
    let overlay = bench.overlay(node_image::master_with_probe());
    let mut vm = bench.start(&bench.master(&overlay, Forward::to(6443)));
    wait(&vm, BEGINS, BOOT);
    for service in ["kubelet", "steward", "routes"] {
        wait(&vm, &format!(r"service {service}: ready \("), BOOT);
    }
    switch_off(&mut vm);

    // The forward of the next start is known now, so that the kubeconfig can name it.
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let (disk, server) = (overlay.path().display().to_string(), format!("127.0.0.1:{port}"));
    let said = kscratch(folder.path(), ["kubeconfig", &disk, "--server", &server], SHORT).succeeded();
    assert!(!said.stderr.contains("is in use"), "{}", said.stderr);
    let api = Api::of(&folder.path().join("admin.kubeconfig"));
    assert_eq!(api.server(), format!("https://{server}"));

    let mut vm = bench.start(&bench.master(&overlay, Forward { host: port, guest: 6443 }));
    let ready = |text: &str| {
        let list: Value = serde_json::from_str(text).unwrap_or_default();
        let nodes = list["items"].as_array().cloned().unwrap_or_default();
        // There may never be another node: its pods run here. The taint of a node that was away goes a moment after it is Ready.
        (nodes.len() == 1 && is_ready(&nodes[0]) && nodes[0]["spec"]["taints"].is_null()).then(|| nodes[0].clone())
    };
    let (_, text) = api.wait_for("/api/v1/nodes", BOOT, |(code, text)| *code == 200 && ready(text).is_some());
    let node = ready(&text).unwrap();
    assert!(!node["metadata"]["labels"]["node-role.kubernetes.io/control-plane"].is_null(), "{node}");
    // That was perhaps its word from before it was switched off. This is its kubelet's now, under a certificate of that cluster.
    let name = node["metadata"]["name"].as_str().unwrap();
    let log = format!("/api/v1/namespaces/kube-system/pods/etcd-{name}/log?tailLines=1");
    api.wait_for(&log, SOON, |(code, text)| *code == 200 && text.contains("\"level\""));
    assert!(!vm.lines().iter().any(|line| line.text.contains(BEGINS)), "the second boot began another cluster");
    assert_eq!(api.get_as_nobody("/api/v1/nodes").0, 401);
    switch_off(&mut vm);
}
