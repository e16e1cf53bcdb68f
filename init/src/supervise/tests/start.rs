//! From nothing to ready: who starts when, how readiness is asked for, and who comes late.
use super::{boot, check, failed, node, ready, service, started};
use crate::supervise::Event;

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
            (6, Event::AddService(Box::new(service("b", &["a"], false)))),
            (7, Event::AddService(Box::new(service("b", &[], false)))),
        ],
        "0: spawn a
         0: say service a: started pid 7
         5: say service a: ready (0.0 s)
         6: spawn b
         7: say service b: is there already, its second definition is left out",
    );
}
