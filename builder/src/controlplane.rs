//! The programs of a control plane become container images, named as upstream names them.
use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::dockerstore::{Component, Image, component};
use crate::kubernetes::Release;
use crate::store::Store;
use crate::tree::{Content, Kind, Node, Tree};

/// Where the tree of an image has the certificates of the public authorities.
const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// What stands behind the image's tag.
#[derive(Debug, Clone, Copy)]
enum Tag {
    /// The version of Kubernetes: `v1.37.2`.
    Kubernetes,
    /// etcd's, in the first revision of its image: `3.7.3-0`.
    Etcd,
    /// CoreDNS': `v1.14.7`.
    CoreDns,
}

/// An image of a master.
struct Part {
    /// Name of the program.
    program: &'static str,
    /// The image's name without its tag.
    repository: &'static str,
    tag: Tag,
    /// Absolute path of the program in the image.
    path: &'static str,
    /// User and group: ARCHITECTURE, "Image contract".
    user: u32,
}

const PARTS: [Part; 5] = [
    Part {
        program: "coredns",
        repository: "registry.k8s.io/coredns/coredns",
        tag: Tag::CoreDns,
        path: "/coredns",
        user: 65532,
    },
    Part {
        program: "etcd",
        repository: "registry.k8s.io/etcd",
        tag: Tag::Etcd,
        path: "/usr/local/bin/etcd",
        user: 904,
    },
    Part {
        program: "kube-apiserver",
        repository: "registry.k8s.io/kube-apiserver",
        tag: Tag::Kubernetes,
        path: "/usr/local/bin/kube-apiserver",
        user: 901,
    },
    Part {
        program: "kube-controller-manager",
        repository: "registry.k8s.io/kube-controller-manager",
        tag: Tag::Kubernetes,
        path: "/usr/local/bin/kube-controller-manager",
        user: 902,
    },
    Part {
        program: "kube-scheduler",
        repository: "registry.k8s.io/kube-scheduler",
        tag: Tag::Kubernetes,
        path: "/usr/local/bin/kube-scheduler",
        user: 903,
    },
];

/// References of a release's images by the name of their program; none for a node.
pub fn references(release: &Release) -> BTreeMap<String, String> {
    let Some(control_plane) = &release.control_plane else { return BTreeMap::new() };
    let reference = |part: &Part| {
        let tag = match part.tag {
            Tag::Kubernetes => format!("v{}", release.version),
            Tag::Etcd => format!("{}-0", control_plane.etcd),
            Tag::CoreDns => format!("v{}", control_plane.coredns),
        };
        (part.program.to_owned(), format!("{}:{tag}", part.repository))
    };
    PARTS.iter().map(reference).collect()
}

/// The images of a release; none for a node. Where `tree` has the certificates of the public authorities, so have they.
///
/// # Errors
/// A program that the release lacks; what reading the store says.
pub fn images(release: &Release, tree: &Tree, store: &Store) -> Result<Vec<Image>> {
    let Some(control_plane) = &release.control_plane else { return Ok(Vec::new()) };
    let bundle = match tree.nodes.get(BUNDLE) {
        Some(Node { kind: Kind::File(content), .. }) => Some(content.clone()),
        _ => None,
    };
    let mut references = references(release);
    let image = |part: &Part| -> Result<Image> {
        let missing = || format!("the release holds no {}", part.program);
        let program = control_plane.programs.get(part.program).with_context(missing)?;
        let composed = Component {
            reference: references.remove(part.program).with_context(missing)?,
            path: part.path,
            program: Content::Stored(program.file.clone()),
            user: part.user,
            bundle: bundle.clone(),
            artifact: program.artifact.clone(),
        };
        component(&composed, store)
    };
    PARTS.iter().map(image).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::dockerstore;
    use crate::kubernetes::{ControlPlane, Program};
    use crate::store::Digest;
    use crate::tree::Origin;

    fn release(store: &Store) -> Release {
        let program = |part: &Part| {
            let file = store.whole(&store.add_bytes(part.program.as_bytes()).unwrap()).unwrap();
            (part.program.to_owned(), Program { file, artifact: "x 1 (test)".into() })
        };
        let control_plane = ControlPlane {
            etcd: "3.7.3".into(),
            coredns: "1.14.7".into(),
            programs: PARTS.iter().map(program).collect(),
        };
        Release {
            version: "1.37.2".into(),
            cri_dockerd: "0.4.3".into(),
            programs: BTreeMap::new(),
            images: BTreeSet::new(),
            control_plane: Some(control_plane),
        }
    }

    #[test]
    fn a_masters_images_have_upstreams_names_and_a_node_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let release = release(&store);
        let images = images(&release, &Tree::default(), &store).unwrap();
        assert_eq!(
            images.iter().map(|image| image.reference.as_str()).collect::<Vec<_>>(),
            [
                "registry.k8s.io/coredns/coredns:v1.14.7",
                "registry.k8s.io/etcd:3.7.3-0",
                "registry.k8s.io/kube-apiserver:v1.37.2",
                "registry.k8s.io/kube-controller-manager:v1.37.2",
                "registry.k8s.io/kube-scheduler:v1.37.2",
            ]
        );
        assert_eq!(
            references(&release).into_values().collect::<Vec<_>>(),
            images.iter().map(|image| image.reference.clone()).collect::<Vec<_>>()
        );
        let node = Release { control_plane: None, ..release };
        assert!(references(&node).is_empty() && super::images(&node, &Tree::default(), &store).unwrap().is_empty());
    }

    #[test]
    fn every_component_is_one_program_of_one_user_beside_the_certificates() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let mut tree = Tree::default();
        let origin = Origin { declaration: String::new(), artifact: String::new() };
        tree.insert(BUNDLE, Node::file(b"certificates".to_vec(), 0o644, origin)).unwrap();
        let images = images(&release(&store), &tree, &store).unwrap();
        let certificates = &images[0].layers[0];
        let mut users = BTreeSet::new();
        for (image, part) in images.iter().zip(&PARTS) {
            assert_eq!(&image.layers[0], certificates, "it is there once for all");
            let Kind::File(Content::Stored(file)) = &image.layers[1].nodes[part.path].kind else { panic!() };
            assert_eq!(file.sha256, Digest::of(part.program.as_bytes()));
            let config: serde_json::Value = serde_json::from_slice(&image.config).unwrap();
            assert_eq!(config["config"]["Entrypoint"], serde_json::json!([part.path]));
            assert_eq!(config["config"]["User"], format!("{0}:{0}", part.user));
            assert!(part.user != 0 && users.insert(part.user));
        }
        let seed = dockerstore::seed(&images).unwrap();
        let folders = seed.nodes.keys().filter(|path| path.ends_with("/ca-certificates.crt")).count();
        assert_eq!((folders, dockerstore::references(&seed).unwrap().len()), (1, 5));
    }
}
