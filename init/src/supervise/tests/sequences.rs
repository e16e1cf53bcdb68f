//! Random sequences of events, in which an observer from outside sees no promise broken.
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::{Just, Strategy, any, prop, prop_assert, prop_oneof, proptest};
use proptest::test_runner::TestCaseError;

use super::{exited, failed, ready, seconds, service, started};
use crate::plan::Service;
use crate::supervise::stop::{CONTAINERS_WITHIN, KILLED_WITHIN};
use crate::supervise::{Action, Event, Reason, Supervisor};

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
        1 => name().prop_map(|name| Event::AddService(Box::new(service(name, &[], false)))),
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
