//! Requests, honest and otherwise, and what becomes of them.
use kscratch_pki::Names;
use kube::Resource as _;
use serde_json::json;

use super::{Asked, CLIENT, KUBELET, Policy, SERVING, Verdict, judge};
use crate::contract::Client;
use crate::node::Node;

fn node(name: &str, addresses: &[(&str, &str)], labels: serde_json::Value) -> Node {
    let addresses: Vec<_> = addresses.iter().map(|(kind, address)| json!({"type": kind, "address": address})).collect();
    serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "status": {"addresses": addresses}}))
        .unwrap()
}

/// Made one after the other.
fn cluster() -> Vec<Node> {
    let mut nodes = vec![
        node(
            "m1",
            &[("InternalIP", "192.168.7.10"), ("Hostname", "m1")],
            json!({"node-role.kubernetes.io/control-plane": ""}),
        ),
        node("n1", &[("InternalIP", "192.168.7.11"), ("Hostname", "n1"), ("InternalDNS", "n1.example")], json!({})),
        node("n2", &[("InternalIP", "192.168.7.12"), ("InternalIP", "fd00::12"), ("Hostname", "n2")], json!({})),
        // It calls itself what it is not.
        node(
            "bad",
            &[
                ("InternalIP", "192.168.7.66"),
                ("InternalIP", "192.168.7.12"),
                ("InternalIP", "192.168.7.77"),
                ("InternalIP", "10.96.0.1"),
                ("InternalIP", "127.0.0.1"),
                ("Hostname", "kubernetes.default.svc.cluster.local"),
                ("InternalDNS", "kubernetes"),
                ("InternalDNS", "cluster.example"),
                ("InternalDNS", "metrics.kube-system"),
                ("InternalIP", "10.96.0.10"),
                ("InternalDNS", "*.example"),
                ("InternalDNS", "N2."),
                ("InternalDNS", "localhost"),
            ],
            json!({"role": "control-plane"}),
        ),
        node("kubernetes", &[("InternalIP", "192.168.7.67")], json!({})),
        serde_json::from_value(json!({
            "metadata": { "name": "gone" },
            "status": {
                "conditions": [{ "type": "Ready", "status": "Unknown" }],
                "addresses": [{ "type": "InternalIP", "address": "192.168.7.13" }],
            },
        }))
        .unwrap(),
        // A master that no list names, and that is off.
        serde_json::from_value(json!({
            "metadata": { "name": "m9", "labels": { "node-role.kubernetes.io/control-plane": "" } },
            "status": {
                "conditions": [{ "type": "Ready", "status": "Unknown" }],
                "addresses": [{ "type": "InternalIP", "address": "192.168.7.19" }],
            },
        }))
        .unwrap(),
        // Those two machines under other names, or others that have their addresses.
        node("heir", &[("InternalIP", "192.168.7.13")], json!({})),
        node("squatter", &[("InternalIP", "192.168.7.19")], json!({})),
        node("m10", &[("InternalIP", "192.168.7.19")], json!({"node-role.kubernetes.io/control-plane": ""})),
        // Made by whoever had a token before any metadata named that master, whose steward has given it the label since.
        node(
            "m3",
            &[("InternalIP", "192.168.7.9"), ("Hostname", "m1")],
            json!({"node-role.kubernetes.io/control-plane": ""}),
        ),
        node("younger", &[("InternalIP", "192.168.7.11"), ("Hostname", "n1")], json!({})),
        node("m2", &[("InternalIP", "192.168.7.8")], json!({"node-role.kubernetes.io/control-plane": ""})),
        node("metrics.kube-system", &[("InternalIP", "192.168.7.68")], json!({})),
        node("n4.lan", &[("InternalIP", "192.168.7.14")], json!({})),
    ];
    for (day, node) in nodes.iter_mut().enumerate() {
        let time = json!(format!("2026-01-{:02}T00:00:00Z", day + 1));
        node.meta_mut().creation_timestamp = Some(serde_json::from_value(time).unwrap());
    }
    nodes
}

fn policy() -> Policy {
    let client = |name: &str, group: Option<&str>| Client {
        common_name: name.to_owned(),
        organizations: group.map(str::to_owned).into_iter().collect(),
    };
    Policy {
        clients: vec![client("system:kube-proxy", None), client("kscratch:routes", Some("kscratch:routes"))],
        joiners: "system:bootstrappers:x".to_owned(),
        masters: [("m1", "192.168.7.10"), ("m2", "192.168.7.20")]
            .map(|(name, address)| (name.to_owned(), address.parse().unwrap()))
            .into(),
        names: ["kubernetes", "m1", "cluster.example"].map(str::to_owned).into(),
        addresses: ["10.96.0.1", "192.168.7.8", "192.168.7.9", "192.168.7.10", "127.0.0.1"]
            .map(|text| text.parse().unwrap())
            .into(),
        ranges: ["10.96.0.0/16", "10.244.0.0/16"].map(|text| text.parse().unwrap()).to_vec(),
        namespaces: ["default", "kube-system"].map(str::to_owned).into(),
    }
}

/// A request as the kubelet of `node` makes it.
struct Request {
    signer: &'static str,
    rival: bool,
    user: String,
    groups: Vec<String>,
    usages: Vec<String>,
    names: Names,
}

fn kubelet(node: &str, dns: &[&str], addresses: &[&str]) -> Request {
    Request {
        signer: SERVING,
        rival: false,
        user: format!("system:node:{node}"),
        groups: vec!["system:nodes".to_owned(), "system:authenticated".to_owned()],
        usages: vec!["digital signature".to_owned(), "server auth".to_owned()],
        names: Names {
            common_name: format!("system:node:{node}"),
            organizations: vec!["system:nodes".to_owned()],
            dns_names: dns.iter().map(|name| (*name).to_owned()).collect(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            ..Names::default()
        },
    }
}

fn proxy(node: &str) -> Request {
    let mut request = kubelet(node, &[], &[]);
    request.signer = CLIENT;
    request.usages[1] = "client auth".to_owned();
    request.names = Names { common_name: "system:kube-proxy".to_owned(), ..Names::default() };
    request
}

#[track_caller]
fn check(mut request: Request, change: fn(&mut Request), want: &str) {
    change(&mut request);
    let asked = Asked {
        signer: request.signer,
        user: &request.user,
        groups: &request.groups,
        usages: &request.usages,
        names: Ok(&request.names),
        rival: request.rival,
    };
    let got = match judge(asked, &cluster(), &policy()) {
        Verdict::Approve(what) => format!("approve: {what}"),
        Verdict::Deny(why) => format!("deny: {why}"),
        Verdict::Wait(why) => format!("wait: {why}"),
        Verdict::Pass => "pass".to_owned(),
    };
    assert_eq!(got, want);
}

fn as_is(_: &mut Request) {}

#[test]
fn what_a_node_proves_is_approved() {
    check(kubelet("n1", &["n1"], &["192.168.7.11"]), as_is, "approve: serving certificate of node n1 (192.168.7.11)");
    check(kubelet("n1", &["N1."], &[]), as_is, "approve: serving certificate of node n1 (N1.)");
    check(
        kubelet("n1", &["n1"], &["192.168.7.11"]),
        |it| it.usages.push("key encipherment".to_owned()),
        "approve: serving certificate of node n1 (192.168.7.11)",
    );
    check(kubelet("m1", &["m1"], &["192.168.7.10"]), as_is, "approve: serving certificate of node m1 (192.168.7.10)");
    check(kubelet("n2", &[], &["fd00::12"]), as_is, "approve: serving certificate of node n2 (fd00::12)");
}

#[test]
fn an_address_of_a_node_that_is_off_may_be_anothers_but_a_masters() {
    let approved = "approve: serving certificate of node heir (192.168.7.13)";
    check(kubelet("heir", &["heir"], &["192.168.7.13"]), as_is, approved);
    let kept = "deny: 192.168.7.19 is the address of node m9 too";
    check(kubelet("squatter", &["squatter"], &["192.168.7.19"]), as_is, kept);
    // Nobody takes it from a master by saying that it is his.
    let approved = "approve: serving certificate of node m10 (192.168.7.19)";
    check(kubelet("m10", &["m10"], &["192.168.7.19"]), as_is, approved);
}

#[test]
fn of_two_that_are_alive_the_older_one_has_the_name_and_the_address() {
    let rows = [
        ("n1", "approve: serving certificate of node n1 (192.168.7.11)"),
        ("younger", "deny: 192.168.7.11 is the address of node n1 too"),
    ];
    for (name, want) in rows {
        check(kubelet(name, &[name], &["192.168.7.11"]), as_is, want);
    }
    // Node younger says that it is called so, and m3 that it is called m1.
    check(kubelet("n1", &["n1"], &[]), as_is, "approve: serving certificate of node n1 (n1)");
    check(kubelet("m1", &["m1"], &[]), as_is, "approve: serving certificate of node m1 (m1)");
}

/// With it one would be the API server to every kubelet.
#[test]
fn the_address_that_masters_share_is_no_nodes() {
    for (name, address) in [("m2", "192.168.7.8"), ("m3", "192.168.7.9")] {
        let want = format!("wait: {address} is an address of the control plane, and not that of node {name}");
        check(kubelet(name, &[name], &[address]), as_is, &want);
    }
}

#[test]
fn no_node_has_the_name_of_a_service() {
    let want = "deny: metrics.kube-system is what pods call the Service metrics of the namespace kube-system";
    check(kubelet("metrics.kube-system", &["metrics.kube-system"], &[]), as_is, want);
    check(kubelet("n4.lan", &["n4.lan"], &[]), as_is, "approve: serving certificate of node n4.lan (n4.lan)");
}

#[test]
fn what_the_cluster_does_not_know_yet_waits() {
    check(kubelet("n9", &["n9"], &["192.168.7.19"]), as_is, "wait: there is no Node n9");
    check(kubelet("n1", &["n1"], &["192.168.7.99"]), as_is, "wait: 192.168.7.99 is not the address of Node n1");
}

#[test]
fn nobody_serves_under_another_ones_name() {
    let rows: [(&[&str], &[&str], &str); 15] = [
        (
            &["kubernetes.default.svc.cluster.local"],
            &[],
            "deny: kubernetes.default.svc.cluster.local can be no node's name",
        ),
        (&["kubernetes"], &[], "deny: kubernetes is the name of node kubernetes"),
        (&["cluster.example"], &[], "wait: cluster.example is a name of the control plane, and node bad is none of it"),
        (&["*.example"], &[], "deny: *.example can be no node's name"),
        (&["N2."], &[], "deny: N2. is the name of node n2"),
        (&["localhost"], &[], "deny: localhost can be no node's name"),
        (&[], &["192.168.7.12"], "deny: 192.168.7.12 is the address of node n2 too"),
        (&[], &["10.96.0.1"], "deny: 10.96.0.1 is of 10.96.0.0/16, which is for services or pods"),
        (&[], &["10.96.0.10"], "deny: 10.96.0.10 is of 10.96.0.0/16, which is for services or pods"),
        (&[], &["::ffff:10.244.3.4"], "deny: 10.244.3.4 is of 10.244.0.0/16, which is for services or pods"),
        (&[], &["192.168.7.10"], "deny: 192.168.7.10 is the address of node m1 too"),
        // A pod finds the Service of that name by it.
        (
            &["metrics.kube-system"],
            &[],
            "deny: metrics.kube-system is what pods call the Service metrics of the namespace kube-system",
        ),
        (&[], &["127.0.0.1"], "deny: 127.0.0.1 can be no node's address"),
        (&[], &["::ffff:192.168.7.12"], "deny: 192.168.7.12 is the address of node n2 too"),
        // It has another one before this, and that one is nobody's.
        (&[], &["192.168.7.77"], "wait: 192.168.7.77 is not the address of Node bad"),
    ];
    for (dns, addresses, want) in rows {
        check(kubelet("bad", dns, addresses), as_is, want);
    }
    let want = "wait: kubernetes is a name of the control plane, and node kubernetes is none of it";
    check(kubelet("kubernetes", &["kubernetes"], &[]), as_is, want);
}

#[test]
fn a_serving_request_that_is_not_a_kubelets_is_denied() {
    let good = || kubelet("n1", &["n1"], &["192.168.7.11"]);
    check(good(), |it| it.user = "admin".to_owned(), "deny: admin is no node");
    check(good(), |it| it.user = "system:node:".to_owned(), "deny: system:node: is no node");
    check(good(), |it| it.groups = vec!["system:authenticated".to_owned()], "deny: system:node:n1 is no node");
    check(
        good(),
        |it| it.user = "system:node:n2".to_owned(),
        "deny: system:node:n2 asks for a certificate of system:node:n1",
    );
    check(
        good(),
        |it| it.names.organizations.push("system:masters".to_owned()),
        "deny: its organization is not system:nodes alone",
    );
    check(good(), |it| it.names.organizations.clear(), "deny: its organization is not system:nodes alone");
    check(good(), |it| it.usages.push("client auth".to_owned()), "deny: it asks for the usage client auth");
    check(good(), |it| it.usages.clear(), "deny: it does not ask for the usage server auth");
    check(good(), |it| it.names.other_names.push("URI(spiffe://a)".to_owned()), "deny: it names URI(spiffe://a)");
    check(good(), |it| it.names.other_subject.push("2.5.4.11=x".to_owned()), "deny: it names 2.5.4.11=x");
    check(kubelet("n1", &[], &[]), as_is, "deny: it has neither names nor addresses");
}

#[test]
fn clients_are_those_of_the_list_alone() {
    check(proxy("n1"), as_is, "approve: certificate of system:kube-proxy for node n1");
    check(
        proxy("n1"),
        |it| {
            it.names.common_name = "kscratch:routes".to_owned();
            it.names.organizations = vec!["kscratch:routes".to_owned()];
        },
        "approve: certificate of kscratch:routes for node n1",
    );
    check(
        proxy("n1"),
        |it| it.names.organizations = vec!["system:masters".to_owned()],
        "deny: nodes have no certificate of system:kube-proxy (of system:masters)",
    );
    check(
        proxy("n1"),
        |it| it.names.common_name = "admin".to_owned(),
        "deny: nodes have no certificate of admin (of no group)",
    );
    check(
        proxy("n1"),
        |it| it.names.common_name = "system:node:n2".to_owned(),
        "deny: nodes have no certificate of system:node:n2 (of no group)",
    );
    check(
        proxy("n1"),
        |it| it.names.dns_names.push("n1".to_owned()),
        "deny: a client's certificate has no alternative names",
    );
    check(proxy("n1"), |it| it.usages.push("server auth".to_owned()), "deny: it asks for the usage server auth");
    check(proxy("n1"), |it| it.groups.clear(), "deny: system:node:n1 is no node");
    check(proxy("n1"), |it| it.user = "alice".to_owned(), "pass");
    check(proxy("n1"), |it| it.signer = "kubernetes.io/kube-apiserver-client-kubelet", "pass");
}

/// A request as the kubelet of a machine makes it that joins with a token.
fn joining(node: &str) -> Request {
    Request {
        signer: KUBELET,
        user: "system:bootstrap:abcdef".to_owned(),
        groups: vec!["system:bootstrappers".to_owned(), "system:bootstrappers:x".to_owned()],
        usages: vec!["digital signature".to_owned(), "client auth".to_owned()],
        ..kubelet(node, &[], &[])
    }
}

#[test]
fn a_token_takes_no_living_nodes_name() {
    check(joining("n9"), as_is, "approve: node n9, which joins");
    check(
        joining("n1"),
        as_is,
        "wait: there is a node n1 that is alive; another machine has its name once it is off for a minute, or deleted",
    );
    check(joining("gone"), as_is, "approve: node gone, which joins again");
    check(
        joining("n9"),
        |it| it.rival = true,
        "wait: another machine has just been given the certificate of node n9; this one has the name if the other does not use it",
    );
    check(
        joining("gone"),
        |it| it.rival = true,
        "wait: another machine has just been given the certificate of node gone; this one has the name if the other does not use it",
    );
    check(
        joining("n9"),
        |it| it.names.common_name = "system:kube-proxy".to_owned(),
        "deny: a token makes nodes, and system:kube-proxy of [\"system:nodes\"] is none",
    );
    check(
        joining("n9"),
        |it| it.names.organizations.push("system:masters".to_owned()),
        "deny: a token makes nodes, and system:node:n9 of [\"system:nodes\", \"system:masters\"] is none",
    );
    check(
        joining("n9"),
        |it| it.names.addresses.push("10.0.0.1".parse().unwrap()),
        "deny: a client's certificate has no alternative names",
    );
    check(joining("n9"), |it| it.usages.push("server auth".to_owned()), "deny: it asks for the usage server auth");
    check(joining("n9"), |it| it.groups.clear(), "pass");
    check(joining(""), as_is, "deny: a token makes nodes, and system:node: of [\"system:nodes\"] is none");
}

/// Before its first boot, while it is alive, and while it is off: whoever has its name has the label of its Node.
#[test]
fn a_token_makes_no_master() {
    for name in ["m1", "m2", "m9"] {
        for rival in [false, true] {
            let mut request = joining(name);
            request.rival = rival;
            let want = format!("deny: {name} is a master of this cluster, and no master joins with a token");
            check(request, as_is, &want);
        }
    }
    // Its kubelet's own renewals are not what this is about.
    check(joining("m2"), |it| it.groups = vec!["system:nodes".to_owned()], "pass");
}

#[test]
fn what_cannot_be_read_is_denied() {
    let groups = ["system:nodes".to_owned()];
    let asked = Asked {
        signer: SERVING,
        user: "system:node:n1",
        groups: &groups,
        usages: &[],
        names: Err("it is damaged"),
        rival: false,
    };
    assert_eq!(judge(asked, &cluster(), &policy()), Verdict::Deny("it is damaged".to_owned()));
}
