//! Turns what happened to the services into what is to be done next: a pure state machine, told the time, that [`crate::run`] obeys.
use std::collections::BTreeMap;
use std::time::Duration;

use crate::plan::Service;

mod event;
mod health;
mod share;
mod standing;
mod stop;
#[cfg(test)]
mod tests;

pub use event::{Action, Ended, Ending, Event, Reason, Signal};
use health::{Health, Silence};
pub use share::{Share, Told};
pub use standing::{Stage, Standing};
use stop::Containers;

/// The first wait before a service that died is started again; it doubles with every further death.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// The longest such wait.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);
/// A service that was ready for this long is healthy: its next death is the first again.
const HEALTHY: Duration = Duration::from_secs(60);
/// Probes are cheap (a local socket), so that the wait between two of them costs the boot next to nothing …
const SHORTEST_PROBE_WAIT: Duration = Duration::from_millis(10);
/// … and a service that never gets ready costs little either.
const LONGEST_PROBE_WAIT: Duration = Duration::from_secs(1);

/// Where one service stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Its dependencies are not ready yet.
    Waiting,
    /// [`Action::Spawn`] is under way.
    Spawning,
    /// It has a process.
    Running(Running),
    /// It died; it is started again then.
    Backoff { until: Duration },
    /// It has a process that was told to end.
    Stopping { since: Duration, next: Duration, killed: bool },
    /// It has no process and gets none.
    Stopped,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Running {
    since: Duration,
    ready: Option<Duration>,
    probe: Probing,
    health: Health,
    late_told: bool,
    last_failure: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probing {
    At(Duration),
    UnderWay,
    Done,
}

#[derive(Debug, Clone)]
struct Unit {
    service: Service,
    state: State,
    /// Deaths since it was last healthy.
    deaths: u32,
    /// Processes that it had.
    starts: u32,
    /// How the last of them ended by itself, or why there was none.
    trouble: Option<String>,
}

impl Unit {
    fn has_process(&self) -> bool {
        matches!(self.state, State::Spawning | State::Running(_) | State::Stopping { .. })
    }

    fn is_ready(&self) -> bool {
        matches!(&self.state, State::Running(running) if running.ready.is_some())
    }
}

/// The services of a machine and where each of them stands.
#[derive(Debug, Clone)]
pub struct Supervisor {
    units: Vec<Unit>,
    index: BTreeMap<&'static str, usize>,
    stopping: Option<Reason>,
    containers: Containers,
    ended: bool,
    /// Lines that [`Supervisor::new`] found to say, told with the first event.
    untold: Vec<String>,
}

impl Supervisor {
    /// Takes the services in the order in which they are started where their dependencies leave a choice. Nothing is started
    /// before the first event ([`Event::Timer`] will do).
    #[must_use]
    pub fn new(services: Vec<Service>) -> Self {
        let mut supervisor = Self {
            units: Vec::new(),
            index: BTreeMap::new(),
            stopping: None,
            containers: Containers::Untouched,
            ended: false,
            untold: Vec::new(),
        };
        for service in services {
            supervisor.add(service);
        }
        let missing: Vec<String> =
            supervisor.units.iter().filter_map(|unit| supervisor.missing(&unit.service)).collect();
        supervisor.untold.extend(missing);
        supervisor
    }

    /// Takes one event and says what is to be done. `now` is any clock that does not go back, the same at every call.
    pub fn handle(&mut self, event: Event, now: Duration) -> Vec<Action> {
        let mut actions: Vec<Action> = self.untold.drain(..).map(Action::Log).collect();
        if self.ended {
            return actions;
        }
        match event {
            Event::Started { name, pid } => self.started(name, pid, now, &mut actions),
            Event::NotStarted { name, reason } => self.not_started(name, &reason, now, &mut actions),
            Event::Exited { name, ended } => self.exited(name, ended, now, &mut actions),
            Event::Ready { name } => self.became_ready(name, now, &mut actions),
            Event::ProbeFailed { name, reason } => self.probe_failed(name, reason, now, &mut actions),
            Event::ContainersGone => self.containers_gone(),
            Event::Timer => {}
            Event::AddService(service) => self.add_late(*service, &mut actions),
            Event::StopAll(reason) => self.stop_all(reason, &mut actions),
        }
        if self.stopping.is_some() {
            self.advance_stop(now, &mut actions);
        } else {
            self.advance(now, &mut actions);
        }
        actions
    }

    /// When [`Event::Timer`] is wanted at the latest; `None` while nothing waits for time to pass.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        if self.ended {
            return None;
        }
        let stopping = self.stopping.is_some();
        self.units.iter().filter_map(|unit| deadline(unit, stopping)).chain(self.containers.deadline()).min()
    }

    /// Whether a service has a process, or is about to, that is not ready yet.
    #[must_use]
    pub fn is_getting_ready(&self) -> bool {
        self.units.iter().any(|unit| match &unit.state {
            State::Spawning | State::Backoff { .. } => true,
            State::Running(running) => running.ready.is_none(),
            State::Waiting | State::Stopping { .. } | State::Stopped => false,
        })
    }

    /// Whether all services are ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.units.iter().all(Unit::is_ready)
    }

    /// The definition of a service, for whoever performs [`Action::Spawn`].
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.index.get(name).map(|&index| &self.units[index].service)
    }

    fn unit(&mut self, name: &str) -> Option<&mut Unit> {
        self.index.get(name).map(|&index| &mut self.units[index])
    }

    fn add(&mut self, service: Service) -> bool {
        if self.index.contains_key(service.name) {
            self.untold.push(format!("service {}: is there already, its second definition is left out", service.name));
            return false;
        }
        self.index.insert(service.name, self.units.len());
        self.units.push(Unit { service, state: State::Waiting, deaths: 0, starts: 0, trouble: None });
        true
    }

    fn add_late(&mut self, service: Service, actions: &mut Vec<Action>) {
        if self.stopping.is_some() {
            return;
        }
        let missing = self.missing(&service);
        if self.add(service) {
            actions.extend(missing.map(Action::Log));
        }
        actions.extend(self.untold.drain(..).map(Action::Log));
    }

    /// A dependency that nobody runs would be waited for in silence for ever.
    fn missing(&self, service: &Service) -> Option<String> {
        let missing: Vec<&str> = service.after.iter().copied().filter(|name| !self.index.contains_key(name)).collect();
        (!missing.is_empty()).then(|| {
            format!("service {}: waits for {}, which is not among the services", service.name, missing.join(" and "))
        })
    }

    fn started(&mut self, name: &'static str, pid: u32, now: Duration, actions: &mut Vec<Action>) {
        let Some(unit) = self.unit(name) else { return };
        if unit.state != State::Spawning {
            return;
        }
        unit.starts = unit.starts.saturating_add(1);
        unit.state = State::Running(Running {
            since: now,
            ready: None,
            probe: Probing::At(now + SHORTEST_PROBE_WAIT),
            health: Health::default(),
            late_told: false,
            last_failure: String::from("it was not asked yet"),
        });
        actions.push(Action::Log(format!("service {name}: started pid {pid}")));
    }

    fn not_started(&mut self, name: &'static str, reason: &str, now: Duration, actions: &mut Vec<Action>) {
        let stopping = self.stopping.is_some();
        let Some(unit) = self.unit(name) else { return };
        if unit.state != State::Spawning {
            return;
        }
        let wait = back_off(unit, stopping, now);
        unit.trouble = Some(format!("could not be started: {reason}"));
        actions.push(Action::Log(format!("service {name}: could not be started: {reason}{wait}")));
    }

    fn exited(&mut self, name: &'static str, ended: Ended, now: Duration, actions: &mut Vec<Action>) {
        let stopping = self.stopping.is_some();
        let Some(unit) = self.unit(name) else { return };
        match &unit.state {
            State::Stopping { since, .. } => {
                let took = now.saturating_sub(*since);
                unit.state = State::Stopped;
                actions.push(Action::Log(format!("service {name}: stopped ({:.1} s)", took.as_secs_f64())));
                // Its containers are gone by now (see stop.rs), so what is left are its own strays, and shims of no use.
                actions.push(Action::KillCgroup(name));
            }
            State::Running(running) => {
                if running.ready.is_some_and(|ready| now.saturating_sub(ready) >= HEALTHY) {
                    unit.deaths = 0;
                }
                let wait = back_off(unit, stopping, now);
                unit.trouble = Some(ended.to_string());
                actions.push(Action::Log(format!("service {name}: {ended}{wait}")));
                actions.push(Action::ShowTail(name));
                if !unit.service.leave_children {
                    actions.push(Action::KillCgroup(name));
                }
            }
            State::Waiting | State::Spawning | State::Backoff { .. } | State::Stopped => {}
        }
    }

    fn became_ready(&mut self, name: &'static str, now: Duration, actions: &mut Vec<Action>) {
        let Some(Unit { state: State::Running(running), service, .. }) = self.unit(name) else {
            return;
        };
        let line = match running.ready {
            None => {
                running.ready = Some(now);
                let took = now.saturating_sub(running.since);
                Some(format!("service {name}: ready ({:.1} s)", took.as_secs_f64()))
            }
            Some(_) if running.probe != Probing::UnderWay => return,
            Some(_) => running.health.answered().then(|| format!("service {name}: answers again")),
        };
        running.probe = service.answers_within.map_or(Probing::Done, |within| Probing::At(now + health::pause(within)));
        actions.extend(line.map(Action::Log));
    }

    fn probe_failed(&mut self, name: &'static str, reason: String, now: Duration, actions: &mut Vec<Action>) {
        let Some(Unit { state: State::Running(running), service, .. }) = self.unit(name) else {
            return;
        };
        if running.probe != Probing::UnderWay {
            return;
        }
        let (Some(_), Some(within)) = (running.ready, service.answers_within) else {
            let age = now.saturating_sub(running.since);
            running.probe = Probing::At(now + (age / 50).clamp(SHORTEST_PROBE_WAIT, LONGEST_PROBE_WAIT));
            running.last_failure = reason;
            return;
        };
        running.probe = Probing::At(now + health::pause(within));
        let seconds = within.as_secs();
        match running.health.silent(now, within) {
            Silence::Borne => {}
            Silence::Told => actions.push(Action::Log(format!(
                "service {name}: does not answer any more ({reason}); it is started anew if that lasts for {seconds} s"
            ))),
            Silence::Hangs => {
                actions.push(Action::Log(format!("service {name}: has not answered for {seconds} s: {reason}")));
                actions.push(Action::Signal { name, signal: Signal::Kill });
                // Its end is told next. Where even that does not come, the kernel waits for something in its name, and nothing helps.
                running.probe = Probing::Done;
            }
        }
    }

    /// Everything that follows from the state and the time alone.
    fn advance(&mut self, now: Duration, actions: &mut Vec<Action>) {
        for index in 0..self.units.len() {
            let unit = &self.units[index];
            let due = match unit.state {
                State::Waiting => true,
                State::Backoff { until } => until <= now,
                _ => false,
            };
            if due {
                let free = unit
                    .service
                    .after
                    .iter()
                    .all(|name| self.index.get(name).is_some_and(|&other| self.units[other].is_ready()));
                let unit = &mut self.units[index];
                unit.state = if free { State::Spawning } else { State::Waiting };
                if free {
                    actions.push(Action::Spawn(unit.service.name));
                }
            }
            advance_running(&mut self.units[index], now, actions);
        }
    }
}

/// Probes that are due, and the one complaint about a service that is slow to get ready.
fn advance_running(unit: &mut Unit, now: Duration, actions: &mut Vec<Action>) {
    let service = &unit.service;
    let State::Running(running) = &mut unit.state else {
        return;
    };
    if matches!(running.probe, Probing::At(at) if at <= now) {
        running.probe = Probing::UnderWay;
        actions.push(Action::Probe(service.name));
    }
    if running.ready.is_none() && !running.late_told && running.since + service.ready_within <= now {
        running.late_told = true;
        let within = service.ready_within.as_secs_f64();
        actions.push(Action::Log(format!(
            "service {}: not ready after {within:.0} s: {}",
            service.name, running.last_failure
        )));
    }
}

/// Counts a death and says when the next start is, as the end of a console line.
fn back_off(unit: &mut Unit, stopping: bool, now: Duration) -> String {
    if stopping {
        unit.state = State::Stopped;
        return String::new();
    }
    let wait = FIRST_BACKOFF.saturating_mul(1 << unit.deaths.min(10)).min(LONGEST_BACKOFF);
    unit.deaths = unit.deaths.saturating_add(1);
    unit.state = State::Backoff { until: now + wait };
    format!(", again in {} s", wait.as_secs())
}

fn deadline(unit: &Unit, stopping: bool) -> Option<Duration> {
    match &unit.state {
        State::Backoff { until } => Some(*until),
        State::Stopping { next, .. } => Some(*next),
        // Who is ready is of no interest any more; a deadline that nobody meets would spin the loop.
        State::Running(_) if stopping => None,
        State::Running(running) => {
            let probe = match running.probe {
                Probing::At(at) => Some(at),
                Probing::UnderWay | Probing::Done => None,
            };
            let late =
                (running.ready.is_none() && !running.late_told).then(|| running.since + unit.service.ready_within);
            probe.into_iter().chain(late).min()
        }
        State::Waiting | State::Spawning | State::Stopped => None,
    }
}
