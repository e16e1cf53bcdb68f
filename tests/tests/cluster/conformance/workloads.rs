//! What keeps pods running, or has them run to their end: Deployments, StatefulSets, DaemonSets, Jobs, and a Service that remembers its clients.
use kscratch_tests::cluster::{Cluster, container, service};
use serde_json::{Value, json};

use super::{Checked, PODS, get, once};
use crate::wait_until;

/// How often a client asks a service that should lead it to the same pod each time: by chance two pods would do so once in a thousand times.
const ASKED: usize = 10;

pub fn objects() -> Vec<Value> {
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
    // Each task fails at first, and then finds what it left.
    let mut task = once(
        "task",
        &["again", "/data/tried"],
        json!({ "restartPolicy": "OnFailure", "volumes": [{ "name": "data", "emptyDir": {} }] }),
        json!({ "volumeMounts": [{ "name": "data", "mountPath": "/data" }] }),
    );
    vec![
        json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web", "namespace": "default" },
            "spec": { "replicas": 2, "selector": selector("web"), "template": template("web") } }),
        json!({ "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": { "name": "set", "namespace": "default" },
            "spec": { "replicas": 1, "serviceName": "set", "selector": selector("set"), "template": template("set") } }),
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

/// Names of the pods with this label, and of their nodes.
fn named(cluster: &Cluster, app: &str) -> Vec<(String, String)> {
    let pods = cluster.api().items(&format!("{PODS}?labelSelector=app={app}"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    pods.iter().map(|pod| (text(&pod["metadata"]["name"]), text(&pod["spec"]["nodeName"]))).collect()
}

fn object(cluster: &Cluster, kind: &str, name: &str) -> Value {
    get(cluster, &format!("/apis/apps/v1/namespaces/default/{kind}/{name}"))
}

pub fn hold(cluster: &Cluster, checked: &Checked) {
    cluster.kubectl(&["scale", "statefulset/set", "--replicas=2"]).succeeded();
    deployment(cluster, checked);
    let members = || {
        let mut members: Vec<String> = named(cluster, "set").into_iter().map(|(name, _)| name).collect();
        members.sort_unstable();
        members
    };
    wait_until("the set has two members", || object(cluster, "statefulsets", "set")["status"]["readyReplicas"] == 2);
    assert_eq!(members(), ["set-0", "set-1"]);
    let scale = get(cluster, "/apis/apps/v1/namespaces/default/statefulsets/set/scale");
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["replicas"]), (&json!(2), &json!(2)), "{scale}");
    checked.stands("a stateful set is scaled up, and its members have their names");
    wait_until("the daemon runs on every node", || {
        object(cluster, "daemonsets", "everywhere")["status"]["numberReady"] == 3
    });
    let mut daemons = named(cluster, "everywhere");
    daemons.sort_unstable_by(|one, other| one.1.cmp(&other.1));
    assert_eq!(daemons.iter().map(|(_, node)| node.as_str()).collect::<Vec<_>>(), ["m1", "n1", "n2"]);
    // Another comes meanwhile.
    let deleted = &daemons[1].0;
    assert_eq!(cluster.api().delete(&format!("{PODS}/{deleted}")).0, 200);
    wait_until("the job is complete", || {
        get(cluster, "/apis/batch/v1/namespaces/default/jobs/tasks")["status"]["succeeded"] == 2
    });
    let tasks = cluster.api().items(&format!("{PODS}?labelSelector=batch.kubernetes.io/job-name=tasks"));
    let restarts = |task: &Value| task["status"]["containerStatuses"][0]["restartCount"].as_u64();
    assert!(tasks.len() == 2 && tasks.iter().all(|task| restarts(task) == Some(1)), "{tasks:?}");
    checked.stands("a job's tasks fail once and are complete");
    wait_until("another pod is in the deleted one's place", || {
        let now = named(cluster, "everywhere");
        let ready = object(cluster, "daemonsets", "everywhere")["status"]["numberReady"] == 3;
        ready && now.len() == 3 && now.iter().all(|(name, _)| name != deleted)
    });
}

fn deployment(cluster: &Cluster, checked: &Checked) {
    let available = |count: u32| {
        wait_until(&format!("{count} replicas are available, and no more"), || {
            let status = object(cluster, "deployments", "web")["status"].clone();
            status["availableReplicas"] == count
                && status["replicas"] == count
                && named(cluster, "web").len() == count as usize
        });
    };
    let scale = |count: u32| {
        cluster.kubectl(&["scale", "deployment/web", &format!("--replicas={count}")]).succeeded();
        available(count);
    };
    available(2);
    for (replica, _) in named(cluster, "web") {
        assert_eq!(cluster.ask(&replica, "/variable?name=POD"), replica);
    }
    checked.stands("each replica answers");
    affinity(cluster, checked);
    scale(3);
    scale(1);
    checked.stands("a deployment is scaled up and down");
    let before = named(cluster, "web");
    cluster.kubectl(&["set", "env", "deployment/web", "ROUND=2"]).succeeded();
    wait_until("all replicas are new ones", || {
        let status = object(cluster, "deployments", "web")["status"].clone();
        let all_new = status["updatedReplicas"] == 1 && status["availableReplicas"] == 1 && status["replicas"] == 1;
        let now = named(cluster, "web");
        all_new && !now.is_empty() && now.iter().all(|pod| !before.contains(pod))
    });
    checked.stands("a deployment's change replaces its pods");
}

/// The service has two pods to choose from, and chooses once for each client.
fn affinity(cluster: &Cluster, checked: &Checked) {
    wait_until("the service leads to both pods", || {
        let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
        let slices = cluster.api().items(&format!("{slices}?labelSelector=kubernetes.io/service-name=sticky"));
        let endpoints = slices.iter().filter_map(|slice| slice["endpoints"].as_array()).flatten();
        endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true).count() == 2
    });
    let service = get(cluster, "/api/v1/namespaces/default/services/sticky");
    let address = service["spec"]["clusterIP"].as_str().unwrap_or_else(|| panic!("no address: {service}"));
    let ask = || cluster.ask("a1", &format!("/http?host={address}&port=80&path=/variable?name=POD"));
    // Rules come a little after the endpoints: what was chosen before the first answer does not count.
    let chosen = ask();
    assert!(named(cluster, "web").iter().any(|(name, _)| *name == chosen), "{chosen} is not of the deployment");
    let others: Vec<String> = (0..ASKED).map(|_| ask()).filter(|name| *name != chosen).collect();
    assert!(others.is_empty(), "a1 came to {chosen}, and then to {others:?}");
    checked.stands("a client stays with one of several pods");
}

/// What is deleted takes along what it made.
pub fn end(cluster: &Cluster, checked: &Checked) {
    let apps = "/apis/apps/v1/namespaces/default";
    for object in ["deployments/web", "daemonsets/everywhere"] {
        assert_eq!(cluster.api().delete(&format!("{apps}/{object}")).0, 200, "{object}");
    }
    wait_until("the deployment's replica sets and pods go with it", || {
        let sets = cluster.api().items(&format!("{apps}/replicasets?labelSelector=app=web"));
        sets.is_empty() && named(cluster, "web").is_empty()
    });
    checked.stands("a deployment's replica sets and pods go with it");
    wait_until("the daemon has stopped", || named(cluster, "everywhere").is_empty());
    checked.stands("a daemon runs on every node, again when its pod is deleted, and stops");
}
