//! Plans a master: the files, certificates, static pods and cluster objects that make the control plane on it.
//!
//! Every component has a user and a directory of its own with exactly the files it needs; nothing of another's can be read by it.
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use kscratch_metadata::{Cluster, ControlPlane, ControlPlaneSecrets, JOINERS, RoleMetadata};
use serde_json::Value;

use super::cluster::{ADDRESS, ADDRESS_USER};
use super::{Step, services};
use crate::facts::Release;

mod addons;
mod certificates;
mod coredns;
mod pods;
mod policies;
#[cfg(test)]
pub(super) mod tests;

/// Port of the API server on its master. An endpoint may name another one: that of a load balancer before it.
pub(super) const API_PORT: u16 = 6443;
/// What the service `address` writes is here.
const ADDRESS_RUN: &str = "/run/kscratch/address";
/// The lease whose holder has the address that masters share.
const LEASE: (&str, &str) = ("kube-system", "kscratch-endpoint");
/// Where the API server is for programs of the same machine.
pub(super) const LOCAL_SERVER: &str = "https://127.0.0.1:6443";
/// What the agent makes true, at boot and then every hour.
pub(super) const CERTIFICATES: &str = "/run/kscratch/certificates.json";
/// etcd's log of what it writes: it comes whole, for etcd makes it under another name.
pub const ETCD_WAL: &str = "/var/lib/etcd/member/wal";
/// The authority of etcd's members, which they and their clients are held against.
pub const ETCD_CA: &str = "/var/lib/kubernetes/etcd/ca.crt";
/// The same among etcd's data, where those have a disk of their own: state, and the copy there, may be another one at the next boot.
pub const ETCD_DATA_CA: &str = "/var/lib/etcd/kscratch-ca.crt";
/// Static pods that the steward puts among the kubelet's when it is time.
const PLANNED: &str = "/run/kscratch/controlplane";
/// Objects that the steward keeps in the cluster.
const ADDONS: &str = "/run/kscratch/addons";
/// What this machine's CoreDNS asks for names outside of the cluster is here.
const UPSTREAM_FOLDER: &str = "/run/kscratch/coredns";
/// The file of that: a lease that comes later says something else.
pub const UPSTREAM: &str = "/run/kscratch/coredns/upstream.conf";

/// A part of the control plane that runs in a static pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Component {
    Etcd,
    ApiServer,
    ControllerManager,
    Scheduler,
}

impl Component {
    const ALL: [Self; 4] = [Self::Etcd, Self::ApiServer, Self::ControllerManager, Self::Scheduler];

    /// Name of its program, its pod and, in the release file, its image.
    fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
        }
    }

    /// User and group that it runs as.
    fn user(self) -> u32 {
        match self {
            Self::ApiServer => 901,
            Self::ControllerManager => 902,
            Self::Scheduler => 903,
            Self::Etcd => 904,
        }
    }

    /// Its own directory, on state.
    fn directory(self) -> String {
        format!("/var/lib/kubernetes/{}", self.name())
    }

    /// A file in that.
    fn file(self, name: &str) -> String {
        format!("{}/{name}", self.directory())
    }
}

/// All that the control plane's files are made from.
pub(super) struct Master<'a> {
    /// Ranges and names of the cluster.
    pub cluster: &'a Cluster,
    /// The certificate of the cluster's CA.
    pub ca: &'a str,
    /// This master's settings.
    pub control_plane: &'a ControlPlane,
    /// The cluster's secrets.
    pub secrets: &'a ControlPlaneSecrets,
    /// What is in this machine's image: Kubernetes' version, and references of the images by component.
    pub release: &'a Release,
    /// Name of this node.
    pub name: &'a str,
    /// Its link to the other machines.
    pub link: &'a str,
    /// Its address on that.
    pub address: Ipv4Addr,
    /// Name servers that names outside the cluster can be asked of.
    pub upstream: Vec<Ipv4Addr>,
    /// Its Node, where the steward makes it.
    registration: Option<Value>,
}

impl<'a> Master<'a> {
    /// The master that metadata makes of a machine; `None` where the metadata lacks its identity.
    pub fn of(
        metadata: &'a RoleMetadata,
        release: &'a Release,
        name: &'a str,
        (link, address): (&'a str, Ipv4Addr),
        upstream: Vec<Ipv4Addr>,
    ) -> Option<Self> {
        let cluster = metadata.cluster.as_ref()?;
        let control_plane = metadata.control_plane.as_ref()?;
        let (ca, secrets) = (cluster.ca.as_deref()?, control_plane.secrets.as_ref()?);
        let registration = super::kubelet::registration(metadata, name);
        Some(Self { cluster, ca, control_plane, secrets, release, name, link, address, upstream, registration })
    }

    /// The image of a component. The plan has looked for all of them before.
    fn image(&self, name: &str) -> &str {
        self.release.images.get(name).map_or("", String::as_str)
    }

    /// Names of the images that a master's image must bring.
    pub fn needed_images() -> impl Iterator<Item = &'static str> {
        Component::ALL.into_iter().map(Component::name).chain(["coredns"])
    }

    /// Whether etcd has other members than this machine's, or may have them one day: then it is where the metadata's list says.
    fn is_listed(&self) -> bool {
        !self.control_plane.etcd.members.is_empty()
    }
}

/// The first address of the service range: that of the service `kubernetes`, by which pods reach the API server.
fn kubernetes_service(range: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(range.network()).saturating_add(1))
}

/// What says whose etcd's data are, among them.
pub(super) fn data_ca(master: &Master<'_>) -> Step {
    open(ETCD_DATA_CA.into(), &master.secrets.etcd_ca, Component::Etcd.user())
}

/// Everything in files, but the static pods ([`manifests`]).
pub(super) fn files(master: &Master<'_>, manifests: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = ["authorities", "steward", "kubelet", "admin"]
        .into_iter()
        .map(|name| directory(format!("/var/lib/kubernetes/{name}"), 0))
        .collect();
    steps.extend(Component::ALL.into_iter().map(|component| directory(component.directory(), component.user())));
    steps.push(directory("/var/lib/etcd".into(), Component::Etcd.user()));
    steps.push(directory(pods::AUDIT_LOGS.into(), Component::ApiServer.user()));
    steps.extend(authorities(master));
    steps.extend(api_server_files(master));
    steps.extend(controller_manager_files(master));
    let scheduler = Component::Scheduler;
    steps.push(kubeconfig(scheduler, "system:kube-scheduler"));
    steps.push(open(scheduler.file("ca.crt"), master.ca, scheduler.user()));
    steps.push(open(ETCD_CA.into(), &master.secrets.etcd_ca, Component::Etcd.user()));
    steps.push(open(CERTIFICATES.into(), &format!("{:#}\n", certificates::wanted(master)), 0));
    steps.push(Step::Directory { path: ADDONS.into(), mode: 0o700, owner: 0 });
    for (name, objects) in addons::objects(master) {
        steps.push(private_json(format!("{ADDONS}/{name}.json"), &objects, 0));
    }
    steps.push(Step::Prune { path: ADDONS.into() });
    steps.push(Step::Directory { path: UPSTREAM_FOLDER.into(), mode: 0o755, owner: 0 });
    steps.push(open(UPSTREAM.into(), &coredns::upstream(&master.upstream), 0));
    if let Some(shared) = master.control_plane.virtual_address {
        let identity = format!("/var/lib/kubernetes/{}", ADDRESS.name);
        steps.push(Step::Directory { path: identity, mode: 0o711, owner: 0 });
        steps.push(Step::Directory { path: ADDRESS_RUN.into(), mode: 0o755, owner: ADDRESS_USER });
        steps.push(open(services::ADDRESS.into(), &format!("{:#}\n", address(master, shared)), 0));
    }
    for component in Component::ALL.into_iter().filter(|component| is_placed_later(*component, master)) {
        steps.push(private_json(planned(component), &pods::pod(component, master), 0));
    }
    steps.push(open("/run/kscratch/steward.json".into(), &format!("{:#}\n", steward(master, manifests)), 0));
    steps
}

/// The static pods that the kubelet finds from the start, each in a file of its directory.
pub(super) fn manifests(master: &Master<'_>, directory: &str) -> Vec<Step> {
    let of = |component: Component| (component.name(), pods::pod(component, master));
    Component::ALL
        .into_iter()
        .filter(|component| !is_placed_later(*component, master))
        .map(of)
        .map(|(name, pod)| private_json(format!("{directory}/{name}.json"), &pod, 0))
        .collect()
}

/// Whether the steward places a component's pod: etcd's where it is listed, for the others may know this member already, and all that need another
/// one to serve.
fn is_placed_later(component: Component, master: &Master<'_>) -> bool {
    component != Component::Etcd || master.is_listed()
}

/// Where a pod that is placed later lies until then.
fn planned(component: Component) -> String {
    format!("{PLANNED}/{}.json", component.name())
}

/// What waits for what.
fn waiting(manifests: &str) -> [Value; 3] {
    [
        (Component::ApiServer, "etcd"),
        (Component::ControllerManager, "api-server"),
        (Component::Scheduler, "api-server"),
    ]
    .map(|(component, after)| {
        let place = format!("{manifests}/{}.json", component.name());
        serde_json::json!({ "name": component.name(), "after": after, "manifest": planned(component), "place": place })
    })
}

/// The CAs, for whoever issues certificates on this machine: root alone.
fn authorities(master: &Master<'_>) -> Vec<Step> {
    let secrets = master.secrets;
    let all = [
        ("cluster", master.ca, &secrets.ca_key),
        ("etcd", secrets.etcd_ca.as_str(), &secrets.etcd_ca_key),
        ("front-proxy", secrets.front_proxy_ca.as_str(), &secrets.front_proxy_ca_key),
    ];
    let files = all.into_iter().flat_map(|(name, certificate, key)| {
        let path = |ending: &str| format!("/var/lib/kubernetes/authorities/{name}.{ending}");
        [open(path("crt"), certificate, 0), private(path("key"), key.expose(), 0)]
    });
    files.collect()
}

fn api_server_files(master: &Master<'_>) -> Vec<Step> {
    let (component, secrets) = (Component::ApiServer, master.secrets);
    let (file, user) = (|name: &str| component.file(name), component.user());
    vec![
        open(file("ca.crt"), master.ca, user),
        open(file("etcd-ca.crt"), &secrets.etcd_ca, user),
        open(file("front-proxy-ca.crt"), &secrets.front_proxy_ca, user),
        private(file("service-account.key"), secrets.service_account_key.expose(), user),
        open(file("service-account.pub"), &secrets.service_account_public_key, user),
        private_json(file("encryption.json"), &policies::encryption(&secrets.encryption_key), user),
        private_json(file("authentication.json"), &policies::authentication(), user),
        private_json(file("audit-policy.json"), &policies::audit(), user),
    ]
}

fn controller_manager_files(master: &Master<'_>) -> Vec<Step> {
    let (component, secrets) = (Component::ControllerManager, master.secrets);
    let (file, user) = (|name: &str| component.file(name), component.user());
    vec![
        kubeconfig(component, "system:kube-controller-manager"),
        open(file("ca.crt"), master.ca, user),
        open(file("signing.crt"), first_certificate(master.ca), user),
        private(file("ca.key"), secrets.ca_key.expose(), user),
        open(file("front-proxy-ca.crt"), &secrets.front_proxy_ca, user),
        private(file("service-account.key"), secrets.service_account_key.expose(), user),
    ]
}

/// The one that signs, where others are believed besides while a CA is replaced: kube-controller-manager refuses a file with two.
fn first_certificate(ca: &str) -> &str {
    const END: &str = "-----END CERTIFICATE-----\n";
    ca.find(END).map_or(ca, |at| &ca[..at + END.len()])
}

/// A kubeconfig that names files: programs read those again when they change, so that a renewed certificate needs no restart
/// (client-go, `transport/cert_rotation.go`).
fn kubeconfig(component: Component, user: &str) -> Step {
    let file = |name: &str| component.file(name);
    let config =
        super::cluster::kubeconfig(LOCAL_SERVER, &file("ca.crt"), user, &file("client.crt"), &file("client.key"));
    private_json(file("kubeconfig.json"), &config, component.user())
}

/// The masters of the cluster, as far as this one's metadata names them, and where they are.
fn masters<'a>(master: &Master<'a>) -> BTreeMap<&'a str, Ipv4Addr> {
    let listed = master.control_plane.etcd.members.iter().map(|(name, address)| (name.as_str(), *address));
    listed.chain([(master.name, master.address)]).collect()
}

fn steward(master: &Master<'_>, manifests: &str) -> Value {
    let etcd = &master.control_plane.etcd;
    let others = etcd.members.values().filter(|address| **address != master.address);
    let others: Vec<Value> = others
        .map(|address| serde_json::json!({ "client": pods::client_url(*address), "peer": pods::peer_url(*address) }))
        .collect();
    let authority = "/var/lib/kubernetes/authorities/cluster.crt";
    let endpoint = master.cluster.endpoint.as_ref();
    let endpoint =
        endpoint.map(|endpoint| serde_json::json!({ "server": format!("https://{endpoint}"), "authority": authority }));
    let file = |name: &str| Component::ApiServer.file(name);
    let member = master.is_listed().then(|| {
        serde_json::json!({
            "name": master.name,
            "peer_url": pods::peer_url(master.address),
            "join": etcd.join,
            "data": ETCD_WAL,
            "local": pods::client_url(Ipv4Addr::LOCALHOST),
            "others": others,
            "endpoint": endpoint,
            "authority": file("etcd-ca.crt"),
            "certificate": file("etcd-client.crt"),
            "key": file("etcd-client.key"),
            "manifest": planned(Component::Etcd),
            "place": format!("{manifests}/etcd.json"),
        })
    });
    serde_json::json!({
        "server": LOCAL_SERVER,
        "authority": authority,
        "certificate": "/var/lib/kubernetes/steward/client.crt",
        "key": "/var/lib/kubernetes/steward/client.key",
        "objects": ADDONS,
        "certificates": CERTIFICATES,
        "approve": super::cluster::IDENTITIES.map(|identity| serde_json::json!({
            "common_name": identity.common_name,
            "organizations": identity.organizations,
        })),
        "joiners": JOINERS,
        "release": master.release.kubernetes,
        "ranges": [master.cluster.service_range, master.cluster.pod_range],
        "masters": masters(master),
        "etcd": pods::ETCD_HEALTH,
        "pods": waiting(manifests),
        "ready": services::STEWARD_READY,
        "register": master.registration,
        "orders": super::cluster::orders(master.name, false),
        "member": member,
    })
}

/// By its own API server: one that does not reach most of etcd keeps no address.
fn address(master: &Master<'_>, shared: Ipv4Addr) -> Value {
    let (namespace, lease) = LEASE;
    serde_json::json!({
        "server": LOCAL_SERVER,
        "authority": super::kubelet::CA,
        "certificate": ADDRESS.file("client.crt"),
        "key": ADDRESS.file("client.key"),
        "node": master.name,
        "namespace": namespace,
        "lease": lease,
        "link": master.link,
        "address": shared.to_string(),
        "ready": services::ADDRESS_READY,
    })
}

fn directory(path: String, owner: u32) -> Step {
    Step::Directory { path, mode: 0o700, owner }
}

/// Of no secrecy, in a directory that only its owner enters.
fn open(path: String, text: &str, owner: u32) -> Step {
    Step::File { path, contents: text.as_bytes().to_vec(), mode: 0o644, owner }
}

fn private(path: String, text: &str, owner: u32) -> Step {
    Step::File { path, contents: text.as_bytes().to_vec(), mode: 0o600, owner }
}

fn private_json(path: String, value: &Value, owner: u32) -> Step {
    private(path, &format!("{value:#}\n"), owner)
}
