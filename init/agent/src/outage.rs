//! Turns failures and successes of something that is tried for ever into pauses between the tries and rare lines about them.
use std::time::Duration;

/// The first pause; each further one is twice as long.
const FIRST: Duration = Duration::from_secs(1);

/// No pause is longer, where nothing else is said.
const LONGEST: Duration = Duration::from_secs(30);

/// How long after the first failure it is told again; after the last of these, every hour.
const TOLD: [u64; 4] = [60, 5 * 60, 15 * 60, 60 * 60];

/// Another reason than the last one told is told this long after it at the earliest.
const NEWS: Duration = Duration::from_secs(20);

/// What goes on failing, if anything does. Times are since any one moment.
#[derive(Debug)]
pub struct Outage {
    doing: String,
    chance: u32,
    longest: Duration,
    failing: Option<Failing>,
}

#[derive(Debug)]
struct Failing {
    since: Duration,
    tries: u32,
    told: usize,
    last: Duration,
    why: String,
}

/// What follows from a failure.
#[derive(Debug, PartialEq, Eq)]
pub struct Failed {
    /// What to tell, if it is time.
    pub line: Option<String>,
    /// How long to wait before the next try.
    pub pause: Duration,
}

impl Outage {
    /// Nothing has failed yet. `doing` begins the lines; `seed` makes machines that lost the same server not come back to it all at once.
    pub fn new(doing: impl Into<String>, seed: u32) -> Self {
        Self { doing: doing.into(), chance: seed, longest: LONGEST, failing: None }
    }

    /// No pause is longer than this.
    #[must_use]
    pub fn at_most(self, longest: Duration) -> Self {
        Self { longest, ..self }
    }

    /// A try failed.
    pub fn failed(&mut self, now: Duration, why: &str) -> Failed {
        self.chance = self.chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let Some(failing) = &mut self.failing else {
            self.failing = Some(Failing { since: now, tries: 1, told: 0, last: now, why: why.to_owned() });
            return Failed {
                line: Some(format!("{} failed: {why}", self.doing)),
                pause: pause(0, self.chance, self.longest),
            };
        };
        let pause = pause(failing.tries, self.chance, self.longest);
        failing.tries = failing.tries.saturating_add(1);
        let since = now.saturating_sub(failing.since);
        let due = match TOLD.get(failing.told) {
            Some(seconds) => since.as_secs() >= *seconds,
            None => now.saturating_sub(failing.last).as_secs() >= 60 * 60,
        };
        let news = failing.why != why && now.saturating_sub(failing.last) >= NEWS;
        if !due && !news {
            return Failed { line: None, pause };
        }
        while TOLD.get(failing.told).is_some_and(|seconds| since.as_secs() >= *seconds) {
            failing.told += 1;
        }
        failing.last = now;
        why.clone_into(&mut failing.why);
        let line = Some(format!("{} has failed for {}: {why}", self.doing, span(since)));
        Failed { line, pause }
    }

    /// A try succeeded; gives what to tell if tries before it had failed.
    pub fn well(&mut self, now: Duration) -> Option<String> {
        let failing = self.failing.take()?;
        Some(format!("{} goes on after {}", self.doing, span(now.saturating_sub(failing.since))))
    }

    /// Whether the last try failed.
    pub fn lasts(&self) -> bool {
        self.failing.is_some()
    }
}

/// Doubled with every try, and somewhere between three quarters and all of that.
fn pause(tries: u32, chance: u32, longest: Duration) -> Duration {
    let whole = FIRST.saturating_mul(1 << tries.min(10)).min(longest);
    whole - whole / 4 * (chance >> 24) / 256
}

/// A length of time as people say it.
pub fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{LONGEST, Outage, span};

    #[test]
    fn an_hour_without_a_server_is_told_five_times_and_tried_often() {
        let mut outage = Outage::new("watching nodes", 7);
        let (mut now, mut tries, mut lines) = (Duration::ZERO, 0, Vec::new());
        while now <= Duration::from_secs(3630) {
            let failed = outage.failed(now, "connection refused");
            lines.extend(failed.line);
            assert!(failed.pause <= LONGEST && failed.pause >= Duration::from_millis(750), "{:?}", failed.pause);
            now += failed.pause;
            tries += 1;
        }
        assert!((120..200).contains(&tries), "{tries}");
        assert_eq!(lines.len(), 5, "{lines:?}");
        assert_eq!(lines[0], "watching nodes failed: connection refused");
        assert!(lines[2].starts_with("watching nodes has failed for 5 min: "), "{lines:?}");
        assert_eq!(outage.well(now).as_deref(), Some("watching nodes goes on after 60 min"));
        assert_eq!(outage.well(now), None);
        assert!(!outage.lasts());
    }

    #[test]
    fn another_reason_is_told_but_not_every_second() {
        let mut outage = Outage::new("asking", 1);
        let at = |second| Duration::from_secs(second);
        let told: Vec<bool> = [(0, "a"), (1, "b"), (2, "a"), (25, "a"), (26, "b"), (27, "a"), (50, "a"), (61, "a")]
            .map(|(second, why)| outage.failed(at(second), why).line.is_some())
            .into();
        assert_eq!(told, [true, false, false, false, true, false, true, true]);
    }

    #[test]
    fn pauses_differ_between_machines() {
        let pauses = |seed| {
            let mut outage = Outage::new("x", seed);
            (0..9).map(|_| outage.failed(Duration::ZERO, "").pause).collect::<Vec<_>>()
        };
        assert_ne!(pauses(1), pauses(2_000_000_000));
    }

    #[test]
    fn spans() {
        for (seconds, text) in [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h")] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
    }
}
