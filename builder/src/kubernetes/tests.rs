//! The three ways to a release, with a Go that is a script and an official server that is not there.
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;
use crate::debian::testarchive::{NOW, TestArchive};
use crate::http::Http;

/// A Go that compiles every package to a file that says which it was.
fn go(folder: &Path, version: &str) -> PathBuf {
    let path = folder.join("go");
    // etcd's package ends in its version, and CoreDNS' is the folder itself.
    let name = "p=${p%/v3}; [ $p = . ] && p=coredns";
    let build = format!(
        "while [ \"$1\" != -o ]; do shift; done; out=$2; shift 2; for p; do {name}; echo $p > $out/${{p##*/}}; done"
    );
    // What is patched is downloaded first.
    for patch in super::pinned::find("cri-dockerd", "0.4.3").unwrap().patches {
        let upstream = folder.join("upstream").join(patch.file);
        fs::create_dir_all(upstream.parent().unwrap()).unwrap();
        let before = fs::read_to_string(&upstream).unwrap_or_default();
        fs::write(&upstream, before + patch.from).unwrap();
    }
    let download = format!("echo '{{\"Dir\": \"{}\"}}'", folder.join("upstream").display());
    let script = format!(
        "#!/bin/sh\ncase $1$2 in env-json) echo {{}};; env*) echo go{version};; list*) echo x;; mod*) {download};; build*) {build};; esac\n"
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Resolves with a Debian archive that has no Go.
fn resolved(spec: &ImageSpec, go: &Path, store: &Store) -> Result<Vec<Artifact>> {
    resolved_for(Role::Node, spec, go, store)
}

fn resolved_for(role: Role, spec: &ImageSpec, go: &Path, store: &Store) -> Result<Vec<Artifact>> {
    let archive = TestArchive::new();
    archive.publish();
    let (mirrors, keyring, http) = (archive.mirrors(), archive.key.keyring(), Http::new()?.attempts(1));
    let source = Source { mirrors: &mirrors, keyring: &keyring, http: &http, store, now: NOW };
    resolve_from(spec, role, NOWHERE, go, &source, &Console::silent())
}

/// A port on which nobody listens.
const NOWHERE: &str = "http://127.0.0.1:9";

/// Locks of these tests have no relative path but where the test is about them.
fn here() -> &'static Path {
    Path::new("")
}

fn lock_of(artifacts: Vec<Artifact>) -> Lock {
    let inputs = crate::lock::Inputs {
        suites: Vec::new(),
        packages: Vec::new(),
        kubernetes: String::new(),
        kubernetes_source: String::new(),
        cri_dockerd: String::new(),
        cri_dockerd_source: String::new(),
        control_plane: None,
    };
    Lock { version: 1, inputs, releases: Vec::new(), artifacts }
}

#[test]
fn what_cannot_be_reached_is_compiled_and_the_lock_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (spec, console) = (ImageSpec::defaults().unwrap(), Console::silent());
    let go126 = go(folder.path(), "1.26.8");
    let artifacts = resolved(&spec, &go126, &store).unwrap();
    let names: Vec<&str> = artifacts.iter().map(|artifact| artifact.name.as_str()).collect();
    assert_eq!(names, ["cri-dockerd", "kubernetes"]);
    assert!(
        matches!(&artifacts[1].origin, Origin::GoBuild { go, module, .. } if go == "1.26.8" && module == "k8s.io/kubernetes")
    );

    let lock = lock_of(artifacts);
    let other = go(&folder.path().join("store"), "1.26.9");
    let error = format!("{:#}", obtain_with(&lock, Role::Node, here(), &other, &store, true, &console).unwrap_err());
    assert!(error.contains("the lock says Go 1.26.8, and this machine's is 1.26.9"), "{error}");

    let release = obtain_with(&lock, Role::Node, here(), &go126, &store, true, &console).unwrap();
    assert_eq!(release.programs.keys().collect::<Vec<_>>(), ["cri-dockerd", "kube-proxy", "kubelet"]);
    assert_eq!(release.programs["kubelet"].artifact, "kubernetes 1.37.2 (compiled with go 1.26.8)");
    assert_eq!((release.version.as_str(), release.cri_dockerd.as_str()), ("1.37.2", "0.4.3"));
    // What was compiled once needs no Go any more.
    assert_eq!(
        obtain_with(&lock, Role::Node, here(), Path::new("/nonexistent/go"), &store, true, &console).unwrap(),
        release
    );

    let mut stale = lock.clone();
    if let Origin::GoBuild { flags, .. } = &mut stale.artifacts[1].origin {
        flags.clear();
    }
    let error = format!("{:#}", obtain_with(&stale, Role::Node, here(), &go126, &store, true, &console).unwrap_err());
    assert!(error.contains("made by another version of this program"), "{error}");
    assert!(
        format!(
            "{:#}",
            obtain_with(&lock_of(Vec::new()), Role::Node, here(), &go126, &store, true, &console).unwrap_err()
        )
        .contains("the lock names no kubernetes")
    );
}

#[test]
fn a_cri_dockerd_of_the_machine_takes_the_place_of_the_compiled_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let mut spec = ImageSpec::defaults().unwrap();
    // No program of this machine is surely static but our own.
    let program = folder.path().join("cri-dockerd");
    fs::write(&program, crate::overlay::programs::PAUSE).unwrap();
    spec.cri_dockerd.source = CriDockerdSource::Path(program.clone());
    // A version that nothing is pinned for: it is not compiled.
    spec.cri_dockerd.version = "0.4.9".into();
    let go126 = go(folder.path(), "1.26.8");
    let artifacts = resolved(&spec, &go126, &store).unwrap();
    assert_eq!(artifacts[0].sha256, Some(Digest::of(crate::overlay::programs::PAUSE)));
    let release =
        obtain_with(&lock_of(artifacts), Role::Node, here(), &go126, &store, true, &Console::silent()).unwrap();
    assert_eq!(release.programs.keys().collect::<Vec<_>>(), ["cri-dockerd", "kube-proxy", "kubelet"]);
    assert_eq!(release.programs["cri-dockerd"].artifact, "cri-dockerd 0.4.9 (local release)");
    assert_eq!(release.programs["cri-dockerd"].file.sha256, Digest::of(crate::overlay::programs::PAUSE));
    assert_eq!(release.cri_dockerd, "0.4.9");
}

#[test]
fn a_lock_with_files_of_the_machine_is_the_same_from_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("cache")).unwrap();
    fs::write(folder.path().join("cri-dockerd"), crate::overlay::programs::PAUSE).unwrap();
    let mut spec = ImageSpec::defaults().unwrap();
    spec.cri_dockerd.source = CriDockerdSource::Path("./cri-dockerd".into());
    let go126 = go(folder.path(), "1.26.8");
    let error = format!("{:#}", resolved(&spec, &go126, &store).unwrap_err());
    assert!(error.contains("./cri-dockerd"), "{error}");
    // As from the folder above, with --config FOLDER/image.toml.
    spec.folder = folder.path().to_owned();
    let artifacts = resolved(&spec, &go126, &store).unwrap();
    assert_eq!(artifacts[0].origin, Origin::LocalFile { path: "./cri-dockerd".into() });
    let lock = lock_of(artifacts);
    let cold = Store::open(&folder.path().join("cold")).unwrap();
    let from = |place: &Path, store: &Store| {
        one(&lock.artifacts[0], place, &go126, store, true, &Console::silent()).map(|(programs, _)| programs.len())
    };
    assert_eq!(from(folder.path(), &cold).unwrap(), 1);
    let other = Store::open(&folder.path().join("other")).unwrap();
    assert!(from(here(), &other).is_err(), "there is no such file where this test runs");
}

#[test]
fn an_official_tarball_that_is_demanded_is_not_compiled_instead() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let mut spec = ImageSpec::defaults().unwrap();
    spec.kubernetes.source = KubernetesSource::Tarball;
    let error = resolved(&spec, &go(folder.path(), "1.26.8"), &store).unwrap_err();
    assert!(format!("{error:#}").contains("/v1.37.2/kubernetes-server-linux-amd64.tar.gz.sha256"), "{error:#}");
    spec.kubernetes.version = "1.30.1".into();
    let error = resolved(&spec, Path::new("go"), &store).unwrap_err();
    assert!(format!("{error:#}").contains("Kubernetes 1.30 is not supported"), "{error:#}");
}

#[test]
fn a_masters_control_plane_is_compiled_beside_a_node() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (mut spec, console) = (ImageSpec::defaults().unwrap(), Console::silent());
    let go126 = go(folder.path(), "1.26.8");
    let node = lock_of(resolved(&spec, &go126, &store).unwrap());
    let artifacts = resolved_for(Role::Master, &spec, &go126, &store).unwrap();
    assert_eq!(artifacts[..2], node.artifacts, "what a node has is what it was");
    let versions: Vec<String> =
        artifacts[2..].iter().map(|artifact| format!("{} {}", artifact.name, artifact.version)).collect();
    assert_eq!(versions, ["kubernetes-control-plane 1.37.2", "kubectl 1.37.2", "etcd 3.7.3", "coredns 1.14.7"]);

    let lock = lock_of(artifacts);
    let release = obtain_with(&lock, Role::Master, here(), &go126, &store, true, &console).unwrap();
    assert_eq!(release.programs.keys().collect::<Vec<_>>(), ["cri-dockerd", "kube-proxy", "kubelet"]);
    let control_plane = release.control_plane.unwrap();
    assert_eq!((control_plane.etcd.as_str(), control_plane.coredns.as_str()), ("3.7.3", "1.14.7"));
    assert_eq!(
        control_plane.programs.keys().collect::<Vec<_>>(),
        ["coredns", "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]
    );
    assert_eq!(control_plane.programs["etcd"].artifact, "etcd 3.7.3 (compiled with go 1.26.8)");
    let client = kubectl(&lock, here(), &store, true, &console).unwrap();
    assert_eq!(fs::read_to_string(&client).unwrap(), "k8s.io/kubernetes/cmd/kubectl\n");
    assert_eq!(fs::metadata(&client).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(kubectl(&lock, here(), &store, true, &console).unwrap(), client);

    assert_eq!(obtain_with(&lock, Role::Node, here(), &go126, &store, true, &console).unwrap().control_plane, None);
    let error = format!("{:#}", obtain_with(&node, Role::Master, here(), &go126, &store, true, &console).unwrap_err());
    assert!(error.contains("the lock names no etcd; make it anew: kscratch-image lock --role master"), "{error}");

    spec.kubernetes.version = "1.36.3".into();
    let etcd = |spec: &ImageSpec| resolved_for(Role::Master, spec, &go126, &store).unwrap()[4].version.clone();
    assert_eq!(etcd(&spec), "3.6.16");
    spec.etcd.version = Some("3.7.3".into());
    assert_eq!(etcd(&spec), "3.7.3");
}

#[test]
fn a_release_of_the_machine_brings_its_own_control_plane() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (mut spec, console) = (ImageSpec::defaults().unwrap(), Console::silent());
    let (go126, bin) = (go(folder.path(), "1.26.8"), folder.path().join("server/bin"));
    fs::create_dir_all(&bin).unwrap();
    for name in ["kubelet", "kube-proxy", "kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
        fs::write(bin.join(name), format!("a {name}")).unwrap();
    }
    spec.kubernetes.source = KubernetesSource::Path(folder.path().join("server"));
    let error = format!("{:#}", resolved_for(Role::Master, &spec, &go126, &store).unwrap_err());
    assert!(error.contains("holds no kubernetes/server/bin/kubectl"), "{error}");
    fs::write(bin.join("kubectl"), "a kubectl").unwrap();
    let lock = lock_of(resolved_for(Role::Master, &spec, &go126, &store).unwrap());
    let release = obtain_with(&lock, Role::Master, here(), &go126, &store, true, &console).unwrap();
    let server = &release.control_plane.unwrap().programs["kube-apiserver"];
    assert_eq!(server.artifact, "kubernetes-control-plane 1.37.2 (local release)");
    assert_eq!(server.file.sha256, Digest::of(b"a kube-apiserver"));
    assert_eq!(fs::read(kubectl(&lock, here(), &store, true, &console).unwrap()).unwrap(), b"a kubectl");
}
