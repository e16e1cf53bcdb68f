//! Certificates on a disk, over the years.
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use kscratch_pki::{Authority, Certificate, Duration, OffsetDateTime};

use super::{Kept, keep};
use crate::contract::Certificates;

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

/// A folder with the authority `cluster`, and a file that wants a server's and a client's certificate there.
fn machine() -> (tempfile::TempDir, Certificates) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (_, pair) = Authority::new_with_pair("kubernetes", now(), 10).unwrap();
    fs::write(at("ca.crt"), pair.certificate_pem).unwrap();
    fs::write(at("ca.key"), pair.key_pem).unwrap();
    let owner = fs::metadata(folder.path()).unwrap().uid();
    let wanted = format!(
        r#"{{"authorities": {{"cluster": {{"certificate": "{}", "key": "{}"}}}}, "certificates": [
        {{"certificate": "{}", "key": "{}", "authority": "cluster", "common_name": "kube-apiserver", "dns_names": ["kubernetes", "m1"],
          "addresses": ["10.96.0.1"], "usages": ["server"], "days": 365, "owner": {owner}}},
        {{"certificate": "{}", "key": "{}", "authority": "cluster", "common_name": "system:kube-scheduler", "usages": ["client"], "days": 365,
          "owner": {owner}}}], "discard": [{{"file": "{}", "common_name": "system:kube-scheduler", "authority": "cluster"}}]}}"#,
        at("ca.crt"),
        at("ca.key"),
        at("apiserver.crt"),
        at("apiserver.key"),
        at("scheduler.crt"),
        at("scheduler.key"),
        at("kubelet.pem"),
    );
    (folder, serde_json::from_str(&wanted).unwrap())
}

fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    found.sort();
    found
}

#[test]
fn what_is_made_once_is_kept_until_a_third_of_its_life_is_left() {
    let (folder, wanted) = machine();
    keep(&wanted, now(), Kept::Told).unwrap();
    let made = contents(folder.path());
    assert_eq!(made.len(), 6);
    for days in [0, 1, 200] {
        keep(&wanted, now() + Duration::days(days), Kept::Told).unwrap();
        assert!(made == contents(folder.path()), "changed after {days} days");
    }
    let later = now() + Duration::days(250);
    keep(&wanted, later, Kept::Untold).unwrap();
    let renewed = fs::read_to_string(folder.path().join("apiserver.crt")).unwrap();
    assert_eq!(Certificate::parse(&renewed).unwrap().facts().not_after, later + Duration::days(365));
}

#[test]
fn a_clock_that_is_years_behind_makes_what_is_valid_when_it_is_right() {
    let (folder, wanted) = machine();
    keep(&wanted, OffsetDateTime::UNIX_EPOCH, Kept::Told).unwrap();
    let made = contents(folder.path());
    let certificate = fs::read_to_string(folder.path().join("apiserver.crt")).unwrap();
    assert!(Certificate::parse(&certificate).unwrap().facts().valid_at(now()));
    keep(&wanted, now(), Kept::Told).unwrap();
    assert!(made == contents(folder.path()));
}

#[test]
fn one_that_is_no_longer_as_wanted_is_made_anew_alone() {
    let (folder, mut wanted) = machine();
    keep(&wanted, now(), Kept::Told).unwrap();
    let before = contents(folder.path());
    wanted.certificates[0].addresses.push("192.168.7.10".parse().unwrap());
    keep(&wanted, now(), Kept::Told).unwrap();
    let changed: Vec<_> = before
        .iter()
        .zip(contents(folder.path()))
        .filter(|(before, after)| *before != after)
        .map(|(before, _)| before.0.clone())
        .collect();
    assert_eq!(changed, ["apiserver.crt", "apiserver.key"]);
}

#[test]
fn halves_of_a_pair_and_wrong_modes_are_put_right() {
    let (folder, wanted) = machine();
    keep(&wanted, now(), Kept::Told).unwrap();
    let key = folder.path().join("apiserver.key");
    fs::copy(folder.path().join("scheduler.key"), &key).unwrap();
    keep(&wanted, now(), Kept::Told).unwrap();
    let good = fs::read(&key).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o666)).unwrap();
    keep(&wanted, now(), Kept::Told).unwrap();
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::read(&key).unwrap(), good, "a kept key is not made anew");
}

#[test]
fn what_cannot_be_made_is_named_and_the_rest_is_made() {
    let (folder, mut wanted) = machine();
    let elsewhere = folder.path().join("none/apiserver.crt");
    wanted.certificates[0].certificate.clone_from(&elsewhere);
    wanted.certificates[0].key = folder.path().join("none/apiserver.key");
    let error = format!("{:#}", keep(&wanted, now(), Kept::Told).unwrap_err());
    assert!(error.contains(&format!("certificate {}: writing ", elsewhere.display())), "{error}");
    assert!(folder.path().join("scheduler.crt").exists());
    wanted.certificates[1].authority = "etcd".to_owned();
    let error = format!("{:#}", keep(&wanted, now(), Kept::Told).unwrap_err());
    assert!(error.ends_with("there is no authority \"etcd\""), "{error}");
    fs::write(folder.path().join("ca.key"), "").unwrap();
    let error = format!("{:#}", keep(&wanted, now(), Kept::Told).unwrap_err());
    assert!(error.contains("ca.crt: "), "{error}");
}

/// A master that is called otherwise now: its kubelet would go on with what it got renewed, and be nobody's.
#[test]
fn a_kubelets_certificate_of_another_name_is_discarded_at_once() {
    let (folder, mut wanted) = machine();
    keep(&wanted, now(), Kept::Told).unwrap();
    let (bundle, made) = (folder.path().join("kubelet.pem"), folder.path().join("scheduler.crt"));
    for (name, stays) in [("system:kube-scheduler", true), ("system:kube-scheduler-2", false)] {
        fs::copy(&made, &bundle).unwrap();
        wanted.discard[0].common_name = name.to_owned();
        keep(&wanted, now(), Kept::Told).unwrap();
        assert_eq!(bundle.exists(), stays, "{name}");
    }
}

#[test]
fn a_kubelets_certificate_is_discarded_only_where_it_is_not_valid_or_is_damaged() {
    let (folder, wanted) = machine();
    let bundle = folder.path().join("kubelet.pem");
    keep(&wanted, now(), Kept::Told).unwrap();
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    let both = format!("{}{}", read("scheduler.crt"), read("scheduler.key"));
    fs::write(folder.path().join("kubelet-1.pem"), &both).unwrap();
    // Before it begins: a clock was ahead when it was signed, or one is behind now.
    for (days, stays) in [(0, true), (364, true), (366, false), (-2, false), (-5000, false)] {
        let _ = fs::remove_file(&bundle);
        std::os::unix::fs::symlink("kubelet-1.pem", &bundle).unwrap();
        keep(&wanted, now() + Duration::days(days), Kept::Told).unwrap();
        assert_eq!(bundle.exists(), stays, "after {days} days");
    }
    assert!(folder.path().join("kubelet-1.pem").exists(), "the link alone goes");
    fs::write(&bundle, &both[..40]).unwrap();
    keep(&wanted, now(), Kept::Told).unwrap();
    assert!(!bundle.exists());
}

/// Of two authorities in one file either may have signed it, and it is kept only as long as its own is there.
#[test]
fn a_kubelets_certificate_of_an_authority_that_is_about_to_go_is_kept() {
    let (folder, wanted) = machine();
    keep(&wanted, now(), Kept::Told).unwrap();
    let (bundle, authority) = (folder.path().join("kubelet.pem"), folder.path().join("ca.crt"));
    let old = fs::read_to_string(&authority).unwrap();
    let (_, new) = Authority::new_with_pair("kubernetes", now(), 10).unwrap();
    fs::copy(folder.path().join("scheduler.crt"), &bundle).unwrap();
    fs::write(folder.path().join("ca.key"), &new.key_pem).unwrap();
    for (authorities, stays) in [(format!("{}{old}", new.certificate_pem), true), (new.certificate_pem, false)] {
        fs::write(&authority, authorities).unwrap();
        keep(&wanted, now(), Kept::Told).unwrap();
        assert_eq!(bundle.exists(), stays);
    }
}
