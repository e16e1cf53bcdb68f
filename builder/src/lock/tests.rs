//! Locks written, read, compared with specs, and refused.
use std::path::Path;

use expect_test::expect;
use proptest::prelude::{any, proptest};

use super::{Archive, Artifact, DebianRelease, Inputs, Lock, Origin};
use crate::spec::{ImageSpec, Role};
use crate::store::Digest;

fn spec(text: &str) -> ImageSpec {
    ImageSpec::parse(text, Path::new("image.toml")).unwrap()
}

fn lock() -> Lock {
    let mut inputs = Inputs::of(&spec(""), Role::Node);
    inputs.packages = vec!["mount".into()];
    Lock {
        version: 1,
        inputs,
        releases: vec![DebianRelease {
            archive: Archive::Main,
            suite: "trixie".into(),
            date: 1_789_199_741,
            sha256: Digest([1; 32]),
        }],
        artifacts: vec![
            Artifact {
                name: "kubernetes".into(),
                version: "1.37.2".into(),
                size: None,
                sha256: None,
                origin: Origin::GoBuild {
                    module: "k8s.io/kubernetes".into(),
                    module_version: "v1.37.2".into(),
                    programs: vec!["./cmd/kubelet".into()],
                    go_sum: Digest([2; 32]),
                    go: "1.26.1".into(),
                    flags: vec!["-trimpath".into()],
                },
            },
            Artifact {
                name: "mount".into(),
                version: "2.41-1".into(),
                size: Some(9),
                sha256: Some(Digest([3; 32])),
                origin: Origin::DebianPackage { archive: Archive::Security, path: "pool/main/m/mount.deb".into() },
            },
        ],
    }
}

#[test]
fn the_text_is_stable_and_reads_back() {
    let text = lock().print().unwrap();
    expect![[r#"
        # Made by `kscratch-image lock`: what exactly an image is made of. Keep it with image.toml.
        version = 1

        [inputs]
        suites = ["trixie", "trixie-updates", "trixie-security"]
        packages = ["mount"]
        kubernetes = "1.37.2"
        kubernetes_source = "auto"
        cri_dockerd = "0.4.3"
        cri_dockerd_source = "compile"

        [[release]]
        archive = "main"
        suite = "trixie"
        date = 1789199741
        sha256 = "0101010101010101010101010101010101010101010101010101010101010101"

        [[artifact]]
        name = "kubernetes"
        version = "1.37.2"

        [artifact.origin]
        kind = "go-build"
        module = "k8s.io/kubernetes"
        module_version = "v1.37.2"
        programs = ["./cmd/kubelet"]
        go_sum = "0202020202020202020202020202020202020202020202020202020202020202"
        go = "1.26.1"
        flags = ["-trimpath"]

        [[artifact]]
        name = "mount"
        version = "2.41-1"
        size = 9
        sha256 = "0303030303030303030303030303030303030303030303030303030303030303"

        [artifact.origin]
        kind = "debian-package"
        archive = "security"
        path = "pool/main/m/mount.deb"
    "#]]
    .assert_eq(&text);
    assert_eq!(Lock::parse(&text).unwrap(), lock());
    let older = text.replace("cri_dockerd_source = \"compile\"\n", "");
    assert_eq!(Lock::parse(&older).unwrap(), lock(), "a lock from before cri-dockerd's source was a choice");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kscratch.lock");
    lock().write(&file).unwrap();
    assert_eq!(Lock::read(&file).unwrap(), lock());
}

#[test]
fn bad_locks_are_refused() {
    let good = lock().print().unwrap();
    let check = |text: &str, want: &str| {
        let error = format!("{:#}", Lock::parse(text).unwrap_err());
        assert!(error.contains(want), "{error}");
    };
    check(&good.replace("version = 1\n", "version = 2\n"), "it is of version 2");
    check(&good.replace("pool/main", "../main"), "leads out of the archive");
    let elsewhere = "reading the artifact kubernetes: the Go version `1.26.11/../../../x` is not of the form 1.26.8";
    check(&good.replace("go = \"1.26.1\"", "go = \"1.26.11/../../../x\""), elsewhere);
    check(&good.replace("size = 9\n", ""), "mount has one of size and sha256 without the other");
    check(
        &good.replace("\"kubernetes\"", "\"mount\""),
        "the artifacts mount and mount are not in order, or there twice",
    );
    check(&good.replace("0303", "03"), "is not a SHA-256 digest");
    check(&good.replace("size = 9", "sise = 9"), "unknown field `sise`");
    check(&good[..300], "TOML parse error");
}

#[test]
fn differences_are_told() {
    let mut lock = lock();
    lock.inputs = Inputs::of(&spec(""), Role::Node);
    lock.matches(&spec(""), Role::Node).unwrap();
    // Where things come from does not decide what they are.
    lock.matches(&spec("[debian]\nmirror='https://near.example/debian'\n[disk]\nroot='2GiB'"), Role::Node).unwrap();
    expect![[r#"the lock was made for other settings: hint: kscratch-image lock makes it anew; build without --locked does so too: source of cri-dockerd: the lock has compile, the settings say ./c.tgz"#]]
        .assert_eq(&format!("{:#}", lock.matches(&spec("[cri_dockerd]\nsource='./c.tgz'"), Role::Node).unwrap_err()));
    let other = spec("[debian]\nsuite='forky'\npackages=['strace']\nsecurity=false\n[kubernetes]\nversion='1.36.2'");
    expect![[r#"the lock was made for other settings: hint: kscratch-image lock makes it anew; build without --locked does so too: Debian suites: the lock has trixie, trixie-updates, trixie-security, the settings say forky, forky-updates; Kubernetes: the lock has 1.37.2, the settings say 1.36.2; the package strace is not in the lock"#]]
    .assert_eq(&format!("{:#}", lock.matches(&other, Role::Node).unwrap_err()));
}

#[test]
fn a_masters_lock_is_good_for_nodes_and_not_the_other_way_round() {
    let mut lock = lock();
    let error = |lock: &Lock, text: &str| format!("{:#}", lock.matches(&spec(text), Role::Master).unwrap_err());
    lock.inputs = Inputs::of(&spec(""), Role::Node);
    expect!["hint: kscratch-image lock --role master makes it anew; build without --locked adds what is missing: the lock has no control plane: it was made for nodes"]
        .assert_eq(&error(&lock, ""));
    lock.inputs = Inputs::of(&spec("[etcd]\nversion='3.6.16'"), Role::Master);
    assert_eq!(Lock::parse(&lock.print().unwrap()).unwrap(), lock);
    let other = "[coredns]\nversion='1.14.6'";
    lock.matches(&spec(other), Role::Node).unwrap();
    lock.matches(&spec("[etcd]\nversion='3.6.16'"), Role::Master).unwrap();
    expect!["the lock was made for other settings: hint: kscratch-image lock makes it anew; build without --locked does so too: etcd: the lock has 3.6.16, the settings say the one that goes with Kubernetes; CoreDNS: the lock has 1.14.7, the settings say 1.14.6"]
        .assert_eq(&error(&lock, other));
}

#[test]
fn settings_decide_which_artifacts_were_chosen_alike() {
    let inputs = |text: &str| Inputs::of(&spec(text), Role::Master);
    let check = |text: &str, changed: &[&str]| {
        let names = ["coredns", "cri-dockerd", "etcd", "kubectl", "kubernetes", "kubernetes-control-plane", "mount"];
        let found: Vec<&str> =
            names.into_iter().filter(|name| !inputs("").same_settings(&inputs(text), name)).collect();
        assert_eq!(found, changed, "{text}");
    };
    check("", &[]);
    check("[etcd]\nversion='3.6.16'", &["etcd"]);
    check("[coredns]\nversion='1.14.6'", &["coredns"]);
    check("[kubernetes]\nversion='1.36.3'", &["etcd", "kubectl", "kubernetes", "kubernetes-control-plane"]);
    check("[debian]\nsuite='forky'", &["mount"]);
}

proptest! {
    #[test]
    fn any_text_is_a_lock_or_refused(bytes in any::<Vec<u8>>(), at in 0..1000_usize) {
        drop(Lock::parse(&String::from_utf8_lossy(&bytes)));
        let good = lock().print().unwrap();
        let mut mixed = good.into_bytes();
        let at = at.min(mixed.len());
        mixed.splice(at..(at + bytes.len()).min(mixed.len()), bytes.iter().copied());
        if let Ok(text) = String::from_utf8(mixed) {
            drop(Lock::parse(&text));
        }
    }
}
