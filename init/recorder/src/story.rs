//! What a boot's entries mean: how far it came, what failed, how it ended.
use std::time::Duration;

use crate::entry::{Begin, Entry, What};
use crate::ring::Boot;

/// Levels of the kernel's lines that are told: 0 (emergency) to 3 (error).
const KERNEL_ERROR: u8 = 3;
/// Phases and services that are told: no machine has more, and bytes from outside may name millions.
const MOST: usize = 200;

/// A boot, as a person asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Story {
    /// What is known of its begin; nothing where that is overwritten or lost.
    pub begin: Option<Begin>,
    /// Its phases, in order.
    pub phases: Vec<Phase>,
    /// Services, in the order in which they were first started.
    pub services: Vec<Service>,
    /// Errors of the kernel.
    pub kernel: Vec<(Duration, String)>,
    /// What an earlier boot left behind, found by this one.
    pub left: Vec<String>,
    /// Why the machine was reset before this boot.
    pub reset: Option<String>,
    /// The last thing that init said.
    pub last: Option<(Duration, String)>,
    /// Until when it is known to have run.
    pub until: Duration,
    /// How it ended in order, if it did.
    pub end: Option<String>,
    /// Whether what it said at its end may be lost: blocks behind its last one are damaged.
    pub end_lost: bool,
}

/// A phase of a boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phase {
    /// Its number, from 1.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// When it began.
    pub begun: Duration,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It began, and nothing was said of its end.
    Open,
    /// It ended well, then.
    Ok(Duration),
    /// It failed, and why.
    Failed(String),
}

/// A service of a boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// How often it was started.
    pub starts: u32,
    /// When it was ready for the first time.
    pub ready: Option<Duration>,
    /// What went wrong with it, in init's words.
    pub troubles: Vec<(Duration, String)>,
}

/// Tells a boot's story.
#[must_use]
pub fn tell(boot: &Boot) -> Story {
    let mut story = Story { end_lost: boot.lost_after > 0, ..Story::default() };
    for Entry { at, what } in &boot.entries {
        // What stands before a boot's first entry in the kernel's log is older than that.
        story.until = story.until.max(*at);
        match what {
            What::Begin(begin) => story.begin = Some(begin.clone()),
            What::Said(text) => {
                story.said(*at, text);
                story.last = Some((*at, text.clone()));
            }
            What::Kernel(level, text) if *level <= KERNEL_ERROR => story.kernel.push((*at, text.clone())),
            What::Kernel(..) | What::Alive => {}
            What::Left(text) => story.left.push(text.clone()),
            What::Reset(text) => story.reset = Some(text.clone()),
            What::End(how) => story.end = Some(how.clone()),
        }
    }
    story
}

impl Story {
    /// What did not go well, in a line each; nothing where all did.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        let phases = self.phases.iter().filter_map(|phase| match &phase.outcome {
            Outcome::Ok(_) => None,
            // A machine that is switched off while it boots ends in order.
            Outcome::Open if self.end.is_some() => None,
            Outcome::Open => Some(format!("phase {:02} {} began and did not end", phase.number, phase.name)),
            Outcome::Failed(why) => Some(format!("phase {:02} {} failed: {why}", phase.number, phase.name)),
        });
        let services = self.services.iter().filter_map(|service| {
            let (_, last) = service.troubles.last()?;
            let times = match service.troubles.len() {
                1 => String::new(),
                times => format!(" (the last of {times})"),
            };
            Some(format!("service {}: {last}{times}", service.name))
        });
        phases.chain(services).collect()
    }

    fn said(&mut self, at: Duration, text: &str) {
        if let Some(rest) = text.strip_prefix("phase ") {
            self.phase(at, rest);
        } else if let Some((name, rest)) = text.strip_prefix("service ").and_then(|rest| rest.split_once(": ")) {
            self.service(at, name, rest);
        }
    }

    /// `03 identity: start`, `ok (0.1 s)` or `failed: why`, as init's phases say it.
    fn phase(&mut self, at: Duration, text: &str) -> Option<()> {
        let (head, event) = text.split_once(": ")?;
        let (number, name) = head.split_once(' ')?;
        let number = number.parse().ok()?;
        if event == "start" && self.phases.len() < MOST {
            self.phases.push(Phase { number, name: name.to_owned(), begun: at, outcome: Outcome::Open });
            return Some(());
        }
        let open =
            self.phases.iter_mut().rev().find(|phase| phase.number == number && phase.outcome == Outcome::Open)?;
        open.outcome = match event.strip_prefix("failed: ") {
            Some(why) => Outcome::Failed(why.to_owned()),
            None if event.starts_with("ok") => Outcome::Ok(at),
            None => Outcome::Failed(event.to_owned()),
        };
        Some(())
    }

    /// `started pid 7`, `ready (0.4 s)`, `stopped (0.1 s)`, or what went wrong, as the supervisor says it.
    fn service(&mut self, at: Duration, name: &str, event: &str) {
        let known = self.services.iter().position(|service| service.name == name);
        if known.is_none() && self.services.len() >= MOST {
            return;
        }
        let place = known.unwrap_or_else(|| {
            self.services.push(Service { name: name.to_owned(), starts: 0, ready: None, troubles: Vec::new() });
            self.services.len() - 1
        });
        let service = &mut self.services[place];
        if event.starts_with("started pid ") {
            service.starts += 1;
        } else if event.starts_with("ready (") {
            service.ready.get_or_insert(at);
        } else if !event.starts_with("stopped (") {
            service.troubles.push((at, event.to_owned()));
        }
    }
}
