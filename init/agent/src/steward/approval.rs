//! Decides whether a certificate that a node asks for is signed: only what its own Node proves.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use kscratch_pki::Names;

use crate::contract::Client;
use crate::node::Node;

/// Signs what the kubelet serves with.
pub const SERVING: &str = "kubernetes.io/kubelet-serving";

/// Signs what clients of the API server have.
pub const CLIENT: &str = "kubernetes.io/kube-apiserver-client";

/// Signs what a kubelet joins with, and renews.
pub const KUBELET: &str = "kubernetes.io/kube-apiserver-client-kubelet";

/// A label that a kubelet cannot give its own Node (the NodeRestriction admission plugin).
pub const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

/// Who asks whom for what. The API server vouches for all but `names`, and the steward remembers `rival`.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Who shall sign.
    pub signer: &'a str,
    /// Who asks.
    pub user: &'a str,
    /// His groups.
    pub groups: &'a [String],
    /// What the certificate shall be good for.
    pub usages: &'a [String],
    /// Whom it shall name, or why the request cannot be read.
    pub names: Result<&'a Names, &'a str>,
    /// Whether another machine was given the same node's first certificate minutes ago.
    pub rival: bool,
}

/// What may be approved.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Client certificates that nodes may have.
    pub clients: Vec<Client>,
    /// The group of those that join with a token.
    pub joiners: String,
    /// Names of masters, which do not, and where each of them is.
    pub masters: BTreeMap<String, IpAddr>,
    /// Names of the control plane's own servers: only a master may serve under them, and under its own alone.
    pub names: BTreeSet<String>,
    /// Addresses of the control plane's own servers.
    pub addresses: BTreeSet<IpAddr>,
    /// Ranges of services and pods: a node with such an address could pass for one of them.
    pub ranges: Vec<Ipv4Net>,
    /// The namespaces that there are now: pods find the Service of one by `NAME.NAMESPACE`.
    pub namespaces: BTreeSet<String>,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is signed; what it is, in words.
    Approve(String),
    /// It is refused; why.
    Deny(String),
    /// It may become right when the cluster knows more; what is missing.
    Wait(String),
    /// Somebody else decides.
    Pass,
}

/// Decides. A node proves its names and addresses by its Node object, which only it and the cluster's administrators write to.
pub fn judge(asked: Asked<'_>, nodes: &[Node], policy: &Policy) -> Verdict {
    let verdict = match asked.signer {
        SERVING => serving(asked, nodes, policy),
        CLIENT => client(asked, policy),
        KUBELET => join(asked, nodes, policy),
        _ => return Verdict::Pass,
    };
    verdict.unwrap_or_else(|refused| refused)
}

fn deny<T>(why: impl Into<String>) -> Result<T, Verdict> {
    Err(Verdict::Deny(why.into()))
}

/// The name of the node that asks.
fn node<'a>(asked: Asked<'a>) -> Result<&'a str, Verdict> {
    match asked.user.strip_prefix("system:node:") {
        Some(name) if !name.is_empty() && asked.groups.iter().any(|group| group == "system:nodes") => Ok(name),
        _ => deny(format!("{} is no node", asked.user)),
    }
}

fn readable(asked: Asked<'_>) -> Result<&Names, Verdict> {
    let names = asked.names.map_err(|why| Verdict::Deny(why.to_owned()))?;
    match names.other_subject.first().or(names.other_names.first()) {
        Some(other) => deny(format!("it names {other}")),
        None => Ok(names),
    }
}

/// Exactly one purpose, and what TLS needs for it.
fn usages(asked: Asked<'_>, purpose: &str) -> Result<(), Verdict> {
    let allowed = ["digital signature", "key encipherment", purpose];
    match asked.usages.iter().find(|usage| !allowed.contains(&usage.as_str())) {
        Some(other) => deny(format!("it asks for the usage {other}")),
        None if asked.usages.iter().any(|usage| usage == purpose) => Ok(()),
        None => deny(format!("it does not ask for the usage {purpose}")),
    }
}

fn client(asked: Asked<'_>, policy: &Policy) -> Result<Verdict, Verdict> {
    // Others' requests to this signer are for people to decide.
    if !asked.user.starts_with("system:node:") {
        return Ok(Verdict::Pass);
    }
    let name = node(asked)?;
    let names = readable(asked)?;
    usages(asked, "client auth")?;
    if !names.dns_names.is_empty() || !names.addresses.is_empty() {
        return deny("a client's certificate has no alternative names");
    }
    let allowed =
        |client: &&Client| client.common_name == names.common_name && client.organizations == names.organizations;
    match policy.clients.iter().find(allowed) {
        Some(client) => Ok(Verdict::Approve(format!("certificate of {} for node {name}", client.common_name))),
        None => deny(format!(
            "nodes have no certificate of {} (of {})",
            names.common_name,
            if names.organizations.is_empty() { "no group".to_owned() } else { names.organizations.join(", ") }
        )),
    }
}

/// A token lets a machine become a node, but not one that is alive, and no master at all: whoever has a token could otherwise be any machine of the cluster,
/// and as a master, which has the label of the control plane, get a certificate for the names of the API server.
fn join(asked: Asked<'_>, nodes: &[Node], policy: &Policy) -> Result<Verdict, Verdict> {
    // A node that renews its own is approved by the control plane itself.
    if !asked.groups.contains(&policy.joiners) {
        return Ok(Verdict::Pass);
    }
    let names = readable(asked)?;
    usages(asked, "client auth")?;
    if !names.dns_names.is_empty() || !names.addresses.is_empty() {
        return deny("a client's certificate has no alternative names");
    }
    let name = match names.common_name.strip_prefix("system:node:") {
        Some(name) if !name.is_empty() && names.organizations == ["system:nodes"] => name,
        _ => {
            return deny(format!(
                "a token makes nodes, and {} of {:?} is none",
                names.common_name, names.organizations
            ));
        }
    };
    let known = nodes.iter().find(|node| node.name() == name);
    if policy.masters.contains_key(name) || known.is_some_and(|node| node.labelled(CONTROL_PLANE)) {
        return deny(format!("{name} is a master of this cluster, and no master joins with a token"));
    }
    match known {
        Some(node) if node.alive() => Err(Verdict::Wait(format!(
            "there is a node {name} that is alive; another machine has its name once it is off for a minute, or deleted"
        ))),
        _ if asked.rival => Err(Verdict::Wait(format!(
            "another machine has just been given the certificate of node {name}; this one has the name if the other does not use it"
        ))),
        Some(_) => Ok(Verdict::Approve(format!("node {name}, which joins again"))),
        None => Ok(Verdict::Approve(format!("node {name}, which joins"))),
    }
}

fn serving(asked: Asked<'_>, nodes: &[Node], policy: &Policy) -> Result<Verdict, Verdict> {
    let name = node(asked)?;
    let names = readable(asked)?;
    usages(asked, "server auth")?;
    if names.common_name != asked.user {
        return deny(format!("{} asks for a certificate of {}", asked.user, names.common_name));
    }
    if names.organizations != ["system:nodes"] {
        return deny("its organization is not system:nodes alone");
    }
    if names.dns_names.is_empty() && names.addresses.is_empty() {
        return deny("it has neither names nor addresses");
    }
    let Some(own) = nodes.iter().find(|node| node.name() == name) else {
        return Err(Verdict::Wait(format!("there is no Node {name}")));
    };
    let others: Vec<&Node> = nodes.iter().filter(|node| node.name() != name).collect();
    for dns_name in &names.dns_names {
        dns(dns_name, own, &others, policy)?;
    }
    for address in &names.addresses {
        address_is_own(*address, own, &others, policy)?;
    }
    let addresses: Vec<_> = names.addresses.iter().map(ToString::to_string).collect();
    let addresses = if addresses.is_empty() { names.dns_names.join(", ") } else { addresses.join(", ") };
    Ok(Verdict::Approve(format!("serving certificate of node {name} ({addresses})")))
}

/// Whether a node is a master that the metadata name. The label alone says less: the steward of a master gives it to the Node of its name, whoever made
/// that, and where the metadata of those that were there before do not name it yet, a token will have done.
fn is_listed(node: &Node, policy: &Policy) -> bool {
    node.labelled(CONTROL_PLANE) && policy.masters.contains_key(node.name())
}

/// A node chooses its own name. With one of these it could pass for the API server, or for a Service. What other nodes say that their host names are
/// counts for nothing: each could take everybody's name away by that.
fn dns(asked: &str, own: &Node, others: &[&Node], policy: &Policy) -> Result<(), Verdict> {
    let plain = |name: &str| name.trim_end_matches('.').to_ascii_lowercase();
    let name = plain(asked);
    if name.contains('*') || name == "localhost" || name.split('.').any(|label| label == "svc") {
        return deny(format!("{asked} can be no node's name"));
    }
    if let Some((service, namespace)) = name.split_once('.')
        && policy.namespaces.contains(namespace)
    {
        return deny(format!("{asked} is what pods call the Service {service} of the namespace {namespace}"));
    }
    if let Some(other) = others.iter().find(|other| plain(other.name()) == name) {
        return deny(format!("{asked} is the name of node {}", other.name()));
    }
    let reserved = name == "kubernetes"
        || name == "kubernetes.default"
        || policy.names.iter().any(|reserved| plain(reserved) == name);
    if reserved && !is_listed(own, policy) {
        return Err(Verdict::Wait(format!(
            "{asked} is a name of the control plane, and node {} is none of it",
            own.name()
        )));
    }
    // What else its Node says of names it has written itself.
    if plain(own.name()) == name { Ok(()) } else { deny(format!("{asked} is not the name of Node {}", own.name())) }
}

fn address_is_own(asked: IpAddr, own: &Node, others: &[&Node], policy: &Policy) -> Result<(), Verdict> {
    let asked = asked.to_canonical();
    // The first of its kind alone, by which the API server reaches the kubelet: who says that he has more could take all of them away from others.
    let has = |node: &Node| {
        let mut addresses = node.addresses("InternalIP").map(|address| address.to_canonical());
        addresses.find(|address| address.is_ipv4() == asked.is_ipv4()) == Some(asked)
    };
    if asked.is_loopback() || asked.is_unspecified() || asked.is_multicast() {
        return deny(format!("{asked} can be no node's address"));
    }
    if let Some(range) = policy.ranges.iter().find(|range| IpNet::V4(**range).contains(&asked)) {
        return deny(format!("{asked} is of {range}, which is for services or pods"));
    }
    if let Some(other) = others.iter().find(|other| has(other) && goes_first(other, own)) {
        return deny(format!("{asked} is the address of node {} too", other.name()));
    }
    // Of those that the metadata list, its own. What all masters share is no node's: kubelets serve at the masters' own addresses.
    let own_place = || is_listed(own, policy) && policy.masters.get(own.name()) == Some(&asked);
    if policy.addresses.contains(&asked) && !own_place() {
        return Err(Verdict::Wait(format!(
            "{asked} is an address of the control plane, and not that of node {}",
            own.name()
        )));
    }
    if has(own) { Ok(()) } else { Err(Verdict::Wait(format!("{asked} is not the address of Node {}", own.name()))) }
}

/// Who keeps an address that two nodes say is theirs. A master does, on or off, as those of masters are what the API server is reached by. Of others, the
/// older one as long as it is alive: what a node had that is off may be another one's by now, by DHCP or because its machine has another name.
fn goes_first(other: &Node, own: &Node) -> bool {
    match (other.labelled(CONTROL_PLANE), own.labelled(CONTROL_PLANE)) {
        (true, false) => true,
        (false, true) => false,
        _ => other.alive() && (other.created(), other.name()) < (own.created(), own.name()),
    }
}

#[cfg(test)]
mod tests;
