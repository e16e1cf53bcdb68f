//! Turns the lines of init and of the kernel, as they come, into what the console tells of them: the phase, what failed, the last error, the last lines.
use std::collections::VecDeque;
use std::time::Duration;

use kscratch_recorder::{Entry, What};

/// Lines that are kept for the largest screen.
const TAIL: usize = 100;
/// Failures that are kept: a boot has some fifteen phases.
const MOST: usize = 20;
/// Further lines of a failure are kept up to this many bytes of it.
const LONGEST: usize = 400;
/// The kernel's levels up to this one are warnings and worse ...
const WARNING: u8 = 4;
/// ... and up to this one errors.
const ERROR: u8 = 3;

/// What was told so far. Its size is bounded, whatever is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// The last phase that began.
    pub phase: Option<Phase>,
    /// Phases that are over.
    pub over: u32,
    /// What failed, and what helps.
    pub failures: Vec<Failure>,
    /// The last thing that went wrong, and when.
    pub error: Option<(Duration, String)>,
    /// Why the machine does nothing, where it does nothing.
    pub nothing: Option<String>,
    /// The last lines.
    pub tail: VecDeque<(Duration, String)>,
    /// Whether the last failure is still being told: further lines of it, and its hint.
    telling: bool,
}

/// A phase of the boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phase {
    /// `07 network`.
    pub name: String,
    /// When it began.
    pub begun: Duration,
    /// Whether it goes on.
    pub open: bool,
}

/// Something that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What: `07 network`, or `boot`.
    pub what: String,
    /// Why.
    pub why: String,
    /// What helps.
    pub hint: Option<String>,
}

impl Told {
    /// Takes an entry of the kernel's log.
    pub fn take(&mut self, entry: &Entry) {
        match &entry.what {
            What::Said(text) => {
                self.said(entry.at, text);
                self.keep(entry.at, text);
            }
            What::Kernel(level, text) if *level <= WARNING => {
                if *level <= ERROR {
                    self.error = Some((entry.at, format!("kernel: {text}")));
                }
                self.keep(entry.at, text);
            }
            _ => {}
        }
    }

    fn keep(&mut self, at: Duration, text: &str) {
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back((at, text.to_owned()));
    }

    fn said(&mut self, at: Duration, text: &str) {
        let telling = std::mem::take(&mut self.telling);
        if let Some(phase) = text.strip_prefix("phase ") {
            self.phase(at, phase);
        } else if let Some(why) = text.strip_prefix("boot failed: ") {
            self.failed(at, "boot", why);
        } else if let Some(hint) = text.strip_prefix("hint: ") {
            if let Some(failure) = self.failures.last_mut().filter(|_| telling) {
                failure.hint = Some(hint.to_owned());
            }
        } else if is_idle(text) {
            self.nothing = Some(text.to_owned());
        } else if is_error(text) {
            self.error = Some((at, text.to_owned()));
            self.telling = telling;
        } else if telling {
            // An error of several lines; what a service says in between is none of them.
            self.telling = true;
            if let Some(failure) = self.failures.last_mut().filter(|failure| failure.why.len() < LONGEST)
                && !text.starts_with("service ")
            {
                failure.why.push_str("; ");
                failure.why.push_str(text.trim());
            }
        }
    }

    /// `03 identity: start`, `ok (0.1 s)` or `failed: why`, as init's phases say it.
    fn phase(&mut self, at: Duration, text: &str) -> Option<()> {
        let (name, event) = text.split_once(": ")?;
        if event == "start" {
            self.phase = Some(Phase { name: name.to_owned(), begun: at, open: true });
            return Some(());
        }
        self.over = self.over.saturating_add(1);
        if let Some(phase) = self.phase.as_mut().filter(|phase| phase.name == name) {
            phase.open = false;
        }
        if let Some(why) = event.strip_prefix("failed: ") {
            self.failed(at, name, why);
        }
        Some(())
    }

    fn failed(&mut self, at: Duration, what: &str, why: &str) {
        self.error = Some((at, format!("{what}: {why}")));
        if self.failures.len() < MOST {
            self.failures.push(Failure { what: what.to_owned(), why: why.to_owned(), hint: None });
            self.telling = true;
        }
    }
}

/// init's words for a machine that does nothing, or next to nothing (stage/root.rs).
fn is_idle(text: &str) -> bool {
    ["nothing is configured", "no service but containerd is started", "services are not started"]
        .iter()
        .any(|words| text.starts_with(words))
}

/// Whether a line of init's tells of something that went wrong while the machine runs.
fn is_error(text: &str) -> bool {
    if let Some((_, event)) = text.strip_prefix("service ").and_then(|rest| rest.split_once(": ")) {
        return !["started pid ", "ready (", "stopped ("].iter().any(|well| event.starts_with(well));
    }
    text.starts_with("internal error") || text.starts_with("error: ") || text.contains(" failed: ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kscratch_recorder::{Entry, What};
    use proptest::prelude::{any, prop, prop_assert, proptest};

    use super::{Failure, TAIL, Told};

    fn told(lines: &[(u64, &str)]) -> Told {
        let mut told = Told::default();
        for (second, text) in lines {
            let what = match text.strip_prefix("<3>") {
                Some(text) => What::Kernel(3, text.to_owned()),
                None => What::Said((*text).to_owned()),
            };
            told.take(&Entry { at: Duration::from_secs(*second), what });
        }
        told
    }

    #[test]
    fn phases_are_followed() {
        let one =
            told(&[(1, "phase 01 mounts: start"), (2, "phase 01 mounts: ok (1 s)"), (3, "phase 02 state: start")]);
        let phase = one.phase.unwrap();
        assert_eq!((phase.name.as_str(), phase.begun.as_secs(), phase.open, one.over), ("02 state", 3, true, 1));
        let two = told(&[(3, "phase 02 state: start"), (9, "phase 02 state: failed: no: disk"), (9, "hint: a disk")]);
        assert!(!two.phase.unwrap().open);
        let failure = Failure { what: "02 state".into(), why: "no: disk".into(), hint: Some("a disk".into()) };
        assert_eq!(two.failures, [failure]);
        assert_eq!(two.error, Some((Duration::from_secs(9), "02 state: no: disk".into())));
    }

    #[test]
    fn a_failure_of_several_lines_is_one() {
        let lines = [
            (1, "phase 06 metadata: failed: role.toml: 2 errors"),
            (1, "role.toml:5:3: node.pod_range: is large"),
            (1, "service containerd: ready (1.0 s)"),
            (1, "hint: correct it"),
            (2, "machine 12"),
        ];
        let failures = told(&lines).failures;
        assert_eq!(failures[0].why, "role.toml: 2 errors; role.toml:5:3: node.pod_range: is large");
        assert_eq!(failures[0].hint.as_deref(), Some("correct it"));
    }

    #[test]
    fn a_hint_helps_with_what_stands_before_it() {
        let one = told(&[
            (1, "hint: to nobody"),
            (2, "boot failed: no root"),
            (3, "hint: wait"),
            (4, "x"),
            (4, "hint: more"),
        ]);
        assert_eq!(one.failures.len(), 1);
        assert_eq!(one.failures[0].hint.as_deref(), Some("wait"));
    }

    #[test]
    fn the_last_error_is_the_services_the_kernels_or_inits() {
        for (line, want) in [
            ("service a: exited with status 1, again in 1 s", true),
            ("service a: not ready after 60 s: refused", true),
            ("service a: started pid 3", false),
            ("service a: ready (1.0 s)", false),
            ("service a: stopped (1.0 s)", false),
            ("<3>EXT4-fs error", true),
            ("internal error: x", true),
            ("machine 0123", false),
        ] {
            assert_eq!(told(&[(1, line)]).error.is_some(), want, "{line}");
        }
        let idle = "nothing is configured and no service is started; the machine waits";
        assert_eq!(told(&[(1, idle)]).nothing.as_deref(), Some(idle));
    }

    proptest! {
        #[test]
        fn whatever_is_told_takes_bounded_room(lines in prop::collection::vec((any::<u8>(), ".{0,40}"), 0..300)) {
            let mut all = Told::default();
            for (level, text) in &lines {
                let text = format!("phase 01 x: {text}");
                let what = if *level < 8 { What::Kernel(*level, text) } else { What::Said(text) };
                all.take(&Entry { at: Duration::ZERO, what });
            }
            prop_assert!(all.tail.len() <= TAIL && all.failures.len() <= super::MOST);
        }
    }
}
