//! A master that is told nothing begins a cluster of its own, whose API server proves itself and knows its node.
use std::time::Duration;

use kscratch_qemu::Forward;
use kscratch_tests::api::Api;
use kscratch_tests::bench::{BOOT, Bench, switch_off, wait};
use kscratch_tests::node_image;
use kscratch_tests::program::{SHORT, kscratch};

/// From power on to an API server that serves: etcd, then it, then the other components, each for the first time, under emulation.
const SERVES: Duration = Duration::from_secs(20 * 60);

#[test]
fn a_master_brings_up_its_control_plane_and_puts_itself_into_it() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::take();
    let overlay = bench.overlay(node_image::master_with_probe());
    let mut vm = bench.start(&bench.master(&overlay, Forward::to(6443)));
    wait(&vm, "this master begins a cluster of its own; its identity is kept on state", BOOT);
    wait(&vm, "steward: kube-apiserver is started: etcd serves", SERVES);
    wait(&vm, "steward: kube-controller-manager is started: the API server serves", SERVES);
    wait(&vm, "steward: the cluster's own objects are in place", SERVES);
    wait(&vm, r"service steward: ready \(", BOOT);

    // Its disk gives away who may administer it, though it runs.
    let port = vm.forwarded(6443).expect("the port is forwarded");
    let (disk, server) = (overlay.path().display().to_string(), format!("127.0.0.1:{port}"));
    kscratch(folder.path(), ["kubeconfig", &disk, "--server", &server], SHORT).succeeded();
    let api = Api::of(&folder.path().join("admin.kubeconfig"));
    let (_, nodes) =
        api.wait_for("/api/v1/nodes", SERVES, |(code, text)| *code == 200 && text.contains("\"addresses\""));
    assert!(nodes.contains("node-role.kubernetes.io/control-plane"), "{nodes}");
    wait(&vm, r"steward: approved serving certificate of node ", SERVES);
    switch_off(&mut vm);
}
