//! The machine stops: in which order, within which bounds, and how it ends.
use super::{check, check_after, check_booted, exited, service, started};
use crate::supervise::{Ending, Event, Reason};

#[test]
fn the_machine_stops_from_the_top_down() {
    check_booted(
        vec![
            (5000, Event::StopAll(Reason::PowerButton)),
            (5100, exited("kubelet", 0)),
            (5200, exited("cri-dockerd", 0)),
            (6000, Event::ContainersGone),
            (6300, exited("dockerd", 0)),
            (6400, exited("containerd", 0)),
        ],
        "5000: say stopping: power button
         5000: Terminate kubelet
         5100: say service kubelet: stopped (0.1 s)
         5100: kill cgroup of kubelet
         5100: Terminate cri-dockerd
         5200: say service cri-dockerd: stopped (0.1 s)
         5200: kill cgroup of cri-dockerd
         5200: Terminate containers
         6000: Terminate dockerd
         6300: say service dockerd: stopped (0.3 s)
         6300: kill cgroup of dockerd
         6300: Terminate containerd
         6400: say service containerd: stopped (0.1 s)
         6400: kill cgroup of containerd
         6400: end PowerOff",
    );
}

#[test]
fn who_does_not_stop_is_killed_and_then_left_behind() {
    check_booted(
        vec![
            (5000, Event::StopAll(Reason::CtrlAltDel)),
            (14_999, Event::Timer),
            (15_000, Event::Timer),
            (20_000, Event::Timer),
            (20_001, exited("cri-dockerd", 0)),
            (35_001, Event::Timer),
            (40_001, Event::Timer),
            (40_002, exited("dockerd", 0)),
            (40_003, exited("containerd", 0)),
        ],
        "5000: say stopping: ctrl-alt-del
         5000: Terminate kubelet
         15000: say service kubelet: still there after 10 s, killing it
         15000: Kill kubelet
         15000: kill cgroup of kubelet
         20000: say service kubelet: does not die, left behind
         20000: Terminate cri-dockerd
         20001: say service cri-dockerd: stopped (0.0 s)
         20001: kill cgroup of cri-dockerd
         20001: Terminate containers
         35001: say containers: still there after 15 s, killing them
         35001: Kill containers
         40001: say containers: do not die, left behind
         40001: Terminate dockerd
         40002: say service dockerd: stopped (0.0 s)
         40002: kill cgroup of dockerd
         40002: Terminate containerd
         40003: say service containerd: stopped (0.0 s)
         40003: kill cgroup of containerd
         40003: end Reboot",
    );
}

#[test]
fn a_service_whose_middle_is_missing_still_stops_first() {
    check_booted(
        vec![(5000, exited("cri-dockerd", 1)), (5001, Event::StopAll(Reason::Terminate)), (5002, exited("kubelet", 0))],
        "5000: say service cri-dockerd: exited with status 1, again in 1 s
         5000: tail of cri-dockerd
         5000: kill cgroup of cri-dockerd
         5001: say stopping: SIGTERM
         5001: Terminate kubelet
         5002: say service kubelet: stopped (0.0 s)
         5002: kill cgroup of kubelet
         5002: Terminate containers",
    );
}

/// These have started, and are ready.
fn booted(names: &[&'static str]) -> Vec<(u64, Event)> {
    let ready = names.iter().flat_map(|name| [(0, started(name)), (0, Event::Ready { name })]);
    [(0, Event::Timer)].into_iter().chain(ready).collect()
}

/// Of several that stop first, the one goes before what it stands on.
#[test]
fn who_stops_first_and_needs_another_that_does_goes_before_it() {
    let [mut inhibitor, mut address] = [service("inhibitor", &[], false), service("address", &["kubelet"], false)];
    (inhibitor.stops_first, address.stops_first) = (true, true);
    let services = vec![inhibitor, service("kubelet", &["inhibitor"], false), address];
    let mut script = booted(&["inhibitor", "kubelet", "address"]);
    let from = script.len();
    script.extend([
        (5000, Event::StopAll(Reason::PowerButton)),
        (5100, exited("address", 0)),
        (5200, exited("inhibitor", 0)),
        (5300, exited("kubelet", 0)),
    ]);
    let want = "5000: say stopping: power button
         5000: Terminate address
         5100: say service address: stopped (0.1 s)
         5100: kill cgroup of address
         5100: Terminate inhibitor
         5200: say service inhibitor: stopped (0.1 s)
         5200: kill cgroup of inhibitor
         5200: Terminate kubelet
         5300: say service kubelet: stopped (0.1 s)
         5300: kill cgroup of kubelet
         5300: Terminate containers";
    check_after(services, from, script, want);
}

/// The kubelet starts after it, and is its client: what would otherwise stop last stops first.
#[test]
fn who_stops_first_does_so_before_all_others() {
    let mut first = service("inhibitor", &[], false);
    first.stops_first = true;
    let services = vec![first, service("kubelet", &["inhibitor"], false), service("proxy", &["kubelet"], false)];
    let booted = booted(&["inhibitor", "kubelet", "proxy"]);
    let from = booted.len();
    let then = |more: Vec<(u64, Event)>| booted.iter().cloned().chain(more).collect();
    let script = vec![
        (5000, Event::StopAll(Reason::PowerButton)),
        (6000, exited("proxy", 1)),
        (9000, exited("inhibitor", 0)),
        (9100, exited("kubelet", 0)),
    ];
    let want = "5000: say stopping: power button
         5000: Terminate inhibitor
         6000: say service proxy: exited with status 1
         6000: tail of proxy
         6000: kill cgroup of proxy
         9000: say service inhibitor: stopped (4.0 s)
         9000: kill cgroup of inhibitor
         9000: Terminate kubelet
         9100: say service kubelet: stopped (0.1 s)
         9100: kill cgroup of kubelet
         9100: Terminate containers";
    check_after(services.clone(), from, then(script), want);
    // One that does not end is killed like any other.
    let script =
        vec![(5000, Event::StopAll(Reason::Terminate)), (15_000, Event::Timer), (15_100, exited("inhibitor", 9))];
    let want = "5000: say stopping: SIGTERM
         5000: Terminate inhibitor
         15000: say service inhibitor: still there after 10 s, killing it
         15000: Kill inhibitor
         15000: kill cgroup of inhibitor
         15100: say service inhibitor: stopped (10.1 s)
         15100: kill cgroup of inhibitor
         15100: Terminate proxy";
    check_after(services, from, then(script), want);
}

#[test]
fn a_second_wish_to_stop_changes_nothing() {
    check_booted(
        vec![(5000, Event::StopAll(Reason::PowerButton)), (5001, Event::StopAll(Reason::CtrlAltDel))],
        "5000: say stopping: power button
         5000: Terminate kubelet
         5001: say stopping already (ctrl-alt-del)",
    );
}

#[test]
fn a_machine_without_services_ends_when_its_containers_have() {
    check(
        Vec::new(),
        vec![(0, Event::Timer), (10, Event::StopAll(Reason::PowerButton)), (11, Event::ContainersGone)],
        "10: say stopping: power button
         10: Terminate containers
         11: end PowerOff",
    );
}

#[test]
fn a_process_that_comes_up_while_the_machine_stops_is_stopped() {
    check(
        vec![service("a", &[], false)],
        vec![
            (0, Event::Timer),
            (1, Event::StopAll(Reason::PowerButton)),
            (2, started("a")),
            (3, exited("a", 0)),
            (4, Event::ContainersGone),
        ],
        "0: spawn a
         1: say stopping: power button
         2: say service a: started pid 7
         2: Terminate a
         3: say service a: stopped (0.0 s)
         3: kill cgroup of a
         3: Terminate containers
         4: end PowerOff",
    );
}

#[test]
fn reasons_and_endings() {
    for (reason, ending) in [
        (Reason::PowerButton, Ending::PowerOff),
        (Reason::CtrlAltDel, Ending::Reboot),
        (Reason::Terminate, Ending::PowerOff),
        (Reason::PowerFailure, Ending::PowerOff),
        (Reason::Cluster(Ending::Reboot), Ending::Reboot),
    ] {
        assert_eq!(reason.ending(), ending, "{reason}");
    }
}
