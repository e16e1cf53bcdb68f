//! Turns sequences of events into the actions that the supervisor owes for them: a table, and random sequences.
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::{Just, Strategy, any, prop, prop_assert, prop_oneof, proptest};
use proptest::test_runner::TestCaseError;

use super::stop::{CONTAINERS_WITHIN, KILLED_WITHIN};
use super::{Action, Ended, Ending, Event, Reason, Supervisor};
use crate::plan::{Ready, Service};

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn service(name: &'static str, after: &[&'static str], leave_children: bool) -> Service {
    Service {
        name,
        program: format!("/usr/bin/{name}"),
        args: Vec::new(),
        env: Vec::new(),
        after: after.to_vec(),
        ready: Ready::UnixSocket(format!("/run/{name}.sock")),
        ready_within: seconds(30),
        stop_within: seconds(10),
        oom_score_adj: 0,
        open_files: 1024,
        leave_children,
        rights: None,
        tells: false,
    }
}

/// The services of a node.
fn node() -> Vec<Service> {
    vec![
        service("containerd", &[], true),
        service("dockerd", &["containerd"], true),
        service("cri-dockerd", &["dockerd"], false),
        service("kubelet", &["cri-dockerd"], false),
    ]
}

fn started(name: &'static str) -> Event {
    Event::Started { name, pid: 7 }
}
fn ready(name: &'static str) -> Event {
    Event::Ready { name }
}
fn failed(name: &'static str) -> Event {
    Event::ProbeFailed { name, reason: String::from("connection refused") }
}
fn exited(name: &'static str, status: i32) -> Event {
    Event::Exited { name, ended: Ended::Status(status) }
}

/// Runs a script of `(milliseconds, event)` and compares the actions, one a line, those of one event under its time.
#[track_caller]
fn check(services: Vec<Service>, script: Vec<(u64, Event)>, want: &str) {
    let mut supervisor = Supervisor::new(services);
    let mut seen = String::new();
    for (at, event) in script {
        for action in supervisor.handle(event, Duration::from_millis(at)) {
            seen.push_str(&format!("{at}: {}\n", show(&action)));
        }
    }
    let want: String =
        want.lines().map(str::trim).filter(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect();
    assert!(seen == want, "got:\n{seen}\nwanted:\n{want}");
}

fn show(action: &Action) -> String {
    match action {
        Action::Spawn(name) => format!("spawn {name}"),
        Action::Signal { name, signal } => format!("{signal:?} {name}"),
        Action::KillCgroup(name) => format!("kill cgroup of {name}"),
        Action::Probe(name) => format!("probe {name}"),
        Action::SignalContainers(signal) => format!("{signal:?} containers"),
        Action::Log(line) => format!("say {line}"),
        Action::ShowTail(name) => format!("tail of {name}"),
        Action::End(ending) => format!("end {ending:?}"),
    }
}

/// Events that bring every service of [`node`] up, one second each, from time 0.
fn boot() -> Vec<(u64, Event)> {
    let mut script = vec![(0, Event::Timer)];
    for (index, name) in ["containerd", "dockerd", "cri-dockerd", "kubelet"].into_iter().enumerate() {
        let at = index as u64 * 1000;
        script.extend([(at, started(name)), (at + 1000, ready(name))]);
    }
    script
}

/// Brings a node up and forgets what was done for it; then as [`check`].
#[track_caller]
fn check_booted(script: Vec<(u64, Event)>, want: &str) {
    let mut supervisor = Supervisor::new(node());
    for (at, event) in boot() {
        supervisor.handle(event, Duration::from_millis(at));
    }
    let mut seen = String::new();
    for (at, event) in script {
        for action in supervisor.handle(event, Duration::from_millis(at)) {
            seen.push_str(&format!("{at}: {}\n", show(&action)));
        }
    }
    let want: String =
        want.lines().map(str::trim).filter(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect();
    assert!(seen == want, "got:\n{seen}\nwanted:\n{want}");
}

#[test]
fn a_service_starts_when_its_dependencies_are_ready() {
    check(
        node(),
        boot(),
        "0: spawn containerd
         0: say service containerd: started pid 7
         1000: say service containerd: ready (1.0 s)
         1000: spawn dockerd
         1000: say service dockerd: started pid 7
         2000: say service dockerd: ready (1.0 s)
         2000: spawn cri-dockerd
         2000: say service cri-dockerd: started pid 7
         3000: say service cri-dockerd: ready (1.0 s)
         3000: spawn kubelet
         3000: say service kubelet: started pid 7
         4000: say service kubelet: ready (1.0 s)",
    );
}

#[test]
fn services_without_dependencies_start_together() {
    check(
        vec![service("a", &[], false), service("b", &[], false)],
        vec![(0, Event::Timer)],
        "0: spawn a
         0: spawn b",
    );
}

#[test]
fn probes_follow_each_other_and_get_rarer() {
    check(
        vec![service("a", &[], false)],
        vec![
            (0, Event::Timer),
            (0, started("a")),
            (9, Event::Timer),
            (10, Event::Timer),
            (11, Event::Timer),
            (12, failed("a")),
            (21, Event::Timer),
            (22, Event::Timer),
            (10_000, failed("a")),
            (10_199, Event::Timer),
            (10_200, Event::Timer),
        ],
        "0: spawn a
         0: say service a: started pid 7
         10: probe a
         22: probe a
         10200: probe a",
    );
}

#[test]
fn slowness_is_told_once() {
    check(
        vec![service("a", &[], false)],
        vec![
            (0, Event::Timer),
            (0, started("a")),
            (10, Event::Timer),
            (29_000, failed("a")),
            (30_000, Event::Timer),
            (31_000, Event::Timer),
        ],
        "0: spawn a
         0: say service a: started pid 7
         10: probe a
         30000: probe a
         30000: say service a: not ready after 30 s: connection refused",
    );
}

#[test]
fn a_death_is_followed_by_a_start_with_backoff() {
    check(
        vec![service("a", &[], false)],
        vec![
            (0, Event::Timer),
            (0, started("a")),
            (5, exited("a", 1)),
            (1004, Event::Timer),
            (1005, Event::Timer),
            (1006, started("a")),
            (1007, Event::Exited { name: "a", ended: Ended::Signal(9) }),
            (3007, Event::Timer),
            (3008, Event::NotStarted { name: "a", reason: String::from("no such file") }),
            (7008, Event::Timer),
        ],
        "0: spawn a
         0: say service a: started pid 7
         5: say service a: exited with status 1, again in 1 s
         5: tail of a
         5: kill cgroup of a
         1005: spawn a
         1006: say service a: started pid 7
         1007: say service a: was ended by signal 9, again in 2 s
         1007: tail of a
         1007: kill cgroup of a
         3007: spawn a
         3008: say service a: could not be started: no such file, again in 4 s
         7008: spawn a",
    );
}

#[test]
fn a_runtime_that_dies_keeps_its_children_and_its_users() {
    check_booted(
        vec![(5000, exited("dockerd", 1)), (6000, Event::Timer), (6001, started("dockerd")), (6500, ready("dockerd"))],
        "5000: say service dockerd: exited with status 1, again in 1 s
         5000: tail of dockerd
         6000: spawn dockerd
         6001: say service dockerd: started pid 7
         6500: say service dockerd: ready (0.5 s)",
    );
}

#[test]
fn a_user_of_a_runtime_that_is_down_waits_for_it() {
    check_booted(
        vec![
            (5000, exited("dockerd", 1)),
            (5000, exited("cri-dockerd", 1)),
            (6000, Event::Timer),
            (6001, started("dockerd")),
            (6500, ready("dockerd")),
        ],
        "5000: say service dockerd: exited with status 1, again in 1 s
         5000: tail of dockerd
         5000: say service cri-dockerd: exited with status 1, again in 1 s
         5000: tail of cri-dockerd
         5000: kill cgroup of cri-dockerd
         6000: spawn dockerd
         6001: say service dockerd: started pid 7
         6500: say service dockerd: ready (0.5 s)
         6500: spawn cri-dockerd",
    );
}

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
fn a_dependency_that_does_not_exist_is_told() {
    check(
        vec![service("a", &["b"], false)],
        vec![(0, Event::Timer)],
        "0: say service a: waits for b, which is not among the services",
    );
}

#[test]
fn a_service_may_come_late_and_only_once() {
    check(
        vec![service("a", &[], false)],
        vec![
            (0, Event::Timer),
            (0, started("a")),
            (5, ready("a")),
            (6, Event::AddService(service("b", &["a"], false))),
            (7, Event::AddService(service("b", &[], false))),
        ],
        "0: spawn a
         0: say service a: started pid 7
         5: say service a: ready (0.0 s)
         6: spawn b
         7: say service b: is there already, its second definition is left out",
    );
}

#[test]
fn backoff_grows_to_a_minute_and_a_minute_of_health_resets_it() {
    let mut supervisor = Supervisor::new(vec![service("a", &[], false)]);
    let mut now = seconds(0);
    let mut waits = Vec::new();
    supervisor.handle(Event::Timer, now);
    for healthy in [0, 0, 0, 0, 0, 0, 0, 59, 60, 0] {
        supervisor.handle(started("a"), now);
        supervisor.handle(ready("a"), now);
        now += seconds(healthy);
        supervisor.handle(exited("a", 1), now);
        let next = supervisor.next_deadline().unwrap();
        waits.push((next - now).as_secs());
        now = next;
        assert_eq!(supervisor.handle(Event::Timer, now), [Action::Spawn("a")]);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 1, 2]);
}

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Up to five services; each stands on some of those before it.
fn any_services() -> impl Strategy<Value = Vec<Service>> {
    prop::collection::vec((any::<u8>(), any::<bool>(), 0..20_u64), 0..=NAMES.len()).prop_map(|rows| {
        rows.into_iter()
            .enumerate()
            .map(|(index, (after, leave_children, stop_within))| {
                let after: Vec<&'static str> =
                    (0..index).filter(|other| after & (1 << other) != 0).map(|other| NAMES[other]).collect();
                Service { stop_within: seconds(stop_within), ..service(NAMES[index], &after, leave_children) }
            })
            .collect()
    })
}

fn any_event() -> impl Strategy<Value = Event> {
    let name = || prop::sample::select(&NAMES[..]);
    prop_oneof![
        6 => name().prop_map(started),
        1 => name().prop_map(|name| Event::NotStarted { name, reason: String::new() }),
        3 => (name(), any::<i32>()).prop_map(|(name, status)| exited(name, status)),
        6 => name().prop_map(ready),
        3 => name().prop_map(failed),
        6 => Just(Event::Timer),
        1 => Just(Event::ContainersGone),
        1 => name().prop_map(|name| Event::AddService(service(name, &[], false))),
        1 => prop_oneof![Just(Reason::PowerButton), Just(Reason::CtrlAltDel)].prop_map(Event::StopAll),
    ]
}

/// What an outside observer knows: which services have a process, and what was promised.
#[derive(Default)]
struct Observer {
    spawning: BTreeSet<&'static str>,
    alive: BTreeSet<&'static str>,
    died: BTreeMap<&'static str, Duration>,
    stopping: bool,
    ended: bool,
}

impl Observer {
    /// Events that a kernel could not have sent are harmless; those that it could move the observer's view.
    fn event(&mut self, event: &Event, now: Duration) {
        match event {
            Event::Started { name, .. } if self.spawning.remove(name) => _ = self.alive.insert(name),
            Event::NotStarted { name, .. } if self.spawning.remove(name) => _ = self.died.insert(name, now),
            Event::Exited { name, .. } if self.alive.remove(name) => _ = self.died.insert(name, now),
            Event::StopAll(_) => self.stopping = true,
            _ => {}
        }
    }

    fn action(&mut self, action: &Action, now: Duration) -> Result<(), TestCaseError> {
        prop_assert!(!self.ended, "{action:?} after the end");
        match action {
            Action::Spawn(name) => {
                prop_assert!(!self.stopping, "{name} is spawned while the machine stops");
                prop_assert!(
                    !self.alive.contains(name) && self.spawning.insert(name),
                    "{name} would have two processes"
                );
                if let Some(died) = self.died.get(name) {
                    prop_assert!(now >= *died + seconds(1), "{name} is spawned anew within a second");
                }
            }
            Action::Signal { name, .. } | Action::Probe(name) => {
                prop_assert!(self.alive.contains(name), "{action:?} without a process");
            }
            Action::SignalContainers(_) => {
                prop_assert!(self.stopping, "containers are touched on a running machine")
            }
            Action::End(_) => {
                prop_assert!(self.stopping && self.spawning.is_empty(), "an end that nobody asked for");
                self.ended = true;
            }
            Action::KillCgroup(_) | Action::Log(_) | Action::ShowTail(_) => {}
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn no_sequence_of_events_breaks_a_promise(services in any_services(), script in prop::collection::vec((0..20_000_u64, any_event()), 0..120)) {
        let mut supervisor = Supervisor::new(services.clone());
        let mut observer = Observer::default();
        let mut now = Duration::ZERO;
        let feed = |event: Event, now: Duration, observer: &mut Observer, supervisor: &mut Supervisor| {
            observer.event(&event, now);
            for action in supervisor.handle(event, now) {
                observer.action(&action, now)?;
            }
            if let Some(next) = supervisor.next_deadline() && !observer.stopping {
                prop_assert!(next <= now + seconds(60), "the next deadline is more than a minute away");
            }
            Ok(())
        };
        for (wait, event) in script {
            now += Duration::from_millis(wait);
            feed(event, now, &mut observer, &mut supervisor)?;
        }
        // From here on nobody obeys: no process ends, no container goes. The machine stops all the same, within a bound.
        now += seconds(1);
        feed(Event::StopAll(Reason::PowerButton), now, &mut observer, &mut supervisor)?;
        for name in observer.spawning.clone() {
            feed(started(name), now, &mut observer, &mut supervisor)?;
        }
        let stop = now;
        let bound = CONTAINERS_WITHIN + KILLED_WITHIN + (seconds(20) + KILLED_WITHIN) * NAMES.len() as u32;
        for _ in 0..1000 {
            if observer.ended {
                break;
            }
            let Some(next) = supervisor.next_deadline() else { return Err(TestCaseError::fail("it waits for nothing and does not end")) };
            now = now.max(next);
            prop_assert!(now <= stop + bound, "not stopped after {:?}", now - stop);
            feed(Event::Timer, now, &mut observer, &mut supervisor)?;
        }
        prop_assert!(observer.ended, "it spins");
        prop_assert!(supervisor.handle(Event::Timer, now).is_empty());
    }
}

#[test]
fn reasons_and_endings() {
    for (reason, ending) in [
        (Reason::PowerButton, Ending::PowerOff),
        (Reason::CtrlAltDel, Ending::Reboot),
        (Reason::Terminate, Ending::PowerOff),
        (Reason::PowerFailure, Ending::PowerOff),
    ] {
        assert_eq!(reason.ending(), ending, "{reason}");
    }
}
