//! Lists the leaf certificates of a master (R7): who each is for, what it may do, where it stands. The agent makes and renews them.
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::{Component, Master, kubernetes_service};
use crate::plan::CLIENT;
use crate::plan::cluster::{ADDRESS, IDENTITIES};

/// Certificate and key that the kubelet serves with, which the cluster signs.
const SERVING: &str = "/var/lib/kubelet/pki/kubelet-server-current.pem";

/// Life of a certificate, as kubeadm has it.
const DAYS: u32 = 365;

/// The file for `kscratch-agent certificates`.
pub(super) fn wanted(master: &Master<'_>) -> Value {
    let authority = |name: &str| {
        let path = |ending: &str| format!("/var/lib/kubernetes/authorities/{name}.{ending}");
        json!({ "certificate": path("crt"), "key": path("key") })
    };
    let node = format!("system:node:{}", master.name);
    let mut certificates = api_server(master);
    certificates.extend(etcd(master));
    certificates.extend([
        client(Component::ControllerManager.directory(), "client", "system:kube-controller-manager", &[], 902),
        client(Component::Scheduler.directory(), "client", "system:kube-scheduler", &[], 903),
        // Before any role binding exists only this group may make one.
        client("/var/lib/kubernetes/steward".into(), "client", "kscratch-steward", &["system:masters"], 0),
        // The kubelet's first one; it has it renewed by the cluster afterwards, as every node does.
        client("/var/lib/kubernetes/kubelet".into(), "client", &node, &["system:nodes"], 0),
    ]);
    let address = master.control_plane.virtual_address.map(|_| ADDRESS);
    certificates.extend(IDENTITIES.into_iter().chain(address).map(|identity| {
        client(
            format!("/var/lib/kubernetes/{}", identity.name),
            "client",
            identity.common_name,
            identity.organizations,
            identity.owner,
        )
    }));
    let discard = [CLIENT, SERVING].map(|file| json!({ "file": file, "common_name": node, "authority": "cluster" }));
    json!({
        "authorities": {
            "cluster": authority("cluster"),
            "etcd": authority("etcd"),
            "front-proxy": authority("front-proxy"),
        },
        "certificates": certificates,
        // The kubelet would hold on to them. Without the first, it takes the one above; without the second, it asks for another.
        "discard": discard,
    })
}

fn api_server(master: &Master<'_>) -> Vec<Value> {
    let component = Component::ApiServer;
    let (directory, user) = (component.directory(), component.user());
    let (names, addresses) = api_server_names(master);
    let with = |mut certificate: Value, authority: &str| {
        certificate["authority"] = json!(authority);
        certificate
    };
    let mut server = client(directory.clone(), "apiserver", "kube-apiserver", &[], user);
    server["usages"] = json!(["server"]);
    server["dns_names"] = json!(names);
    server["addresses"] = json!(addresses);
    vec![
        server,
        client(directory.clone(), "kubelet-client", "kube-apiserver-kubelet-client", &[], user),
        with(client(directory.clone(), "front-proxy-client", "front-proxy-client", &[], user), "front-proxy"),
        with(client(directory, "etcd-client", "kube-apiserver-etcd-client", &[], user), "etcd"),
    ]
}

/// All names and addresses under which the API server is spoken to: by pods, by nodes, by people, by itself.
fn api_server_names(master: &Master<'_>) -> (BTreeSet<String>, BTreeSet<Ipv4Addr>) {
    let cluster = master.cluster;
    let mut names: BTreeSet<String> =
        ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", master.name]
            .map(str::to_owned)
            .into();
    names.insert(format!("kubernetes.default.svc.{}", cluster.dns_domain));
    let mut addresses =
        BTreeSet::from([kubernetes_service(cluster.service_range), master.address, Ipv4Addr::LOCALHOST]);
    // Where the endpoint is a name, this is what it leads to.
    addresses.extend(master.control_plane.virtual_address);
    let endpoint = cluster.endpoint.iter().map(|endpoint| &endpoint.host);
    for host in endpoint.chain(&master.control_plane.names) {
        match host.parse() {
            Ok(address) => _ = addresses.insert(address),
            Err(_) => _ = names.insert(host.clone()),
        }
    }
    (names, addresses)
}

/// Members prove themselves to each other both ways, so each certificate serves and asks.
fn etcd(master: &Master<'_>) -> Vec<Value> {
    let component = Component::Etcd;
    let mut addresses = BTreeSet::from([Ipv4Addr::LOCALHOST]);
    if master.is_listed() {
        addresses.insert(master.address);
    }
    ["server", "peer"]
        .map(|name| {
            let mut certificate = client(component.directory(), name, master.name, &[], component.user());
            certificate["authority"] = json!("etcd");
            certificate["usages"] = json!(["server", "client"]);
            certificate["dns_names"] = json!(BTreeSet::from(["localhost", master.name]));
            certificate["addresses"] = json!(addresses);
            certificate
        })
        .into()
}

/// A certificate of the cluster's CA for a client.
fn client(directory: String, file: &str, common_name: &str, organizations: &[&str], owner: u32) -> Value {
    json!({
        "certificate": format!("{directory}/{file}.crt"),
        "key": format!("{directory}/{file}.key"),
        "authority": "cluster",
        "common_name": common_name,
        "organizations": organizations,
        "dns_names": [],
        "addresses": [],
        "usages": ["client"],
        "days": DAYS,
        "owner": owner,
    })
}
