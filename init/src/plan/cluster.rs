//! Plans what every machine of a cluster has: the files by which its kubelet, its kube-proxy and its agents know the API server and themselves.
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use kscratch_metadata::{Cluster, Mode, Role, RoleMetadata};
use serde_json::{Value, json};

use super::membership::{self, CLIENT, Membership};
use super::{Step, controlplane, identity, kubelet, kubeproxy, services};
use crate::facts::Facts;

/// Group whose members may read the nodes, and nothing else.
pub(super) const ROUTES_GROUP: &str = "kscratch:routes";
/// Group whose members may keep the lease of the address that masters share, and nothing else.
pub(super) const ADDRESS_GROUP: &str = "kscratch:address";
/// Where the agent writes what the cluster has this machine do.
pub const ORDERS: &str = "/run/kscratch/orders";
/// The file in there.
pub const ORDER: &str = "order";
/// Where the agent writes this machine's pod range once the cluster has given it.
pub const POD_RANGE: &str = "/run/kscratch/routes/pod-range";
/// User and group of the service `routes`. The control plane's are below (`Component::user`).
pub(super) const ROUTES_USER: u32 = 905;
/// The nodes of the cluster as `routes` knew them last. On state.
pub const REMEMBERED_NODES: &str = "/var/lib/kscratch/routes/nodes.json";
/// User and group of the service `address`.
pub(super) const ADDRESS_USER: u32 = 906;

/// Who a program of the machine is to the API server, besides the kubelet: each its own, with no more rights than it needs.
pub(super) struct Identity {
    /// Names its directory below `/var/lib/kubernetes`.
    pub name: &'static str,
    pub common_name: &'static str,
    pub organizations: &'static [&'static str],
    /// User and group of the program, who alone reads the key.
    pub owner: u32,
}

impl Identity {
    /// A file of it.
    pub fn file(&self, name: &str) -> String {
        format!("/var/lib/kubernetes/{}/{name}", self.name)
    }
}

const KUBE_PROXY: Identity =
    // Kubernetes itself binds this user to the role `system:node-proxier`.
    Identity { name: "kube-proxy", common_name: "system:kube-proxy", organizations: &[], owner: 0 };
const ROUTES: Identity =
    Identity { name: "routes", common_name: ROUTES_GROUP, organizations: &[ROUTES_GROUP], owner: ROUTES_USER };
/// Of masters that share an address. It is issued on the spot; no node gets it for its asking.
pub(super) const ADDRESS: Identity =
    Identity { name: "address", common_name: ADDRESS_GROUP, organizations: &[ADDRESS_GROUP], owner: ADDRESS_USER };

/// On a master they are issued on the spot, on a node the cluster signs them.
pub(super) const IDENTITIES: [Identity; 2] = [KUBE_PROXY, ROUTES];

/// A machine and its place, for the files here.
pub(super) struct Place<'a> {
    /// Name of the node.
    pub name: &'a str,
    /// Link to the other machines, and this machine's address on it.
    pub uplink: Option<(&'a str, Ipv4Addr)>,
    /// MTU of pods, and of the overlay that carries them.
    pub mtu: u32,
}

/// Where programs of this machine find the API server: on a master its own, so that it needs nobody else.
fn server(metadata: &RoleMetadata, cluster: &Cluster) -> Option<String> {
    match metadata.role {
        Role::Master => Some(controlplane::LOCAL_SERVER.to_owned()),
        Role::Node => cluster.endpoint.as_ref().map(|endpoint| format!("https://{endpoint}")),
    }
}

/// All files but the control plane's.
pub(super) fn files(
    metadata: &RoleMetadata,
    facts: &Facts,
    place: &Place<'_>,
    membership: Option<&Membership>,
) -> Vec<Step> {
    let Some(cluster) = &metadata.cluster else {
        return Vec::new();
    };
    let (Some(ca), Some(server)) = (&cluster.ca, server(metadata, cluster)) else {
        return Vec::new();
    };
    let mut steps =
        vec![Step::File { path: kubelet::CA.to_owned(), contents: ca.clone().into_bytes(), mode: 0o644, owner: 0 }];
    let directory = |path: &str, mode: u32, owner: u32| Step::Directory { path: path.to_owned(), mode, owner };
    steps.push(directory("/run/kscratch/ready", 0o700, 0));
    steps.push(directory(ORDERS, 0o700, 0));
    steps.push(directory("/run/kscratch/routes", 0o755, ROUTES_USER));
    steps.push(directory("/var/lib/kscratch/routes", 0o700, ROUTES_USER));
    // Root's, so that no program changes its own certificate; it gets through to its files all the same.
    steps.extend(IDENTITIES.map(|identity| directory(&format!("/var/lib/kubernetes/{}", identity.name), 0o711, 0)));
    steps.push(json_file(kubeproxy::CONFIG, &kubeproxy::config(cluster, metadata.network.proxy_mode, place.name)));
    let proxy =
        kubeconfig(&server, kubelet::CA, "kube-proxy", &KUBE_PROXY.file("client.crt"), &KUBE_PROXY.file("client.key"));
    steps.push(json_file(kubeproxy::KUBECONFIG, &proxy));
    if let Some(membership) = membership {
        // First of what the kubelet has: its kubeconfig names the certificate.
        steps.extend(identity::passed_over(metadata, facts).map(Step::Note));
        steps.extend(membership.steps(place.name));
        steps.push(json_file(services::IDENTITIES, &identities(metadata, facts, &server, place.name)));
    }
    steps.extend(kubelet_files(metadata, cluster, membership.is_some_and(|node| node.joined), &server, ca));
    if let Some((link, address)) = place.uplink {
        let routes = routes(metadata, cluster, &server, place, link, address);
        steps.push(json_file(services::ROUTES, &routes));
    }
    steps
}

/// The kubelet's kubeconfigs: the one for the first contact, and the one that it joined with. That names the kubelet's own file of
/// certificate and key, and is written anew at every boot: an endpoint that was changed in the metadata is taken up.
fn kubelet_files(metadata: &RoleMetadata, cluster: &Cluster, joined: bool, server: &str, ca: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let own = |certificate: &str, key: &str| {
        json_file(kubelet::KUBECONFIG, &kubeconfig(server, kubelet::CA, "kubelet", certificate, key))
    };
    match metadata.role {
        Role::Master => {
            let file = |ending: &str| format!("/var/lib/kubernetes/kubelet/client.{ending}");
            steps.push(own(&file("crt"), &file("key")));
        }
        Role::Node => {
            if joined {
                steps.push(own(CLIENT, CLIENT));
            }
            if let Some(token) = &metadata.join.token {
                let bootstrap = kubelet::bootstrap(&cluster.name, server, ca, token);
                steps.push(private_json_file(kubelet::BOOTSTRAP, &bootstrap));
            }
        }
    }
    steps
}

/// A kubeconfig (client-go `clientcmd/api/v1`) that holds no secret, only the paths of files that do.
pub(super) fn kubeconfig(server: &str, ca: &str, user: &str, certificate: &str, key: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "cluster", "cluster": { "server": server, "certificate-authority": ca } }],
        "users": [{ "name": user, "user": { "client-certificate": certificate, "client-key": key } }],
        "contexts": [{ "name": "context", "context": { "cluster": "cluster", "user": user } }],
        "current-context": "context",
    })
}

fn identities(metadata: &RoleMetadata, facts: &Facts, server: &str, name: &str) -> Value {
    let wanted = IDENTITIES.map(|identity| {
        json!({
            "name": identity.name,
            "common_name": identity.common_name,
            "organizations": identity.organizations,
            "certificate": identity.file("client.crt"),
            "key": identity.file("client.key"),
            "owner": identity.owner,
        })
    });
    json!({
        "server": server,
        "authority": kubelet::CA,
        "kubelet": CLIENT,
        "bootstrap": metadata.join.token.as_ref().map(|_| kubelet::BOOTSTRAP),
        "node": name,
        "earlier": membership::earlier(metadata, facts, name),
        "remembered": membership::REMEMBERED_NAME,
        "register": kubelet::registration(metadata, name),
        "identities": wanted,
        "orders": orders(name, true),
        "ready": services::IDENTITIES_READY,
    })
}

/// What `identities` and `steward` read of that.
pub(super) fn orders(name: &str, resets: bool) -> Value {
    json!({ "node": name, "place": format!("{ORDERS}/{ORDER}"), "resets": resets })
}

fn routes(
    metadata: &RoleMetadata,
    cluster: &Cluster,
    server: &str,
    place: &Place<'_>,
    link: &str,
    address: Ipv4Addr,
) -> Value {
    json!({
        "server": server,
        "authority": kubelet::CA,
        "certificate": ROUTES.file("client.crt"),
        "key": ROUTES.file("client.key"),
        "node": place.name,
        "mode": match metadata.network.mode {
            Mode::Routed => "routed",
            Mode::Overlay => "overlay",
        },
        "cluster_pod_range": cluster.pod_range.to_string(),
        "link": link,
        "address": address.to_string(),
        "pod_range_file": POD_RANGE,
        "state": REMEMBERED_NODES,
        "mtu": place.mtu,
    })
}

/// The pod range that the cluster gave this machine, out of the agent's file.
///
/// # Errors
/// It is no range, or one that is not the cluster's to give.
pub fn read_pod_range(text: &str, cluster: &Cluster) -> Result<Ipv4Net, String> {
    let text = text.trim();
    let range: Ipv4Net = text.parse().map_err(|_| format!("{text:?} is no range of addresses"))?;
    if !cluster.pod_range.contains(&range) {
        return Err(format!("{range} lies outside the cluster's pods, {}", cluster.pod_range));
    }
    // Docker's quarter of a smaller one would have no address left.
    if range.prefix_len() > 28 || range != range.trunc() {
        return Err(format!("{range} cannot be a node's range; it takes a whole one of at most /28"));
    }
    Ok(range)
}

/// Paths and names alone: no secret.
fn json_file(path: &str, value: &Value) -> Step {
    Step::File { path: path.to_owned(), contents: format!("{value:#}\n").into_bytes(), mode: 0o644, owner: 0 }
}

fn private_json_file(path: &str, value: &Value) -> Step {
    Step::File { path: path.to_owned(), contents: format!("{value:#}\n").into_bytes(), mode: 0o600, owner: 0 }
}
