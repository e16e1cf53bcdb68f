//! Small archives become locks, and updates change only what they name.
use std::path::Path;

use super::{Source, lock, update, with_control_plane};
use crate::console::Console;
use crate::debian::testarchive::{KeyOptions, NOW, TestArchive, TestKey, deb};
use crate::http::Http;
use crate::http::testserver::Fault;
use crate::lock::{Artifact, Lock, Origin, is_kernel};
use crate::spec::{ImageSpec, Role};
use crate::store::{Digest, Store};
use crate::{fetch, unpack};

/// A spec whose packages the test's archive has.
fn spec(extra: &str) -> ImageSpec {
    let mut spec =
        ImageSpec::parse(&format!("[debian]\nupdates=false\nsecurity=false\n{extra}"), Path::new("image.toml"))
            .unwrap();
    spec.programs.retain(|program| program.package == "mount");
    spec.files.clear();
    spec.bundles.clear();
    spec
}

fn archive() -> TestArchive {
    let mut archive = TestArchive::new();
    let mount = "Section: admin\nPre-Depends: libmount1 (>= 2), libpam-runtime\nDepends: libnone | libc6\n";
    archive.package("mount", "2.41-1", mount, deb(&[("./usr/bin/mount", b"mount"), ("./usr/bin/umount", b"umount")]));
    archive.package(
        "libmount1",
        "2.41-1",
        "Section: libs\nDepends: libc6 (>= 2)\n",
        deb(&[("./usr/lib/libmount.so.1", b"so")]),
    );
    archive.package("libc6", "2.41-12", "Section: libs\n", deb(&[("./usr/lib/libc.so.6", b"libc")]));
    archive.package("libpam-runtime", "1", "Section: admin\n", deb(&[]));
    archive.package(
        "linux-image-cloud-amd64",
        "6.12-1",
        "Section: kernel\nDepends: linux-image-6.12.1-cloud-amd64 (= 6.12-1)\n",
        deb(&[]),
    );
    archive.package(
        "linux-image-6.12.1-cloud-amd64",
        "6.12-1",
        "Section: kernel\n",
        deb(&[("./boot/vmlinuz-6.12.1", b"kernel")]),
    );
    archive.package("systemd-boot-efi", "257-1", "Section: admin\n", deb(&[("./usr/lib/stub", b"MZ")]));
    archive.publish();
    archive
}

struct Case {
    archive: TestArchive,
    cache: tempfile::TempDir,
    now: u64,
}

impl Case {
    fn new() -> Case {
        Case { archive: archive(), cache: tempfile::tempdir().unwrap(), now: NOW }
    }

    fn store(&self) -> Store {
        Store::open(self.cache.path()).unwrap()
    }

    fn resolve(&self, spec: &ImageSpec) -> anyhow::Result<Lock> {
        let (mirrors, keyring, http, store) =
            (self.archive.mirrors(), self.archive.key.keyring(), Http::new()?.attempts(2), self.store());
        let source = Source { mirrors: &mirrors, keyring: &keyring, http: &http, store: &store, now: self.now };
        lock(spec, Role::Node, &source, Vec::new(), &Console::silent())
    }

    fn fetch(&self, lock: &Lock) -> anyhow::Result<(usize, u64)> {
        fetch::all(lock, &self.store(), &self.archive.mirrors(), &Http::new()?.attempts(2), &Console::silent())
    }

    /// Files that the store has: what was refused must not be among them.
    fn stored(&self) -> usize {
        std::fs::read_dir(self.store().root().join("sha256")).unwrap().count()
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: anyhow::Result<T>, parts: &[&str]) {
    let error = format!("{:#}", result.unwrap_err());
    for part in parts {
        assert!(error.contains(part), "wanted `{part}` in: {error}");
    }
}

#[test]
fn from_a_spec_to_unpacked_packages() {
    let case = Case::new();
    let lock = case.resolve(&spec("")).unwrap();
    let names: Vec<&str> = lock.artifacts.iter().map(|artifact| artifact.name.as_str()).collect();
    assert_eq!(names, ["libc6", "libmount1", "linux-image-6.12.1-cloud-amd64", "mount", "systemd-boot-efi"]);
    assert_eq!(lock.source_date(), 1_795_227_046);
    assert_eq!(Lock::parse(&lock.print().unwrap()).unwrap(), lock);
    lock.matches(&spec(""), Role::Node).unwrap();

    refused(
        fetch::offline(&lock, &case.store()),
        &["libc6 2.41-12 is missing and 4 other artifacts", "hint: the same command without --offline"],
    );
    assert_eq!(case.fetch(&lock).unwrap().0, 5);
    assert_eq!(case.fetch(&lock).unwrap().0, 0, "what is there is not fetched again");
    fetch::offline(&lock, &case.store()).unwrap();

    let unpacked = unpack::all(&case.store(), &lock, &Console::silent()).unwrap();
    let unpack::EntryKind::File(stored) = &unpacked["mount"].get("/usr/bin/umount").unwrap().kind else {
        panic!("no file")
    };
    assert_eq!(case.store().read(stored).unwrap(), b"umount");
    assert_eq!(stored.sha256, Digest::of(b"umount"));
    assert_eq!(
        unpack::all(&case.store(), &lock, &Console::silent()).unwrap(),
        unpacked,
        "the index reads as it was written"
    );
}

#[test]
fn a_release_that_is_not_believed_leaves_nothing() {
    let release = "/debian/dists/trixie/InRelease";
    let case = Case::new();
    let good = case.archive.server.state.lock().unwrap().files[release].clone();
    let check = |bytes: Vec<u8>, parts: &[&str]| {
        case.archive.server.put(release, bytes);
        let file = format!("verifying {}/debian/dists/trixie/InRelease", case.archive.server.url);
        refused(case.resolve(&spec("")), &[&[file.as_str()], parts].concat());
        assert_eq!(case.stored(), 0);
    };
    let text = String::from_utf8(good.clone()).unwrap();
    check(text.replace("Codename: trixie", "Codename: trixi3").into_bytes(), &["is wrong: the text was changed"]);
    check(good[..good.len() / 2].to_vec(), &["it is not a whole clear-signed message"]);
    let other = TestKey::new(&KeyOptions { seed: 7, ..KeyOptions::default() });
    check(other.sign(&case.archive.release(), NOW - 3600).into_bytes(), &["is not known", "hint: "]);
}

#[test]
fn a_stale_mirror_is_told() {
    let case = Case { now: NOW + 30 * 86_400, ..Case::new() };
    refused(
        case.resolve(&spec("")),
        &["it was valid until 2026-11-28 02:10 UTC", "the mirror is out of date", "hint: use another mirror"],
    );
}

#[test]
fn an_index_that_is_not_the_signed_one_leaves_nothing() {
    let index = "/debian/dists/trixie/main/binary-amd64/Packages.xz";
    let case = Case::new();
    let good = case.archive.index();
    let mut changed = good.clone();
    changed[20] ^= 1;
    case.archive.server.put(index, changed.clone());
    refused(
        case.resolve(&spec("")),
        &[index, &format!("its digest is {}, expected {}", Digest::of(&changed), Digest::of(&good))],
    );
    case.archive.server.put(index, &good[..good.len() - 9]);
    refused(
        case.resolve(&spec("")),
        &[index, &format!("the server's file has {} bytes, expected {}", good.len() - 9, good.len())],
    );
    assert_eq!(case.stored(), 0);
    case.archive.server.put(index, good);
    case.resolve(&spec("")).unwrap();
}

#[test]
fn a_package_that_is_not_the_locked_one_leaves_nothing() {
    let path = "/debian/pool/main/libc6_2.41-12_amd64.deb";
    let case = Case::new();
    let lock = case.resolve(&spec("")).unwrap();
    let good = case.archive.server.state.lock().unwrap().files[path].clone();
    let mut changed = good.clone();
    changed[100] ^= 1;
    case.archive.server.put(path, changed);
    let digest = lock.get("libc6").unwrap().sha256.unwrap();
    refused(
        case.fetch(&lock),
        &["fetching libc6 2.41-12", path, &format!("expected {digest}"), "hint: ", "lock --update libc6"],
    );
    assert!(!case.store().has(&digest) && !case.store().part(&digest).exists());
    case.archive.server.put(path, &good[..good.len() - 9]);
    refused(case.fetch(&lock), &["fetching libc6 2.41-12", "the server's file has ", "lock --update libc6"]);
    case.archive.server.state.lock().unwrap().files.remove(path);
    refused(case.fetch(&lock), &["fetching libc6 2.41-12", "status 404", "lock --update libc6"]);
    case.archive.server.put(path, good);
    case.fetch(&lock).unwrap();
    assert!(case.store().has(&digest));
}

#[test]
fn only_what_an_update_would_mend_is_told_to_be_updated() {
    let case = Case::new();
    let lock = case.resolve(&spec("")).unwrap();
    let check = |fetched: anyhow::Result<(usize, u64)>, parts: &[&str]| {
        let error = fetched.unwrap_err();
        assert!(!format!("{error:#}").contains("--update"), "{error:#}");
        refused::<()>(Err(error), parts);
    };
    // As many as all threads could ask for.
    case.archive.server.fail(&[Fault::Busy; 40]);
    check(case.fetch(&lock), &["fetching ", "status 503"]);
    case.archive.server.fail(&[]);
    // Nobody has a file with this lock.
    case.archive.server.state.lock().unwrap().files.remove("/debian/pool/main/libc6_2.41-12_amd64.deb");
    let (mirrors, http, store) = (case.archive.mirrors(), Http::new().unwrap().attempts(2), case.store());
    let fetched = fetch::just_resolved(&lock, &store, &mirrors, &http, &Console::silent());
    check(fetched, &["fetching libc6 2.41-12", "status 404", "hint: the mirror is being updated"]);
    // It cannot be written.
    std::fs::remove_dir_all(store.root().join("tmp")).unwrap();
    let fetched = fetch::all(&lock, &store, &mirrors, &http, &Console::silent());
    check(fetched, &["fetching ", "opening ", "No such file"]);
}

#[test]
fn packages_that_do_not_exist() {
    let case = Case::new();
    refused(
        case.resolve(&spec("packages=['libmoun']")),
        &["looking for the package libmoun", "hint: there is a package `libmount1`"],
    );
    refused(
        case.resolve(&spec("packages=['zzz']")),
        &["no package `zzz` among the 7 of trixie (main, non-free-firmware, amd64)"],
    );
    let metal = "[kernel]\nflavour='metal'\n[hardware]\nfirmware=[]\nmicrocode=[]";
    refused(case.resolve(&spec(metal)), &["looking for the package linux-image-amd64"]);
}

#[test]
fn microcode_comes_from_its_component_and_only_for_metal() {
    let mut case = Case::new();
    let metal = "[kernel]\nflavour='metal'\n[hardware]\nfirmware=[]\nmicrocode=['intel-microcode']";
    let kernel = "Section: kernel\nDepends: linux-image-6.12.1-amd64\n";
    case.archive.package("linux-image-amd64", "6.12-1", kernel, deb(&[]));
    case.archive.package("linux-image-6.12.1-amd64", "6.12-1", "Section: kernel\n", deb(&[]));
    case.archive.publish();
    refused(
        case.resolve(&spec(metal)),
        &["looking for the package intel-microcode", "hint: another mirror may have it", "`microcode = []`"],
    );
    let fields = "Section: non-free-firmware/admin\nDepends: iucode-tool\n";
    case.archive.package_of("non-free-firmware", "intel-microcode", "3.1", fields, deb(&[]));
    case.archive.publish();
    let lock = case.resolve(&spec(metal)).unwrap();
    let Origin::DebianPackage { path, .. } = &lock.get("intel-microcode").unwrap().origin else { panic!("no package") };
    assert_eq!(path, "pool/non-free-firmware/intel-microcode_3.1_amd64.deb");
    lock.matches(&spec(metal), Role::Node).unwrap();
    refused(
        lock.matches(&spec("[kernel]\nflavour='metal'\n[hardware]\nfirmware=[]\nmicrocode=[]"), Role::Node),
        &["the package intel-microcode is no longer asked for"],
    );
    // Who needs nothing of it does not ask for it.
    let index = "/debian/dists/trixie/non-free-firmware/binary-amd64/Packages.xz";
    case.archive.server.state.lock().unwrap().files.remove(index);
    let cloud = Case { cache: tempfile::tempdir().unwrap(), ..case };
    assert!(cloud.resolve(&spec("")).unwrap().get("intel-microcode").is_none());
    refused(cloud.resolve(&spec(&format!("components=['main']\n{metal}"))), &["(main, amd64)"]);
}

#[test]
fn one_artifact_is_brought_up_to_date() {
    let mut case = Case::new();
    let old = case.resolve(&spec("")).unwrap();
    case.archive.package("libc6", "2.41-12", "Section: oldlibs\n", deb(&[]));
    case.archive.package("mount", "2.41-2", "Section: admin\nDepends: libmount1, libnew1\n", deb(&[]));
    case.archive.package("libnew1", "1", "Section: libs\n", deb(&[]));
    let next = "Section: kernel\nDepends: linux-image-6.12.2-cloud-amd64\n";
    case.archive.package("linux-image-cloud-amd64", "6.12-2", next, deb(&[]));
    case.archive.package("linux-image-6.12.2-cloud-amd64", "6.12-2", "Section: kernel\n", deb(&[]));
    // Two versions of one path cannot both be in a pool, but these tests' index can have both: the newest wins.
    case.archive.publish();
    let fresh = case.resolve(&spec("")).unwrap();
    let versions = |lock: &Lock| -> Vec<String> {
        lock.artifacts.iter().map(|artifact| format!("{} {}", artifact.name, artifact.version)).collect()
    };
    let updated = update(&spec(""), &old, fresh.clone(), &["mount".into()]).unwrap();
    assert_eq!(
        versions(&updated),
        [
            "libc6 2.41-12",
            "libmount1 2.41-1",
            "libnew1 1",
            "linux-image-6.12.1-cloud-amd64 6.12-1",
            "mount 2.41-2",
            "systemd-boot-efi 257-1"
        ]
    );
    assert_eq!(
        updated.get("libc6"),
        old.get("libc6"),
        "what was not named stays as it was, though the archive has another"
    );
    let updated = update(&spec(""), &old, fresh.clone(), &["kernel".into()]).unwrap();
    assert_eq!(updated.kernel().unwrap().version, "6.12-2");
    assert_eq!(updated.get("mount").unwrap().version, "2.41-1");
    // What was chosen by other settings would not be what the lock says it is.
    let mut other = old.clone();
    other.inputs.suites.push("trixie-updates".into());
    let updated = update(&spec(""), &other, fresh.clone(), &["mount".into()]).unwrap();
    assert_eq!(versions(&updated), versions(&fresh));
    refused(update(&spec(""), &old, fresh, &["nothing".into()]), &["there is no artifact `nothing`"]);
}

#[test]
fn the_kernel_of_another_flavour_is_not_kept() {
    let mut case = Case::new();
    let kernel = "Section: kernel\nDepends: linux-image-6.12.1-amd64\n";
    case.archive.package("linux-image-amd64", "6.12-1", kernel, deb(&[]));
    case.archive.package("linux-image-6.12.1-amd64", "6.12-1", "Section: kernel\n", deb(&[]));
    case.archive.publish();
    let (cloud, metal) = (spec(""), spec("[kernel]\nflavour='metal'\n[hardware]\nfirmware=[]\nmicrocode=[]"));
    for (before, after, want) in [
        (&cloud, &metal, "linux-image-6.12.1-amd64"),
        (&metal, &cloud, "linux-image-6.12.1-cloud-amd64"),
        (&cloud, &cloud, "linux-image-6.12.1-cloud-amd64"),
        (&metal, &metal, "linux-image-6.12.1-amd64"),
    ] {
        let (old, fresh) = (case.resolve(before).unwrap(), case.resolve(after).unwrap());
        let updated = update(after, &old, fresh, &["mount".into()]).unwrap();
        let kernels = updated.artifacts.iter().map(|artifact| artifact.name.as_str()).filter(|name| is_kernel(name));
        assert_eq!(kernels.collect::<Vec<_>>(), [want]);
        updated.matches(after, Role::Node).unwrap();
    }
}

#[test]
fn libraries_of_packages_that_stay_stay_too() {
    let mut case = Case::new();
    let old = case.resolve(&spec("packages=['libpam-runtime']")).unwrap();
    // Its libraries are no longer those of the package that is kept.
    case.archive.package("mount", "2.41-2", "Section: admin\nDepends: libnew1\n", deb(&[]));
    case.archive.package("libnew1", "1", "Section: libs\n", deb(&[]));
    case.archive.publish();
    let fresh = case.resolve(&spec("")).unwrap();
    assert!(fresh.get("libmount1").is_none());
    let check = |named: &str, want: &[&str]| {
        let updated = update(&spec(""), &old, fresh.clone(), &[named.to_owned()]).unwrap();
        let versions = updated.artifacts.iter().map(|artifact| format!("{} {}", artifact.name, artifact.version));
        // What was declared, and no longer is, is gone.
        assert_eq!(versions.collect::<Vec<_>>(), want);
        assert_eq!(Lock::parse(&updated.print().unwrap()).unwrap(), updated);
    };
    let kernel = "linux-image-6.12.1-cloud-amd64 6.12-1";
    let stub = "systemd-boot-efi 257-1";
    check("kernel", &["libc6 2.41-12", "libmount1 2.41-1", "libnew1 1", kernel, "mount 2.41-1", stub]);
    check("libmount1", &["libc6 2.41-12", "libnew1 1", kernel, "mount 2.41-1", stub]);
    // What was chosen from other suites is of no use.
    let mut other = old.clone();
    other.inputs.suites.push("trixie-updates".into());
    assert_eq!(update(&spec(""), &other, fresh.clone(), &["kernel".into()]).unwrap(), fresh);
}

fn compiled(name: &str, version: &str) -> Artifact {
    let (module, flags) = ("example.test/x".to_owned(), Vec::new());
    let (programs, go) = (Vec::new(), "1.26.8".to_owned());
    let origin =
        Origin::GoBuild { module, module_version: format!("v{version}"), programs, go_sum: Digest([1; 32]), go, flags };
    Artifact { name: name.into(), version: version.into(), size: None, sha256: None, origin }
}

#[test]
fn a_control_plane_is_added_to_a_nodes_lock_and_replaced_in_a_masters() {
    let case = Case::new();
    let mut node = case.resolve(&spec("")).unwrap();
    node.artifacts.insert(0, compiled("kubernetes", "1.37.2"));
    node.artifacts.sort_by(|a, b| a.name.cmp(&b.name));
    let parts = |version: &str| ["kubernetes-control-plane", "etcd"].map(|name| compiled(name, version)).to_vec();
    let master = with_control_plane(&spec(""), node.clone(), parts("1"));
    assert_eq!(Lock::parse(&master.print().unwrap()).unwrap(), master);
    master.matches(&spec(""), Role::Master).unwrap();
    master.matches(&spec(""), Role::Node).unwrap();
    let rest = |lock: &Lock| {
        let kept =
            lock.artifacts.iter().filter(|artifact| !["kubernetes-control-plane", "etcd"].contains(&&*artifact.name));
        kept.cloned().collect::<Vec<_>>()
    };
    assert_eq!(rest(&master), node.artifacts);
    let again = with_control_plane(&spec(""), master.clone(), parts("2"));
    assert_eq!((again.get("etcd").unwrap().version.as_str(), again.artifacts.len()), ("2", master.artifacts.len()));
}

#[test]
fn the_parts_of_a_release_are_brought_up_to_date_together() {
    let old = with_control_plane(&spec(""), Case::new().resolve(&spec("")).unwrap(), {
        ["etcd", "kubectl", "kubernetes", "kubernetes-control-plane"].map(|name| compiled(name, "1")).to_vec()
    });
    let mut fresh = old.clone();
    for artifact in &mut fresh.artifacts {
        artifact.version += "-new";
    }
    let check = |named: &str, want: &[&str]| {
        let updated = update(&spec(""), &old, fresh.clone(), &[named.to_owned()]).unwrap();
        let changed = updated.artifacts.iter().filter(|artifact| artifact.version.ends_with("-new"));
        assert_eq!(changed.map(|artifact| artifact.name.as_str()).collect::<Vec<_>>(), want);
    };
    for named in ["kubernetes", "kubectl", "kubernetes-control-plane"] {
        check(named, &["kubectl", "kubernetes", "kubernetes-control-plane"]);
    }
    check("etcd", &["etcd"]);
}
