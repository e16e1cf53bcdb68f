//! Turns [`Event::StopAll`](super::Event::StopAll) into an ordered end: the pods' grace, users of the runtime, containers, the runtime itself, each in bounded time.
use std::time::Duration;

use super::{Action, Reason, Signal, State, Supervisor, Unit};

/// How long containers may take to stop after SIGTERM before SIGKILL.
pub(super) const CONTAINERS_WITHIN: Duration = Duration::from_secs(15);
/// How long a process may take to vanish after SIGKILL. One in uninterruptible sleep never does, and must not keep the machine up.
pub(super) const KILLED_WITHIN: Duration = Duration::from_secs(5);

/// Where the processes in containers stand while the machine stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Containers {
    Untouched,
    Terminated { until: Duration },
    Killed { until: Duration },
    Gone,
}

impl Containers {
    pub(super) fn deadline(self) -> Option<Duration> {
        match self {
            Self::Terminated { until } | Self::Killed { until } => Some(until),
            Self::Untouched | Self::Gone => None,
        }
    }
}

impl Supervisor {
    pub(super) fn stop_all(&mut self, reason: Reason, actions: &mut Vec<Action>) {
        if self.stopping.is_some() {
            actions.push(Action::Log(format!("stopping already ({reason})")));
            return;
        }
        self.stopping = Some(reason);
        actions.push(Action::Log(format!("stopping: {reason}")));
        for unit in &mut self.units {
            if matches!(unit.state, State::Waiting | State::Backoff { .. }) {
                unit.state = State::Stopped;
            }
        }
    }

    pub(super) fn containers_gone(&mut self) {
        if self.containers.deadline().is_some() {
            self.containers = Containers::Gone;
        }
    }

    /// Everything that follows from the state and the time alone while the machine stops.
    pub(super) fn advance_stop(&mut self, now: Duration, actions: &mut Vec<Action>) {
        for unit in &mut self.units {
            press(unit, now, actions);
        }
        self.press_containers(now, actions);
        for index in 0..self.units.len() {
            if self.may_stop(index) {
                let unit = &mut self.units[index];
                unit.state = State::Stopping { since: now, next: now + unit.service.stop_within, killed: false };
                actions.push(Action::Signal { name: unit.service.name, signal: Signal::Terminate });
            }
        }
        if self.containers == Containers::Gone
            && !self.units.iter().any(Unit::has_process)
            && let Some(reason) = self.stopping
        {
            self.ended = true;
            actions.push(Action::End(reason.ending()));
        }
    }

    /// Containers go when everybody who would start them anew is gone, and before the runtime, which notes how they ended.
    fn press_containers(&mut self, now: Duration, actions: &mut Vec<Action>) {
        match self.containers {
            Containers::Untouched if !self.units.iter().any(|unit| unit.has_process() && !self.is_runtime(unit)) => {
                self.containers = Containers::Terminated { until: now + CONTAINERS_WITHIN };
                actions.push(Action::SignalContainers(Signal::Terminate));
            }
            Containers::Terminated { until } if until <= now => {
                self.containers = Containers::Killed { until: now + KILLED_WITHIN };
                let within = CONTAINERS_WITHIN.as_secs();
                actions.push(Action::Log(format!("containers: still there after {within} s, killing them")));
                actions.push(Action::SignalContainers(Signal::Kill));
            }
            Containers::Killed { until } if until <= now => {
                self.containers = Containers::Gone;
                actions.push(Action::Log(String::from("containers: do not die, left behind")));
            }
            Containers::Untouched | Containers::Terminated { .. } | Containers::Killed { .. } | Containers::Gone => {}
        }
    }

    fn may_stop(&self, index: usize) -> bool {
        let unit = &self.units[index];
        if !matches!(unit.state, State::Running(_)) {
            return false;
        }
        let mut first = self.units.iter().filter(|other| other.service.stops_first && other.has_process());
        if unit.service.stops_first {
            // Of those that stop before all others, too, who stands on another one goes before it.
            return !first.any(|other| self.needs(other, unit.service.name, self.units.len()));
        }
        first.next().is_none()
            && (!unit.service.leave_children || self.containers == Containers::Gone)
            && !self
                .units
                .iter()
                .any(|other| other.has_process() && self.needs(other, unit.service.name, self.units.len()))
    }

    /// Whether a service keeps containers running, or something that does stands on it.
    fn is_runtime(&self, unit: &Unit) -> bool {
        let keepers = self.units.iter().filter(|other| other.service.leave_children && other.has_process());
        unit.service.leave_children
            || keepers.into_iter().any(|keeper| self.needs(keeper, unit.service.name, self.units.len()))
    }

    /// Whether a service stands on another one, through any number of others. `depth` ends a circle.
    fn needs(&self, unit: &Unit, name: &str, depth: usize) -> bool {
        depth > 0
            && unit.service.after.iter().any(|&direct| {
                direct == name
                    || self.index.get(direct).is_some_and(|&other| self.needs(&self.units[other], name, depth - 1))
            })
    }
}

/// SIGKILL for who does not hear SIGTERM, and giving up on who does not die.
fn press(unit: &mut Unit, now: Duration, actions: &mut Vec<Action>) {
    let State::Stopping { since, next, killed } = unit.state else {
        return;
    };
    if next > now {
        return;
    }
    let name = unit.service.name;
    if killed {
        unit.state = State::Stopped;
        actions.push(Action::Log(format!("service {name}: does not die, left behind")));
        return;
    }
    unit.state = State::Stopping { since, next: now + KILLED_WITHIN, killed: true };
    let within = unit.service.stop_within.as_secs_f64();
    actions.push(Action::Log(format!("service {name}: still there after {within:.0} s, killing it")));
    actions.push(Action::Signal { name, signal: Signal::Kill });
    actions.push(Action::KillCgroup(name));
}
