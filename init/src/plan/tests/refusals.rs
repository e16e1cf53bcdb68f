//! The reasons for having no plan, word for word.
use expect_test::{Expect, expect};
use kscratch_metadata::{RoleMetadata, parse};

use super::{CA, cluster, facts, role, two_links};
use crate::facts::Facts;
use crate::plan::{network, node};

#[track_caller]
fn refuse(metadata: &RoleMetadata, facts: &Facts, want: Expect) {
    let error = network(metadata, facts).and_then(|_| node(metadata, facts)).unwrap_err();
    want.assert_eq(&format!("{error}\nhint: {}", error.hint()));
}

#[test]
fn reasons_for_no_plan() {
    refuse(
        &role("[network.links.eth0]\nbridge.members = [\"eth1\"]\ndhcp4 = true\n[network.links.eth1]\n"),
        &facts(),
        expect![[r#"
            network.links.eth0 is a link to be made, and the machine has a network card of that name
            hint: give the table, and those that name it, another name"#]],
    );
    refuse(
        &role("[network.static]\naddress = \"192.168.7.2/24\"\n"),
        &two_links(),
        expect![[r#"
        network.static does not say which link gets 192.168.7.2/24; the machine has eth0 (52:54:00:12:34:56), eth1 (52:54:00:00:00:01)
        hint: set network.interface to one of these, by name or hardware address"#]],
    );
    refuse(
        &role("[node]\npod_range = \"10.0.0.0/20\"\n"),
        &facts(),
        expect![[r#"
        node.pod_range 10.0.0.0/20 overlaps 10.0.2.15/24, the network of eth0
        hint: choose other ranges for the cluster, or another network for its machines"#]],
    );
    refuse(
        &cluster_in("10.0.2.0/24"),
        &facts(),
        expect![[r#"
        cluster.service_range 10.0.2.0/24 overlaps 10.0.2.15/24, the network of eth0
        hint: choose other ranges for the cluster, or another network for its machines"#]],
    );
    let mut master = facts();
    master.release.role = "master".to_owned();
    refuse(
        &RoleMetadata::standalone(),
        &master,
        expect![[r#"
        the metadata says role node, this image was built for role master
        hint: correct `role` in the metadata, or build an image for that role"#]],
    );
    refuse(
        &parse("version = 1\nrole = \"master\"\n").unwrap(),
        &master,
        expect![[r#"
            this image brings no image of etcd
            hint: build the image again: kscratch-image build --role master"#]],
    );
    let mut tokenless = cluster("");
    tokenless.join.token = None;
    refuse(
        &tokenless,
        &facts(),
        expect![[r#"
            there is no join.token, and this machine has not joined the cluster before
            hint: make a token with `kscratch-image cluster token create` and put it into secrets.toml as join.token"#]],
    );
    let mut renamed = facts();
    (renamed.joined, renamed.node_name) = (true, Some("n1".to_owned()));
    tokenless.node.name = Some("n2".to_owned());
    refuse(
        &tokenless,
        &renamed,
        expect![[r#"
            this machine joined its cluster as n1 and is called n2 now, and there is no join.token to join again with
            hint: give it its old name again (node.name), or make a token with `kscratch-image cluster token create` and put it into secrets.toml as join.token"#]],
    );
    refuse(
        &role("[[manifests]]\nname = \"hello\"\ncontent = \"x\"\n"),
        &facts(),
        expect![[r#"
        the manifest "hello.yaml" stands in the metadata and in the image
        hint: give the manifest in the metadata another name"#]],
    );
}

fn cluster_in(service_range: &str) -> RoleMetadata {
    role(&format!("[cluster]\nendpoint = \"a.example\"\nca = '''\n{CA}'''\nservice_range = \"{service_range}\"\n"))
}
