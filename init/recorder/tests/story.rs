//! Boots as init says them, and the stories that are told of them.
use std::time::Duration;

use kscratch_recorder::story::{Outcome, Story, tell};
use kscratch_recorder::{Boot, BootId, Entry, What};

fn story(entries: &[(u64, What)]) -> Story {
    let entries = entries.iter().map(|(at, what)| Entry { at: Duration::from_millis(*at), what: what.clone() });
    tell(&Boot { id: BootId([1; 16]), entries: entries.collect(), cut: false, lost: 0, lost_after: 0 })
}

fn said(text: &str) -> What {
    What::Said(text.into())
}

#[test]
fn phases_end_fail_or_stay_open() {
    let told = story(&[
        (1000, said("phase 01 mounts: start")),
        (1400, said("phase 01 mounts: ok (0.400 s)")),
        (1500, said("phase 02 state: start")),
        (1600, said("phase 02 state: failed: mounting: no space: left")),
        (1700, said("phase 03 identity: start")),
        (1800, said("phase of the moon: full")),
        (1900, What::Alive),
    ]);
    let outcomes: Vec<&Outcome> = told.phases.iter().map(|phase| &phase.outcome).collect();
    assert_eq!(
        outcomes,
        [
            &Outcome::Ok(Duration::from_millis(1400)),
            &Outcome::Failed("mounting: no space: left".into()),
            &Outcome::Open
        ]
    );
    assert_eq!(
        told.troubles(),
        ["phase 02 state failed: mounting: no space: left", "phase 03 identity began and did not end"]
    );
    assert_eq!((told.until, told.end), (Duration::from_millis(1900), None));
    assert_eq!(told.last, Some((Duration::from_millis(1800), "phase of the moon: full".into())));
}

#[test]
fn services_are_counted_and_their_troubles_kept() {
    let told = story(&[
        (1, said("service kubelet: started pid 7")),
        (2, said("service kubelet: ready (0.4 s)")),
        (3, said("service kubelet: exit status 1 after 9.0 s; starting it again in 1 s")),
        (4, said("service kubelet: started pid 9")),
        (5, said("service kubelet: not ready after 60 s: connection refused")),
        (6, said("service dockerd: started pid 8")),
        (7, said("service dockerd: stopped (0.2 s)")),
        (8, What::End("power off".into())),
    ]);
    assert_eq!(told.services.len(), 2);
    assert_eq!((told.services[0].starts, told.services[0].ready), (2, Some(Duration::from_millis(2))));
    assert_eq!(told.troubles(), ["service kubelet: not ready after 60 s: connection refused (the last of 2)"]);
    assert_eq!(told.end.as_deref(), Some("power off"));
}

#[test]
fn a_machine_that_is_switched_off_while_it_boots_has_no_trouble() {
    let told = story(&[(1, said("phase 07 network: start")), (2, What::End("power off".into()))]);
    assert!(told.troubles().is_empty());
}

#[test]
fn errors_of_the_kernel_are_told_and_warnings_are_not() {
    let told = story(&[
        (1, What::Kernel(3, "ata1: failed command".into())),
        (2, What::Kernel(4, "a warning".into())),
        (3, What::Left("Kernel panic - not syncing: x".into())),
        (4, What::Reset("the watchdog".into())),
    ]);
    assert_eq!(told.kernel, [(Duration::from_millis(1), "ata1: failed command".into())]);
    assert_eq!((told.left.len(), told.reset.as_deref()), (1, Some("the watchdog")));
}
