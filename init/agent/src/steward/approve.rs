//! Decides whether a node gets the certificate that it asks for: only what is its own (R8).
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use kscratch_pki::Names;

use crate::contract::Approvable;

/// Signs serving certificates of kubelets.
pub(super) const SERVING: &str = "kubernetes.io/kubelet-serving";
/// Signs certificates of clients of the API server.
pub(super) const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// The group of all nodes.
const NODES: &str = "system:nodes";
/// How a node's user name begins.
const NODE: &str = "system:node:";
/// Seconds that a Node object may take to say its addresses.
const PATIENCE: u64 = 300;

/// A request, as the API server knows who made it.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// Which signer is to sign.
    pub signer: String,
    /// User who made it.
    pub user: String,
    /// Groups of that user.
    pub groups: BTreeSet<String>,
    /// What the certificate is to be good for.
    pub usages: BTreeSet<String>,
    /// Whom it names.
    pub names: Names,
    /// Seconds since it was made.
    pub age: u64,
}

/// What a Node object says about where the node is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Its names.
    pub names: BTreeSet<String>,
    /// Its addresses.
    pub addresses: BTreeSet<IpAddr>,
}

/// What is done with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// Approve; for whom, in words.
    Approve(String),
    /// Deny, and why.
    Deny(String),
    /// It cannot be said yet.
    Wait,
}

/// Decides. `nodes` are all Node objects by name.
pub(super) fn decide(asked: &Asked, nodes: &BTreeMap<String, Place>, approve: &[Approvable]) -> Decision {
    let Some(node) = asked.user.strip_prefix(NODE).filter(|_| asked.groups.contains(NODES)) else {
        return deny(format!("{} is no node", asked.user));
    };
    let names = &asked.names;
    if !names.other_subject.is_empty() || !names.other_names.is_empty() {
        return deny("it names more than a node has: other parts of a subject, or e-mail addresses and URIs".into());
    }
    match asked.signer.as_str() {
        SERVING => serving(asked, node, nodes),
        CLIENT => client(asked, node, approve),
        other => deny(format!("{other} is no signer that is approved here")),
    }
}

fn deny(why: String) -> Decision {
    Decision::Deny(why)
}

fn serving(asked: &Asked, node: &str, nodes: &BTreeMap<String, Place>) -> Decision {
    let names = &asked.names;
    if names.common_name != asked.user || names.organizations != [NODES] {
        return deny(format!("its subject is not that of {}", asked.user));
    }
    if let Some(usage) = beyond(&asked.usages, &["digital signature", "key encipherment", "server auth"]) {
        return deny(format!("a kubelet does not serve with {usage:?}"));
    }
    if !asked.usages.contains("server auth") || (names.dns_names.is_empty() && names.addresses.is_empty()) {
        return deny("it is not for serving under any name or address".into());
    }
    for (other, place) in nodes.iter().filter(|(other, _)| *other != node) {
        if let Some(address) = names.addresses.iter().find(|address| place.addresses.contains(address)) {
            return deny(format!("{address} is an address of node {other}"));
        }
    }
    let place = nodes.get(node).cloned().unwrap_or_default();
    let name = names.dns_names.iter().find(|name| *name != node && !place.names.contains(*name));
    let address = names.addresses.iter().find(|address| !place.addresses.contains(address));
    let foreign = name.cloned().or_else(|| address.map(ToString::to_string));
    match foreign {
        None => {
            let addresses: Vec<String> = names.addresses.iter().map(ToString::to_string).collect();
            Decision::Approve(format!("serving certificate of node {node} ({})", addresses.join(", ")))
        }
        // The kubelet writes its addresses into the Node a moment later.
        Some(_) if asked.age < PATIENCE => Decision::Wait,
        Some(foreign) => deny(format!("the Node object {node} does not say that it is {foreign}")),
    }
}

fn client(asked: &Asked, node: &str, approve: &[Approvable]) -> Decision {
    let names = &asked.names;
    let known = |one: &&Approvable| one.common_name == names.common_name && one.organizations == names.organizations;
    if approve.iter().find(known).is_none() {
        return deny(format!("a node does not get a certificate for {:?}", names.common_name));
    }
    if let Some(usage) = beyond(&asked.usages, &["digital signature", "key encipherment", "client auth"]) {
        return deny(format!("a client does nothing with {usage:?}"));
    }
    if !asked.usages.contains("client auth") || !names.dns_names.is_empty() || !names.addresses.is_empty() {
        return deny("it is not for a client alone".into());
    }
    Decision::Approve(format!("client certificate of {} on node {node}", names.common_name))
}

/// A usage that is none of the allowed ones.
fn beyond<'a>(usages: &'a BTreeSet<String>, allowed: &[&str]) -> Option<&'a String> {
    usages.iter().find(|usage| !allowed.contains(&usage.as_str()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kscratch_pki::Names;

    use super::{Asked, CLIENT, Decision, Place, SERVING, decide};
    use crate::contract::Approvable;

    fn nodes() -> BTreeMap<String, Place> {
        let place = |name: &str, address: &str| Place {
            names: [name.to_owned()].into(),
            addresses: [address.parse().unwrap()].into(),
        };
        BTreeMap::from([
            ("n1".to_owned(), place("n1", "192.168.7.11")),
            ("n2".to_owned(), place("n2", "192.168.7.12")),
            ("n3".to_owned(), Place::default()),
        ])
    }

    fn serving(node: &str, address: &str) -> Asked {
        Asked {
            signer: SERVING.into(),
            user: format!("system:node:{node}"),
            groups: ["system:nodes".to_owned(), "system:authenticated".to_owned()].into(),
            usages: ["digital signature".to_owned(), "server auth".to_owned()].into(),
            names: Names {
                common_name: format!("system:node:{node}"),
                organizations: vec!["system:nodes".into()],
                dns_names: vec![node.to_owned()],
                addresses: vec![address.parse().unwrap()],
                ..Names::default()
            },
            age: 1,
        }
    }

    fn proxy() -> Asked {
        let names = Names { common_name: "system:kube-proxy".into(), ..Names::default() };
        let usages = ["digital signature".to_owned(), "client auth".to_owned()].into();
        Asked { signer: CLIENT.into(), usages, names, ..serving("n1", "192.168.7.11") }
    }

    /// `+` approve, `?` wait, else why not.
    fn check(asked: Asked, change: impl FnOnce(&mut Asked), want: &str) {
        let mut asked = asked;
        change(&mut asked);
        let approve = [Approvable { common_name: "system:kube-proxy".into(), organizations: vec![] }];
        let decision = match decide(&asked, &nodes(), &approve) {
            Decision::Approve(_) => "+".to_owned(),
            Decision::Wait => "?".to_owned(),
            Decision::Deny(why) => why,
        };
        assert_eq!(decision, want);
    }

    #[test]
    fn serving_certificates() {
        let own = || serving("n1", "192.168.7.11");
        check(own(), |_| {}, "+");
        check(own(), |asked| asked.user = "system:serviceaccount:a:b".into(), "system:serviceaccount:a:b is no node");
        check(own(), |asked| asked.groups.clear(), "system:node:n1 is no node");
        check(own(), |asked| asked.user = "system:node:n2".into(), "its subject is not that of system:node:n2");
        let more = |asked: &mut Asked| asked.names.organizations.push("system:masters".into());
        check(own(), more, "its subject is not that of system:node:n1");
        check(serving("n1", "192.168.7.12"), |_| {}, "192.168.7.12 is an address of node n2");
        check(
            own(),
            |asked| _ = asked.usages.insert("client auth".into()),
            "a kubelet does not serve with \"client auth\"",
        );
        check(
            own(),
            |asked| asked.names.other_names.push("URI(a)".into()),
            "it names more than a node has: other parts of a subject, or e-mail addresses and URIs",
        );
        check(own(), |asked| asked.names.addresses.clear(), "+");
        let bare = |asked: &mut Asked| (asked.names.addresses, asked.names.dns_names) = (vec![], vec![]);
        check(own(), bare, "it is not for serving under any name or address");
        check(own(), |asked| asked.signer = "example.org/x".into(), "example.org/x is no signer that is approved here");
    }

    #[test]
    fn a_node_that_has_not_said_where_it_is() {
        for (age, want) in [(1, "?"), (299, "?"), (300, "the Node object n3 does not say that it is 192.168.7.13")] {
            check(serving("n3", "192.168.7.13"), |asked| asked.age = age, want);
        }
        let foreign = |asked: &mut Asked| asked.names.dns_names = vec!["api.lab".into()];
        check(serving("n1", "192.168.7.11"), foreign, "?");
        check(
            serving("n9", "192.168.7.19"),
            |asked| asked.age = 400,
            "the Node object n9 does not say that it is 192.168.7.19",
        );
    }

    #[test]
    fn client_certificates() {
        check(proxy(), |_| {}, "+");
        let admin = |asked: &mut Asked| asked.names.organizations = vec!["system:masters".into()];
        check(proxy(), admin, "a node does not get a certificate for \"system:kube-proxy\"");
        let other = |asked: &mut Asked| asked.names.common_name = "system:admin".into();
        check(proxy(), other, "a node does not get a certificate for \"system:admin\"");
        check(
            proxy(),
            |asked| _ = asked.usages.insert("server auth".into()),
            "a client does nothing with \"server auth\"",
        );
        check(proxy(), |asked| asked.names.dns_names.push("a".into()), "it is not for a client alone");
    }
}
