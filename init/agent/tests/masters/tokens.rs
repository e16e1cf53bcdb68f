//! Join tokens are given to the cluster once: one that was revoked or has ended stays away, whichever master knows it.
use std::path::Path;
use std::time::Duration;

use kscratch_metadata::{BootstrapToken, Secret};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::{Steward, with_data};

const OPEN: &str = "/api/v1/namespaces/kube-system/secrets/bootstrap-token-openaa";
const ENDED: &str = "/api/v1/namespaces/kube-system/secrets/bootstrap-token-endeda";
const GIVEN: &str = "/api/v1/namespaces/kube-system/configmaps/kscratch-tokens";
const OTHER: &str = "/api/v1/namespaces/kube-system/configmaps/other";

/// Tokens and another object, as PID 1 writes them.
fn objects(folder: &Path) {
    let token = |token: &str, expires: Option<&str>| {
        BootstrapToken { token: Secret::new(token), expires: expires.map(str::to_owned) }.object()
    };
    let other =
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "other", "namespace": "kube-system" } });
    let items = [
        token("openaa.0123456789abcdef", Some("2999-01-01T00:00:00Z")),
        token("endeda.0123456789abcdef", Some("2020-01-01T00:00:00Z")),
        other,
    ];
    std::fs::create_dir_all(folder.join("addons")).unwrap();
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
    std::fs::write(folder.join("addons/20-tokens.json"), list.to_string()).unwrap();
}

fn writes(cluster: &Cluster, path: &str) -> usize {
    cluster.state().written.iter().filter(|written| *written == path).count()
}

#[test]
fn a_token_that_was_revoked_or_has_ended_stays_away() {
    let (folder, cluster) = (with_data(), Cluster::of(&["m1", "m2"]));
    objects(folder.path());
    let steward = Steward::start(folder.path(), &cluster, "m1");
    steward.says("the cluster's own objects are in place");
    assert_eq!([OPEN, ENDED, OTHER].map(|path| writes(&cluster, path)), [1, 0, 1]);
    let given = || -> Vec<String> {
        let state = cluster.state();
        let Some(data) = state.objects[GIVEN]["data"].as_object() else { return Vec::new() };
        data.keys().cloned().collect()
    };
    assert_eq!(given(), ["openaa"]);
    // Another object that goes missing is put back, and the token is not.
    cluster.state().objects.remove(OPEN);
    cluster.state().objects.remove(OTHER);
    steward.says("ConfigMap kube-system/other is missing: applying it again");
    cluster.waits_for("the other object", |state| state.objects.contains_key(OTHER));
    std::thread::sleep(Duration::from_secs(22));
    assert!(!steward.log().contains("Secret"), "{}", steward.log());
    drop(steward);
    // Not by a steward that starts anew, nor by a master that comes with a new disk.
    let (before, fresh) = (writes(&cluster, OTHER), with_data());
    objects(fresh.path());
    for (folder, name) in [(folder.path(), "m1"), (fresh.path(), "m2")] {
        let _ = std::fs::remove_file(folder.join("ready"));
        let steward = Steward::start(folder, &cluster, name);
        steward.says("the cluster's own objects are in place");
    }
    assert_eq!([OPEN, ENDED].map(|path| writes(&cluster, path)), [1, 0]);
    assert!(writes(&cluster, OTHER) >= before + 2);
    // Where nobody remembers it, it is given again.
    cluster.state().objects.remove(GIVEN);
    let steward = Steward::start(folder.path(), &cluster, "m1");
    steward.says("the cluster's own objects are in place");
    assert_eq!((writes(&cluster, OPEN), given()), (2, vec!["openaa".to_owned()]));
}

#[test]
fn what_two_masters_remember_stays() {
    let (folder, cluster) = (with_data(), Cluster::of(&["m1"]));
    objects(folder.path());
    let theirs: Value = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "kscratch-tokens" }, "data": { "theirs": "2026-01-01T00:00:00Z" } });
    cluster.state().objects.insert(GIVEN.to_owned(), theirs);
    let steward = Steward::start(folder.path(), &cluster, "m1");
    steward.says("the cluster's own objects are in place");
    let data = cluster.state().objects[GIVEN]["data"].clone();
    assert_eq!(data["theirs"], "2026-01-01T00:00:00Z");
    assert!(data["openaa"].is_string(), "{data}");
}
