//! Turns bytes that are done into a line at every tenth of the way.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use kscratch_install::words::human_bytes;
use kscratch_install::{Step, Watch};

use crate::log;

/// Tells how far it is, and hears whether the machine is to stop.
#[derive(Debug)]
pub struct Telling {
    stop: Arc<AtomicBool>,
    step: Mutex<Option<Way>>,
}

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Way {
    step: Step,
    done: u64,
    total: u64,
    begun: Duration,
}

impl Telling {
    /// Ends the work when `stop` says so.
    pub fn new(stop: Arc<AtomicBool>) -> Self {
        Self { stop, step: Mutex::new(None) }
    }
}

impl Watch for Telling {
    fn begins(&self, step: Step, bytes: u64) {
        log::line(format_args!("install: {} {}", step.words(), human_bytes(bytes)));
        let way = Way { step, done: 0, total: bytes, begun: log::monotonic() };
        *self.step.lock().unwrap_or_else(PoisonError::into_inner) = Some(way);
    }

    fn go_on(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            bail!("the machine stops");
        }
        Ok(())
    }

    fn done(&self, bytes: u64) {
        let mut step = self.step.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = step.as_mut().and_then(|way| way.on(bytes, log::monotonic())) {
            log::line(line);
        }
    }
}

impl Way {
    /// Goes on by so many bytes; gives the line where a tenth is over.
    fn on(&mut self, bytes: u64, now: Duration) -> Option<String> {
        let tenth = |done: u64| u128::from(done) * 10 / u128::from(self.total.max(1));
        let (before, after) = (tenth(self.done), tenth(self.done + bytes));
        self.done += bytes;
        if after <= before {
            return None;
        }
        let seconds = now.saturating_sub(self.begun).as_secs_f64().max(0.001);
        let rate = self.done as f64 / seconds;
        let left = self.total.saturating_sub(self.done) as f64 / rate.max(1.0);
        Some(format!(
            "install: {} {} of {}, {} %, {}/s, {left:.0} s left",
            self.step.words(),
            human_bytes(self.done),
            human_bytes(self.total),
            after * 10,
            human_bytes(rate as u64),
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kscratch_install::Step;

    use super::Way;

    #[test]
    fn every_tenth_is_told_once() {
        const MIB: u64 = 1 << 20;
        let mut way = Way { step: Step::Writing, done: 0, total: 25 * MIB, begun: Duration::from_secs(100) };
        let lines: Vec<Option<String>> = (1..=25).map(|n| way.on(MIB, Duration::from_secs(100 + n))).collect();
        let told: Vec<&String> = lines.iter().flatten().collect();
        assert_eq!(told.len(), 10);
        assert_eq!(told[0], "install: writing 3.0 MiB of 25.0 MiB, 10 %, 1.0 MiB/s, 22 s left");
        assert_eq!(told[9], "install: writing 25.0 MiB of 25.0 MiB, 100 %, 1.0 MiB/s, 0 s left");
        // Nothing to do is told by nobody.
        let mut none = Way { total: 0, ..way };
        assert_eq!(none.on(0, Duration::from_secs(200)), None);
    }
}
