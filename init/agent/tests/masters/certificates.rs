//! A steward keeps this master's certificates young.
use kscratch_pki::{Authority, Certificate, Duration, OffsetDateTime, Wanted};
use serde_json::json;

use crate::cluster::Cluster;
use crate::{Steward, with_data};

#[test]
fn a_certificate_that_grew_old_is_made_anew_whether_or_not_the_api_server_serves() {
    let folder = with_data();
    let now = OffsetDateTime::now_utc();
    let (authority, pair) = Authority::new_with_pair("etcd", now - Duration::days(300), 10).unwrap();
    let wanted = Wanted { days: 365, ..Wanted::client("old", None) };
    let leaf = authority.issue(&wanted, now - Duration::days(300)).unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let owner = rustix::process::geteuid().as_raw();
    for (name, text) in [
        ("etcd.crt", &pair.certificate_pem),
        ("etcd.key", &pair.key_pem),
        ("old.crt", &leaf.certificate_pem),
        ("old.key", &leaf.key_pem),
    ] {
        std::fs::write(at(name), text).unwrap();
    }
    let certificates = json!({
        "authorities": { "etcd": { "certificate": at("etcd.crt"), "key": at("etcd.key") } },
        "certificates": [{
            "certificate": at("old.crt"), "key": at("old.key"), "authority": "etcd", "common_name": "old", "usages": ["client"], "days": 365,
            "owner": owner,
        }],
    });
    std::fs::write(at("wanted.json"), certificates.to_string()).unwrap();
    let cluster = Cluster::of(&["m1"]);
    cluster.state().serving = false;
    let steward =
        Steward::of(folder.path(), &cluster, "m1", |contract| contract["certificates"] = json!(at("wanted.json")));
    steward.says("of its 365 days are left");
    let new = Certificate::parse(&std::fs::read_to_string(at("old.crt")).unwrap()).unwrap();
    assert!(new.facts().not_after > now + Duration::days(360), "{:?}", new.facts());
}
