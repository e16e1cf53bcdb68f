//! What people are told of each service: a table over the supervisor's sequences.
use std::time::Duration;

use super::{boot, exited, node, ready, seconds, started};
use crate::supervise::{Event, Reason, Stage, Standing, Supervisor};

#[track_caller]
fn check(script: &[(u64, Event)], want: &[(&'static str, Stage, u32, Option<&str>)]) {
    let mut supervisor = Supervisor::new(node());
    for (at, event) in script {
        supervisor.handle(event.clone(), Duration::from_millis(*at));
    }
    let want: Vec<Standing> = want
        .iter()
        .map(|(name, stage, restarts, trouble)| Standing {
            name,
            stage: stage.clone(),
            restarts: *restarts,
            trouble: trouble.map(str::to_owned),
        })
        .collect();
    assert_eq!(supervisor.standings(), want);
}

fn waiting(name: &'static str, on: &[&'static str]) -> (&'static str, Stage, u32, Option<&'static str>) {
    (name, Stage::Waiting { on: on.to_vec() }, 0, None)
}

#[test]
fn a_service_waits_starts_and_is_ready() {
    let rest = [waiting("cri-dockerd", &["dockerd"]), waiting("kubelet", &["cri-dockerd"])];
    let first = [waiting("containerd", &[]), waiting("dockerd", &["containerd"])];
    check(&[(0, Event::Timer)], &[first.as_slice(), &rest].concat());
    let script = [(0, Event::Timer), (5, started("containerd"))];
    let starting = ("containerd", Stage::Starting(Duration::from_millis(5)), 0, None);
    check(&script, &[&[starting, waiting("dockerd", &["containerd"])], rest.as_slice()].concat());
    let all = ["containerd", "dockerd", "cri-dockerd", "kubelet"];
    let all: Vec<_> = all.iter().zip(1..).map(|(name, at)| (*name, Stage::Ready(seconds(at)), 0, None)).collect();
    check(&boot(), &all);
}

#[test]
fn a_service_that_died_says_how_and_how_often() {
    let mut script = boot();
    script.push((100_000, exited("kubelet", 7)));
    let others: Vec<_> = ["containerd", "dockerd", "cri-dockerd"]
        .iter()
        .zip(1..)
        .map(|(name, at)| (*name, Stage::Ready(seconds(at)), 0, None))
        .collect();
    let with = |stage, restarts| {
        let kubelet = ("kubelet", stage, restarts, Some("exited with status 7"));
        [others.clone(), vec![kubelet]].concat()
    };
    check(&script, &with(Stage::Again(seconds(101)), 0));
    script.extend([(101_000, Event::Timer), (101_001, started("kubelet"))]);
    check(&script, &with(Stage::Starting(Duration::from_millis(101_001)), 1));
    script.push((102_000, ready("kubelet")));
    check(&script, &with(Stage::Ready(seconds(102)), 1));
}

#[test]
fn the_machine_stops() {
    let mut script = boot();
    script.push((50_000, Event::StopAll(Reason::PowerButton)));
    script.push((51_000, exited("kubelet", 0)));
    let mut supervisor = Supervisor::new(node());
    for (at, event) in script {
        supervisor.handle(event, Duration::from_millis(at));
    }
    assert_eq!(supervisor.stopping(), Some(Reason::PowerButton));
    let standings = supervisor.standings();
    assert_eq!((&standings[3].stage, &standings[3].trouble), (&Stage::Stopped, &None));
    assert_eq!(standings[2].stage, Stage::Stopping(seconds(51)));
}
