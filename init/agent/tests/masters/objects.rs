//! Objects that the cluster does not take keep neither the others nor anybody else waiting for ever.
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cluster::Cluster;
use crate::{Steward, with_data};

/// Its objects are `first` and `second`.
fn has_two_maps(folder: &Path) {
    let map = |name: &str| json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "namespace": "default" } });
    std::fs::create_dir_all(folder.join("addons")).unwrap();
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": [map("first"), map("second")] });
    std::fs::write(folder.join("addons/10-maps.json"), list.to_string()).unwrap();
}

#[test]
fn an_object_that_is_not_taken_keeps_nobody_waiting() {
    let (folder, cluster) = (with_data(), Cluster::of(&["m1"]));
    has_two_maps(folder.path());
    cluster.state().unwell = Some("/first");
    cluster.state().requests = vec![json!({
        "metadata": { "name": "a", "resourceVersion": "1" },
        "spec": { "signerName": "kubernetes.io/kubelet-serving", "username": "eve", "groups": [], "usages": [], "request": "eA==" },
    })];
    let steward = Steward::start(folder.path(), &cluster, "m1");
    // kube-proxy, which waits for this, may be what the webhook is reached through.
    let (ready, end) = (folder.path().join("ready"), Instant::now() + Duration::from_secs(120));
    cluster.waits_for("the answer", |state| state.answers.len() == 1);
    assert!(cluster.state().written.iter().any(|path| path.ends_with("/second")), "{}", steward.log());
    assert!(!ready.exists());
    while !ready.exists() {
        assert!(Instant::now() < end, "{}", steward.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    let log = steward.log();
    assert_eq!(log.matches("applying ConfigMap default/first failed: ").count(), 1, "{log}");
    assert!(!log.contains("working with"), "{log}");
    cluster.state().unwell = None;
    steward.says("applying ConfigMap default/first goes on");
}

#[test]
fn an_object_that_nothing_is_said_to_keeps_nobody_waiting() {
    let (folder, cluster) = (with_data(), Cluster::of(&["m1"]));
    has_two_maps(folder.path());
    cluster.state().silent = Some("/first");
    let steward = Steward::start(folder.path(), &cluster, "m1");
    let (ready, end) = (folder.path().join("ready"), Instant::now() + Duration::from_secs(180));
    while !ready.exists() {
        assert!(Instant::now() < end, "{}", steward.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(cluster.state().written.iter().any(|path| path.ends_with("/second")), "{}", steward.log());
    let log = steward.log();
    assert!(log.contains("applying ConfigMap default/first failed: there is no answer within 30 s"), "{log}");
    assert!(!log.contains("working with"), "{log}");
}

/// While masters are upgraded one after the other, what all have in common is written by those of the newest release that is alive.
#[test]
fn masters_of_two_releases_do_not_write_in_turns() {
    let cluster = Cluster::of(&["m1", "m2"]);
    let is = |name: &str, version: &str, ready: &str| {
        let mut state = cluster.state();
        let node = state.nodes.iter_mut().find(|node| node["metadata"]["name"] == name).unwrap();
        node["status"] =
            json!({ "nodeInfo": { "kubeletVersion": version }, "conditions": [{ "type": "Ready", "status": ready }] });
    };
    is("m1", "v1.37.2", "True");
    is("m2", "v1.38.0", "True");
    let start = |name: &str, release: &str| {
        let folder = with_data();
        std::fs::create_dir_all(folder.path().join("addons")).unwrap();
        let shared = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "shared", "namespace": "default" },
            "data": { name: release },
        });
        std::fs::write(folder.path().join("addons/10-map.json"), shared.to_string()).unwrap();
        let steward = Steward::of(folder.path(), &cluster, name, |contract| contract["release"] = json!(release));
        (folder, steward)
    };
    let shared = "/api/v1/namespaces/default/configmaps/shared";
    let older = start("m1", "1.37.2");
    older.1.says("m2 is of a newer release (v1.38.0): what all masters have in common is left to it");
    let ready = older.0.path().join("ready");
    let end = Instant::now() + Duration::from_secs(30);
    while !ready.exists() {
        assert!(Instant::now() < end, "what is another's to write is not waited for: {}", older.1.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(cluster.state().objects.is_empty());
    let newer = start("m2", "1.38.0");
    cluster.waits_for("the newer one's map", |state| state.objects.contains_key(shared));
    assert_eq!(cluster.state().objects[shared]["data"], json!({ "m2": "1.38.0" }));
    // It is gone: nothing may be without an owner for that.
    drop((older, newer));
    is("m2", "v1.38.0", "Unknown");
    let _older = start("m1", "1.37.2");
    cluster.waits_for("the older one's map", |state| state.objects[shared]["data"]["m1"] == "1.37.2");
}
