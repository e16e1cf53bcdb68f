//! Leases that come while a machine runs, with the machine's files in a temporary folder.
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use kscratch_metadata::RoleMetadata;

use super::{Leases, Starter, restarts};
use crate::apply::dhcp::{Change, Lease, Loss};
use crate::apply::dhcp6;
use crate::facts::Facts;
use crate::plan;
use crate::plan::tests::{cluster, facts, master, master_facts};
use crate::run::inbox::{self, Inbox, Message};
use crate::supervise::{Ending, Reason};

/// The sample machine has 10.0.2.15/24 on eth0.
fn lease(address: &str) -> Lease {
    Lease {
        address: address.parse().unwrap(),
        server: Ipv4Addr::new(10, 0, 2, 2),
        routes: Vec::new(),
        dns_servers: vec![Ipv4Addr::new(10, 0, 2, 9)],
        search: vec!["lab".to_owned()],
        host_name: None,
        time_servers: Vec::new(),
        mtu: None,
        valid_for: Duration::from_secs(1000),
        renew_after: Duration::from_secs(500),
        rebind_after: Duration::from_secs(875),
    }
}

fn lease6() -> dhcp6::Lease {
    dhcp6::Lease {
        address: "2001:db8::50".parse().unwrap(),
        server: "fe80::1".parse().unwrap(),
        server_id: vec![1],
        dns_servers: vec!["2001:db8::53".parse().unwrap()],
        search: vec!["six".to_owned()],
        time_servers: Vec::new(),
        preferred_for: Duration::from_secs(1000),
        valid_for: Duration::from_secs(1000),
        renew_after: Duration::from_secs(500),
        rebind_after: Duration::from_secs(800),
    }
}

/// A machine that has run for two minutes.
struct Scene {
    root: &'static Path,
    leases: Leases,
    inbox: Inbox,
    _folder: tempfile::TempDir,
}

impl Scene {
    fn new(metadata: RoleMetadata, facts: Facts, before: Option<&str>, lasting: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root: &'static Path = Box::leak(folder.path().to_owned().into_boxed_path());
        if let Some(text) = before {
            fs::create_dir_all(root.join("var/lib/kscratch")).unwrap();
            fs::write(root.join("var/lib/kscratch/address-restarts"), text).unwrap();
        }
        let (sender, inbox) = inbox::pair().unwrap();
        let starter = Starter { root, sender, lasting, again: Duration::from_millis(20) };
        let leases = Leases::on(|| Duration::from_secs(120), metadata, facts, starter);
        Self { root, leases, inbox, _folder: folder }
    }

    fn bound(&self, link: &str, address: &str) {
        self.leases.changed(link, &Change::Bound(lease(address)));
    }

    /// Whether the machine is to start anew, and how many starts that makes. It is written down in a thread: one that is wanted is waited for, and none
    /// that is not comes within a moment.
    #[track_caller]
    fn starts(&self, want: Option<u32>, what: &str) {
        let patience = Duration::from_millis(if want.is_some() { 20_000 } else { 200 });
        let (begun, mut messages) = (Instant::now(), Vec::new());
        while messages.is_empty() && begun.elapsed() < patience {
            thread::sleep(Duration::from_millis(5));
            messages = self.inbox.take();
        }
        assert!(messages.iter().all(|message| matches!(message, Message::Stop(Reason::Address))));
        assert_eq!((!messages.is_empty()).then(|| restarts(self.root)), want, "{what}");
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.root.join("run/kscratch").join(name)).unwrap()
    }
}

#[test]
fn when_a_machine_starts_anew() {
    assert_eq!(Reason::Address.ending(), Ending::Reboot);
    let unaddressed = || {
        let mut facts = facts();
        facts.links.get_mut("eth0").unwrap().addresses.clear();
        facts
    };
    let unplanned = || {
        let mut facts = facts();
        facts.links.get_mut("eth0").unwrap().addresses = vec!["10.244.2.15/24".parse().unwrap()];
        assert!(plan::node(&cluster(""), &facts).is_err());
        facts
    };
    let damaged = Some("no number");
    for (metadata, facts, before, lasting, link, address, want) in [
        (cluster(""), facts(), None, true, "eth0", "10.0.2.16/24", Some(1)),
        (cluster(""), unaddressed(), None, true, "eth0", "10.0.2.16/24", Some(1)),
        // It could do nothing with the one that it booted with.
        (cluster(""), unplanned(), None, true, "eth0", "10.0.2.16/24", Some(1)),
        (cluster(""), unplanned(), None, true, "eth0", "10.244.2.16/24", None),
        (cluster(""), facts(), None, true, "eth0", "10.0.2.15/24", None),
        (cluster(""), facts(), None, true, "eth1", "10.0.2.16/24", None),
        (RoleMetadata::standalone(), facts(), None, true, "eth0", "10.0.2.16/24", None),
        // It would be forgotten that it did.
        (cluster(""), facts(), None, false, "eth0", "10.0.2.16/24", None),
        // It would not get up with that.
        (cluster(""), facts(), None, true, "eth0", "10.244.2.16/24", None),
        // It did so two minutes ago.
        (cluster(""), facts(), Some("1\n"), true, "eth0", "10.0.2.16/24", None),
        (cluster(""), facts(), damaged, true, "eth0", "10.0.2.16/24", None),
    ] {
        let scene = Scene::new(metadata, facts, before, lasting);
        scene.bound(link, address);
        scene.starts(want, &format!("{before:?} {lasting} {link} {address}"));
    }
}

#[test]
fn a_start_that_cannot_be_written_down_is_tried_again_while_the_address_is_that() {
    for (goes_back, want) in [(false, Some(1)), (true, None)] {
        let scene = Scene::new(cluster(""), facts(), None, true);
        // As a disk that takes nothing: a folder cannot be made where a file is.
        fs::create_dir_all(scene.root.join("var/lib")).unwrap();
        fs::write(scene.root.join("var/lib/kscratch"), "").unwrap();
        scene.bound("eth0", "10.0.2.16/24");
        thread::sleep(Duration::from_millis(100));
        assert!(scene.inbox.take().is_empty(), "nothing is started that is not written down");
        if goes_back {
            scene.bound("eth0", "10.0.2.15/24");
            thread::sleep(Duration::from_millis(100));
        }
        fs::remove_file(scene.root.join("var/lib/kscratch")).unwrap();
        scene.starts(want, &format!("goes back: {goes_back}"));
    }
}

#[test]
fn what_libc_reads_follows_the_lease_whatever_becomes_of_the_machine() {
    let address_of = |scene: &Scene| scene.file("hosts").lines().last().unwrap().to_owned();
    for (metadata, address, want) in [
        (RoleMetadata::standalone(), "10.0.2.16/24", Some("10.0.2.16 kscratch-01234567")),
        (cluster(""), "10.0.2.16/24", Some("10.0.2.16 kscratch-01234567")),
        (cluster(""), "10.0.2.15/24", Some("10.0.2.15 kscratch-01234567")),
        (cluster(""), "10.244.2.16/24", Some("10.0.2.15 kscratch-01234567")),
    ] {
        let scene = Scene::new(metadata, facts(), None, true);
        scene.bound("eth0", address);
        assert_eq!(scene.file("resolv.conf"), "nameserver 10.0.2.9\nsearch lab\n");
        assert_eq!(Some(address_of(&scene).as_str()), want, "{address}");
    }
}

#[test]
fn a_lease_of_another_link_takes_no_name_server_away() {
    let names = |server: [u8; 4], search: &str| crate::facts::Names {
        servers: vec![Ipv4Addr::from(server)],
        search: vec![search.to_owned()],
    };
    let mut known = facts();
    known.leased = [("eth0".to_owned(), names([10, 0, 2, 3], "own"))].into();
    let scene = Scene::new(RoleMetadata::standalone(), known, None, true);
    let change = |link: &str, change: Change| {
        scene.leases.changed(link, &change);
        scene.file("resolv.conf")
    };
    let nothing = Lease { dns_servers: Vec::new(), search: Vec::new(), ..lease("10.7.0.5/24") };
    assert_eq!(change("aux0", Change::Bound(nothing.clone())), "nameserver 10.0.2.3\nsearch own\n");
    let two = "nameserver 10.0.2.3\nnameserver 10.0.2.9\nsearch own\n";
    assert_eq!(change("aux0", Change::Bound(lease("10.7.0.6/24"))), two);
    assert_eq!(change("aux0", Change::Lost(nothing, Loss::Replaced)), two, "it has another one");
    let lost = Change::Lost(lease("10.0.2.15/24"), Loss::Ended);
    assert_eq!(change("eth0", lost), "nameserver 10.0.2.9\nsearch lab\n");
    let last = Change::Lost(lease("10.7.0.6/24"), Loss::Ended);
    assert_eq!(change("aux0", last), "nameserver 10.0.2.9\nsearch lab\n", "the last ones are kept");
}

#[test]
fn name_servers_of_dhcpv6_are_asked_while_there_is_nobody_else() {
    let mut known = facts();
    known.dns_servers.clear();
    let scene = Scene::new(RoleMetadata::standalone(), known, None, true);
    let six = lease6();
    let change6 = |change: dhcp6::Change| {
        scene.leases.changed6("eth0", &change);
        scene.file("resolv.conf")
    };
    let own = "nameserver 2001:db8::53\nsearch six\n";
    assert_eq!(change6(dhcp6::Change::Bound(six.clone())), own);
    scene.bound("eth0", "10.0.2.15/24");
    assert_eq!(scene.file("resolv.conf"), "nameserver 10.0.2.9\nsearch lab\n");
    scene.leases.changed("eth0", &Change::Lost(lease("10.0.2.15/24"), Loss::Ended));
    assert_eq!(scene.file("resolv.conf"), own);
    assert_eq!(change6(dhcp6::Change::Lost(six, dhcp6::Loss::Ended)), own, "the last ones are kept");
}

#[test]
fn a_lease_beside_a_fixed_address_is_taken_for_its_names_alone() {
    let metadata = cluster("[network.links.eth0]\naddresses = [\"10.0.2.15/24\"]\ndhcp4 = true\n");
    let scene = Scene::new(metadata, facts(), None, true);
    scene.bound("eth0", "10.0.2.16/24");
    assert_eq!(scene.file("resolv.conf"), "nameserver 10.0.2.9\nsearch lab\n");
    assert_eq!(scene.file("hosts").lines().last(), Some("10.0.2.15 kscratch-01234567"));
    scene.starts(None, "the fixed one is the node's");
}

#[test]
fn coredns_of_a_master_asks_the_servers_of_a_lease_that_comes_later() {
    let unnamed = Facts { dns_servers: Vec::new(), ..master_facts("1.37.2") };
    let scene = Scene::new(master(""), unnamed, None, true);
    scene.bound("aux0", "10.7.0.5/24");
    let asks = "forward . 10.0.2.9 {\n    max_concurrent 1000\n}\n";
    assert_eq!(scene.file("coredns/upstream.conf"), asks);
    // Pods cannot ask what is left then.
    scene.leases.changed6("eth0", &dhcp6::Change::Bound(lease6()));
    scene.leases.changed("aux0", &Change::Lost(lease("10.7.0.5/24"), Loss::Ended));
    assert_eq!(scene.file("resolv.conf"), "nameserver 2001:db8::53\nsearch six\n");
    assert_eq!(scene.file("coredns/upstream.conf"), asks, "the last ones are kept");
}

#[test]
fn another_default_route_is_no_reason_to_leave_the_first() {
    let all = "0.0.0.0/0".parse().unwrap();
    let route = crate::apply::dhcp::Route { destination: all, gateway: Some(Ipv4Addr::new(10, 0, 2, 2)) };
    let bound = Lease { routes: vec![route], ..lease("10.0.2.16/24") };
    for (elsewhere, want) in [(true, false), (false, true)] {
        let mut facts = facts();
        let mut other = facts.links["eth0"].clone();
        other.default_route = elsewhere;
        facts.links.insert("eth7".to_owned(), other);
        facts.links.get_mut("eth0").unwrap().default_route = false;
        facts.links.retain(|name, _| ["eth0", "eth7"].contains(&name.as_str()));
        assert_eq!(super::with_lease(facts, "eth0", &bound).links["eth0"].default_route, want);
    }
}

#[test]
fn an_address_that_comes_back_in_time_is_gone_on_with() {
    let scene = Scene::new(cluster(""), facts(), Some("1\n"), true);
    scene.bound("eth0", "10.0.2.16/24");
    assert_eq!(scene.leases.lock().other, Some(Ipv4Addr::new(10, 0, 2, 16)));
    scene.bound("eth0", "10.0.2.15/24");
    assert_eq!(scene.leases.lock().other, None);
    scene.starts(None, "it has its own address");
}

#[test]
fn nothing_is_started_for_an_address_that_is_gone_again() {
    let other = |scene: &Scene| scene.leases.lock().other;
    let scene = Scene::new(cluster(""), facts(), Some("1\n"), true);
    scene.bound("eth0", "10.0.2.16/24");
    // One is bound before the other is told to be lost.
    scene.bound("eth0", "10.0.2.17/24");
    scene.leases.changed("eth0", &Change::Lost(lease("10.0.2.16/24"), Loss::Replaced));
    assert_eq!(other(&scene), Some(Ipv4Addr::new(10, 0, 2, 17)));
    scene.leases.changed("eth0", &Change::Lost(lease("10.0.2.17/24"), Loss::Ended));
    assert_eq!(other(&scene), None);
    scene.bound("eth0", "10.0.2.16/24");
    // It could not start with this one.
    scene.bound("eth0", "10.244.2.16/24");
    assert_eq!(other(&scene), None);
}

#[test]
fn nothing_is_started_that_cannot_be_written_down() {
    let scene = Scene::new(cluster(""), facts(), None, true);
    fs::write(scene.root.join("var"), "a file").unwrap();
    scene.bound("eth0", "10.0.2.16/24");
    scene.starts(None, "it cannot be written");
}

#[test]
fn starts_are_counted_and_forgotten() {
    let scene = Scene::new(cluster(""), facts(), Some("3\n"), true);
    scene.leases.starter.start(3, Ipv4Addr::LOCALHOST);
    scene.starts(Some(4), "the fourth");
    scene.leases.starter.forget();
    assert_eq!(restarts(scene.root), 0);
}
