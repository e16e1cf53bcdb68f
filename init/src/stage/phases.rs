//! Turns pieces of work into numbered phases: told before and after, on the console and so in the flight recorder.
use anyhow::{Error, Result};

use crate::log;

/// Numbers phases and tells of them.
#[derive(Debug, Default)]
pub struct Phases {
    number: u32,
}

impl Phases {
    /// Does a phase's work. A failure is told with its hint, and gives `None`: what comes next decides whether it can go on without.
    pub fn run<T>(&mut self, name: &str, hint: &str, work: impl FnOnce() -> Result<T>) -> Option<T> {
        self.run_hinting(name, |_| hint, work)
    }

    /// The same with a hint that depends on what went wrong.
    pub fn run_hinting<'h, T>(
        &mut self,
        name: &str,
        hint: impl FnOnce(&Error) -> &'h str,
        work: impl FnOnce() -> Result<T>,
    ) -> Option<T> {
        self.number += 1;
        let begun = log::monotonic();
        log::line(format_args!("phase {:02} {name}: start", self.number));
        let result = work();
        let took = log::monotonic().saturating_sub(begun);
        match result {
            Ok(value) => {
                log::line(format_args!("phase {:02} {name}: ok ({:.3} s)", self.number, took.as_secs_f64()));
                Some(value)
            }
            Err(error) => {
                log::line(format_args!("phase {:02} {name}: failed: {error:#}", self.number));
                log::hint(hint(&error));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::Phases;

    #[test]
    fn phases_are_numbered_and_a_failure_gives_nothing() {
        let mut phases = Phases::default();
        assert_eq!(phases.run("modules", "", || Ok(7)), Some(7));
        assert_eq!(phases.run("network", "look at the cable", || -> anyhow::Result<()> { bail!("no link") }), None);
        assert_eq!(phases.number, 2);
    }
}
