//! After a death: who is started again and when, and who is left alone.
use super::{check, check_after, check_booted, exited, failed, ready, seconds, service, started};
use crate::plan::Service;
use crate::supervise::{Action, Ended, Event, Supervisor};

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
fn a_service_that_does_not_answer_any_more_is_killed_and_started_again() {
    let watched = || vec![Service { answers_within: Some(seconds(100)), ..service("a", &[], true) }];
    let up = [(0, Event::Timer), (0, started("a")), (10, Event::Timer), (1000, ready("a"))];
    // Asked each ten seconds.
    let silent = |from: u64, times: u64| {
        (0..times).flat_map(move |time| [(from + 10_000 * time, Event::Timer), (from + 10_000 * time, failed("a"))])
    };
    let probes = |from: u64, times: u64| -> Vec<String> {
        (0..times).map(|time| format!("{}: probe a", from + 10_000 * time)).collect()
    };
    let mut script: Vec<(u64, Event)> = up.clone().into();
    // One that is busy is left alone.
    script.extend(silent(11_000, 4));
    script.extend([(51_000, Event::Timer), (51_000, ready("a"))]);
    script.extend(silent(61_000, 11));
    script.extend([(161_500, Event::Exited { name: "a", ended: Ended::Signal(9) }), (162_500, Event::Timer)]);
    let mut want = probes(11_000, 3);
    want.push("31000: say service a: does not answer any more (connection refused); it is started anew if that lasts for 100 s".into());
    want.extend(probes(41_000, 2));
    want.push("51000: say service a: answers again".into());
    want.extend(probes(61_000, 3));
    want.push("81000: say service a: does not answer any more (connection refused); it is started anew if that lasts for 100 s".into());
    want.extend(probes(91_000, 8));
    want.extend(
        [
            "161000: say service a: has not answered for 100 s: connection refused",
            "161000: Kill a",
            "161500: say service a: was ended by signal 9, again in 1 s",
            "161500: tail of a",
            "162500: spawn a",
        ]
        .map(str::to_owned),
    );
    check_after(watched(), up.len(), script, &want.join("\n"));
    // Of others nobody asks.
    let mut supervisor = Supervisor::new(vec![service("b", &[], true)]);
    for (event, now) in [(Event::Timer, 0), (started("b"), 0), (Event::Timer, 1), (ready("b"), 2)] {
        supervisor.handle(event, seconds(now));
    }
    assert_eq!(supervisor.next_deadline(), None);
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
