//! Harms clusters in every way that requirements name, and each time asks for the same healthy cluster with nothing lost.
//!
//! It takes hours under emulation, which is too long for the gate; one part is run by its name behind `--`, and each step tells its seconds:
//! `cargo test -p kscratch-tests --features faults --test faults`.
mod ageing;
mod alone;
mod disks;
mod growth;
mod heard;
mod masters;
mod moves;
mod newcomers;
mod power;
mod surroundings;

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use kscratch_tests::cluster::{Cluster, SOON, eye, pod};
use kscratch_tests::step::step;
use serde_json::Value;

/// Power: cut in every phase of the first boot, cut under load, reset everywhere at once, an API server that is away.
#[test]
fn power_may_go_at_any_time() {
    let cluster = step("cut in every phase", power::cut_in_every_phase_of_the_first_boot);
    begin(&cluster);
    let identity = Identity::of(&cluster);
    step("cut under load", || power::cut_under_write_load(&cluster));
    step("reset", || power::reset_all_at_once(&cluster));
    step("no API server", || power::a_node_boots_without_its_api_server(&cluster));
    identity.is_still_that_of(&cluster);
}

/// Clock, address, disk: what a machine finds when it boots is not what it was.
#[test]
fn surroundings_may_change() {
    let cluster = Cluster::up("routed", 1, 1, &[]);
    begin(&cluster);
    let identity = Identity::of(&cluster);
    step("clocks behind", || surroundings::a_clock_that_is_years_behind(&cluster));
    step("a node's clock ahead", || surroundings::a_clock_that_is_years_ahead(&cluster));
    step("a node's disk", || disks::a_disk_that_is_full(&cluster));
    step("a master's disk", || disks::a_masters_disk_that_is_full(&cluster));
    step("a master's full disk and its power", || disks::a_power_cut_of_a_master_whose_disk_is_full(&cluster));
    step("damaged state", || disks::a_masters_state_that_is_damaged(&cluster));
    identity.is_still_that_of(&cluster);
    // From here on m1's kubelet may have asked for what it has not, by its clock, any more.
    step("a master's clock ahead", || surroundings::a_masters_clock_that_is_years_ahead(&cluster));
    // And n1 has another address, and a certificate that says so.
    step("another address", || surroundings::an_address_that_changes(&cluster));
    step("another address while it runs", || surroundings::an_address_that_changes_while_it_runs(&cluster));
}

/// Machines that should not join, and then should, one of them twice; and what they are when a year is nearly over.
#[test]
fn newcomers_may_be_wrong() {
    let cluster = Cluster::up("routed", 1, 1, &[]);
    begin(&cluster);
    step("another token", || newcomers::a_token_that_nobody_knows(&cluster));
    step("another CA", || newcomers::a_ca_of_another_cluster(&cluster));
    step("a taken name", || newcomers::a_name_that_is_taken(&cluster));
    step("joins", || newcomers::and_then_it_joins(&cluster));
    step("another name", || moves::to_another_name_and_back(&cluster));
    step("another cluster", || moves::to_another_cluster_and_back(&cluster));
    step("another range", || newcomers::one_whose_node_was_deleted_gets_another_range(&cluster));
    // Nothing can be asked after this that is not asked at that time.
    step("a year later", || ageing::certificates_are_made_anew(&cluster, &["n1", "n2", "m1"]));
}

/// A master's disk is lost; a master is removed.
#[test]
fn a_master_may_be_lost() {
    let cluster = Cluster::up("routed", 3, 0, &[]);
    step("the address moves", || masters::the_address_moves(&cluster));
    step("one is lost", || masters::one_of_three_is_lost_and_replaced(&cluster));
    // From here on there are two.
    step("one is removed", || masters::one_is_removed_for_good(&cluster));
}

/// One master becomes three.
#[test]
fn a_master_may_get_company() {
    growth::one_master_becomes_three();
}

/// A master without metadata.
#[test]
fn a_master_may_be_alone() {
    alone::a_master_begins_a_cluster();
}

/// The pods with which a cluster is looked at.
fn pods() -> [Value; 3] {
    [eye("m1"), eye("n1"), pod("a1", "n1")]
}

fn begin(cluster: &Cluster) {
    cluster.apply(&pods());
    is_healthy(cluster);
}

/// A machine that is switched off in order ends its pods for good (the kubelet's graceful node shutdown: their phase is Failed), and whoever wants them
/// makes them again, as controllers do with theirs.
fn make_ended_pods_again(cluster: &Cluster) {
    let ended = |pod: &Value| {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let (_, text) = cluster.api().get(&format!("/api/v1/namespaces/default/pods/{name}"));
        let known: Value = serde_json::from_str(&text).unwrap_or_default();
        known["status"]["phase"] == "Failed"
    };
    let again: Vec<Value> = pods().into_iter().filter(ended).collect();
    for pod in &again {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        cluster.kubectl(&["delete", "pod", name]).succeeded();
    }
    if !again.is_empty() {
        cluster.apply(&again);
    }
}

/// All machines are Ready, and a pod of n1 answers the API server and reaches a machine.
#[track_caller]
fn is_healthy(cluster: &Cluster) {
    cluster.settle();
    n1_serves(cluster);
}

/// What [`is_healthy`] asks of n1 and its pods, whatever other machines do.
#[track_caller]
fn n1_serves(cluster: &Cluster) {
    let (end, peer) = (Instant::now() + SOON, "/api/v1/namespaces/default/pods/a1:9999/proxy/peer");
    // Its end may be told late: by the kubelet of the next boot.
    while cluster.api().get(peer).0 != 200 {
        assert!(Instant::now() < end, "a1 does not answer: {:?}", cluster.api().get(peer));
        make_ended_pods_again(cluster);
        thread::sleep(Duration::from_secs(2));
    }
    // The master's, too.
    make_ended_pods_again(cluster);
    cluster.ask("a1", "/connect?host=192.168.76.10&port=6443");
    let page = "/api/v1/namespaces/kube-system/pods/hello-n1:8080/proxy/";
    cluster.api().wait_for(page, SOON, |(code, _)| *code == 200);
}

/// What a machine may never lose: its certificates, and that it asked for them once.
struct Identity {
    requests: BTreeSet<String>,
    certificate: String,
}

impl Identity {
    fn of(cluster: &Cluster) -> Identity {
        let requests = cluster.api().items("/apis/certificates.k8s.io/v1/certificatesigningrequests");
        let requests = requests.iter().filter_map(|one| one["metadata"]["name"].as_str()).map(str::to_owned).collect();
        let file = "/read?path=/var/lib/kubelet/pki/kubelet-client-current.pem";
        Identity { requests, certificate: cluster.ask("eye-n1", file) }
    }

    #[track_caller]
    fn is_still_that_of(&self, cluster: &Cluster) {
        let now = Identity::of(cluster);
        // The control plane throws old ones away.
        let new: Vec<&String> = now.requests.difference(&self.requests).collect();
        assert!(new.is_empty(), "a machine that comes back asks for no new certificate: {new:?}");
        assert!(now.certificate == self.certificate, "n1 has another certificate");
    }
}
