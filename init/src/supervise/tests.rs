//! Turns sequences of events into the actions that the supervisor owes for them: a table, and random sequences.
mod restart;
mod sequences;
mod standing;
mod start;
mod stop;

use std::time::Duration;

use super::{Action, Ended, Event, Supervisor};
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
        answers_within: None,
        stop_within: seconds(10),
        oom_score_adj: 0,
        open_files: 1024,
        leave_children,
        rights: None,
        reads: None,
        stops_first: false,
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
    check_after(services, 0, script, want);
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
    let booted = boot();
    check_after(node(), booted.len(), booted.into_iter().chain(script).collect(), want);
}

/// As [`check`], of what is done from an event on.
#[track_caller]
fn check_after(services: Vec<Service>, from: usize, script: Vec<(u64, Event)>, want: &str) {
    let mut supervisor = Supervisor::new(services);
    let mut seen = String::new();
    for (index, (at, event)) in script.into_iter().enumerate() {
        for action in supervisor.handle(event, Duration::from_millis(at)) {
            if index >= from {
                seen.push_str(&format!("{at}: {}\n", show(&action)));
            }
        }
    }
    let want: String =
        want.lines().map(str::trim).filter(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect();
    assert!(seen == want, "got:\n{seen}\nwanted:\n{want}");
}
