//! Which name a machine has, and what it does not keep under another one.
use ipnet::Ipv4Net;

use super::{cluster, facts, role, steps};
use crate::facts::{Facts, GivenRange};
use crate::plan::{identity, known_range};

#[test]
fn names() {
    let name = |metadata: &str, dhcp: Option<&str>| {
        let mut facts = facts();
        facts.dhcp_hostname = dhcp.map(str::to_owned);
        identity::name(&role(metadata), &facts)
    };
    assert_eq!(name("[node]\nname = \"n1\"\n", Some("dhcp")), "n1");
    assert_eq!(name("", Some("Rack7.Lab")), "rack7.lab");
    for useless in [None, Some(""), Some("localhost"), Some("a_b"), Some("-")] {
        assert_eq!(name("", useless), "kscratch-01234567");
    }
}

/// A server that is slow at one boot, or suggests something else, makes no other node of a machine that has joined.
#[test]
fn a_joined_node_keeps_its_name_until_the_metadata_gives_it_another_one() {
    let joined = |dhcp: Option<&str>| Facts {
        joined: true,
        node_name: Some("n1".to_owned()),
        dhcp_hostname: dhcp.map(str::to_owned),
        ..facts()
    };
    for (metadata, dhcp, want, told) in [
        (cluster(""), None, "n1", false),
        (cluster(""), Some("N1"), "n1", false),
        (cluster(""), Some("n2"), "n1", true),
        (cluster("[node]\nname = \"n3\"\n"), Some("n2"), "n3", false),
        (role(""), Some("n2"), "n2", false),
    ] {
        let facts = joined(dhcp);
        assert_eq!(identity::name(&metadata, &facts), want);
        let config = steps(&metadata, &facts, "config");
        assert_eq!(config.contains("note the DHCP server calls this machine n2; it stays n1"), told, "{config}");
    }
}

/// The range that the cluster gave is one Node's: under another name the machine asks again.
#[test]
fn a_remembered_range_is_that_of_its_name() {
    let range: Ipv4Net = "10.244.7.0/24".parse().unwrap();
    for (node, want) in [(Some("n1"), Some(range)), (Some("n2"), None), (None, Some(range))] {
        let pod_range = Some(GivenRange { range, node: node.map(str::to_owned) });
        let facts = Facts { pod_range, ..facts() };
        assert_eq!(known_range(&cluster("[node]\nname = \"n1\"\n"), &facts), want, "{node:?}");
    }
}

/// With a token it joins again under its new name, and its kubeconfig is the first contact's.
#[test]
fn a_renamed_node_does_not_go_on_with_the_certificate_of_its_old_name() {
    let metadata = cluster("[node]\nname = \"n2\"\n");
    let kubeconfig = |last: &str| {
        let facts = Facts { joined: true, node_name: Some(last.to_owned()), ..facts() };
        let config = steps(&metadata, &facts, "config");
        (config.contains("/etc/kubernetes/kubelet.conf"), config.contains("bootstrap-kubelet.conf"))
    };
    assert_eq!(kubeconfig("n2"), (true, true));
    assert_eq!(kubeconfig("n1"), (false, true));
}
