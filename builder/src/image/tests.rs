//! Which images a role's docker store holds: our own, a master's control plane, and the archives that the spec names.
use std::collections::BTreeSet;

use serde_json::json;

use super::*;
use crate::kubernetes::{ControlPlane, Program};

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, path, *bytes).unwrap();
    }
    tar.into_inner().unwrap()
}

/// An archive as `docker save app:1` writes it.
fn saved() -> Vec<u8> {
    let layer = tar_of(&[("app", b"program")]);
    let diff_ids = [format!("sha256:{}", Digest::of(&layer))];
    let config =
        json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    let manifest = json!([{ "Config": "config.json", "RepoTags": ["app:1"], "Layers": ["layer.tar"] }]);
    tar_of(&[
        ("manifest.json", manifest.to_string().as_bytes()),
        ("config.json", config.to_string().as_bytes()),
        ("layer.tar", &layer),
    ])
}

fn release(role: Role, store: &Store) -> Release {
    let program = |name: &str| {
        let file = store.whole(&store.add_bytes(name.as_bytes()).unwrap()).unwrap();
        (name.to_owned(), Program { file, artifact: "x 1 (test)".into() })
    };
    let names = ["coredns", "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
    let control_plane = (role == Role::Master).then(|| ControlPlane {
        etcd: "3.7.3".into(),
        coredns: "1.14.7".into(),
        programs: names.into_iter().map(program).collect(),
    });
    Release {
        version: "1.37.2".into(),
        cri_dockerd: "0.4.3".into(),
        programs: BTreeMap::new(),
        images: BTreeSet::new(),
        control_plane,
    }
}

#[test]
fn every_role_has_its_images_and_the_users() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    std::fs::write(folder.path().join("app.tar"), saved()).unwrap();
    let spec = ImageSpec::parse("[images]\nload=['app.tar']", &folder.path().join("image.toml")).unwrap();
    let check = |role: Role, upstream: &[&str]| {
        let images = images(&spec, &release(role, &store), &Tree::default(), &store).unwrap();
        let references = dockerstore::references(&dockerstore::seed(&images).unwrap()).unwrap();
        let own: Vec<&str> =
            references.iter().map(String::as_str).filter(|name| !name.starts_with("registry.k8s.io/")).collect();
        assert_eq!(own, ["app:1", dockerstore::HELLO, dockerstore::PAUSE]);
        let tagged = |name: &String| name.strip_prefix("registry.k8s.io/").map(str::to_owned);
        assert_eq!(references.iter().filter_map(tagged).collect::<Vec<_>>(), upstream);
        assert!(images.iter().any(|image| image.reference == "app:1" && image.artifact == "app.tar"));
    };
    check(Role::Node, &[]);
    check(
        Role::Master,
        &[
            "coredns/coredns:v1.14.7",
            "etcd:3.7.3-0",
            "kube-apiserver:v1.37.2",
            "kube-controller-manager:v1.37.2",
            "kube-scheduler:v1.37.2",
        ],
    );
}
