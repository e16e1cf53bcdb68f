//! The files that PID 1 renders for the agent, as types; an unknown field is refused.
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use ipnet::Ipv4Net;
use kscratch_pki::Usage;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Reads one of the files.
///
/// # Errors
/// It cannot be read, or says something else than its type.
pub fn read<T: DeserializeOwned>(file: &Path) -> Result<T> {
    let text = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("reading what {} says", file.display()))
}

/// `/run/kscratch/routes.json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Routes {
    /// The API server's URL.
    pub server: String,
    /// PEM file of the authorities that the API server's certificate is held against.
    pub authority: PathBuf,
    /// PEM file of the client certificate.
    pub certificate: PathBuf,
    /// PEM file of its key.
    pub key: PathBuf,
    /// This machine's Node.
    pub node: String,
    /// How packets get to the other machines.
    pub mode: Mode,
    /// The range that all pods' addresses are of.
    pub cluster_pod_range: Ipv4Net,
    /// The link that leads to the other machines.
    pub link: String,
    /// This machine's address on it.
    pub address: Ipv4Addr,
    /// Where the range of this machine's pods is written to once the cluster has said it.
    pub pod_range_file: PathBuf,
    /// Where the last known nodes are kept.
    pub state: PathBuf,
    /// MTU of the overlay's device in bytes.
    pub mtu: u32,
}

/// How packets get to the pods of other machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// By routes through the machines' addresses, which are all on one link.
    Routed,
    /// Inside of VXLAN packets between the machines' addresses, wherever they are.
    Overlay,
}

/// `/run/kscratch/address.json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// The URL of this machine's own API server.
    pub server: String,
    /// PEM file of the authorities that the API server's certificate is held against.
    pub authority: PathBuf,
    /// PEM file of the client certificate.
    pub certificate: PathBuf,
    /// PEM file of its key.
    pub key: PathBuf,
    /// This machine's Node, which it is called in the lease.
    pub node: String,
    /// Namespace of the lease.
    pub namespace: String,
    /// Name of the lease.
    pub lease: String,
    /// The link that leads to the other machines.
    pub link: String,
    /// The address that masters share.
    pub address: Ipv4Addr,
    /// An empty file, written once it is known who has the address.
    pub ready: PathBuf,
}

/// `/run/kscratch/certificates.json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificates {
    /// Authorities by the names that certificates call them.
    pub authorities: BTreeMap<String, AuthorityFiles>,
    /// What is to be there.
    pub certificates: Vec<Leaf>,
    /// What is removed once it is of no use, so that its reader takes its fallback.
    #[serde(default)]
    pub discard: Vec<Discard>,
}

/// A PEM file that somebody else keeps.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Discard {
    /// The file. Its certificate is of no use before it begins, once it has ended, or where it is another's.
    pub file: PathBuf,
    /// The common name that its certificate has to have.
    pub common_name: String,
    /// Which authority has to have signed it.
    pub authority: String,
}

/// Where an authority is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthorityFiles {
    /// PEM file of its certificate.
    pub certificate: PathBuf,
    /// PEM file of its key.
    pub key: PathBuf,
}

/// A certificate that is to be there.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leaf {
    /// Its PEM file.
    pub certificate: PathBuf,
    /// PEM file of its key.
    pub key: PathBuf,
    /// Which authority signs it.
    pub authority: String,
    /// Subject's common name.
    pub common_name: String,
    /// Subject's organizations.
    #[serde(default)]
    pub organizations: Vec<String>,
    /// Names of the server.
    #[serde(default)]
    pub dns_names: Vec<String>,
    /// Addresses of the server.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// What it is good for.
    pub usages: BTreeSet<Usage>,
    /// Days that it is valid.
    pub days: u32,
    /// Number of the user, and of the group, that both files belong to.
    pub owner: u32,
}

/// `/run/kscratch/steward.json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Steward {
    /// The API server's URL.
    pub server: String,
    /// PEM file of the authorities that the API server's certificate is held against.
    pub authority: PathBuf,
    /// PEM file of the client certificate.
    pub certificate: PathBuf,
    /// PEM file of its key.
    pub key: PathBuf,
    /// Folder of the objects that are to be in the cluster, as `*.json`.
    pub objects: PathBuf,
    /// The file that says which certificates are to be on this machine ([`Certificates`]).
    pub certificates: PathBuf,
    /// Client certificates that nodes may have for their asking.
    pub approve: Vec<Client>,
    /// The group of those that join with a token.
    pub joiners: String,
    /// Kubernetes' version in this machine's image, such as `1.37.2`.
    pub release: String,
    /// The ranges of services and pods: no node has an address of these.
    pub ranges: Vec<Ipv4Net>,
    /// The cluster's masters, as far as this one knows them, and where they are. None of them joins with a token.
    pub masters: BTreeMap<String, IpAddr>,
    /// Where this machine's etcd tells of its health, in clear.
    pub etcd: String,
    /// Static pods that wait for others.
    pub pods: Vec<StaticPod>,
    /// An empty file, written once the objects are in the cluster, or the cluster has not taken some of them for a while.
    pub ready: PathBuf,
    /// This machine's Node, where the kubelet does not make it.
    #[serde(default)]
    pub register: Option<Registration>,
    /// How this master's etcd comes to its peers, where it may have some.
    #[serde(default)]
    pub member: Option<Member>,
    /// Where orders come from, and where they go.
    #[serde(default)]
    pub orders: Option<Orders>,
}

/// What must serve on this machine before a static pod is of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum After {
    /// etcd.
    Etcd,
    /// The API server.
    ApiServer,
}

/// A static pod that waits for another one.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticPod {
    /// What it is called in words to people.
    pub name: String,
    /// What it waits for.
    pub after: After,
    /// As it is planned.
    pub manifest: PathBuf,
    /// Where the kubelet finds its static pods.
    pub place: PathBuf,
}

/// A member of an etcd that is for several.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Where the others reach it.
    pub peer_url: String,
    /// Whether it joins those that live, and never begins a cluster.
    pub join: bool,
    /// etcd's log of what it writes, which is there once it has data.
    pub data: PathBuf,
    /// Where it answers clients of this machine.
    pub local: String,
    /// The others that the metadata names; none where this one is alone for now.
    pub others: Vec<Other>,
    /// Where the cluster is reached, if the metadata says so: nobody begins one beside it.
    #[serde(default)]
    pub endpoint: Option<Endpoint>,
    /// PEM file of the authority that their certificates are held against.
    pub authority: PathBuf,
    /// PEM file of a client certificate of etcd's.
    pub certificate: PathBuf,
    /// PEM file of its key.
    pub key: PathBuf,
    /// Its static pod as it is planned, with the members that the metadata names.
    pub manifest: PathBuf,
    /// Where the kubelet finds its static pods: the pod is put there when it is known who the members are.
    pub place: PathBuf,
}

/// Another member of the same etcd.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Other {
    /// Where it answers clients.
    pub client: String,
    /// Where it speaks with its peers.
    pub peer: String,
}

/// What leads to an API server of the cluster.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Its URL.
    pub server: String,
    /// PEM file of the authorities that its certificate is held against.
    pub authority: PathBuf,
}

/// A Node with a range of its own choice.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// Its name.
    pub node: String,
    /// The range of its pods.
    pub pod_range: Ipv4Net,
    /// Its labels, besides those that every Node has.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Its taints, as Kubernetes has them (core/v1 `Taint`).
    #[serde(default)]
    pub taints: Vec<serde_json::Value>,
}

/// The subject of a client certificate.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// Common name: the user.
    pub common_name: String,
    /// Organizations: the user's groups.
    #[serde(default)]
    pub organizations: Vec<String>,
}

/// `/run/kscratch/identities.json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identities {
    /// The API server's URL.
    pub server: String,
    /// PEM file of the authorities that the API server's certificate, and the certificates asked for, are held against.
    pub authority: PathBuf,
    /// PEM file of the kubelet's client certificate and key.
    pub kubelet: PathBuf,
    /// The kubelet's first kubeconfig, whose token is what it joins with; none where the metadata has no token.
    #[serde(default)]
    pub bootstrap: Option<PathBuf>,
    /// This machine's Node.
    pub node: String,
    /// Names that it joined under before.
    #[serde(default)]
    pub earlier: Vec<String>,
    /// Where the name is remembered that the kubelet's certificate is for.
    pub remembered: PathBuf,
    /// This machine's Node, where the kubelet does not make it.
    #[serde(default)]
    pub register: Option<Registration>,
    /// What is to be there.
    pub identities: Vec<Identity>,
    /// Where orders come from, and where they go.
    #[serde(default)]
    pub orders: Option<Orders>,
    /// An empty file, written once all are there.
    pub ready: PathBuf,
}

/// What this machine is told by its own Node.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Orders {
    /// Its name.
    pub node: String,
    /// The file in which PID 1 finds an order.
    pub place: PathBuf,
    /// Whether its state may be wiped by one.
    pub resets: bool,
}

/// A client certificate that the cluster is asked for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// What it is called in words to people.
    pub name: String,
    /// Common name: the user.
    pub common_name: String,
    /// Organizations: the user's groups.
    #[serde(default)]
    pub organizations: Vec<String>,
    /// Its PEM file.
    pub certificate: PathBuf,
    /// PEM file of its key.
    pub key: PathBuf,
    /// Number of the user, and of the group, that both files belong to.
    pub owner: u32,
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::{Address, Certificates, Identities, Routes, Steward};

    /// Reads it, and refuses it with a field more.
    fn check<T: DeserializeOwned>(text: &str) {
        let whole: serde_json::Value = serde_json::from_str(text).unwrap();
        serde_json::from_value::<T>(whole.clone()).unwrap();
        let mut more = whole.clone();
        more["surprise"] = 1.into();
        assert!(serde_json::from_value::<T>(more).is_err_and(|error| error.to_string().contains("surprise")));
    }

    #[test]
    fn the_files_are_read_and_nothing_unknown_is_passed_over() {
        check::<Certificates>(
            r#"{"authorities": {"cluster": {"certificate": "/a.crt", "key": "/a.key"}},
            "certificates": [{"certificate": "/b.crt", "key": "/b.key", "authority": "cluster", "common_name": "kube-apiserver", "organizations": [],
            "dns_names": ["kubernetes"], "addresses": ["10.96.0.1"], "usages": ["server","client"], "days": 365, "owner": 901}],
            "discard": [{"file": "/var/lib/kubelet/pki/kubelet-client-current.pem", "common_name": "system:node:m1", "authority": "cluster"}]}"#,
        );
        check::<Steward>(
            r#"{"server": "https://127.0.0.1:6443", "authority": "/a.crt", "certificate": "/c.crt", "key": "/c.key", "objects": "/run/kscratch/addons",
            "certificates": "/run/kscratch/certificates.json", "approve": [{"common_name": "system:kube-proxy", "organizations": []}], "joiners": "system:bootstrappers:kscratch:nodes",
            "release": "1.37.2", "orders": {"node": "m1", "place": "/o", "resets": false}, "ranges": [], "masters": {"m1": "192.168.7.10"}, "etcd": "http://127.0.0.1:2381", "pods": [{"name": "kube-apiserver", "after": "etcd", "manifest": "/n.json", "place": "/q.json"},
            {"name": "kube-scheduler", "after": "api-server", "manifest": "/o.json", "place": "/r.json"}], "ready": "/run/kscratch/ready/steward", "member": {"name": "m1", "peer_url": "https://h:2380", "join": false, "data": "/d", "local": "https://127.0.0.1:2379",
            "others": [{"client": "https://i:2379", "peer": "https://i:2380"}], "endpoint": {"server": "https://e:6443", "authority": "/e.crt"},
            "authority": "/a.crt", "certificate": "/c.crt", "key": "/c.key", "manifest": "/m.json", "place": "/p.json"}}"#,
        );
        check::<Identities>(
            r#"{"server": "https://h:6443", "authority": "/a.crt", "kubelet": "/k.pem", "bootstrap": "/b.json", "node": "n1", "earlier": ["n0"], "remembered": "/n", "orders": {"node": "n1", "place": "/o", "resets": true}, "register": {"node": "n1", "pod_range": "10.244.3.0/24",
            "labels": {"a": "b"}, "taints": [{"key": "k", "value": "", "effect": "NoSchedule"}]}, "identities": [{"name": "kube-proxy",
            "common_name": "system:kube-proxy", "organizations": [], "certificate": "/p.crt", "key": "/p.key", "owner": 0}], "ready": "/r"}"#,
        );
        check::<Address>(
            r#"{"server": "https://127.0.0.1:6443", "authority": "/a.crt", "certificate": "/c.crt", "key": "/c.key", "node": "m1", "namespace": "kube-system",
            "lease": "kscratch-endpoint", "link": "eth0", "address": "192.168.7.5", "ready": "/r"}"#,
        );
        check::<Routes>(
            r#"{"server": "https://h:6443", "authority": "/a.crt", "certificate": "/c.crt", "key": "/c.key", "node": "n1", "mode": "overlay",
            "cluster_pod_range": "10.244.0.0/16", "link": "eth0", "address": "192.168.7.11", "pod_range_file": "/p", "state": "/s", "mtu": 1450}"#,
        );
    }
}
