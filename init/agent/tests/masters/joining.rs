//! How a master's etcd begins: added to those that live, never beside them, and with a vote only once it has their data.
use std::time::Duration;

use kscratch_pki::{Authority, OffsetDateTime};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::{Steward, with_data, with_data_of_a_member};

/// What m1 knows by itself: numbers as its port for peers has them.
fn known(client_urls: &[&str]) -> Vec<Value> {
    let peer = |last: u8| format!("https://10.0.0.{last}:2380");
    vec![
        json!({ "id": 9_372_538_179_322_589_801_u64, "peerURLs": [peer(1)], "name": "m1", "clientURLs": client_urls }),
        json!({ "id": 3, "peerURLs": [peer(3)], "name": "m3" }),
    ]
}

fn joins(member: &mut Value) {
    member["join"] = json!(true);
}

#[test]
fn one_that_joins_waits_for_those_that_live_and_gets_its_vote_last() {
    let (folder, cluster) = (tempfile::tempdir().unwrap(), Cluster::of(&["m1"]));
    let members = std::mem::take(&mut cluster.state().members);
    cluster.state().serving = false;
    cluster.state().refusal = Some("etcdserver: can only promote a learner member which is in sync with leader");
    let steward = Steward::with(folder.path(), &cluster, "m2", joins);
    steward.says("becoming a member of etcd failed: no member of etcd answers: this master joins those that live and begins no cluster");
    // Longer than any silence is believed elsewhere.
    std::thread::sleep(Duration::from_secs(25));
    assert!(!steward.pod_is_placed(), "{}", steward.log());
    assert_eq!(steward.log().lines().count(), 1, "{}", steward.log());
    cluster.state().members = members;
    steward.etcd_is_started_with(&[
        "etcd",
        "--initial-cluster=m1=https://10.0.0.1:2380,m2=https://10.0.0.2:2380",
        "--initial-cluster-state=existing",
    ]);
    steward.says("m2 is added to etcd, which has 2 members with it");
    assert_eq!(cluster.state().members[1]["isLearner"], true);
    // Its etcd is up, and gets the others' data.
    std::fs::create_dir(folder.path().join("data")).unwrap();
    cluster.state().members[1]["name"] = json!("m2");
    steward.says("getting a vote in etcd failed: etcdserver: can only promote");
    cluster.state().refusal = None;
    cluster.waits_for("the vote", |state| state.members[1]["isLearner"] == false);
    steward.says("m2 is one of 2 members of etcd now");
}

#[test]
fn one_that_was_added_and_was_not_up_goes_on_where_it_was() {
    let (folder, cluster) = (tempfile::tempdir().unwrap(), Cluster::of(&["m1"]));
    let added = json!({ "ID": "5", "peerURLs": ["https://10.0.0.2:2380"], "isLearner": true });
    cluster.state().members.push(added);
    let steward = Steward::with(folder.path(), &cluster, "m2", joins);
    steward.etcd_is_started_with(&[
        "etcd",
        "--initial-cluster=m1=https://10.0.0.1:2380,m2=https://10.0.0.2:2380",
        "--initial-cluster-state=existing",
    ]);
    assert_eq!(cluster.state().members.len(), 2);
}

#[test]
fn nobody_is_added_to_one_that_others_do_not_reach() {
    let (folder, cluster) = (tempfile::tempdir().unwrap(), Cluster::of(&["m1"]));
    cluster.state().members[0]["peerURLs"] = json!(["https://127.0.0.1:2380"]);
    let steward = Steward::with(folder.path(), &cluster, "m2", joins);
    steward.says("becoming a member of etcd failed: m1 keeps its etcd to itself, on the loopback address");
    assert_eq!(cluster.state().members.len(), 1);
    cluster.state().members[0]["peerURLs"] = json!(["https://10.0.0.1:2380"]);
    steward.etcd_is_started_with(&[
        "etcd",
        "--initial-cluster=m1=https://10.0.0.1:2380,m2=https://10.0.0.2:2380",
        "--initial-cluster-state=existing",
    ]);
}

#[test]
fn one_new_member_waits_for_the_other() {
    let (folder, cluster) = (tempfile::tempdir().unwrap(), Cluster::of(&["m1"]));
    let other = json!({ "ID": "5", "peerURLs": ["https://10.0.0.3:2380"], "isLearner": true });
    cluster.state().members.push(other);
    let steward = Steward::with(folder.path(), &cluster, "m2", joins);
    steward.says("becoming a member of etcd failed: https://10.0.0.3:2380 comes first, and has no vote yet");
    assert!(!steward.pod_is_placed(), "{}", steward.log());
    let change = json!({ "ID": "5", "peerURLs": ["https://10.0.0.3:2380"], "name": "m3", "isLearner": false });
    cluster.state().members[1] = change;
    steward.etcd_is_started_with(&[
        "etcd",
        "--initial-cluster=m1=https://10.0.0.1:2380,m3=https://10.0.0.3:2380,m2=https://10.0.0.2:2380",
        "--initial-cluster-state=existing",
    ]);
}

#[test]
fn one_that_lost_its_disk_begins_nothing_where_somebody_remembers_a_cluster() {
    let (folder, cluster) = (tempfile::tempdir().unwrap(), Cluster::of(&["m1", "m2", "m3"]));
    let members = std::mem::take(&mut cluster.state().members);
    cluster.state().known = known(&["https://10.0.0.1:2379"]);
    let steward = Steward::start(folder.path(), &cluster, "m3");
    steward.says("becoming a member of etcd failed: etcd's members were up before, and now most of them are not");
    std::thread::sleep(Duration::from_secs(25));
    assert!(!steward.pod_is_placed(), "{}", steward.log());
    // The others are up all the time, and find no leader.
    steward.says("are no majority of those that it has: too many have lost their data");
    assert!(!steward.pod_is_placed(), "{}", steward.log());
    cluster.state().members = members;
    steward.says("etcd's member m3 has lost its data: it is replaced");
    let peers = ["m1=https://10.0.0.1:2380", "m2=https://10.0.0.2:2380", "m3=https://10.0.0.3:2380"].join(",");
    steward.etcd_is_started_with(&["etcd", &format!("--initial-cluster={peers}"), "--initial-cluster-state=existing"]);
}

#[test]
fn one_that_lost_its_disk_and_has_another_address_takes_its_own_place() {
    let (folder, cluster) = (tempfile::tempdir().unwrap(), Cluster::of(&["m1", "m2", "m3"]));
    // Nobody listens at port 1.
    cluster.state().members[2]["peerURLs"] = json!(["https://10.0.0.9:1"]);
    let steward = Steward::start(folder.path(), &cluster, "m3");
    steward
        .says("etcd's member m3 was at https://10.0.0.9:1, where nobody is now, and has lost its data: it is replaced");
    let peers = ["m1=https://10.0.0.1:2380", "m2=https://10.0.0.2:2380", "m3=https://10.0.0.3:2380"].join(",");
    steward.etcd_is_started_with(&["etcd", &format!("--initial-cluster={peers}"), "--initial-cluster-state=existing"]);
}

#[test]
fn one_whose_address_has_changed_tells_the_others() {
    // By its own etcd, and by theirs where its own API server does not serve.
    for serving in [true, false] {
        let ((folder, id), cluster) = (with_data_of_a_member(), Cluster::of(&["m1", "m2", "m3"]));
        cluster.state().serving = serving;
        cluster.state().members[2]["ID"] = id.into();
        cluster.state().members[2]["peerURLs"] = json!(["https://10.0.0.9:2380"]);
        let steward = Steward::start(folder.path(), &cluster, "m3");
        steward.says("etcd's member m3 was at https://10.0.0.9:2380 and is at https://10.0.0.3:2380 now");
        assert_eq!(cluster.state().members[2]["peerURLs"], json!(["https://10.0.0.3:2380"]));
        assert!(steward.pod_is_placed());
    }
}

#[test]
fn nobody_begins_beside_a_cluster_whose_endpoint_served() {
    for others in [true, false] {
        let (folder, cluster) = (tempfile::tempdir().unwrap(), Cluster::of(&["m1"]));
        // It keeps its etcd to itself.
        let members = std::mem::take(&mut cluster.state().members);
        let steward = Steward::with(folder.path(), &cluster, "m2", |member| {
            member["endpoint"] = json!({ "server": member["local"], "authority": member["authority"] });
            if !others {
                member["others"] = json!([]);
            }
        });
        steward.says("becoming a member of etcd failed: this cluster's API server answered at its endpoint, but no member of etcd does here");
        // It boots anew, with metadata that names it: longer than silence is believed elsewhere.
        cluster.state().serving = false;
        std::thread::sleep(Duration::from_secs(if others { 25 } else { 5 }));
        assert!(!steward.pod_is_placed(), "{}", steward.log());
        cluster.state().members = members;
        if others {
            steward.says("m2 is added to etcd, which has 2 members with it");
        }
    }
}

#[test]
fn an_endpoint_that_does_not_serve_keeps_nobody_from_beginning() {
    // One that proves itself by another authority is another cluster's.
    for foreign in [false, true] {
        let (folder, cluster) = (tempfile::tempdir().unwrap(), Cluster::of(&[]));
        cluster.state().serving = foreign;
        let authority = Authority::new_with_pair("kubernetes", OffsetDateTime::now_utc(), 1).unwrap().1;
        std::fs::write(folder.path().join("foreign.crt"), authority.certificate_pem).unwrap();
        let steward = Steward::with(folder.path(), &cluster, "m1", |member| {
            let authority =
                if foreign { json!(folder.path().join("foreign.crt")) } else { member["authority"].clone() };
            member["endpoint"] = json!({ "server": member["local"], "authority": authority });
            member["others"] = json!([]);
        });
        steward.etcd_is_started_with(&["etcd"]);
    }
}

#[test]
fn the_first_boot_of_all_begins_after_a_while() {
    let (folder, cluster) = (tempfile::tempdir().unwrap(), Cluster::of(&[]));
    // Another one is up, and waits for most of them as etcd does.
    cluster.state().known = known(&[]);
    let steward = Steward::start(folder.path(), &cluster, "m3");
    std::thread::sleep(Duration::from_secs(10));
    assert!(!steward.pod_is_placed(), "{}", steward.log());
    steward.says("this is taken for the first boot of all of them");
    steward.etcd_is_started_with(&["etcd"]);
}

#[test]
fn one_that_began_beside_a_cluster_by_mistake_joins_it() {
    let (folder, cluster) = (tempfile::tempdir().unwrap(), Cluster::of(&["m1", "m2", "m3"]));
    let members = std::mem::take(&mut cluster.state().members);
    cluster.state().serving = false;
    let steward = Steward::start(folder.path(), &cluster, "m3");
    steward.says("this is taken for the first boot of all of them");
    steward.etcd_is_started_with(&["etcd"]);
    // The others began with it: it has only to come.
    let mut first = members.clone();
    first[2]["clientURLs"] = json!([]);
    cluster.state().members = first;
    std::thread::sleep(Duration::from_secs(10));
    steward.etcd_is_started_with(&["etcd"]);
    // It had been up, and its disk was lost.
    cluster.state().members = members;
    steward.says("etcd's member m3 has lost its data: it is replaced");
    steward.says("m3 is added to etcd, which has 3 members with it");
    let peers = ["m1=https://10.0.0.1:2380", "m2=https://10.0.0.2:2380", "m3=https://10.0.0.3:2380"].join(",");
    let command = ["etcd", &format!("--initial-cluster={peers}"), "--initial-cluster-state=existing"];
    steward.etcd_is_started_with(&command);
    // As it was added, it waits for its etcd, and is not added again.
    std::thread::sleep(Duration::from_secs(10));
    steward.etcd_is_started_with(&command);
    assert_eq!(steward.log().matches("is added to etcd").count(), 1, "{}", steward.log());
}

#[test]
fn one_that_is_alone_in_its_list_begins_at_once_and_can_be_found_from_then_on() {
    let (folder, cluster) = (with_data(), Cluster::of(&["m1"]));
    std::fs::remove_dir(folder.path().join("data")).unwrap();
    // As it is where the metadata did not name it at the first boot.
    cluster.state().members[0]["peerURLs"] = json!(["https://127.0.0.1:2380"]);
    let steward = Steward::with(folder.path(), &cluster, "m1", |member| member["others"] = json!([]));
    steward.etcd_is_started_with(&["etcd"]);
    steward.says("etcd's only member m1 is at https://10.0.0.1:2380 now: others can join it");
    assert_eq!(cluster.state().members[0]["peerURLs"], json!(["https://10.0.0.1:2380"]));
    assert!(!steward.log().contains("first boot"), "{}", steward.log());
}
