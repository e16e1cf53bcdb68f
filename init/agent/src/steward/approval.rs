//! Decides whether a certificate that a node asks for is signed: only what its own Node proves.
use std::collections::BTreeSet;
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
    /// Names of masters, which do not.
    pub masters: BTreeSet<String>,
    /// Names of the control plane's own servers: only its own nodes may serve under them.
    pub names: BTreeSet<String>,
    /// Addresses of the control plane's own servers.
    pub addresses: BTreeSet<IpAddr>,
    /// Ranges of services and pods: a node with such an address could pass for one of them.
    pub ranges: Vec<Ipv4Net>,
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
    if policy.masters.contains(name) || known.is_some_and(|node| node.labelled(CONTROL_PLANE)) {
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

/// A node chooses its own name and host name. With one of these it could pass for the API server, or for a Service.
fn dns(asked: &str, own: &Node, others: &[&Node], policy: &Policy) -> Result<(), Verdict> {
    let plain = |name: &str| name.trim_end_matches('.').to_ascii_lowercase();
    let name = plain(asked);
    let known = |node: &Node| {
        plain(node.name()) == name
            || ["Hostname", "InternalDNS"].iter().any(|kind| node.names(kind).any(|own| plain(own) == name))
    };
    if name.contains('*') || name == "localhost" || name.split('.').any(|label| label == "svc") {
        return deny(format!("{asked} can be no node's name"));
    }
    if let Some(other) = others.iter().find(|other| known(other)) {
        return deny(format!("{asked} is a name of node {} too", other.name()));
    }
    let reserved = name == "kubernetes"
        || name == "kubernetes.default"
        || policy.names.iter().any(|reserved| plain(reserved) == name);
    if reserved && !own.labelled(CONTROL_PLANE) {
        return Err(Verdict::Wait(format!(
            "{asked} is a name of the control plane, and node {} is none of it",
            own.name()
        )));
    }
    // What else its Node says of names it has written itself, and pods find `NAME.NAMESPACE` to be a Service.
    if plain(own.name()) == name { Ok(()) } else { deny(format!("{asked} is not the name of Node {}", own.name())) }
}

fn address_is_own(asked: IpAddr, own: &Node, others: &[&Node], policy: &Policy) -> Result<(), Verdict> {
    let asked = asked.to_canonical();
    let has = |node: &Node| {
        ["InternalIP", "ExternalIP"].iter().any(|kind| node.addresses(kind).any(|own| own.to_canonical() == asked))
    };
    if asked.is_loopback() || asked.is_unspecified() || asked.is_multicast() {
        return deny(format!("{asked} can be no node's address"));
    }
    if let Some(range) = policy.ranges.iter().find(|range| IpNet::V4(**range).contains(&asked)) {
        return deny(format!("{asked} is of {range}, which is for services or pods"));
    }
    // What a node had that is off may be another one's by now: by DHCP, or because its machine has another name. A master's is kept for it, as those of
    // masters are what the API server is reached by.
    let kept = |other: &&&Node| other.alive() || (other.labelled(CONTROL_PLANE) && !own.labelled(CONTROL_PLANE));
    if let Some(other) = others.iter().filter(kept).find(|other| has(other)) {
        return deny(format!("{asked} is an address of node {} too", other.name()));
    }
    if policy.addresses.contains(&asked) && !own.labelled(CONTROL_PLANE) {
        return Err(Verdict::Wait(format!(
            "{asked} is an address of the control plane, and node {} is none of it",
            own.name()
        )));
    }
    if has(own) { Ok(()) } else { Err(Verdict::Wait(format!("{asked} is no address of Node {}", own.name()))) }
}

#[cfg(test)]
mod tests;
