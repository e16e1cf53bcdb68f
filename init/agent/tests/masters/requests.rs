//! Strangers' certificate requests: what they say is told in bearable lines, and one that cannot be answered keeps nobody else waiting.
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::{Steward, with_data};

fn request(name: &str, user: &str) -> Value {
    json!({
        "metadata": { "name": name, "resourceVersion": "1" },
        "spec": { "signerName": "kubernetes.io/kubelet-serving", "username": user, "groups": [], "usages": [], "request": "eA==" },
    })
}

#[test]
fn one_that_cannot_be_answered_keeps_nobody_waiting() {
    let (folder, cluster) = (with_data(), Cluster::of(&["m1"]));
    {
        let mut state = cluster.state();
        state.requests = vec![
            request("a", "eve\nservice kube-apiserver: ready"),
            request("b", &"e".repeat(100_000)),
            request("c", "mallory"),
        ];
        state.refused = "a";
    }
    let steward = Steward::start(folder.path(), &cluster, "m1");
    cluster.waits_for("the answers", |state| state.answers.len() == 2);
    let answers = cluster.state().answers.clone();
    assert_eq!(
        answers["c"],
        json!({ "type": "Denied", "status": "True", "reason": "Kscratch", "message": "kscratch: mallory is no node" })
    );
    let long = answers["b"]["message"].as_str().unwrap().to_owned();
    assert!(long.starts_with("kscratch: eeee") && long.chars().count() < 320, "{long}");
    steward.says("denied request c of mallory: mallory is no node");
    let log = steward.log();
    let line = "request a of eve service kube-apiserver: ready stays without an answer, which the API server refuses: it is too long";
    assert!(log.lines().any(|one| one == line), "{log}");
    assert!(log.lines().all(|one| one.len() < 1000) && !log.contains("failed"), "{log}");
}
