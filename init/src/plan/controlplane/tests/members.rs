//! etcd of one master and of several: where it listens, whom it names, and what else is another way where there are, or may be, several.
use serde_json::{Value, json};

use super::{facts, files, metadata};
use crate::plan::node;

const PLANNED: &str = "/run/kscratch/controlplane/etcd.json";
const PLACED: &str = "/run/kscratch/manifests/etcd.json";

fn list(members: &[&str], more: &str) -> String {
    let members = members.iter().map(|name| format!("{name} = \"192.168.7.{}\"", 9 + name[1..].parse::<u8>().unwrap()));
    format!("[control_plane.etcd]\nmembers = {{ {} }}\n{more}", members.collect::<Vec<_>>().join(", "))
}

/// The plan's files for m1, which is 192.168.7.10.
struct Planned(std::collections::BTreeMap<String, String>);

impl Planned {
    fn with(more: &str) -> Self {
        Self(files(&metadata(more), &facts("1.37.2")))
    }

    fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.0[path]).unwrap()
    }

    /// The value of a flag of a component, where it has the flag.
    fn flag(&self, component: &str, flag: &str) -> Option<String> {
        let [later, own] =
            ["controlplane", "manifests"].map(|folder| format!("/run/kscratch/{folder}/{component}.json"));
        let pod = self.json(if self.0.contains_key(&later) { &later } else { &own });
        let words = pod["spec"]["containers"][0]["command"].as_array().unwrap().clone();
        words.iter().find_map(|word| Some(word.as_str()?.strip_prefix(&format!("--{flag}="))?.to_owned()))
    }

    fn addresses_of_etcd(&self) -> Value {
        let wanted = self.json("/run/kscratch/certificates.json");
        let all = wanted["certificates"].as_array().unwrap();
        let own =
            all.iter().filter(|one| one["certificate"].as_str().unwrap().starts_with("/var/lib/kubernetes/etcd/"));
        let addresses: Vec<Value> = own.map(|one| one["addresses"].clone()).collect();
        assert_eq!(addresses.len(), 2);
        assert_eq!(addresses[0], addresses[1]);
        addresses[0].clone()
    }
}

#[test]
fn three_masters_know_each_other() {
    let more = list(&["m1", "m2", "m3"], "");
    let planned = Planned::with(&more);
    // The steward puts it among the kubelet's once it has asked the others.
    assert!(!planned.0.contains_key(PLACED));
    for (flag, want) in [
        ("initial-cluster", "m1=https://192.168.7.10:2380,m2=https://192.168.7.11:2380,m3=https://192.168.7.12:2380"),
        ("listen-client-urls", "https://127.0.0.1:2379,https://192.168.7.10:2379"),
        ("listen-peer-urls", "https://192.168.7.10:2380"),
    ] {
        assert_eq!(planned.flag("etcd", flag).as_deref(), Some(want));
    }
    assert_eq!(planned.flag("etcd", "initial-cluster-state"), None);
    let member = &planned.json("/run/kscratch/steward.json")["member"];
    let other = |last: u8| json!({ "client": format!("https://192.168.7.{last}:2379"), "peer": format!("https://192.168.7.{last}:2380") });
    assert_eq!(member["others"], json!([other(11), other(12)]));
    let masters = &planned.json("/run/kscratch/steward.json")["masters"];
    assert_eq!(*masters, json!({ "m1": "192.168.7.10", "m2": "192.168.7.11", "m3": "192.168.7.12" }));
    assert_eq!(member["local"], "https://127.0.0.1:2379");
    let authority = "/var/lib/kubernetes/authorities/cluster.crt";
    assert_eq!(member["endpoint"], json!({ "server": "https://api.lab:8443", "authority": authority }));
    assert_eq!((&member["place"], &member["join"]), (&json!(PLACED), &json!(false)));
    let mut elsewhere = facts("1.37.2");
    elsewhere.links.get_mut("eth0").unwrap().addresses = vec!["192.168.7.99/24".parse().unwrap()];
    let error = node(&metadata(&more), &elsewhere).unwrap_err();
    assert_eq!(
        error.to_string(),
        "control_plane.etcd.members gives m1 the address 192.168.7.10, but this machine has 192.168.7.99"
    );
}

#[test]
fn five_masters_are_as_three_are() {
    let (three, five) = (["m1", "m2", "m3"], ["m1", "m2", "m3", "m4", "m5"]);
    let [three, five] = [&three[..], &five[..]].map(|names| Planned::with(&list(names, "")));
    let cluster: Vec<String> = (0..5).map(|at| format!("m{}=https://192.168.7.{}:2380", at + 1, at + 10)).collect();
    assert_eq!(five.flag("etcd", "initial-cluster"), Some(cluster.join(",")));
    let steward = five.json("/run/kscratch/steward.json");
    let others: Vec<&str> =
        steward["member"]["others"].as_array().unwrap().iter().filter_map(|other| other["peer"].as_str()).collect();
    assert_eq!(others, [11, 12, 13, 14].map(|last| format!("https://192.168.7.{last}:2380")));
    assert_eq!(steward["masters"].as_object().unwrap().len(), 5);
    for (component, flag) in [
        ("etcd", "heartbeat-interval"),
        ("etcd", "election-timeout"),
        ("etcd", "listen-peer-urls"),
        ("kube-apiserver", "etcd-servers"),
        ("kube-scheduler", "leader-elect"),
    ] {
        assert!(five.flag(component, flag).is_some(), "{component} {flag}");
        assert_eq!(five.flag(component, flag), three.flag(component, flag), "{component} {flag}");
    }
}

#[test]
fn one_that_is_listed_is_as_several_are() {
    let (alone, listed, three) =
        (Planned::with(""), Planned::with(&list(&["m1"], "")), Planned::with(&list(&["m1", "m2", "m3"], "")));
    assert_eq!(alone.flag("etcd", "initial-cluster").as_deref(), Some("m1=https://127.0.0.1:2380"));
    assert_eq!(listed.flag("etcd", "initial-cluster").as_deref(), Some("m1=https://192.168.7.10:2380"));
    for (component, flag, want) in [
        (
            "etcd",
            "listen-client-urls",
            [Some("https://127.0.0.1:2379"), Some("https://127.0.0.1:2379,https://192.168.7.10:2379")],
        ),
        ("etcd", "listen-peer-urls", [Some("https://127.0.0.1:2380"), Some("https://192.168.7.10:2380")]),
        ("etcd", "advertise-client-urls", [Some("https://127.0.0.1:2379"), Some("https://192.168.7.10:2379")]),
        ("etcd", "initial-advertise-peer-urls", [Some("https://127.0.0.1:2380"), Some("https://192.168.7.10:2380")]),
        ("etcd", "listen-metrics-urls", [Some("http://127.0.0.1:2381"); 2]),
        ("etcd", "heartbeat-interval", [None, Some("500")]),
        ("etcd", "election-timeout", [None, Some("5000")]),
        ("kube-apiserver", "etcd-servers", [Some("https://127.0.0.1:2379"); 2]),
        ("kube-controller-manager", "leader-elect", [Some("false"), Some("true")]),
        ("kube-scheduler", "leader-elect", [Some("false"), Some("true")]),
    ] {
        let got = [&alone, &listed, &three].map(|planned| planned.flag(component, flag));
        assert_eq!([got[0].as_deref(), got[1].as_deref()], want, "{component} {flag}");
        assert_eq!(got[1], got[2], "{component} {flag}");
    }
    assert_eq!(alone.addresses_of_etcd(), json!(["127.0.0.1"]));
    assert_eq!(listed.addresses_of_etcd(), json!(["127.0.0.1", "192.168.7.10"]));
    for planned in [&alone, &listed] {
        assert_eq!(planned.json("/run/kscratch/steward.json")["masters"], json!({ "m1": "192.168.7.10" }));
    }
    // Who may have others one day is kept, and goes, with its Node from the beginning.
    assert_eq!(alone.json("/run/kscratch/steward.json")["member"], Value::Null);
    let member = &listed.json("/run/kscratch/steward.json")["member"];
    assert_eq!((&member["others"], &member["join"]), (&json!([]), &json!(false)));
    assert!(alone.0.contains_key(PLACED) && !alone.0.contains_key(PLANNED));
    assert!(!listed.0.contains_key(PLACED) && listed.0.contains_key(PLANNED));
}

#[test]
fn one_that_joins_begins_no_cluster() {
    let planned = Planned::with(&list(&["m1", "m4"], "join = true\n"));
    assert_eq!(planned.flag("etcd", "initial-cluster-state").as_deref(), Some("existing"));
    assert!(!planned.0.contains_key(PLACED));
    let member = &planned.json("/run/kscratch/steward.json")["member"];
    assert_eq!(member["join"], true);
    assert_eq!(
        member["others"],
        json!([{ "client": "https://192.168.7.13:2379", "peer": "https://192.168.7.13:2380" }])
    );
    // What is not there before etcd has begun: the directory above it is made by one that fails, too.
    assert_eq!(member["data"], "/var/lib/etcd/member/wal");
}
