//! Objects that the cluster does not take keep neither the others nor anybody else waiting for ever.
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cluster::Cluster;
use crate::{Steward, with_data};

#[test]
fn an_object_that_is_not_taken_keeps_nobody_waiting() {
    let (folder, cluster) = (with_data(), Cluster::of(&["m1"]));
    let map = |name: &str| json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "namespace": "default" } });
    std::fs::create_dir_all(folder.path().join("addons")).unwrap();
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": [map("first"), map("second")] });
    std::fs::write(folder.path().join("addons/10-maps.json"), list.to_string()).unwrap();
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
