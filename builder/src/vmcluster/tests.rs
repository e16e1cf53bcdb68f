//! Tables of plans, and a keeper that is spoken to while its machines boot nothing.
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use super::place::{PLAN, Place, keep, write_private};
use super::plan::{Image, Make, Plan, PlannedForward, SHARED};
use super::{client, logs, up};
use crate::spec::Role;

fn make() -> Make {
    Make {
        master_image: Image { path: "/images/master.img".into(), ..Image::default() },
        node_image: Image { path: "/images/node.img".into(), ..Image::default() },
        disk_size: 8 << 30,
        docker_disk: None,
        etcd_disk: None,
        memory: 2048,
        cpus: None,
        host_time: false,
    }
}

fn grown(masters: u8, nodes: u8) -> Plan {
    let mut plan = Plan::empty("blue", false);
    plan.grow(masters, nodes, &make()).unwrap();
    plan
}

#[track_caller]
fn refused(plan: &Plan, masters: u8, nodes: u8, want: &str) {
    let error = plan.clone().grow(masters, nodes, &make()).unwrap_err().to_string();
    assert!(error.contains(want), "{error}");
}

#[test]
fn machines_have_names_addresses_and_numbers() {
    let plan = grown(3, 2);
    let said: Vec<_> =
        plan.machines.iter().map(|machine| (machine.name.as_str(), machine.address, machine.master)).collect();
    let at = |last| Ipv4Addr::new(192, 168, 76, last);
    let want = [
        ("m1", at(10), true),
        ("m2", at(11), true),
        ("m3", at(12), true),
        ("n1", at(20), false),
        ("n2", at(21), false),
    ];
    assert_eq!(said, want);
    let n2 = plan.machine("n2").unwrap();
    assert_eq!((n2.mac_text().as_str(), n2.serial("blue").as_str()), ("52:54:00:6b:73:15", "kscratch-blue-n2"));
    let uuid = n2.uuid_bytes().unwrap();
    assert_eq!((uuid[6] >> 4, uuid[8] >> 6), (8, 2));
    assert_ne!(plan.machine("n1").unwrap().uuid, n2.uuid);
    let error = plan.machine("n9").unwrap_err().to_string();
    assert_eq!(error, "the cluster blue has no machine n9; it has m1, m2, m3, n1, n2");
}

#[test]
fn emulated_machines_have_fewer_processors_and_a_time_of_their_own() {
    let mut plan = grown(1, 1);
    plan.grow(1, 2, &Make { cpus: Some(4), ..make() }).unwrap();
    let processors =
        |accelerated| -> Vec<u32> { plan.machines.iter().map(|machine| machine.processors(accelerated)).collect() };
    assert_eq!((processors(true), processors(false)), (vec![2, 2, 4], vec![2, 1, 4]));

    let own_time = |host_time_first, host_time_later| -> Vec<bool> {
        let mut plan = Plan::empty("blue", false);
        plan.grow(1, 0, &Make { host_time: host_time_first, ..make() }).unwrap();
        plan.grow(1, 1, &Make { host_time: host_time_later, ..make() }).unwrap();
        plan.machines.iter().map(|machine| machine.own_time).collect()
    };
    assert_eq!(own_time(false, false), [true, true]);
    assert_eq!(own_time(true, false), [false, false], "as in the machines that are there");
    assert_eq!(own_time(false, true), [true, false]);
}

#[test]
fn machines_have_further_disks_that_their_metadata_tell() {
    let mut plan = Plan::empty("blue", false);
    plan.grow(0, 1, &make()).unwrap();
    plan.grow(0, 2, &Make { docker_disk: Some(20 << 30), etcd_disk: Some(4 << 30), ..make() }).unwrap();
    let now = kscratch_pki::OffsetDateTime::now_utc();
    let disks = |plan: &Plan, name: &str| {
        let role = super::identity::role(None, plan, plan.machine(name).unwrap(), now).unwrap();
        kscratch_metadata::parse(&role).unwrap().disks
    };
    assert!(disks(&plan, "n1").is_empty());
    let told = |disks: Vec<kscratch_metadata::Disk>| -> Vec<String> {
        disks.iter().map(|disk| format!("{} {}", disk.purpose.word(), disk.told_by())).collect()
    };
    assert_eq!(told(disks(&plan, "n2")), ["docker serial docker-n2"]);
    let mut masters = Plan::empty("red", false);
    masters.grow(1, 1, &Make { docker_disk: Some(20 << 30), etcd_disk: Some(4 << 30), ..make() }).unwrap();
    let planned: Vec<String> = (masters.machine("m1").unwrap().disks.iter())
        .map(|disk| format!("{} {} {}", disk.file(), disk.serial("m1"), disk.size))
        .collect();
    assert_eq!(planned, ["docker.img docker-m1 21474836480", "etcd.img etcd-m1 4294967296"]);
    assert_eq!(masters.machine("n1").unwrap().disks.len(), 1);
    let text = masters.text().unwrap();
    let read: Plan = serde_json::from_str(&text).unwrap();
    assert_eq!(read, masters, "{text}");
}

#[test]
fn a_plan_grows_by_nodes_alone() {
    let mut plan = grown(1, 2);
    let before = plan.clone();
    plan.grow(1, 3, &Make { memory: 4096, ..make() }).unwrap();
    assert_eq!(plan.machines[..3], before.machines[..]);
    assert_eq!((plan.machines[3].name.as_str(), plan.machines[3].memory), ("n3", 4096));
    refused(&plan, 3, 3, "stays what it was at the beginning: 1");
    refused(&plan, 1, 2, "has 3 nodes already");
    refused(
        &Plan::empty("blue", false),
        2,
        1,
        "etcd needs an odd number of members: 2 masters survive no more than 1 would",
    );
    refused(&Plan::empty("blue", false), 7, 1, "at most 5 masters");
    refused(&Plan::empty("blue", false), 0, 0, "without machines");
}

#[test]
fn forwards_are_kept_once_and_lead_to_one_machine() {
    let mut plan = grown(1, 1);
    let forward = |host, machine: &str, port| PlannedForward { host, machine: machine.to_owned(), port };
    plan.forward(forward(0, "m1", 6443), || Ok(40_001)).unwrap();
    plan.forward(forward(0, "m1", 6443), || panic!("it has one")).unwrap();
    plan.forward(forward(8080, "n1", 80), || panic!("it is named")).unwrap();
    assert_eq!((plan.api_port(), plan.forwards.len()), (Some(40_001), 2));
    let taken = plan.forward(forward(8080, "m1", 80), || Ok(1)).unwrap_err().to_string();
    assert_eq!(taken, "port 8080 leads to port 80 of n1 already");
    assert!(plan.forward(forward(1, "n9", 80), || Ok(1)).is_err());
    assert_eq!(plan.gateway().forwards[1].address, Ipv4Addr::new(192, 168, 76, 20));
}

#[test]
fn the_first_masters_port_leads_to_the_address_that_masters_share() {
    let mut plan = grown(3, 1);
    for (host, machine, port) in [(40_001, "m1", 6443), (40_002, "m2", 6443), (40_003, "m1", 80)] {
        plan.forward(PlannedForward { host, machine: machine.to_owned(), port }, || panic!("it is named")).unwrap();
    }
    let leads = |plan: &Plan| plan.gateway().forwards.iter().map(|one| one.address.octets()[3]).collect::<Vec<_>>();
    assert_eq!(leads(&plan), [10, 11, 10]);
    plan.shared = Some(SHARED);
    assert_eq!(leads(&plan), [5, 11, 10]);
    assert!(plan.machines.iter().all(|machine| machine.address != SHARED));
}

#[test]
fn a_plan_is_read_as_it_was_written_and_refused_when_it_is_odd() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(PLAN);
    assert_eq!(Plan::read(&path).unwrap(), None);
    let plan = grown(1, 2);
    write_private(&path, &plan.text().unwrap()).unwrap();
    assert_eq!(Plan::read(&path).unwrap(), Some(plan.clone()));
    for (from, to, want) in [
        ("\"version\": 1", "\"version\": 2", "version 2"),
        ("\"n2\"", "\"n1\"", "the same name"),
        ("\"n2\"", "\"../n2\"", "no name of a machine"),
        ("\"outside\"", "\"inside\"", "unknown field"),
    ] {
        fs::write(&path, plan.text().unwrap().replace(from, to)).unwrap();
        let error = format!("{:#}", Plan::read(&path).unwrap_err());
        assert!(error.contains(want), "{error}");
    }
}

#[test]
fn machines_that_there_are_keep_their_image() {
    let folder = tempfile::tempdir().unwrap();
    let [one, other, none] = ["one.img", "other.img", "none.img"].map(|name| folder.path().join(name));
    [&one, &other].into_iter().for_each(|file| fs::write(file, [1; 4096]).unwrap());
    let place = Place::of(folder.path(), "blue");
    place.make("n1").unwrap();
    up::keeps_image(&place, Role::Node, &none).unwrap();
    let mut plan = grown(0, 1);
    plan.machines[0].image = Image::now(&one).unwrap();
    write_private(&place.file(PLAN), &plan.text().unwrap()).unwrap();
    up::keeps_image(&place, Role::Node, &one).unwrap();
    up::keeps_image(&place, Role::Master, &none).unwrap();
    let told = crate::console::error_lines(&up::keeps_image(&place, Role::Node, &other).unwrap_err()).join("\n");
    assert!(
        told.contains("n1 is there already, and its disk lies over ") && told.contains("one.img, not over "),
        "{told}"
    );
    assert!(told.contains("hint: kscratch-image cluster down --folder ") && told.contains(" blue --delete"), "{told}");
    assert!(up::keeps_image(&place, Role::Node, &none).is_err());
}

#[test]
fn an_image_that_was_built_anew_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.img");
    fs::write(&path, [1; 4096]).unwrap();
    let image = Image::now(&path).unwrap();
    image.check().unwrap();
    fs::write(&path, [2; 4096]).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(1)).unwrap();
    let error = image.check().unwrap_err().to_string();
    assert!(error.ends_with("was written to after the machine's disk was laid over it"), "{error}");
    fs::remove_file(&path).unwrap();
    assert!(image.check().unwrap_err().to_string().starts_with("looking at the image"));
}

#[test]
fn one_keeper_at_a_time_and_none_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::of(folder.path(), "blue");
    place.make("n1").unwrap();
    let lock = keep(place.path()).unwrap();
    assert!(lock.is_some() && keep(place.path()).unwrap().is_none());
    drop(lock);
    assert!(keep(place.path()).unwrap().is_some());
    let lines = crate::console::error_lines(&client::status(&place).unwrap_err());
    let hint = format!("hint: kscratch-image cluster up --folder {} blue", folder.path().display());
    assert_eq!(lines, ["error: the machines of blue are not up", hint.as_str()]);
    assert_eq!(Place::of(Path::new("."), "blue").argument(), "blue");
    let nowhere = Place::of(Path::new("/nowhere"), "blue");
    assert!(
        client::status(&nowhere).unwrap_err().to_string().contains("cluster up blue") || !client::answers(&nowhere)
    );
}

#[test]
fn a_console_is_read_without_what_steers_a_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::of(folder.path(), "blue");
    place.make("n1").unwrap();
    write_private(&place.file(PLAN), &grown(0, 1).text().unwrap()).unwrap();
    fs::write(place.machine_file("n1", "console.log"), b"\x1b[2Jone\r\ntwo\r\nthr").unwrap();
    assert_eq!(logs::tail(&place, "n1", 2).unwrap(), ["two", "thr"]);
    let mut out = Vec::new();
    logs::print(&place, "n1", false, &mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), "one\ntwo\nthr\n");
    assert!(logs::tail(&place, "n2", 2).is_err());
}
