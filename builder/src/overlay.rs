//! The overlays of a role, embedded in this program, and the folders every root has become a [`Tree`].
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::spec::Role;
use crate::tree::{Node, Origin, Tree};

/// The programs that run in the image, compiled by this crate's build script.
pub mod programs {
    include!(concat!(env!("OUT_DIR"), "/programs.rs"));
}

/// Where the image has its init.
pub const INIT: &str = "/usr/lib/kscratch/init";

/// What keeps a machine in its cluster.
pub const AGENT: &str = "/usr/lib/kscratch/agent";

/// What cri-dockerd looks for by this name to forward a port into a pod.
pub const SOCAT: &str = "/usr/bin/socat";

/// Where static pod manifests stand in the image.
pub const MANIFESTS: &str = "/usr/share/kscratch/manifests";

/// Where the image says what it is of.
pub const RELEASE: &str = "/usr/share/kscratch/release.json";

/// An entry of `overlays/` at the time of this program's compilation.
struct Embedded {
    overlay: &'static str,
    path: &'static str,
    what: What,
}

enum What {
    File(u16, &'static [u8]),
    Link(&'static str),
}

/// What a file of `overlays/` writes where it means this program's version: our own images are tagged with it.
const VERSION_PLACEHOLDER: &str = "${KSCRATCH_VERSION}";

const EMBEDDED: &[Embedded] = include!(concat!(env!("OUT_DIR"), "/overlays.rs"));

/// Folders that are empty in the image, with their permission bits: mount points, and root's home.
const FOLDERS: [(&str, u16); 8] = [
    ("/dev", 0o755),
    ("/mnt", 0o755),
    ("/proc", 0o555),
    ("/root", 0o700),
    ("/run", 0o755),
    ("/sys", 0o555),
    ("/tmp", 0o1777),
    ("/var", 0o755),
];

/// Versions of what is in an image: `/usr/share/kscratch/release.json`, for init and for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions {
    /// Kubernetes, without `v`.
    pub kubernetes: String,
    /// cri-dockerd, without `v`.
    pub cri_dockerd: String,
    /// Debian's docker.
    pub docker: String,
    /// The kernel: the name of its folder of modules.
    pub kernel: String,
    /// References of a master's images, by the names of their programs; none in a node.
    pub images: BTreeMap<String, String>,
}

/// What every image of this role has: empty folders, init and its links, the embedded overlays, what tells the versions.
///
/// # Errors
/// Overlays that want different things at one path.
pub fn base(role: Role, versions: &Versions) -> Result<Tree> {
    let mut tree = Tree::default();
    let made = |declaration: &str| Origin { declaration: declaration.to_owned(), artifact: "kscratch-image".into() };
    for (path, mode) in FOLDERS {
        tree.insert(path, Node::directory(mode, made("folder of every image")))?;
    }
    tree.insert(INIT, Node::file(programs::INIT.to_vec(), 0o755, made("init of every image")))?;
    tree.insert(AGENT, Node::file(programs::AGENT.to_vec(), 0o755, made("agent of every image")))?;
    tree.insert(SOCAT, Node::file(programs::SOCAT.to_vec(), 0o755, made("port forwarder of every image")))?;
    for link in ["/usr/sbin/init", "/usr/sbin/modprobe"] {
        tree.insert(link, Node::symlink("../lib/kscratch/init", made("link to init")))?;
    }
    tree.insert("/usr/lib/os-release", Node::file(os_release().into_bytes(), 0o644, made("name of the system")))?;
    tree.insert("/etc/os-release", Node::symlink("../usr/lib/os-release", made("name of the system")))?;
    let release = serde_json::to_vec_pretty(&release(role, versions)).context("writing release.json")?;
    tree.insert(RELEASE, Node::file(release, 0o644, made("versions of the image")))?;
    for entry in EMBEDDED.iter().filter(|entry| entry.overlay == "common" || entry.overlay == name(role)) {
        let origin = Origin { declaration: "overlay".into(), artifact: format!("overlays/{}", entry.overlay) };
        let node = match entry.what {
            What::File(mode, bytes) => Node::file(versioned(bytes), mode, origin),
            What::Link(target) => Node::symlink(target, origin),
        };
        tree.insert(entry.path, node)?;
    }
    Ok(tree)
}

/// The bytes with this program's version in every placeholder; what is no text has none.
fn versioned(bytes: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.replace(VERSION_PLACEHOLDER, env!("CARGO_PKG_VERSION")).into_bytes(),
        Err(_) => bytes.to_vec(),
    }
}

fn name(role: Role) -> &'static str {
    match role {
        Role::Node => "node",
        Role::Master => "master",
    }
}

fn release(role: Role, versions: &Versions) -> serde_json::Value {
    let mut release = json!({
        "kubernetes": versions.kubernetes,
        "cri_dockerd": versions.cri_dockerd,
        "docker": versions.docker,
        "kernel": versions.kernel,
        "kscratch": env!("CARGO_PKG_VERSION"),
        "role": name(role),
        "pause_image": crate::dockerstore::PAUSE,
    });
    if let (false, Some(table)) = (versions.images.is_empty(), release.as_object_mut()) {
        table.insert("images".into(), json!(versions.images));
    }
    release
}

/// The text of os-release(5), also the boot file's `.osrel`.
pub fn os_release() -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!("ID=kscratch\nNAME=kscratch\nVERSION_ID={version}\nPRETTY_NAME=\"kscratch {version}\"\n")
}

/// The static pod manifests of a spec, each under its own file name.
///
/// # Errors
/// A file that cannot be read or is not YAML by its name, two of one name.
pub fn manifests(files: &[PathBuf]) -> Result<Tree> {
    let mut tree = Tree::default();
    for file in files {
        let name = file
            .file_name()
            .and_then(|name| name.to_str())
            .with_context(|| format!("the manifest {} has no file name", file.display()))?;
        if !(name.ends_with(".yaml") || name.ends_with(".yml") || name.ends_with(".json")) {
            bail!(
                "kubelet reads manifests by their ending .yaml, .yml or .json, and {} has none of them",
                file.display()
            );
        }
        let bytes = fs::read(file).with_context(|| format!("reading the manifest {}", file.display()))?;
        let origin = Origin { declaration: "manifest of image.toml".into(), artifact: name.to_owned() };
        tree.insert(&format!("{MANIFESTS}/{name}"), Node::file(bytes, 0o644, origin))?;
    }
    Ok(tree)
}

/// All folders of the user's.
///
/// # Errors
/// As [`folder`], and two that want different things at one path.
pub fn folders(roots: &[PathBuf]) -> Result<Tree> {
    roots.iter().try_fold(Tree::default(), |tree, root| Ok(tree.merge(folder(root)?)?))
}

/// A folder of the user's, as it stands: permission bits are kept, everything belongs to root. Folders in it are just the way to what they hold, unless
/// they are empty.
///
/// # Errors
/// What reading says; a socket, device or pipe; a path that is not UTF-8.
fn folder(root: &Path) -> Result<Tree> {
    let mut tree = Tree::default();
    let name = root.file_name().map_or_else(|| root.display().to_string(), |name| name.display().to_string());
    let mut next = vec![root.to_owned()];
    while let Some(folder) = next.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("reading the overlay {}", folder.display()))? {
            let path = entry?.path();
            let inside = path
                .strip_prefix(root)?
                .to_str()
                .with_context(|| format!("the path {} is not UTF-8", path.display()))?;
            let metadata = fs::symlink_metadata(&path).with_context(|| format!("reading {}", path.display()))?;
            let origin = Origin { declaration: "overlay".into(), artifact: name.clone() };
            let mode = u16::try_from(metadata.permissions().mode() & 0o7777)?;
            let node = if metadata.is_dir() {
                next.push(path.clone());
                let mut inside =
                    fs::read_dir(&path).with_context(|| format!("reading the overlay {}", path.display()))?;
                if inside.next().is_some() {
                    continue;
                }
                Node::directory(mode, origin)
            } else if metadata.is_symlink() {
                let target = fs::read_link(&path)?;
                Node::symlink(
                    target.to_str().with_context(|| format!("the link {} is not UTF-8", path.display()))?,
                    origin,
                )
            } else if metadata.is_file() {
                Node::file(fs::read(&path).with_context(|| format!("reading {}", path.display()))?, mode, origin)
            } else {
                bail!("{} is neither a file nor a folder nor a link", path.display());
            };
            tree.insert(&format!("/{inside}"), node)?;
        }
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Content, Kind};

    fn versions() -> Versions {
        Versions {
            kubernetes: "1.37.2".into(),
            cri_dockerd: "0.4.3".into(),
            docker: "26.1.5".into(),
            kernel: "6.12".into(),
            images: BTreeMap::new(),
        }
    }

    #[test]
    fn every_role_has_what_init_relies_on() {
        for role in [Role::Node, Role::Master] {
            let tree = base(role, &versions()).unwrap().complete().unwrap();
            assert_eq!(tree.resolve("/sbin/init").as_deref(), Some(INIT));
            assert_eq!(tree.resolve("/sbin/modprobe").as_deref(), Some(INIT));
            for (link, target) in
                [("/etc/resolv.conf", "/run/kscratch/resolv.conf"), ("/etc/kubernetes", "/var/lib/kubernetes")]
            {
                assert_eq!(tree.nodes[link].kind, Kind::Symlink(target.into()));
            }
            assert!(tree.find("/etc/os-release").is_some());
            assert_eq!(tree.nodes["/tmp"].mode, 0o1777);
        }
        let hello = format!("{MANIFESTS}/hello.yaml");
        assert!(base(Role::Node, &versions()).unwrap().nodes.contains_key(&hello));
        assert!(!base(Role::Master, &versions()).unwrap().nodes.contains_key(&hello));
    }

    #[test]
    fn a_masters_release_names_its_images_and_a_nodes_has_no_word_of_them() {
        let text = |role: Role, versions: &Versions| match &base(role, versions).unwrap().nodes[RELEASE].kind {
            Kind::File(Content::Literal(bytes)) => String::from_utf8(bytes.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        };
        assert!(!text(Role::Node, &versions()).contains("images"));
        let etcd = "registry.k8s.io/etcd:3.7.3-0";
        let master = Versions { images: [("etcd".into(), etcd.into())].into(), ..versions() };
        let release: serde_json::Value = serde_json::from_str(&text(Role::Master, &master)).unwrap();
        assert_eq!((&release["images"]["etcd"], &release["role"]), (&json!(etcd), &json!("master")));
    }

    #[test]
    fn embedded_files_name_the_version_by_its_placeholder() {
        let tree = base(Role::Node, &versions()).unwrap();
        let text = |path: &str| match &tree.nodes[path].kind {
            Kind::File(Content::Literal(bytes)) => String::from_utf8(bytes.to_vec()).unwrap(),
            other => panic!("{path} is {other:?}"),
        };
        let hello = text(&format!("{MANIFESTS}/hello.yaml"));
        assert!(hello.contains(&format!("image: {}\n", crate::dockerstore::HELLO)), "{hello}");
        for entry in EMBEDDED {
            let What::File(_, bytes) = entry.what else { continue };
            // A version of its own would be forgotten at the next one, and a placeholder by another name stay as it is.
            let stands = |what: &str| bytes.windows(what.len()).any(|window| window == what.as_bytes());
            assert!(!stands(env!("CARGO_PKG_VERSION")), "{} names the version", entry.path);
            assert_eq!(stands("${KSCRATCH_"), stands(VERSION_PLACEHOLDER), "{}", entry.path);
        }
        assert_eq!(versioned(b"\xff${KSCRATCH_VERSION}"), b"\xff${KSCRATCH_VERSION}");
    }

    #[test]
    fn a_users_folder_is_taken_as_it_stands() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::create_dir(root.path().join("etc/empty")).unwrap();
        fs::write(root.path().join("etc/x"), b"1").unwrap();
        std::os::unix::fs::symlink("x", root.path().join("etc/y")).unwrap();
        let tree = folders(&[root.path().to_owned()]).unwrap();
        assert_eq!(tree.nodes.keys().collect::<Vec<_>>(), ["/etc/empty", "/etc/x", "/etc/y"]);
        assert_eq!(tree.nodes["/etc/y"].kind, Kind::Symlink("x".into()));
        assert_eq!(tree.nodes["/etc/x"].kind, Kind::File(Content::from(b"1".to_vec())));
        let socket = std::os::unix::net::UnixListener::bind(root.path().join("s")).unwrap();
        assert!(folder(root.path()).unwrap_err().to_string().contains("is neither a file nor a folder nor a link"));
        drop(socket);
    }

    #[test]
    fn manifests_need_an_ending_that_kubelet_reads() {
        let folder = tempfile::tempdir().unwrap();
        let (good, bad) = (folder.path().join("a.yaml"), folder.path().join("b.txt"));
        fs::write(&good, b"kind: Pod").unwrap();
        fs::write(&bad, b"kind: Pod").unwrap();
        assert!(manifests(&[good]).unwrap().nodes.contains_key(&format!("{MANIFESTS}/a.yaml")));
        assert!(manifests(&[bad]).unwrap_err().to_string().contains("by their ending .yaml"));
    }
}
