//! After a death: who is started again and when, and who is left alone.
use super::{check, check_booted, exited, ready, seconds, service, started};
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
