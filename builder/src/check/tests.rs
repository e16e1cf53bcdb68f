//! One good tree, spoiled in one way a row; and contents that cannot be read.
use std::collections::BTreeMap;

use super::*;
use crate::dockerstore::{self, HELLO, PAUSE};
use crate::overlay::{self, Versions};
use crate::reach::tests::{Memory, elf_file};
use crate::spec::Role;
use crate::store::{Digest, Stored};
use crate::tree::{Content, Kind, Origin};

fn origin() -> Origin {
    Origin { declaration: "program x".into(), artifact: "x 1 (debian)".into() }
}

fn good() -> Tree {
    let versions = Versions {
        kubernetes: "1".into(),
        cri_dockerd: "1".into(),
        docker: "1".into(),
        kernel: "6".into(),
        images: BTreeMap::new(),
    };
    let mut tree = overlay::base(Role::Node, &versions).unwrap();
    let mut put = |path: &str, bytes: Vec<u8>| tree.insert(path, Node::file(bytes, 0o755, origin())).unwrap();
    let library = "/usr/lib/x86_64-linux-gnu/libc.so.6";
    put(library, elf_file(None, &[], None));
    put("/lib64/ld.so", elf_file(None, &[], None));
    for name in [
        "kubelet",
        "kube-proxy",
        "cri-dockerd",
        "containerd",
        "containerd-shim-runc-v2",
        "docker-init",
        "dockerd",
        "runc",
        "mount",
        "umount",
        "nsenter",
        "iptables",
        "ip6tables",
        "iptables-save",
        "iptables-restore",
        "nft",
        "conntrack",
        "ip",
        "mkfs.ext4",
        "e2fsck",
        "resize2fs",
    ] {
        put(&format!("/usr/sbin/{name}"), elf_file(Some("/lib64/ld.so"), &["libc.so.6"], None));
    }
    for name in ["bridge", "host-local", "loopback", "portmap"] {
        put(&format!("/opt/cni/bin/{name}"), elf_file(None, &[], None));
    }
    put("/usr/lib/modules/6/kernel/a.ko", b"a".to_vec());
    put("/usr/lib/modules/6/modules.dep", b"kernel/a.ko:\n".to_vec());
    let images = [
        dockerstore::compose(PAUSE, "pause", b"pause", None).unwrap(),
        dockerstore::compose(HELLO, "hello", b"hello", Some(8080)).unwrap(),
    ];
    tree.merge(dockerstore::seed(&images).unwrap()).unwrap().complete().unwrap()
}

#[test]
fn a_good_tree_passes() {
    tree(&good(), &Memory::default()).unwrap();
}

#[track_caller]
fn check(spoil: impl FnOnce(&mut BTreeMap<String, Node>), want: &str) {
    let mut spoiled = good();
    spoil(&mut spoiled.nodes);
    let error = format!("{:#}", tree(&spoiled, &Memory::default()).unwrap_err());
    assert!(error.contains(want), "{error}");
    assert_eq!(error.matches("failed: ").count(), 1, "{error}");
}

fn file(bytes: &[u8], mode: u16) -> Node {
    Node::file(bytes.to_vec(), mode, origin())
}

#[test]
fn every_rule_finds_what_breaks_it() {
    let dynamic = || Node::file(elf_file(Some("/lib64/ld.so"), &["libc.so.6"], None), 0o755, origin());
    let needy = || Node::file(elf_file(None, &["libgone.so.1"], None), 0o644, origin());
    let seed = format!("{SEED}/layers/x");
    check(|nodes| drop(nodes.insert(overlay::INIT.into(), dynamic())), "/sbin/init is linked dynamically");
    check(|nodes| drop(nodes.remove("/usr/sbin/runc")), "runc is neither in /usr/sbin nor in /usr/bin");
    check(|nodes| drop(nodes.remove("/opt/cni/bin/portmap")), "/opt/cni/bin/portmap is missing");
    check(|nodes| drop(nodes.remove("/mnt")), "/mnt is missing");
    check(
        |nodes| drop(nodes.insert("/usr/lib/x.so".into(), needy())),
        "/usr/lib/x.so needs libgone.so.1, which is in none of",
    );
    check(|nodes| drop(nodes.remove("/usr/lib/modules/6/kernel/a.ko")), "names kernel/a.ko, which is missing");
    check(
        |nodes| drop(nodes.insert("/etc/x".into(), Node::symlink("gone", origin()))),
        "/etc/x leads to /etc/gone, which is missing",
    );
    check(
        |nodes| drop(nodes.insert("/usr/x".into(), file(b"", 0o4755))),
        "/usr/x has setuid, setgid or a capability (program x",
    );
    check(|nodes| drop(nodes.insert("/usr/x".into(), file(b"", 0o666))), "/usr/x has mode 0666");
    check(|nodes| drop(nodes.insert("/usr/x".into(), Node::directory(0o777, origin()))), "/usr/x has mode 0777");
    check(|nodes| drop(nodes.insert("/usr/x".into(), Node { uid: 7, ..file(b"", 0o644) })), "/usr/x belongs to 7:0");
    check(|nodes| drop(nodes.insert("/usr/bin/bash".into(), file(b"", 0o755))), "/usr/bin/bash is there");
    check(|nodes| drop(nodes.insert("/usr/bin/dpkg".into(), file(b"", 0o755))), "/usr/bin/dpkg is there");
    check(
        |nodes| drop(nodes.insert("/usr/bin/x".into(), file(b"#!/bin/python\n", 0o755))),
        "is a script for /bin/python",
    );
    // What a container image holds is its own business.
    let mut tree_with_image = good();
    tree_with_image.nodes.insert(format!("{seed}/bin/sh"), file(b"", 0o4777));
    tree(&tree_with_image, &Memory::default()).unwrap();
}

#[test]
fn an_image_that_anything_names_must_be_inside() {
    let hello = format!("{}/hello.yaml", overlay::MANIFESTS);
    let user = |text: &str| {
        let origin = Origin { declaration: "manifest of image.toml".into(), artifact: "app.yaml".into() };
        Node::file(text.as_bytes().to_vec(), 0o644, origin)
    };
    let put = |text: &'static str| {
        move |nodes: &mut BTreeMap<String, Node>| {
            nodes.insert(format!("{}/app.yaml", overlay::MANIFESTS), user(text));
        }
    };
    check(
        |nodes| nodes.retain(|path, _| !path.ends_with("seed.json")),
        "hello.yaml names the image kscratch.local/hello:",
    );
    check(
        put("kind: Pod\nspec: {containers: [{image: 'registry.example/app:1'}]}"),
        "/usr/share/kscratch/manifests/app.yaml names the image registry.example/app:1, which is not in the image; save it (docker \
         save NAME:TAG -o FILE) and name the file in load of [images] in image.toml (manifest of image.toml from app.yaml)",
    );
    check(
        put("a: {volumes: [{image: {reference: 'v:1'}}]}"),
        "app.yaml names the image v:1, which is not in the image",
    );
    check(
        |nodes| {
            drop(nodes.insert(
                "/usr/share/kscratch/addons/dns.json".into(),
                user(r#"{"items":[{"spec":{"containers":[{"image":"c:1"}]}}]}"#),
            ))
        },
        "addons/dns.json names the image c:1",
    );
    let always: &'static str = format!("containers: [{{image: '{PAUSE}', imagePullPolicy: Always}}]").leak();
    check(put(always), "app.yaml asks a registry for kscratch.local/pause:");
    let release = r#"{"pause_image":"p:1","images":{"etcd":"registry.k8s.io/etcd:3.7.3-0"}}"#;
    for want in ["release.json names the image p:1", "release.json names the image registry.k8s.io/etcd:3.7.3-0"] {
        check(|nodes| drop(nodes.insert(overlay::RELEASE.into(), user(release))), want);
    }
    let mut fine = good();
    let text = format!("kind: Pod\nspec: {{initContainers: [{{image: '{PAUSE}'}}]}}\n---\nkind: List\n");
    fine.nodes.insert(hello, Node::file(text.into_bytes(), 0o644, origin()));
    tree(&fine, &Memory::default()).unwrap();
    fine.nodes.insert("/usr/share/kscratch/manifests/bad.yaml".into(), user("a: [1"));
    let error = format!("{:#}", tree(&fine, &Memory::default()).unwrap_err());
    assert!(
        error.contains("could not check: every image that the image names is in it: reading the manifest"),
        "{error}"
    );
}

#[test]
fn what_could_not_be_read_is_told_apart_from_what_failed() {
    let mut spoiled = good();
    let gone = Stored { file: "sha256/x".into(), offset: 0, len: 1, sha256: Digest([9; 32]) };
    let node = Node { kind: Kind::File(Content::Stored(gone)), ..file(b"", 0o755) };
    spoiled.nodes.insert("/usr/lib/x".into(), node);
    let error = format!("{:#}", tree(&spoiled, &Memory::default()).unwrap_err());
    assert!(error.contains("could not check: every ELF file's libraries are there: opening /usr/lib/x"), "{error}");
    assert!(!error.contains("failed: "), "{error}");
}
