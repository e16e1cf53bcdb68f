//! Behaviours that upstream's `[Conformance]` suite asks for, offline, with our own image: each check names the cases that it stands for (A7).
use std::process::Command;

use kscratch_tests::cluster::{Cluster, SOON, container, pod, service};
use kscratch_tests::program::{SHORT, run};
use serde_json::{Value, json};

use super::wait_until;

const PODS: &str = "/api/v1/namespaces/default/pods";

/// All of it, in two waves: every pod takes its time to start under emulation, and too many at once only wait for one another.
pub fn holds(cluster: &Cluster) {
    cluster.apply(&foundations());
    let once = run_once();
    cluster.apply(&once.iter().map(|(_, pod)| pod.clone()).collect::<Vec<_>>());
    for (cases, pod) in &once {
        succeeds(cluster, cases, pod);
    }
    cluster.apply(&long_lived());
    pods(cluster);
    workloads(cluster);
    names(cluster);
    service_accounts(cluster);
    api_machinery(cluster);
}

fn get(cluster: &Cluster, path: &str) -> Value {
    let (code, text) = cluster.api().get(path);
    if code == 200 { serde_json::from_str(&text).unwrap_or_default() } else { Value::Null }
}

/// A pod that runs the probe once with these arguments; it succeeds or it does not.
fn once(name: &str, arguments: &[&str], spec: Value, container: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "namespace": "default", "labels": { "once": name } },
        "spec": {
            "restartPolicy": "Never",
            "containers": [{ "name": "once", "image": "kscratch-probe:test", "imagePullPolicy": "Never", "args": arguments }],
        },
    });
    lay(&mut pod["spec"], spec);
    lay(&mut pod["spec"]["containers"][0], container);
    pod
}

/// Lays the fields of one object over another's.
fn lay(onto: &mut Value, fields: Value) {
    if let (Some(onto), Value::Object(fields)) = (onto.as_object_mut(), fields) {
        onto.extend(fields);
    }
}

/// What pods refer to.
fn foundations() -> Vec<Value> {
    vec![
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "settings", "namespace": "default" },
            "data": { "colour": "blue" } }),
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "word", "namespace": "default" },
            "stringData": { "word": "open" } }),
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "brief" } }),
        json!({ "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "none", "namespace": "brief" },
            "spec": { "hard": { "pods": "1" } } }),
        json!({ "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": { "name": "racks.example.com" },
            "spec": { "group": "example.com", "scope": "Namespaced", "names": { "kind": "Rack", "plural": "racks", "singular": "rack" },
                "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": { "type": "object",
                    "properties": { "spec": { "type": "object", "properties": { "units": { "type": "integer" } } } } } } }] } }),
    ]
}

/// Pods that end with success if what they stand for holds: upstream's cases, and the pod.
fn run_once() -> Vec<(&'static str, Value)> {
    let field = |path: &str| json!({ "fieldRef": { "fieldPath": path } });
    let mount = |path: &str| json!({ "name": "data", "mountPath": path });
    let settings = json!([{ "name": "data", "configMap": { "name": "settings" } }]);
    let writer = json!({ "name": "writer", "image": "kscratch-probe:test", "imagePullPolicy": "Never",
        "args": ["write", "/data/note", "kept"], "volumeMounts": [mount("/data")] });
    vec![
        (
            "[sig-node] ConfigMap should be consumable via environment variable; [sig-node] Variable Expansion should allow substituting values in a container's args",
            once(
                "config-variable",
                &["equal", "$(COLOUR)", "blue"],
                json!({}),
                json!({ "env": [{ "name": "COLOUR", "valueFrom": { "configMapKeyRef": { "name": "settings", "key": "colour" } } }] }),
            ),
        ),
        (
            "[sig-storage] ConfigMap should be consumable from pods in volume",
            once(
                "config-volume",
                &["holds", "/etc/settings/colour", "blue"],
                json!({ "volumes": settings }),
                json!({ "volumeMounts": [mount("/etc/settings")] }),
            ),
        ),
        (
            "[sig-node] Secrets should be consumable from pods in env vars",
            once(
                "secret-variable",
                &["equal", "$(WORD)", "open"],
                json!({}),
                json!({ "env": [{ "name": "WORD", "valueFrom": { "secretKeyRef": { "name": "word", "key": "word" } } }] }),
            ),
        ),
        (
            "[sig-storage] Secrets should be consumable from pods in volume; ... as non-root with defaultMode and fsGroup set",
            once(
                "secret-volume",
                &["holds", "/etc/word/word", "open"],
                json!({ "securityContext": { "runAsUser": 1000, "fsGroup": 1001 },
                    "volumes": [{ "name": "data", "secret": { "secretName": "word", "defaultMode": 0o440 } }] }),
                json!({ "volumeMounts": [mount("/etc/word")] }),
            ),
        ),
        (
            "[sig-node] InitContainer should invoke init containers on a RestartNever pod; [sig-storage] EmptyDir volumes pod should support shared volumes between containers",
            once(
                "init",
                &["holds", "/data/note", "kept"],
                json!({ "initContainers": [writer], "volumes": [{ "name": "data", "emptyDir": {} }] }),
                json!({ "volumeMounts": [mount("/data")] }),
            ),
        ),
        (
            "[sig-storage] Projected combined should project all components that make up the projection API; [sig-storage] Downward API volume should provide podname only",
            once(
                "projected",
                &["holds", "/all/name", "projected"],
                json!({ "volumes": [{ "name": "data", "projected": { "sources": [
                    { "configMap": { "name": "settings" } },
                    { "secret": { "name": "word" } },
                    { "downwardAPI": { "items": [{ "path": "name", "fieldRef": { "fieldPath": "metadata.name" } }] } },
                ] } }] }),
                json!({ "volumeMounts": [mount("/all")] }),
            ),
        ),
        (
            "[sig-storage] Subpath Atomic writer volumes should support subpaths with configmap pod",
            once(
                "subpath",
                &["holds", "/one", "blue"],
                json!({ "volumes": settings }),
                json!({ "volumeMounts": [{ "name": "data", "mountPath": "/one", "subPath": "colour" }] }),
            ),
        ),
        (
            "[sig-node] Downward API should provide pod name, namespace and IP address as env vars",
            once(
                "downward",
                &["equal", "$(NAME)/$(SPACE)/$(HOST)", "downward/default/192.168.76.21"],
                json!({ "nodeName": "n2" }),
                json!({ "env": [
                    { "name": "NAME", "valueFrom": field("metadata.name") },
                    { "name": "SPACE", "valueFrom": field("metadata.namespace") },
                    { "name": "HOST", "valueFrom": field("status.hostIP") },
                ] }),
            ),
        ),
        (
            "[sig-scheduling] SchedulerPredicates validates that NodeSelector is respected if matching",
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
fn succeeds(cluster: &Cluster, cases: &str, pod: &Value) {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let ended = ["Succeeded", "Failed"].map(Some);
    let phase = || get(cluster, &format!("{PODS}/{name}"))["status"]["phase"].as_str().map(str::to_owned);
    wait_until(&format!("{name} ends ({cases})"), || ended.contains(&phase().as_deref()));
    assert_eq!(phase().as_deref(), Some("Succeeded"), "{cases}: {name}");
}

/// What goes on running, or is meant to fail.
fn long_lived() -> Vec<Value> {
    let serving = |name: &str, spec: Value, more: Value| {
        let mut pod = pod(name, "n1");
        lay(&mut pod["spec"], spec);
        lay(&mut pod["spec"]["containers"][0], more);
        pod
    };
    let template = |app: &str| {
        json!({ "metadata": { "labels": { "app": app } },
            "spec": { "terminationGracePeriodSeconds": 1, "containers": [container("web")] } })
    };
    let selector = |app: &str| json!({ "matchLabels": { "app": app } });
    let mut headless = service("set", "set");
    headless["spec"]["clusterIP"] = json!("None");
    let mut sticky = service("sticky", "web");
    sticky["spec"]["sessionAffinity"] = json!("ClientIP");
    let mut everywhere = template("everywhere");
    everywhere["spec"]["tolerations"] = json!([{ "operator": "Exists" }]);
    let mut task = once("task", &["say", "done"], json!({}), json!({}));
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
            json!({ "automountServiceAccountToken": false, "hostname": "plain", "subdomain": "set",
                "hostAliases": [{ "ip": "192.0.2.7", "hostnames": ["elsewhere.example"] }],
                "securityContext": { "runAsUser": 1234, "runAsNonRoot": true } }),
            json!({ "securityContext": { "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
                "lifecycle": { "postStart": { "exec": { "command": ["/kscratch-probe", "say", "started"] } } } }),
        ),
        once("ends-badly", &["end", "3"], json!({}), json!({})),
        once("nowhere", &["say"], json!({ "nodeSelector": { "example.com/nowhere": "yes" } }), json!({})),
        json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web", "namespace": "default" },
            "spec": { "replicas": 2, "selector": selector("web"), "template": template("web") } }),
        json!({ "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": { "name": "set", "namespace": "default" },
            "spec": { "replicas": 2, "serviceName": "set", "selector": selector("set"), "template": template("set") } }),
        json!({ "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": { "name": "everywhere", "namespace": "default" },
            "spec": { "selector": selector("everywhere"), "template": everywhere } }),
        json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": "tasks", "namespace": "default" },
            "spec": { "completions": 2, "parallelism": 2, "template": { "spec": task["spec"].take() } } }),
        headless,
        sticky,
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "elsewhere", "namespace": "default" },
            "spec": { "type": "ExternalName", "externalName": "front-b.default.svc.cluster.local" } }),
    ]
}

fn pods(cluster: &Cluster) {
    let status = |name: &str| get(cluster, &format!("{PODS}/{name}"))["status"].clone();
    // [sig-node] Probing container should be restarted with a /healthz http liveness probe
    wait_until("a pod that is not healthy is started anew", || {
        status("unhealthy")["containerStatuses"][0]["restartCount"].as_u64() >= Some(1)
    });
    // [sig-node] Probing container with readiness probe that fails should never be ready and never restart
    let unready = &status("unready")["containerStatuses"][0];
    assert!(unready["started"] == true && unready["ready"] == false && unready["restartCount"] == 0, "{unready}");
    // [sig-node] Container Runtime blackbox test when starting a container that exits should run with the expected status
    wait_until("a pod that ends with 3 has failed with 3", || {
        let status = status("ends-badly");
        status["phase"] == "Failed" && status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3
    });
    // [sig-scheduling] SchedulerPredicates validates that NodeSelector is respected if not matching
    assert_eq!(status("nowhere")["phase"], "Pending");
    // [sig-node] Security Context When creating a container with runAsUser should run the container with uid; ... a pod with readOnlyRootFilesystem
    cluster.address_of("plain");
    let own = cluster.ask("plain", "/own?path=/proc/self/status");
    assert!(own.contains("Uid:\t1234\t1234"), "{own}");
    let (code, text) = cluster.api().get(&format!("{PODS}/plain:9999/proxy/write?path=/file&text=x"));
    assert!(
        code == 500 && (text.contains("Read-only file system") || text.contains("Permission denied")),
        "{code} {text}"
    );
    // [sig-node] KubeletManagedEtcHosts should test kubelet managed /etc/hosts file; Kubelet ... with hostAliases should write entries
    let hosts = cluster.ask("plain", "/own?path=/etc/hosts");
    assert!(hosts.contains("192.0.2.7\telsewhere.example"), "{hosts}");
    // [sig-node] Container Lifecycle Hook when create a pod with lifecycle hook should execute poststart exec hook properly: it is Ready.
}

fn workloads(cluster: &Cluster) {
    let named = |app: &str| -> Vec<(String, String)> {
        let pods = cluster.api().items(&format!("{PODS}?labelSelector=app={app}"));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        pods.iter().map(|pod| (text(&pod["metadata"]["name"]), text(&pod["spec"]["nodeName"]))).collect()
    };
    let object = |kind: &str, name: &str| get(cluster, &format!("/apis/apps/v1/namespaces/default/{kind}/{name}"));
    // [sig-apps] Deployment deployment should support proportional scaling; ReplicaSet should serve a basic image on each replica
    wait_until("two replicas are available", || object("deployments", "web")["status"]["availableReplicas"] == 2);
    cluster.kubectl(&["scale", "deployment/web", "--replicas=3"]).succeeded();
    wait_until("three replicas are available", || object("deployments", "web")["status"]["availableReplicas"] == 3);
    // [sig-apps] Deployment RollingUpdateDeployment should delete old pods and create new ones
    let before = named("web");
    cluster.kubectl(&["set", "env", "deployment/web", "ROUND=2"]).succeeded();
    wait_until("all replicas are new ones", || {
        let status = object("deployments", "web")["status"].clone();
        let all_new = status["updatedReplicas"] == 3 && status["availableReplicas"] == 3 && status["replicas"] == 3;
        all_new && named("web").iter().all(|pod| !before.contains(pod))
    });
    // [sig-apps] StatefulSet Basic StatefulSet functionality: identities that stay
    wait_until("the set has two members", || object("statefulsets", "set")["status"]["readyReplicas"] == 2);
    let mut members: Vec<String> = named("set").into_iter().map(|(name, _)| name).collect();
    members.sort_unstable();
    assert_eq!(members, ["set-0", "set-1"]);
    // [sig-apps] Daemon set should run and stop simple daemon
    wait_until("the daemon runs on every node", || object("daemonsets", "everywhere")["status"]["numberReady"] == 3);
    let mut nodes: Vec<String> = named("everywhere").into_iter().map(|(_, node)| node).collect();
    nodes.sort_unstable();
    assert_eq!(nodes, ["m1", "n1", "n2"]);
    // [sig-apps] Job should run a job to completion when tasks succeed
    wait_until("the job is complete", || {
        get(cluster, "/apis/batch/v1/namespaces/default/jobs/tasks")["status"]["succeeded"] == 2
    });
    // [sig-api-machinery] Garbage collector should delete RS created by deployment when not orphaning
    cluster.kubectl(&["delete", "deployment", "web", "--wait=false"]).succeeded();
    wait_until("the deployment's pods go with it", || named("web").is_empty());
}

fn names(cluster: &Cluster) {
    // [sig-network] DNS should provide DNS for pods for Hostname, and for Subdomain
    let set = cluster.address_of("set-0");
    assert_eq!(cluster.ask_for("a1", "/name?of=set-0.set", |found| found.trim() == set).trim(), set);
    // [sig-network] DNS should provide DNS for ExternalName services
    let front = get(cluster, "/api/v1/namespaces/default/services/front-b")["spec"]["clusterIP"].clone();
    assert_eq!(Some(cluster.ask("a1", "/name?of=elsewhere").trim()), front.as_str());
    // [sig-network] EndpointSlice should have Endpoints and EndpointSlices pointing to API Server
    let slice = get(cluster, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes");
    assert_eq!(slice["endpoints"][0]["addresses"][0], "192.168.76.10", "{slice}");
}

fn service_accounts(cluster: &Cluster) {
    let file = |name: &str| format!("/own?path=/var/run/secrets/kubernetes.io/serviceaccount/{name}");
    // [sig-auth] ServiceAccounts should mount an API token into pods
    assert_eq!(cluster.ask("a1", &file("namespace")), "default");
    let token = cluster.ask("a1", &file("token"));
    // [sig-auth] ServiceAccounts should allow opting out of API token automount
    assert_eq!(cluster.api().get(&format!("{PODS}/plain:9999/proxy{}", file("token"))).0, 500);
    let may = |path: &str| {
        let mut curl = Command::new("curl");
        let server = cluster.api().server().to_owned();
        curl.args([
            "--silent",
            "--insecure",
            "--max-time",
            "60",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
        ]);
        curl.args(["--header", &format!("Authorization: Bearer {token}"), &format!("{server}{path}")]);
        run(curl, SHORT).stdout
    };
    assert_eq!(may(PODS), "403", "a pod may do nothing by default");
    // RBAC: what is granted in a namespace holds there, and nowhere else.
    let grant = ["create", "rolebinding", "looks", "--clusterrole=view", "--serviceaccount=default:default"];
    cluster.kubectl(&grant).succeeded();
    wait_until("the role is granted", || may(PODS) == "200");
    assert_eq!(may("/api/v1/namespaces/kube-system/pods"), "403");
    assert_eq!(may("/api/v1/namespaces/default/secrets"), "403", "who may look may not look at secrets");
}

fn api_machinery(cluster: &Cluster) {
    let api = cluster.api();
    // [sig-api-machinery] CustomResourceDefinition resources Simple CustomResourceDefinition creating/deleting works
    let racks = "/apis/example.com/v1/namespaces/default/racks";
    let rack = |units: &str| {
        format!(
            r#"{{"apiVersion":"example.com/v1","kind":"Rack","metadata":{{"name":"r1"}},"spec":{{"units":{units}}}}}"#
        )
    };
    api.wait_for(racks, SOON, |(code, _)| *code == 200);
    assert_eq!(api.post(racks, &rack("\"many\"")).0, 422, "the schema wants a number");
    assert_eq!(api.post(racks, &rack("42")).0, 201);
    // [sig-api-machinery] Watchers should observe add, update, and delete watch notifications
    let watched = api.get(&format!("{racks}?watch=1&timeoutSeconds=1")).1;
    assert!(watched.contains(r#""type":"ADDED""#) && watched.contains(r#""units":42"#), "{watched}");
    // [sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a pod
    let brief = "/api/v1/namespaces/brief/pods";
    let pod = |name: &str| {
        let mut pod = once(name, &["serve"], json!({}), json!({}));
        pod["metadata"]["namespace"] = json!("brief");
        pod.to_string()
    };
    assert_eq!(api.post(brief, &pod("first")).0, 201);
    let (code, text) = api.post(brief, &pod("second"));
    assert!(code == 403 && text.contains("exceeded quota: none"), "{code} {text}");
    // [sig-api-machinery] Namespaces should ensure that all pods are removed when a namespace is deleted
    cluster.kubectl(&["delete", "namespace", "brief", "--wait=false"]).succeeded();
    wait_until("the namespace and its pod are gone", || api.get("/api/v1/namespaces/brief").0 == 404);
}
