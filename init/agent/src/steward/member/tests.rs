//! How etcd begins, as tables: what the others know, what their silence means, whose turn it is.
use std::time::Duration;

use serde_json::{Value, json};

use super::{Beginning, Lived, SILENCE, Silence, TURN, Turn, Whose, beginning, may_begin, silence, with_members};
use crate::contract::{Member, Other};
use crate::steward::etcd::Listed;

const OWN: &str = "https://10.0.0.3:2380";

fn listed(id: &str, name: &str, peer: &str, client: &[&str]) -> Listed {
    let strings = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
    Listed {
        id: id.into(),
        name: name.into(),
        peer_urls: strings(&[peer]),
        client_urls: strings(client),
        learner: false,
    }
}

fn member(join: bool, others: &[u8]) -> Member {
    let url = |last: &u8, port: u16| format!("https://10.0.0.{last}:{port}");
    Member {
        name: "m3".into(),
        peer_url: OWN.into(),
        join,
        data: "/d".into(),
        local: "https://127.0.0.1:2379".into(),
        others: others.iter().map(|last| Other { client: url(last, 2379), peer: url(last, 2380) }).collect(),
        endpoint: None,
        authority: "/a".into(),
        certificate: "/c".into(),
        key: "/k".into(),
        manifest: "/m".into(),
        place: "/p".into(),
    }
}

#[test]
fn what_the_others_know_decides() {
    let other = || listed("1", "m1", "https://10.0.0.1:2380", &["https://10.0.0.1:2379"]);
    let check = |own: Option<Listed>, join: bool, want: Beginning| {
        let members: Vec<Listed> = [Some(other()), own].into_iter().flatten().collect();
        // What was started without knowing goes on where it comes to the same.
        let goes_on = want == Beginning::Existing;
        assert_eq!(may_begin(&members, &member(join, &[1])), goes_on, "join {join}, {want:?}");
        assert_eq!(beginning(&members, &member(join, &[1])), want, "join {join}");
    };
    for join in [false, true] {
        check(None, join, Beginning::Add);
        check(Some(listed("3", "", OWN, &[])), join, Beginning::Existing);
        check(Some(listed("3", "m3", OWN, &["https://10.0.0.3:2379"])), join, Beginning::Replace("3".into()));
        // The others began with it on their list, and it was never up: what its own metadata list may be another list by now.
        check(Some(listed("3", "m3", OWN, &[])), join, Beginning::Existing);
        // This machine had another address, and has lost its data; or it is another machine of that name.
        let elsewhere = || listed("3", "m3", "https://10.0.0.9:2380", &["https://10.0.0.9:2379"]);
        check(Some(elsewhere()), join, Beginning::Moved(elsewhere()));
    }
}

#[test]
fn silence_is_a_beginning_only_where_nobody_lived_and_nobody_has_to() {
    let (soon, late) = (Duration::from_secs(1), SILENCE);
    let check = |join: bool, others: &[u8], lived: Lived, since: Duration, want: &str| {
        let got = match silence(&member(join, others), lived, since) {
            Silence::Early => "early",
            Silence::First => "first",
            Silence::Wait(why) if why.starts_with("etcd's members were up before") => "were up",
            Silence::Wait(why) if why.starts_with("this cluster's API server answered") => "served",
            Silence::Wait(why) if why.contains("too many have lost their data") => "lost",
            Silence::Wait(_) => "joins",
        };
        assert_eq!(got, want, "join {join}, others {others:?}, {lived:?}, {since:?}");
    };
    check(false, &[1, 2], Lived::Unknown, soon, "early");
    check(false, &[1, 2], Lived::Unknown, late, "first");
    // One that is alone in its list has nobody to wait for.
    check(false, &[], Lived::Unknown, Duration::ZERO, "first");
    // Somebody's etcd knows a member that was up: this one may have been it.
    check(false, &[1, 2], Lived::Remembered, soon, "were up");
    check(false, &[1, 2], Lived::Remembered, late * 1000, "were up");
    check(true, &[1], Lived::Remembered, late * 1000, "were up");
    check(false, &[1], Lived::Lost, late * 1000, "lost");
    check(true, &[1], Lived::Lost, late * 1000, "lost");
    // The members that there are may be others than those of the list, or reached by nobody.
    check(false, &[1, 2], Lived::Served, soon, "served");
    check(false, &[1, 2], Lived::Served, late * 1000, "served");
    check(false, &[], Lived::Served, late * 1000, "served");
    check(true, &[1], Lived::Served, late * 1000, "joins");
    check(true, &[1], Lived::Unknown, soon, "joins");
    check(true, &[1], Lived::Unknown, late * 1000, "joins");
    check(true, &[], Lived::Unknown, late * 1000, "joins");
}

#[test]
fn one_new_member_comes_after_the_other() {
    let at = Duration::from_secs;
    let voter = || listed("1", "m1", "https://10.0.0.1:2380", &["https://10.0.0.1:2379"]);
    let learner = |id: &str, peer: &str| Listed { learner: true, ..listed(id, "", peer, &[]) };
    let (m2, m4, own) =
        (learner("2", "https://10.0.0.2:2380"), learner("4", "https://10.0.0.4:2380"), learner("3", OWN));
    let mut turn = Turn::default();
    assert_eq!(turn.of(&[voter(), own.clone()], OWN, at(1)), Whose::Own);
    let with = |one: &Listed| vec![voter(), one.clone()];
    assert_eq!(turn.of(&with(&m2), OWN, at(5)), Whose::Other(&m2));
    assert_eq!(turn.of(&with(&m2), OWN, at(4) + TURN), Whose::Other(&m2));
    assert_eq!(turn.of(&with(&m2), OWN, at(5) + TURN), Whose::Nobodys(&m2));
    // The next one has a turn of its own, and so has the same one after that.
    assert_eq!(turn.of(&with(&m4), OWN, at(6) + TURN), Whose::Other(&m4));
    assert_eq!(turn.of(&with(&m2), OWN, at(7) + TURN), Whose::Other(&m2));
    assert_eq!(turn.of(&[voter()], OWN, at(7) + TURN * 3), Whose::Own);
    assert_eq!(turn.of(&with(&m2), OWN, at(8) + TURN * 3), Whose::Other(&m2));
    // One that was up has data, which nobody takes from it.
    let up = Listed { client_urls: vec!["https://10.0.0.2:2379".into()], ..m2.clone() };
    assert_eq!(turn.of(&with(&up), OWN, at(9) + TURN * 3), Whose::Other(&up));
    assert_eq!(turn.of(&with(&up), OWN, at(9) + TURN * 5), Whose::Absent(&up));
}

#[test]
fn the_pod_gets_the_members_that_there_are() {
    let command = ["etcd", "--name=m3", "--initial-cluster=m3=x", "--initial-cluster-state=existing"];
    let pod = json!({ "spec": { "containers": [{ "command": command }] } });
    let members = [listed("1", "m1", "https://10.0.0.1:2380", &[]), listed("2", "", OWN, &[])];
    let pod = with_members(&pod.to_string(), &members, &member(false, &[1])).unwrap();
    let pod: Value = serde_json::from_str(&pod).unwrap();
    let want = [
        "etcd",
        "--name=m3",
        "--initial-cluster=m1=https://10.0.0.1:2380,m3=https://10.0.0.3:2380",
        "--initial-cluster-state=existing",
    ];
    assert_eq!(pod["spec"]["containers"][0]["command"], json!(want));
}
