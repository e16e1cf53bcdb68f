//! Pods: what they are given and see, and what becomes of them.
use kscratch_tests::cluster::{Cluster, pod};
use serde_json::{Value, json};

use super::{Checked, PODS, get, lay, once};
use crate::wait_until;

/// Pods that end with success if what they stand for holds: what that is, and the pod.
pub fn that_end() -> Vec<(&'static str, Value)> {
    let field = |path: &str| json!({ "fieldRef": { "fieldPath": path } });
    let mount = |path: &str| json!({ "name": "data", "mountPath": path });
    let settings = json!([{ "name": "data", "configMap": { "name": "settings" } }]);
    let writer = json!({ "name": "writer", "image": "kscratch-probe:test", "imagePullPolicy": "Never",
        "args": ["write", "/data/note", "kept"], "volumeMounts": [mount("/data")] });
    vec![
        (
            "a setting in a variable, and that in an argument",
            once(
                "config-variable",
                &["equal", "$(COLOUR)", "blue"],
                json!({}),
                json!({ "env": [{ "name": "COLOUR", "valueFrom": { "configMapKeyRef": { "name": "settings", "key": "colour" } } }] }),
            ),
        ),
        (
            "a setting in a file",
            once(
                "config-volume",
                &["holds", "/etc/settings/colour", "blue"],
                json!({ "volumes": settings }),
                json!({ "volumeMounts": [mount("/etc/settings")] }),
            ),
        ),
        (
            "a secret in a variable",
            once(
                "secret-variable",
                &["equal", "$(WORD)", "open"],
                json!({}),
                json!({ "env": [{ "name": "WORD", "valueFrom": { "secretKeyRef": { "name": "word", "key": "word" } } }] }),
            ),
        ),
        (
            "a secret in a file of a user's group",
            once(
                "secret-volume",
                &["holds", "/etc/word/word", "open"],
                json!({ "securityContext": { "runAsUser": 1000, "fsGroup": 1001 },
                    "volumes": [{ "name": "data", "secret": { "secretName": "word", "defaultMode": 0o440 } }] }),
                json!({ "volumeMounts": [mount("/etc/word")] }),
            ),
        ),
        (
            "one container writes before another reads",
            once(
                "init",
                &["holds", "/data/note", "kept"],
                json!({ "initContainers": [writer], "volumes": [{ "name": "data", "emptyDir": {} }] }),
                json!({ "volumeMounts": [mount("/data")] }),
            ),
        ),
        (
            "a setting, a secret and a name in one folder",
            once(
                "projected",
                &["holds", "/all/colour", "blue", "/all/word", "open", "/all/name", "projected"],
                json!({ "volumes": [{ "name": "data", "projected": { "sources": [
                    { "configMap": { "name": "settings" } },
                    { "secret": { "name": "word" } },
                    { "downwardAPI": { "items": [{ "path": "name", "fieldRef": { "fieldPath": "metadata.name" } }] } },
                ] } }] }),
                json!({ "volumeMounts": [mount("/all")] }),
            ),
        ),
        (
            "one file of a volume",
            once(
                "subpath",
                &["holds", "/one", "blue"],
                json!({ "volumes": settings }),
                json!({ "volumeMounts": [{ "name": "data", "mountPath": "/one", "subPath": "colour" }] }),
            ),
        ),
        (
            "a pod goes where its selector says",
            once(
                "selected",
                &["equal", "$(NODE)", "n2"],
                json!({ "nodeSelector": { "kubernetes.io/hostname": "n2" } }),
                json!({ "env": [{ "name": "NODE", "valueFrom": field("spec.nodeName") }] }),
            ),
        ),
    ]
}

/// Waits until the pod has ended well.
#[track_caller]
pub fn succeeds(cluster: &Cluster, checked: &Checked, what: &'static str, pod: &Value) {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let ended = ["Succeeded", "Failed"].map(Some);
    let phase = || get(cluster, &format!("{PODS}/{name}"))["status"]["phase"].as_str().map(str::to_owned);
    wait_until(&format!("{name} ends ({what})"), || ended.contains(&phase().as_deref()));
    assert_eq!(phase().as_deref(), Some("Succeeded"), "{what}: {name}");
    checked.stands(what);
}

/// Pods that go on running, or are meant to fail.
pub fn that_stay() -> Vec<Value> {
    let serving = |name: &str, spec: Value, more: Value| {
        let mut pod = pod(name, "n1");
        lay(&mut pod["spec"], spec);
        lay(&mut pod["spec"]["containers"][0], more);
        pod
    };
    let variable = |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    vec![
        serving(
            "unhealthy",
            json!({}),
            json!({ "livenessProbe": { "httpGet": { "path": "/nothing", "port": 9999 }, "periodSeconds": 5, "failureThreshold": 1,
                "timeoutSeconds": 5 } }),
        ),
        serving(
            "unready",
            json!({}),
            json!({ "readinessProbe": { "exec": { "command": ["/kscratch-probe", "end", "1"] }, "periodSeconds": 5 } }),
        ),
        serving(
            "plain",
            json!({ "automountServiceAccountToken": false,
                "hostAliases": [{ "ip": "192.0.2.7", "hostnames": ["elsewhere.example"] }],
                "securityContext": { "runAsUser": 65534, "runAsNonRoot": true },
                "volumes": [{ "name": "data", "emptyDir": {} }] }),
            json!({ "securityContext": { "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
                "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
                "env": [
                    variable("NAME", "metadata.name"),
                    variable("SPACE", "metadata.namespace"),
                    variable("ADDRESS", "status.podIP"),
                    variable("HOST", "status.hostIP"),
                ],
                "lifecycle": { "postStart": { "exec": { "command": ["/kscratch-probe", "write", "/data/hook", "started"] } } } }),
        ),
        once("ends-badly", &["end", "3"], json!({}), json!({})),
        once("nowhere", &["say"], json!({ "nodeSelector": { "example.com/nowhere": "yes" } }), json!({})),
    ]
}

fn status(cluster: &Cluster, name: &str) -> Value {
    get(cluster, &format!("{PODS}/{name}"))["status"].clone()
}

pub fn hold(cluster: &Cluster, checked: &Checked) {
    wait_until("a pod that is not healthy is started anew", || {
        status(cluster, "unhealthy")["containerStatuses"][0]["restartCount"].as_u64() >= Some(1)
    });
    checked.stands("a container that is not healthy is started anew");
    // Each further start would take its time from those that are to come.
    assert_eq!(cluster.api().delete(&format!("{PODS}/unhealthy")).0, 200);
    wait_until("a pod that ends with 3 has failed with 3", || {
        let status = status(cluster, "ends-badly");
        let ended = &status["containerStatuses"][0]["state"]["terminated"];
        status["phase"] == "Failed" && ended["exitCode"] == 3 && ended["reason"] == "Error"
    });
    checked.stands("a pod that has failed says how");
    assert_eq!(cluster.api().delete(&format!("{PODS}/ends-badly")).0, 200);
    wait_until("a pod that has failed is gone", || cluster.api().get(&format!("{PODS}/ends-badly")).0 == 404);
    checked.stands("a pod that has failed is deleted");
    wait_until("the scheduler finds no node for a pod", || {
        let status = status(cluster, "nowhere");
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let scheduled = conditions.into_iter().find(|one| one["type"] == "PodScheduled").unwrap_or_default();
        status["phase"] == "Pending" && scheduled["status"] == "False" && scheduled["reason"] == "Unschedulable"
    });
    checked.stands("a pod goes nowhere if no node is as its selector says");
    plain(cluster, checked);
}

/// The pod that may do nothing, and what it sees.
fn plain(cluster: &Cluster, checked: &Checked) {
    let address = cluster.address_of("plain");
    let own = cluster.ask("plain", "/own?path=/proc/self/status");
    assert!(own.contains("Uid:\t65534\t65534\t65534\t65534\n"), "{own}");
    checked.stands("a container's user");
    assert!(own.contains("NoNewPrivs:\t1\n") && own.contains("CapBnd:\t0000000000000000\n"), "{own}");
    checked.stands("a container that may gain no privileges");
    let (code, text) = cluster.api().get(&format!("{PODS}/plain:9999/proxy/write?path=/file&text=x"));
    assert!(code == 500 && text.contains("Read-only file system"), "{code} {text}");
    checked.stands("a root filesystem that is read-only");
    // Only the hook writes that file, and the pod is Ready after it.
    assert_eq!(cluster.ask("plain", "/own?path=/data/hook"), "started");
    checked.stands("what a hook has written when its pod started");
    let variable = |name: &str| cluster.ask("plain", &format!("/variable?name={name}"));
    let own = ["NAME", "SPACE", "ADDRESS"].map(variable);
    assert_eq!(own, ["plain".to_owned(), "default".to_owned(), address]);
    checked.stands("a pod knows its name, namespace and address");
    assert_eq!(variable("HOST"), "192.168.76.20");
    checked.stands("a pod knows its node's address");
    let hosts = cluster.ask("plain", "/own?path=/etc/hosts");
    assert!(hosts.contains("192.0.2.7\telsewhere.example"), "{hosts}");
    checked.stands("other names of hosts");
}

/// Asked at the end: its probe has failed for minutes then.
pub fn never_became_ready(cluster: &Cluster, checked: &Checked) {
    let status = status(cluster, "unready");
    let unready = &status["containerStatuses"][0];
    assert!(unready["started"] == true && unready["ready"] == false && unready["restartCount"] == 0, "{unready}");
    // It has never been Ready either: that has been so since before the container's start.
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let ready = conditions.into_iter().find(|one| one["type"] == "Ready").unwrap_or_default();
    let (since, started) = (&ready["lastTransitionTime"], &unready["state"]["running"]["startedAt"]);
    assert!(since.is_string() && since.as_str() <= started.as_str(), "{ready} {unready}");
    checked.stands("a container whose probe fails never becomes ready");
}
