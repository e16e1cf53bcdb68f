//! Power goes: at every phase of a first boot, under write load, everywhere at once, and at the API server while a node boots.
use std::thread;
use std::time::{Duration, Instant};

use kscratch_tests::cluster::{Cluster, MAPS, SOON};
use kscratch_tests::program::tool;
use regex::Regex;
use serde_json::Value;

use crate::heard::{BOOTS, Heard};
use crate::is_healthy;

/// How long a node has no API server while it boots, at the least.
const AWAY: Duration = Duration::from_secs(180);
/// Writes that are acknowledged before the power goes.
const WRITES: usize = 40;

/// A master and a node that are cut in the first phase of their first boot, in the second at the next try, and so on, and then around
/// each service; what they become in the end is a cluster like any other.
pub fn cut_in_every_phase_of_the_first_boot() -> Cluster {
    let cluster = Cluster::made("routed", 1, 1, &[]);
    let master =
        ["service containerd: started", "service dockerd: ready", "service kubelet: started", "service kubelet: ready"];
    let later = ["service steward: ready", "service routes: ready"];
    let phases = cut_in_every_phase(&cluster, "m1", &[&master[..], &later].concat());
    assert!(phases >= 12, "a master's boot has {phases} phases");
    let heard = Heard::of(&cluster, "m1");
    cluster.power("on", &["m1"]);
    heard.wait("service steward: ready");
    let node = [
        "service containerd: started",
        "service dockerd: ready",
        "service kubelet: ready",
        "service identities: ready",
    ];
    let phases = cut_in_every_phase(&cluster, "n1", &[&node[..], &["service routes: ready"]].concat());
    assert!(phases >= 10, "a node's boot has {phases} phases");
    cluster.settle();
    cluster
}

/// Cuts a machine's power in each phase, a boot each, and at each mark; says how many phases there were.
#[track_caller]
fn cut_in_every_phase(cluster: &Cluster, machine: &str, marks: &[&str]) -> usize {
    let boot_until = |mark: &str, end: &str| {
        let heard = Heard::of(cluster, machine);
        cluster.power("on", &[machine]);
        let came = heard.either(mark, end);
        cluster.power("cut", &[machine]);
        came
    };
    let mut phase = 1;
    // `services` is the last of the phases that a boot waits for.
    while boot_until(&format!(r"\] phase {phase:02} [a-z-]+: start"), r"\] service kubelet: ready") {
        phase += 1;
    }
    for mark in marks {
        assert!(boot_until(mark, mark), "{machine}: {mark}");
    }
    phase - 1
}

/// What etcd has acknowledged is there after the power went in the middle of writing.
pub fn cut_under_write_load(cluster: &Cluster) {
    let api = cluster.api();
    let write = |number: usize| cluster.make_map(&format!("write-{number}")) == 201;
    let acknowledged: Vec<usize> = thread::scope(|scope| {
        let writer = scope.spawn(|| (0..10 * WRITES).take_while(|number| write(*number)).collect());
        let end = Instant::now() + SOON;
        // The writer goes on until the API server is gone.
        while api.get(&format!("{MAPS}/write-{WRITES}")).0 != 200 {
            assert!(Instant::now() < end, "{WRITES} writes are not done");
        }
        cluster.power("cut", &["m1"]);
        writer.join().unwrap()
    });
    assert!(acknowledged.len() > WRITES && acknowledged.len() < 10 * WRITES, "{} writes", acknowledged.len());
    cluster.power("on", &["m1"]);
    is_healthy(cluster);
    let kept = cluster.api().items(MAPS);
    for number in acknowledged {
        let name = format!("write-{number}");
        let holds = |map: &serde_json::Value| map["metadata"]["name"] == *name && map["data"]["name"] == *name;
        assert!(kept.iter().any(holds), "write {number} was acknowledged and is lost");
    }
}

/// The reset buttons of all machines.
pub fn reset_all_at_once(cluster: &Cluster) {
    let (master, node) = (Heard::of(cluster, "m1"), Heard::of(cluster, "n1"));
    cluster.power("reset", &["m1", "n1"]);
    master.wait("service kubelet: ready");
    node.wait("service kubelet: ready");
    is_healthy(cluster);
}

/// A node that boots while its master is off, for minutes, runs what it ran; it is Ready again once the master is back.
pub fn a_node_boots_without_its_api_server(cluster: &Cluster) {
    cluster.power("cut", &["m1"]);
    let node = Heard::of(cluster, "n1");
    cluster.power("reset", &["n1"]);
    let begun = Instant::now();
    node.wait("service kubelet: ready");
    // Its pods have their network by the range that it remembers, without anybody's answer.
    node.wait("pods of this node: ");
    node.wait(r"(?s)identities: .* failed: the API server cannot be reached|routes: .* failed: the API server cannot be reached");
    thread::sleep(AWAY.saturating_sub(begun.elapsed()));
    // It waits, and neither it nor its kubelet begins again and again.
    assert_eq!(node.times(BOOTS), 1, "n1 has booted again");
    assert_eq!(node.times("service kubelet: started"), 1, "n1 has started its kubelet again");
    let master = Heard::of(cluster, "m1");
    cluster.power("on", &["m1"]);
    master.wait("service steward: ready");
    is_healthy(cluster);
    assert_eq!(node.times(BOOTS), 1, "n1 has booted again");
    // They ran before there was anybody to ask.
    let booted = booted(cluster);
    let reached = booted + reached(&node);
    let pods = cluster.api().items("/api/v1/pods?fieldSelector=spec.nodeName=n1");
    let begun: Vec<u64> = pods.iter().filter(|pod| pod["spec"]["hostNetwork"] != true).filter_map(started).collect();
    let meanwhile = begun.iter().any(|begun| (booted..reached).contains(begun));
    assert!(meanwhile, "n1 booted at {booted}, its pods started at {begun:?}, it reached the master at {reached}");
}

/// When n1 booted, by its own clock, which is not this host's: seconds since 1970 (proc_stat(5), btime).
#[track_caller]
fn booted(cluster: &Cluster) -> u64 {
    let stat = cluster.ask("eye-n1", "/read?path=/proc/stat");
    let time = stat.lines().find_map(|line| line.strip_prefix("btime ")).and_then(|time| time.parse().ok());
    time.unwrap_or_else(|| panic!("no boot time in {stat}"))
}

/// How many seconds after its boot a node first had an answer of its API server.
#[track_caller]
fn reached(node: &Heard) -> u64 {
    let said = node.said();
    let line = Regex::new(r"\[ *(\d+)\.\d+\] (identities|routes): .* goes on after \d+ ").unwrap();
    let found = line.captures(&said).unwrap_or_else(|| panic!("n1 does not say that it goes on:\n{said}"));
    found[1].parse().unwrap()
}

/// When a pod's first container started, by its node's clock: seconds since 1970.
fn started(pod: &Value) -> Option<u64> {
    let time = pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"].as_str()?;
    let said = tool("date", "coreutils", ["--utc", "--date", time, "+%s"]).succeeded();
    said.stdout.trim().parse().ok()
}
