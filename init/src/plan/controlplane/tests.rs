//! The master's whole plan per Kubernetes minor, and every object in it held against Kubernetes' own types.
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use expect_test::expect_file;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kscratch_metadata::{RoleMetadata, parse};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{ADDONS, Component, Master, UPSTREAM, addons, certificates, pods};
use crate::facts::{Facts, Link, Release};
use crate::plan::tests::OTHER;
use crate::plan::{PlanError, Step, node};

mod members;

const CA: &str = include_str!("../../../metadata/tests/ca.pem");
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
/// Link and address of the master.
const OWN: (&str, Ipv4Addr) = ("eth0", Ipv4Addr::new(192, 168, 7, 10));
const SECRETS: &str = "ca_key service_account_key etcd_ca_key front_proxy_ca_key";

pub(crate) fn metadata(more: &str) -> RoleMetadata {
    let keys: String = SECRETS.split(' ').map(|name| format!("{name} = '''\n{KEY}'''\n")).collect();
    let text = format!(
        "version = 1\nrole = \"master\"\n[cluster]\nname = \"lab\"\nendpoint = \"api.lab:8443\"\nca = '''\n{CA}'''\n\
         [control_plane.secrets]\n{keys}etcd_ca = '''\n{CA}'''\nfront_proxy_ca = '''\n{CA}'''\n\
         service_account_public_key = '''\n-----BEGIN PUBLIC KEY-----\nMAMCAQA=\n-----END PUBLIC KEY-----\n'''\n\
         encryption_key = \"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\"\n\
         tokens = [{{ token = \"abcdef.0123456789abcdef\", expires = \"2027-01-01T00:00:00Z\" }}]\n\
         [node]\nname = \"m1\"\n{more}"
    );
    parse(&text).unwrap_or_else(|errors| panic!("{errors}"))
}

pub(crate) fn facts(kubernetes: &str) -> Facts {
    let link = Link {
        mac: [0x52, 0x54, 0, 0, 0, 1],
        mtu: 1500,
        addresses: vec!["192.168.7.10/24".parse().unwrap()],
        default_route: true,
    };
    let image = |name: &str, tag: &str| (name.to_owned(), format!("registry.k8s.io/{name}:{tag}"));
    let tag = format!("v{kubernetes}");
    Facts {
        links: BTreeMap::from([("eth0".to_owned(), link)]),
        made: BTreeMap::new(),
        release: Release {
            kubernetes: kubernetes.to_owned(),
            cri_dockerd: "0.4.3".to_owned(),
            docker: "26.1.5+dfsg1-9".to_owned(),
            kernel: "6.12.48+deb13-cloud-amd64".to_owned(),
            kscratch: "0.1.0".to_owned(),
            role: "master".to_owned(),
            pause_image: "kscratch.local/pause:1".to_owned(),
            images: BTreeMap::from([
                image("etcd", "3.7.3-0"),
                image("kube-apiserver", &tag),
                image("kube-controller-manager", &tag),
                image("kube-scheduler", &tag),
                image("coredns", "v1.14.7"),
            ]),
        },
        manifests: BTreeMap::new(),
        machine_id: "0123456789abcdef0123456789abcdef".to_owned(),
        leased: BTreeMap::new(),
        leased6: BTreeMap::new(),
        dns_servers: vec![Ipv4Addr::new(192, 168, 7, 1)],
        dns_search: Vec::new(),
        dhcp_hostname: None,
        memory: 2 << 30,
        lasting: true,
        joined: false,
        etcd_ca: None,
        etcd_disk: None,
        cluster_ca: None,
        node_name: None,
        put_aside: BTreeSet::new(),
        aside: Default::default(),
        pod_range: None,
    }
}

/// Every file of a plan by path, private ones too.
fn files(metadata: &RoleMetadata, facts: &Facts) -> BTreeMap<String, String> {
    let plan = node(metadata, facts).unwrap();
    let steps = plan.phases.into_iter().flat_map(|phase| phase.steps);
    let file = |step| match step {
        Step::File { path, contents, .. } => Some((path, String::from_utf8(contents).unwrap())),
        _ => None,
    };
    steps.filter_map(file).collect()
}

/// The plan, and the private files that the plan's own text does not show and that hold no secret.
fn whole(metadata: &RoleMetadata, facts: &Facts) -> String {
    let mut text = node(metadata, facts).unwrap().to_string();
    for (path, contents) in files(metadata, facts) {
        let shown = ["/manifests/", "/controlplane/", "10-access", "30-coredns", "40-node"];
        if path.ends_with(".json") && shown.iter().any(|part| path.contains(part)) {
            text.push_str(&format!("--- {path}\n{contents}"));
        }
    }
    text
}

#[test]
fn a_master_of_each_kubernetes() {
    for (version, minor) in [("1.34.4", "1.34"), ("1.35.4", "1.35"), ("1.36.3", "1.36"), ("1.37.2", "1.37")] {
        let text = whole(&metadata(""), &facts(version));
        expect_file![format!("{}/src/plan/golden/master-{minor}.txt", env!("CARGO_MANIFEST_DIR"))].assert_eq(&text);
    }
}

/// Reads a value as a type of Kubernetes and writes it again: a field that the type does not have would be gone.
#[track_caller]
fn is<T: DeserializeOwned + Serialize>(value: &Value) {
    let typed: T = serde_json::from_value(value.clone()).unwrap();
    assert_eq!(&serde_json::to_value(&typed).unwrap(), value);
}

#[test]
fn every_object_is_what_kubernetes_calls_so() {
    let (metadata, facts) = (metadata("[control_plane]\nvirtual_address = \"192.168.7.5\"\n"), facts("1.37.2"));
    let master = Master::of(&metadata, &facts.release, "m1", OWN, facts.dns_servers.clone()).unwrap();
    for component in Component::ALL {
        is::<Pod>(&pods::pod(component, &master));
    }
    let lists = addons::objects(&master);
    assert_eq!(lists.len(), 4);
    for object in lists.iter().flat_map(|(_, list)| list["items"].as_array().unwrap()) {
        match object["kind"].as_str().unwrap() {
            "ClusterRole" => is::<ClusterRole>(object),
            "ClusterRoleBinding" => is::<ClusterRoleBinding>(object),
            "ConfigMap" => is::<ConfigMap>(object),
            "Deployment" => is::<Deployment>(object),
            "Node" => is::<Node>(object),
            "Role" => is::<Role>(object),
            "RoleBinding" => is::<RoleBinding>(object),
            "Secret" => is::<Secret>(object),
            "Service" => is::<Service>(object),
            "ServiceAccount" => is::<ServiceAccount>(object),
            other => panic!("{other} has no type here"),
        }
    }
}

#[test]
fn masters_share_an_address() {
    let more = "[control_plane]\nvirtual_address = \"192.168.7.5\"\n[network]\nmode = \"overlay\"\n";
    let (metadata, mut facts) = (metadata(more), facts("1.37.2"));
    // A plan that is made while the machine has the address is no other one, even where it stands first.
    let before = whole(&metadata, &facts);
    facts.links.get_mut("eth0").unwrap().addresses.insert(0, "192.168.7.5/32".parse().unwrap());
    assert_eq!(whole(&metadata, &facts), before);
    let all = files(&metadata, &facts);
    let want = json!({
        "server": "https://127.0.0.1:6443",
        "authority": "/run/kscratch/ca.crt",
        "certificate": "/var/lib/kubernetes/address/client.crt",
        "key": "/var/lib/kubernetes/address/client.key",
        "node": "m1",
        "namespace": "kube-system",
        "lease": "kscratch-endpoint",
        "link": "eth0",
        "address": "192.168.7.5",
        "ready": "/run/kscratch/address/ready",
    });
    let read = |path: &str| serde_json::from_str::<Value>(&all[path]).unwrap();
    assert_eq!(read("/run/kscratch/address.json"), want);
    let certificates = read("/run/kscratch/certificates.json");
    let of = |name: &str| {
        certificates["certificates"].as_array().unwrap().iter().find(|one| one["common_name"] == name).cloned().unwrap()
    };
    assert_eq!(of("kscratch:address")["organizations"], json!(["kscratch:address"]));
    assert_eq!(of("kube-apiserver")["addresses"], json!(["10.96.0.1", "127.0.0.1", "192.168.7.5", "192.168.7.10"]));
    // No node gets that for its asking.
    assert!(!all["/run/kscratch/steward.json"].contains("kscratch:address"));
    let plan = node(&metadata, &facts).unwrap().to_string();
    assert!(plan.contains("service address after steward\n    | /usr/lib/kscratch/agent\n    |   address\n"), "{plan}");
    let access = &all["/run/kscratch/addons/10-access.json"];
    assert_eq!(access.matches("\"kscratch-endpoint\"").count(), 1, "{access}");
}

/// Every text in a JSON value.
fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(all) => all.iter().flat_map(texts).collect(),
        Value::Object(all) => all.values().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn a_service_with_a_user_of_its_own_gets_to_what_its_file_names() {
    let metadata = metadata("[control_plane]\nvirtual_address = \"192.168.7.5\"\n");
    let plan = node(&metadata, &facts("1.37.2")).unwrap();
    let steps: Vec<&Step> = plan.phases.iter().flat_map(|phase| &phase.steps).collect();
    let (mut users, mut files, mut directories) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    for step in steps {
        match step {
            Step::Service(service) => users.extend(service.rights.as_ref().map(|rights| (service, rights.user))),
            Step::File { path, contents, mode, owner } => {
                files.insert(path.as_str(), (contents, *mode, *owner));
            }
            Step::Directory { path, mode, owner } => {
                directories.insert(path.as_str(), (*mode, *owner));
            }
            _ => {}
        }
    }
    // `inhibitor` has no such file: all that it has is a folder.
    users.retain(|(service, user)| *user != 0 && service.args.len() == 2);
    assert_eq!(users.iter().map(|(service, _)| service.name).collect::<Vec<_>>(), ["routes", "address"]);
    // It needs the API server of this machine to give the address back.
    assert_eq!(users.iter().map(|(service, _)| service.stops_first).collect::<Vec<_>>(), [false, true]);
    for (service, user) in users {
        let contract: Value = serde_json::from_slice(files[service.args[1].as_str()].0).unwrap();
        let named: Vec<&str> = texts(&contract).into_iter().filter(|text| text.starts_with('/')).collect();
        assert!(named.len() >= 4, "{named:?}");
        for path in named {
            let (name, parents) = (service.name, std::path::Path::new(path).ancestors().skip(1));
            for parent in parents.filter_map(|parent| parent.to_str()) {
                let through = directories.get(parent).is_none_or(|(mode, owner)| *owner == user || mode & 0o001 != 0);
                assert!(through, "{name} does not get through {parent} to {path}");
            }
            let reads = files.get(path).is_none_or(|(_, mode, owner)| *owner == user || mode & 0o004 != 0);
            assert!(reads, "{name} cannot read {path}");
        }
    }
}

#[test]
fn a_token_is_the_secret_that_the_builder_prints() {
    let (metadata, facts) = (metadata(""), facts("1.37.2"));
    let master = Master::of(&metadata, &facts.release, "m1", OWN, facts.dns_servers.clone()).unwrap();
    let lists = addons::objects(&master);
    let [token] = lists[1].1["items"].as_array().unwrap().as_slice() else { panic!("{lists:?}") };
    assert_eq!(*token, master.secrets.tokens[0].object());
    // Its group may ask for a node's certificate, and the steward approves that of no other.
    let access = lists[0].1["items"].as_array().unwrap();
    let join = access.iter().find(|one| one["metadata"]["name"] == "kscratch:join").unwrap();
    assert_eq!(join["subjects"][0]["name"], token["stringData"]["auth-extra-groups"]);
    let steward: Value = serde_json::from_str(&files(&metadata, &facts)["/run/kscratch/steward.json"]).unwrap();
    assert_eq!(steward["joiners"], token["stringData"]["auth-extra-groups"]);
}

#[test]
fn etcds_data_stay_in_their_cluster() {
    let (metadata, facts) = (metadata(""), facts("1.37.2"));
    let of = |ca: &str| node(&metadata, &Facts { etcd_ca: Some(ca.to_owned()), ..facts.clone() });
    let own = metadata.control_plane.as_ref().unwrap().secrets.as_ref().unwrap().etcd_ca.clone();
    assert_eq!(of(&own), node(&metadata, &facts));
    assert_eq!(of(OTHER), Err(PlanError::EtcdOfAnotherCluster));
    assert_eq!(of(&format!("{OTHER}{own}")), node(&metadata, &facts), "one that is about to change its CA has both");
    assert_eq!(of("damaged"), node(&metadata, &facts), "what cannot be read says nothing");
}

#[test]
fn etcd_does_not_begin_anew_beside_its_disk() {
    let named = metadata("[[disks]]\nfor = \"etcd\"\nserial = \"S1\"\n");
    let elsewhere = Facts { etcd_disk: Some("01010101-0101".to_owned()), ..facts("1.37.2") };
    let partition = "01010101-0101".to_owned();
    assert_eq!(node(&metadata(""), &elsewhere), Err(PlanError::EtcdElsewhere { partition }));
    // It is not mounted yet when the metadata are looked at first.
    node(&named, &elsewhere).unwrap();
    // Whose the data are is said beside them.
    const BESIDE: &str = "/var/lib/etcd/kscratch-ca.crt";
    assert_eq!(files(&named, &elsewhere)[BESIDE], CA);
    assert!(!files(&metadata(""), &facts("1.37.2")).contains_key(BESIDE));
}

#[test]
fn while_a_ca_is_replaced_the_first_signs_and_both_are_believed() {
    let mut metadata = metadata("");
    let ca = &mut metadata.cluster.as_mut().unwrap().ca;
    let own = ca.take().unwrap();
    let both = format!("{own}{OTHER}");
    *ca = Some(both.clone());
    let files = files(&metadata, &facts("1.37.2"));
    let file = |component: Component, name: &str| files[&component.file(name)].as_str();
    assert_eq!(file(Component::ControllerManager, "signing.crt"), own);
    assert_eq!(file(Component::ControllerManager, "ca.crt"), both);
    assert_eq!(file(Component::ApiServer, "ca.crt"), both);
}

#[test]
fn a_master_without_name_servers_says_so() {
    let note = |facts: &Facts| {
        let plan = node(&metadata(""), facts).unwrap();
        let steps = plan.phases.into_iter().flat_map(|phase| phase.steps);
        steps.filter(|step| matches!(step, Step::Note(text) if text.contains("network.dns_servers"))).count()
    };
    let facts = facts("1.37.2");
    assert_eq!(note(&facts), 0);
    assert_eq!(note(&Facts { dns_servers: Vec::new(), ..facts }), 1);
}

#[test]
fn whom_coredns_asks_each_machine_says_and_the_cluster_has_the_same_of_all_masters() {
    const OBJECTS: &str = "/run/kscratch/addons/30-coredns.json";
    let [two, one, none] = [vec![[192, 168, 7, 1], [9, 9, 9, 9]], vec![[192, 168, 8, 1]], vec![]].map(|servers| {
        let dns_servers = servers.into_iter().map(Ipv4Addr::from).collect();
        files(&metadata(""), &Facts { dns_servers, ..facts("1.37.2") })
    });
    assert!(two[OBJECTS] == one[OBJECTS] && two[OBJECTS] == none[OBJECTS]);
    assert!(two[OBJECTS].contains("import /run/kscratch/coredns/*.conf") && !two[OBJECTS].contains("forward"));
    assert_eq!(two[UPSTREAM], "forward . 192.168.7.1 9.9.9.9 {\n    max_concurrent 1000\n}\n");
    assert_eq!(one[UPSTREAM], "forward . 192.168.8.1 {\n    max_concurrent 1000\n}\n");
    assert!(none[UPSTREAM].starts_with("# ") && none[UPSTREAM].lines().count() == 1);
}

#[test]
fn what_a_master_lacks() {
    let mut facts = facts("1.37.2");
    let bare = parse("version = 1\nrole = \"master\"\n").unwrap();
    assert_eq!(node(&bare, &facts), Err(PlanError::NoIdentity));
    // The cluster's data are on the disk, whole, and others may be waiting for them.
    facts.lasting = false;
    for metadata in [bare, metadata("")] {
        assert_eq!(node(&metadata, &facts), Err(PlanError::NoState));
    }
    facts.lasting = true;
    facts.release.images.remove("etcd");
    assert_eq!(node(&metadata(""), &facts), Err(PlanError::NoImage { component: "etcd" }));
}

#[test]
fn names_and_addresses_of_the_api_server() {
    let metadata = metadata("[control_plane]\nnames = [\"10.9.9.9\", \"k.example.org\"]\n");
    let facts = facts("1.37.2");
    let master = Master::of(&metadata, &facts.release, "m1", OWN, facts.dns_servers.clone()).unwrap();
    let wanted = certificates::wanted(&master);
    let server = wanted["certificates"].as_array().unwrap().iter().find(|one| one["common_name"] == "kube-apiserver");
    let server = server.unwrap();
    assert_eq!(server["addresses"], serde_json::json!(["10.9.9.9", "10.96.0.1", "127.0.0.1", "192.168.7.10"]));
    let names = server["dns_names"].to_string();
    for name in ["api.lab", "k.example.org", "kubernetes.default.svc.cluster.local", "localhost", "\"m1\""] {
        assert!(names.contains(name), "{names}");
    }
}

#[test]
fn secrets_stand_in_private_files_alone() {
    let metadata = metadata("");
    let plan = node(&metadata, &facts("1.37.2")).unwrap();
    let text = format!("{plan}{plan:?}");
    for secret in ["MAA=", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=", "0123456789abcdef\""] {
        assert!(!text.contains(secret), "{text}");
        for step in plan.phases.iter().flat_map(|phase| &phase.steps) {
            if let Step::File { path, contents, mode, .. } = step
                && String::from_utf8_lossy(contents).contains(secret)
            {
                assert_eq!(*mode, 0o600, "{path}");
            }
        }
    }
    assert!(files(&metadata, &facts("1.37.2")).keys().any(|path| path.starts_with(ADDONS)));
}
