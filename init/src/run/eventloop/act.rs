//! Turns the supervisor's actions into calls, and what they give at once into its next events.
use std::collections::VecDeque;
use std::fs;
use std::io;

use rustix::process::pidfd_send_signal;

use super::{Loop, Output};
use crate::console::status::Services;
use crate::log::monotonic;
use crate::plan::Ready;
use crate::run::cgroup;
use crate::run::logs::Log;
use crate::run::ready::{ATTEMPT_WITHIN, Attempt};
use crate::run::spawn::Spawned;
use crate::supervise::{Action, Event, Signal};

impl Loop {
    /// Hands an event to the supervisor and does what it says, and what follows from that.
    pub(super) fn handle(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            if let Event::Ready { name } = &event
                && let Some(told) = self.watchers.get_mut(name)
            {
                told();
            }
            for action in self.supervisor.handle(event, monotonic()) {
                events.extend(self.perform(action));
            }
        }
        self.tell_share();
        self.show_services();
    }

    fn show_services(&mut self) {
        let services = Services {
            standings: self.supervisor.standings(),
            booted: self.booted,
            stopping: self.supervisor.stopping().map(|reason| reason.to_string()),
        };
        if services != self.shown {
            (self.options.show)(&services);
            self.shown = services;
        }
    }

    /// Keeps account of whom the boot waits for, until all services are ready.
    fn tell_share(&mut self) {
        let Some(share) = &mut self.share else { return };
        let now = monotonic();
        share.note(self.supervisor.is_getting_ready(), now);
        if self.booted && self.supervisor.is_ready() {
            let told = share.told(now).to_string();
            self.share = None;
            self.say(&told);
        }
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Spawn(name) => Some(self.spawn(name)),
            Action::Probe(name) => self.probe(name),
            Action::SignalContainers(signal) => self.signal_containers(signal),
            Action::Signal { name, signal } => {
                let signal = match signal {
                    Signal::Terminate => rustix::process::Signal::TERM,
                    Signal::Kill => rustix::process::Signal::KILL,
                };
                if let Some(process) = self.processes.get(name)
                    && let Err(error) = pidfd_send_signal(&process.pidfd, signal)
                    // It died just now; its end is told next.
                    && error != rustix::io::Errno::SRCH
                {
                    self.say(&format!("service {name}: sending it a signal: {error}"));
                }
                None
            }
            Action::KillCgroup(name) => {
                if let Some(folder) = &self.options.spawner.cgroups
                    && let Err(error) = cgroup::signal(&folder.join(name), Signal::Kill)
                {
                    self.say(&format!("service {name}: {error:#}"));
                }
                None
            }
            Action::Log(line) => {
                self.say(&line);
                None
            }
            Action::ShowTail(name) => {
                for line in self.logs.get_mut(name).map(Log::take_tail).unwrap_or_default() {
                    self.say(&format!("  {name}: {line}"));
                }
                None
            }
            Action::End(ending) => {
                self.ending = Some(ending);
                None
            }
        }
    }

    fn spawn(&mut self, name: &'static str) -> Event {
        let Some(service) = self.supervisor.service(name) else {
            return Event::NotStarted { name, reason: String::from("nobody knows it") };
        };
        if let Ready::File(path) = &service.ready
            && let Err(error) = fs::remove_file(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Event::NotStarted { name, reason: format!("removing {path}: {error}") };
        }
        match self.options.spawner.spawn(service) {
            Ok(Spawned { process, output }) => {
                let pid = process.pid.as_raw_pid().unsigned_abs();
                self.processes.insert(name, process);
                self.opened += 1;
                self.outputs.push(Output { number: self.opened, name, pipe: output });
                Event::Started { name, pid }
            }
            Err(error) => Event::NotStarted { name, reason: format!("{error:#}") },
        }
    }

    fn probe(&mut self, name: &'static str) -> Option<Event> {
        match Attempt::begin(&self.supervisor.service(name)?.ready) {
            Ok(None) => Some(Event::Ready { name }),
            Ok(Some(attempt)) => {
                self.attempts.insert(name, (attempt, monotonic() + ATTEMPT_WITHIN));
                None
            }
            Err(error) => Some(Event::ProbeFailed { name, reason: format!("{error:#}") }),
        }
    }

    fn signal_containers(&mut self, signal: Signal) -> Option<Event> {
        self.watches.clear();
        for folder in self.options.containers.clone() {
            match cgroup::watch(&folder) {
                Ok(watch) => self.watches.extend(watch),
                Err(error) => self.say(&format!("containers: {error:#}")),
            }
            if let Err(error) = cgroup::signal(&folder, signal) {
                self.say(&format!("containers: {error:#}"));
            }
        }
        // Asked after the watches stand: a change in between is seen by the one or the other.
        let left = self.options.containers.iter().any(|folder| cgroup::populated(folder));
        if !left {
            self.watches.clear();
        }
        (!left).then_some(Event::ContainersGone)
    }
}
