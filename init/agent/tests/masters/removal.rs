//! Nodes that are deleted become members of etcd that go, and a member that went becomes words on its own machine.
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, is_held};
use crate::{Steward, with_data, with_data_of_a_member};

#[test]
fn a_deleted_master_is_removed_from_etcd_before_its_node_is_gone() {
    let (folder, cluster) = (with_data(), Cluster::of(&["m1", "m2", "m3"]));
    let steward = Steward::start(folder.path(), &cluster, "m1");
    cluster.waits_for("every master's finalizer", |state| state.nodes.iter().all(is_held));
    assert!(steward.pod_is_placed());
    cluster.state().refusal = Some("etcdserver: unhealthy cluster");
    cluster.delete("m2");
    steward.says("failed: removing m2: etcdserver: unhealthy cluster");
    assert_eq!(cluster.names(true), ["m1", "m2", "m3"]);
    cluster.state().refusal = None;
    cluster.waits_for("the end of Node m2", |state| state.nodes.len() == 2);
    steward.says("Node m2 was deleted: m2 is no member of etcd any more, which has 2 now");
    assert_eq!(
        (cluster.names(true), cluster.names(false)),
        (vec!["m1".into(), "m3".into()], vec!["m1".into(), "m3".into()])
    );
    // Its own deletion is for the others to see.
    cluster.delete("m1");
    std::thread::sleep(Duration::from_secs(25));
    assert_eq!(cluster.names(false), ["m1", "m3"]);
    assert_eq!(cluster.names(true), ["m1", "m3"]);
    // They did.
    cluster.state().members.remove(0);
    cluster.waits_for("the end of Node m1", |state| state.nodes.len() == 1);
    assert_eq!(cluster.names(false), ["m3"]);
}

#[test]
fn a_master_that_was_removed_says_so_and_starts_no_etcd_until_it_is_known_again() {
    let (folder, cluster) = (with_data(), Cluster::of(&["m1", "m2"]));
    cluster.state().serving = false;
    let steward = Steward::start(folder.path(), &cluster, "m3");
    steward.says("this master was removed from its cluster for good");
    steward.says("write its image anew to its disk");
    // Who has no majority, says nothing.
    let members = std::mem::take(&mut cluster.state().members);
    std::thread::sleep(Duration::from_secs(35));
    assert!(!steward.pod_is_placed(), "{}", steward.log());
    cluster.state().members = [members, Cluster::of(&["m3"]).state().members.clone()].concat();
    steward.says("etcd's members know m3 again");
    let end = Instant::now() + Duration::from_secs(10);
    while !steward.pod_is_placed() {
        assert!(Instant::now() < end, "{}", steward.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(steward.log().matches("for good").count(), 1, "{}", steward.log());
}

#[test]
fn a_master_that_is_removed_while_it_runs_takes_its_etcd_away() {
    let (folder, cluster) = (with_data(), Cluster::of(&["m1", "m2", "m3"]));
    let steward = Steward::start(folder.path(), &cluster, "m3");
    cluster.waits_for("every master's finalizer", |state| state.nodes.iter().all(is_held));
    assert!(steward.pod_is_placed());
    let own = {
        let mut state = cluster.state();
        // Its own API server goes with its etcd. The others say so once, and then nobody answers.
        (state.serving, state.lists) = (false, Some(1));
        state.members.pop()
    };
    steward.says("this master was removed from its cluster for good");
    std::thread::sleep(Duration::from_secs(10));
    assert!(!steward.pod_is_placed(), "{}", steward.log());
    cluster.state().lists = None;
    cluster.state().members.extend(own);
    steward.says("etcd's members know m3 again");
    steward.etcd_is_started_with(&["etcd"]);
}

#[test]
fn data_of_a_member_that_is_gone_start_no_etcd_though_another_one_has_its_address() {
    let ((folder, id), cluster) = (with_data_of_a_member(), Cluster::of(&["m1", "m2", "m3"]));
    let steward = Steward::start(folder.path(), &cluster, "m3");
    steward.says("this master was removed from its cluster for good");
    assert!(!steward.pod_is_placed(), "{}", steward.log());
    cluster.state().members[2]["ID"] = id.into();
    steward.etcd_is_started_with(&["etcd"]);
}

#[test]
fn a_master_starts_etcd_where_nobody_says_anything() {
    let (folder, cluster) = (with_data(), Cluster::of(&[]));
    let steward = Steward::start(folder.path(), &cluster, "m3");
    steward.says("the cluster's own objects are in place");
    assert!(steward.pod_is_placed());
    assert!(!steward.log().contains("for good"), "{}", steward.log());
}
