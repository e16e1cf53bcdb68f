//! Turns the supervisor's state into what people are told of each service.
use std::time::Duration;

use super::{State, Supervisor, Unit};

/// Where one service stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The service.
    pub name: &'static str,
    /// What it is at.
    pub stage: Stage,
    /// Starts after the first.
    pub restarts: u32,
    /// How its last process ended, or why there was none, where it did not end because the machine stops.
    pub trouble: Option<String>,
}

/// What a service is at. Times are those of the events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Services that it needs are not ready.
    Waiting {
        /// Those.
        on: Vec<&'static str>,
    },
    /// It has a process since then, and is not ready.
    Starting(Duration),
    /// It is ready since then.
    Ready(Duration),
    /// It has no process, and gets one then.
    Again(Duration),
    /// It was told to end, then.
    Stopping(Duration),
    /// It has no process and gets none.
    Stopped,
}

impl Supervisor {
    /// Where the services stand, in the order in which they came.
    #[must_use]
    pub fn standings(&self) -> Vec<Standing> {
        self.units.iter().map(|unit| self.standing(unit)).collect()
    }

    /// Why the machine stops, if it does.
    #[must_use]
    pub fn stopping(&self) -> Option<super::Reason> {
        self.stopping
    }

    fn standing(&self, unit: &Unit) -> Standing {
        let ready = |name: &str| self.index.get(name).is_some_and(|&other| self.units[other].is_ready());
        let stage = match &unit.state {
            // Its start is a matter of microseconds.
            State::Waiting | State::Spawning => {
                Stage::Waiting { on: unit.service.after.iter().copied().filter(|name| !ready(name)).collect() }
            }
            State::Running(running) => match running.ready {
                Some(since) => Stage::Ready(since),
                None => Stage::Starting(running.since),
            },
            State::Backoff { until } => Stage::Again(*until),
            State::Stopping { since, .. } => Stage::Stopping(*since),
            State::Stopped => Stage::Stopped,
        };
        Standing {
            name: unit.service.name,
            stage,
            restarts: unit.starts.saturating_sub(1),
            trouble: unit.trouble.clone(),
        }
    }
}
