//! Turns pieces of work into numbered phases: told on the console and in the boot record before and after.
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::log;
use crate::record::{Event, Line, Record};

/// Numbers phases and tells of them.
#[derive(Debug)]
pub struct Phases {
    boot: String,
    number: u32,
    record: Record,
}

impl Phases {
    /// For the boot of this name (`/proc/sys/kernel/random/boot_id`).
    #[must_use]
    pub fn new(boot: String) -> Self {
        Self { boot, number: 0, record: Record::new() }
    }

    /// Does a phase's work. A failure is told with its hint, written down, and gives `None`: what comes next decides whether it can
    /// go on without.
    pub fn run<T>(&mut self, name: &str, hint: &str, work: impl FnOnce() -> Result<T>) -> Option<T> {
        self.number += 1;
        let begun = log::monotonic();
        log::line(format_args!("phase {:02} {name}: start", self.number));
        self.write(name, Event::Start, None, None);
        let result = work();
        let took = log::monotonic().saturating_sub(begun);
        match result {
            Ok(value) => {
                log::line(format_args!("phase {:02} {name}: ok ({:.3} s)", self.number, took.as_secs_f64()));
                self.write(name, Event::Ok, Some(took), None);
                Some(value)
            }
            Err(error) => {
                let reason = format!("{error:#}");
                log::line(format_args!("phase {:02} {name}: failed: {reason}", self.number));
                log::hint(hint);
                self.write(name, Event::Failed, Some(took), Some(reason));
                None
            }
        }
    }

    /// Lets the record go to state from now on, and tells where the boot before this one stopped.
    pub fn attach(&mut self, root: &Path) {
        match self.record.attach(root) {
            Ok(open) => {
                for line in open {
                    let what = match (line.event, line.reason) {
                        (Event::Failed, Some(reason)) => format!("failed: {reason}"),
                        (Event::Failed, None) => "failed".to_owned(),
                        _ => "began and did not end".to_owned(),
                    };
                    log::line(format_args!("the boot before this one: phase {:02} {} {what}", line.number, line.phase));
                }
            }
            Err(error) => log::line(format_args!("opening the boot record: {error}")),
        }
    }

    /// Ends the record of this boot.
    pub fn finish(self) {
        if let Err(error) = self.record.sync() {
            log::line(format_args!("writing the boot record: {error}"));
        }
    }

    fn write(&mut self, name: &str, event: Event, took: Option<Duration>, reason: Option<String>) {
        // Three decimals, as on the console.
        let round = |time: Duration| (time.as_secs_f64() * 1000.0).round() / 1000.0;
        let line = Line {
            boot: self.boot.clone(),
            at: round(log::monotonic()),
            number: self.number,
            phase: name.to_owned(),
            event,
            seconds: took.map(round),
            reason,
        };
        // A record that cannot be written must not keep the machine from booting.
        if let Err(error) = self.record.add(line) {
            log::line(format_args!("writing the boot record: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use anyhow::bail;

    use super::Phases;
    use crate::record::{Event, parse};

    #[test]
    fn phases_are_numbered_and_recorded() {
        let root = tempfile::tempdir().unwrap();
        let mut phases = Phases::new("boot".into());
        assert_eq!(phases.run("modules", "", || Ok(7)), Some(7));
        phases.attach(root.path());
        let path = root.path().join("var/lib/kscratch/boot-record.jsonl");
        let seen_inside = phases.run("network", "look at the cable", || {
            let lines = parse(&fs::read_to_string(&path).unwrap());
            assert_eq!((lines.len(), lines[2].event), (3, Event::Start), "the start is on disk before the work begins");
            bail!("no link")
        });
        assert_eq!(seen_inside, None::<()>);
        let lines = parse(&fs::read_to_string(&path).unwrap());
        let events: Vec<(u32, &str, Event)> =
            lines.iter().map(|line| (line.number, line.phase.as_str(), line.event)).collect();
        assert_eq!(
            events,
            [
                (1, "modules", Event::Start),
                (1, "modules", Event::Ok),
                (2, "network", Event::Start),
                (2, "network", Event::Failed)
            ]
        );
        assert_eq!(lines[3].reason.as_deref(), Some("no link"));
    }
}
