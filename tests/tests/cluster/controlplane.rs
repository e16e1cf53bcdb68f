//! A control plane that is well, says what it is, writes down who asked for what, and puts its own objects back (A1–A3).
use kscratch_tests::cluster::{Cluster, SOON};
use kscratch_tests::dump::is_ready;
use serde_json::Value;

use super::wait_until;

const PODS: &str = "/api/v1/namespaces/kube-system/pods";
const COMPONENTS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// Mirror pods of a control plane that runs in docker, the cluster's DNS, and health where it is asked for.
pub fn is_well(cluster: &Cluster) {
    let api = cluster.api();
    // The kubelet asks each on its own port for health, 10257 and 10259 among them: a pod that is Ready has answered.
    for component in COMPONENTS {
        api.wait_for(&format!("{PODS}/{component}-m1"), SOON, |(code, text)| {
            *code == 200 && is_ready(&serde_json::from_str(text).unwrap_or_default())
        });
    }
    for path in ["/livez", "/readyz"] {
        // Among its own checks is one of etcd, which has two seconds: what answers is well, and may be late under emulation.
        api.wait_for(path, SOON, |answer| *answer == (200, "ok".to_owned()));
    }
    api.wait_for("/apis/apps/v1/namespaces/kube-system/deployments/coredns", SOON, |(code, text)| {
        let deployment: Value = serde_json::from_str(text).unwrap_or_default();
        *code == 200 && deployment["status"]["availableReplicas"] == 2
    });
    assert_eq!(cluster.ask("eye-m1", "/http?port=2381&path=/readyz"), "ok\n");
    let containers = cluster.ask("eye-m1", "/unix?socket=/run/docker.sock&path=/containers/json");
    let containers: Vec<Value> = serde_json::from_str(&containers).unwrap();
    for component in COMPONENTS {
        let runs =
            |one: &Value| one["Labels"]["io.kubernetes.container.name"] == component && one["State"] == "running";
        assert!(containers.iter().any(runs), "docker runs no {component}");
    }
}

/// The pods of the cluster's DNS, once they are lost, come back on the master though nodes are free: no node's image has theirs, and there is no registry.
pub fn dns_stays_where_its_image_is(cluster: &Cluster) {
    let selector = format!("{PODS}?labelSelector=k8s-app=kube-dns");
    let names =
        || -> Vec<Value> { cluster.api().items(&selector).iter().map(|pod| pod["metadata"]["name"].clone()).collect() };
    let before = names();
    cluster
        .kubectl(&["delete", "pod", "--namespace", "kube-system", "--selector", "k8s-app=kube-dns", "--wait=false"])
        .succeeded();
    wait_until("two other pods of the cluster's DNS are Ready", || {
        let pods = cluster.api().items(&selector);
        let others = pods.iter().filter(|pod| !before.contains(&pod["metadata"]["name"]));
        others.filter(|pod| is_ready(pod)).count() == 2
    });
    for pod in cluster.api().items(&selector) {
        assert_eq!(pod["spec"]["nodeName"], "m1", "{}", pod["metadata"]["name"]);
    }
}

/// The version is that of the release which the image says it has.
pub fn says_its_version(cluster: &Cluster) {
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let release = parse(&cluster.ask("eye-m1", "/read?path=/usr/share/kscratch/release.json"));
    let released = release["kubernetes"].as_str().unwrap_or_else(|| panic!("no version in {release}"));
    let version = parse(&cluster.api().get("/version").1);
    assert_eq!(version["gitVersion"], format!("v{released}"), "{version}");
    let number = |field: &str| version[field].as_str().is_some_and(|text| text.parse::<u32>().is_ok());
    assert!(number("major") && number("minor"), "{version}");
}

/// A question that only this test asks stands in the audit log, with who asked and what was answered.
pub fn writes_down_who_asks(cluster: &Cluster) {
    let path = "/api/v1/namespaces/default/configmaps/asked-for-by-a-test";
    assert_eq!(cluster.api().get(path).0, 404);
    let asked = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap_or_default();
        event["requestURI"] == path
            && event["verb"] == "get"
            && event["user"]["username"] == "kubernetes-admin"
            && event["responseStatus"]["code"] == 404
            && event["level"] == "Metadata"
    };
    let tail = "/tail?path=/var/log/kube-apiserver/audit.log&bytes=524288";
    cluster.ask_for("eye-m1", tail, |log| log.lines().any(asked));
}

/// The machines are the cluster's nodes, these and no others, and only the master says that it is one.
pub fn has_these_nodes(cluster: &Cluster, names: &[&str]) {
    const MASTER: &str = "node-role.kubernetes.io/control-plane";
    let nodes = || cluster.api().items("/api/v1/nodes");
    wait_until(&format!("{names:?} are Ready"), || nodes().iter().filter(|node| is_ready(node)).count() == names.len());
    let nodes = nodes();
    let named: Vec<&str> = nodes.iter().filter_map(|node| node["metadata"]["name"].as_str()).collect();
    assert_eq!(named, names);
    for node in nodes {
        let is_master = node["metadata"]["name"] == "m1";
        let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
        let kept_free = taints.iter().any(|taint| taint["key"] == MASTER && taint["effect"] == "NoSchedule");
        let labelled = !node["metadata"]["labels"][MASTER].is_null();
        assert_eq!((labelled, kept_free), (is_master, is_master), "{}: {taints:?}", node["metadata"]);
    }
}

/// Objects of the cluster's own: by what kubelets renew their certificates, and the way to its DNS.
const OWN: [&str; 2] = [
    "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/kscratch:nodes:renew",
    "/api/v1/namespaces/kube-system/services/kube-dns",
];

/// Objects that somebody deleted, as they were.
pub struct Deleted([Value; 2]);

/// Somebody deletes them. What is asked afterwards may be asked while they come back.
pub fn loses_its_own_objects(cluster: &Cluster) -> Deleted {
    let api = cluster.api();
    Deleted(OWN.map(|path| {
        let (code, text) = api.get(path);
        assert_eq!(code, 200, "{path}: {text}");
        let (code, said) = api.delete(path);
        assert_eq!(code, 200, "{path}: {said}");
        serde_json::from_str(&text).unwrap()
    }))
}

/// The steward has put others in their place, which say the same.
pub fn has_them_again(cluster: &Cluster, Deleted(before): &Deleted) {
    for (path, before) in OWN.iter().zip(before) {
        let (_, text) = cluster.api().wait_for(path, SOON, |(code, text)| {
            let now: Value = serde_json::from_str(text).unwrap_or_default();
            *code == 200 && now["metadata"]["uid"] != before["metadata"]["uid"]
        });
        let now: Value = serde_json::from_str(&text).unwrap();
        for field in ["roleRef", "subjects"] {
            assert_eq!(now[field], before[field], "{path}: {field}");
        }
        for field in ["clusterIP", "ports", "selector"] {
            assert_eq!(now["spec"][field], before["spec"][field], "{path}: {field}");
        }
    }
}
