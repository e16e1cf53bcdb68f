//! What pods and people ask the cluster: names, who a pod is, and the API.
use std::process::Command;

use kscratch_tests::cluster::{Cluster, SOON};
use kscratch_tests::program::{SHORT, run};
use serde_json::{Value, json};

use super::{Checked, PODS, get, once};
use crate::wait_until;

pub fn names(cluster: &Cluster, checked: &Checked) {
    let name = |name: &str| cluster.ask("a1", &format!("/name?of={name}")).trim().to_owned();
    let [first, second] = ["set-0", "set-1"].map(|pod| cluster.address_of(pod));
    let found = cluster.ask_for("a1", "/name?of=set-0.set", |found| found.trim() == first);
    assert_eq!(found.trim(), first);
    checked.stands("a pod's name in its service");
    let both = [first, second];
    let of_both =
        |found: &str| found.lines().count() == 2 && both.iter().all(|one| found.lines().any(|line| line == one));
    let found = cluster.ask_for("a1", "/name?of=set.default.svc.cluster.local", of_both);
    assert!(of_both(&found), "{found}");
    checked.stands("a service without an address");
    let front = get(cluster, "/api/v1/namespaces/default/services/front-b")["spec"]["clusterIP"].clone();
    assert_eq!(Some(name("front-b").as_str()), front.as_str());
    checked.stands("a service's name");
    assert_eq!(Some(name("elsewhere").as_str()), front.as_str());
    checked.stands("a name that leads to another");
    assert_eq!(name("kubernetes.default"), "10.96.0.1");
    checked.stands("the API server's name");
    let slice = get(cluster, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes");
    assert_eq!(slice["endpoints"][0]["addresses"], json!(["192.168.76.10"]), "{slice}");
    let endpoints = get(cluster, "/api/v1/namespaces/default/endpoints/kubernetes");
    assert_eq!(endpoints["subsets"][0]["addresses"][0]["ip"], "192.168.76.10", "{endpoints}");
    checked.stands("the API server's endpoints");
}

pub fn service_accounts(cluster: &Cluster, checked: &Checked) {
    let file = |name: &str| format!("/own?path=/var/run/secrets/kubernetes.io/serviceaccount/{name}");
    assert_eq!(cluster.ask("a1", &file("namespace")), "default");
    let authority = std::fs::read_to_string(cluster.file("secrets/ca.crt")).unwrap();
    assert_eq!(cluster.ask("a1", &file("ca.crt")).trim(), authority.trim());
    let token = cluster.ask("a1", &file("token"));
    cluster.api().wait_for(&format!("{PODS}/plain:9999/proxy{}", file("token")), SOON, |(code, _)| *code == 500);
    checked.stands("a pod that wants no token has none");
    let may = |path: &str| {
        let mut curl = Command::new("curl");
        let server = cluster.api().server().to_owned();
        let quiet =
            ["--silent", "--insecure", "--max-time", "60", "--output", "/dev/null", "--write-out", "%{http_code}"];
        curl.args(quiet).args(["--header", &format!("Authorization: Bearer {token}"), &format!("{server}{path}")]);
        run(curl, SHORT).stdout
    };
    // 401 would be nobody's: the token says who it is.
    assert_eq!(may(PODS), "403", "a pod may do nothing by default");
    checked.stands("a pod has a token, an authority and a namespace");
    // RBAC: what is granted in a namespace holds there, and nowhere else.
    let grant = ["create", "rolebinding", "looks", "--clusterrole=view", "--serviceaccount=default:default"];
    cluster.kubectl(&grant).succeeded();
    wait_until("the role is granted", || may(PODS) == "200");
    assert_eq!(may("/api/v1/namespaces/kube-system/pods"), "403");
    assert_eq!(may("/api/v1/namespaces/default/secrets"), "403", "who may look may not look at secrets");
}

pub fn api_machinery(cluster: &Cluster, checked: &Checked) {
    watches(cluster, checked);
    let api = cluster.api();
    let brief = "/api/v1/namespaces/brief";
    let pod = |name: &str| {
        let mut pod = once(name, &["serve"], json!({}), json!({}));
        pod["metadata"]["namespace"] = json!("brief");
        api.post(&format!("{brief}/pods"), &pod.to_string())
    };
    assert_eq!(pod("first").0, 201);
    wait_until("the quota has counted the pod", || {
        get(cluster, &format!("{brief}/resourcequotas/none"))["status"]["used"]["pods"] == "1"
    });
    let (code, text) = pod("second");
    assert!(code == 403 && text.contains("exceeded quota: none"), "{code} {text}");
    checked.stands("a quota counts a pod and refuses the next one");
    cluster.kubectl(&["delete", "namespace", "brief", "--wait=false"]).succeeded();
    wait_until("the namespace and its pod are gone", || api.get(brief).0 == 404);
    assert_eq!(api.get(&format!("{brief}/pods/first")).0, 404);
    checked.stands("a namespace's pods go with it");
}

/// Comes last: with a kind that is new the API server writes down all its schemas anew, which takes an emulated one minutes.
pub fn kinds(cluster: &Cluster, checked: &Checked) {
    let api = cluster.api();
    cluster.apply(&[
        json!({ "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": { "name": "racks.example.com" },
            "spec": { "group": "example.com", "scope": "Namespaced", "names": { "kind": "Rack", "plural": "racks", "singular": "rack" },
                "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": { "type": "object",
                    "properties": { "spec": { "type": "object", "properties": { "units": { "type": "integer" } } } } } } }] } }),
    ]);
    let racks = "/apis/example.com/v1/namespaces/default/racks";
    let rack = |units: Value| {
        json!({ "apiVersion": "example.com/v1", "kind": "Rack", "metadata": { "name": "r1" }, "spec": { "units": units } })
            .to_string()
    };
    api.wait_for(racks, SOON, |(code, _)| *code == 200);
    assert_eq!(api.post(racks, &rack(json!("many"))).0, 422, "the schema wants a number");
    assert_eq!(api.post(racks, &rack(json!(42))).0, 201);
    assert_eq!(get(cluster, &format!("{racks}/r1"))["spec"]["units"], 42);
    checked.stands("a schema takes what it allows, and refuses what it does not");
    let kind = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/racks.example.com";
    assert_eq!(api.delete(kind).0, 200);
    wait_until("the kind is gone", || api.get(kind).0 == 404 && api.get(racks).0 == 404);
    checked.stands("a kind of object is made and deleted");
}

/// What happened to an object after a moment is told to whoever asks from there on, in its order.
fn watches(cluster: &Cluster, checked: &Checked) {
    let api = cluster.api();
    let maps = "/api/v1/namespaces/default/configmaps";
    let from = get(cluster, maps)["metadata"]["resourceVersion"].as_str().map(str::to_owned).unwrap();
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "watched" } });
    assert_eq!(api.post(maps, &map.to_string()).0, 201);
    assert_eq!(api.patch(&format!("{maps}/watched"), r#"{"data":{"colour":"red"}}"#).0, 200);
    assert_eq!(api.delete(&format!("{maps}/watched")).0, 200);
    let target = format!("{maps}?watch=1&timeoutSeconds=5&resourceVersion={from}&fieldSelector=metadata.name=watched");
    let (code, told) = api.get(&target);
    let events: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap_or_default()).collect();
    let kinds: Vec<&str> = events.iter().filter_map(|event| event["type"].as_str()).collect();
    assert_eq!((code, &kinds[..]), (200, &["ADDED", "MODIFIED", "DELETED"][..]), "{told}");
    assert_eq!(events[1]["object"]["data"]["colour"], "red", "{told}");
    checked.stands("a watch from before an object's life tells all of it");
}
