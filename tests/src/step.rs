//! Tells how many seconds each step of a long test took, while it runs and whether it passes or not.
use std::io::Write as _;
use std::thread;
use std::time::{Duration, Instant};

/// Does the work and tells on standard error how long it took: `a_routed_cluster: network: 41.2 s`.
///
/// The test harness keeps what `eprintln!` prints to itself unless a test fails; this goes to the stream at once.
pub fn step<T>(name: &str, work: impl FnOnce() -> T) -> T {
    let _told = Step { name, begun: Instant::now() };
    work()
}

/// Told when it is dropped, also by a panic.
struct Step<'a> {
    name: &'a str,
    begun: Instant,
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        let thread = thread::current();
        let line = line(thread.name().unwrap_or("?"), self.name, self.begun.elapsed(), thread::panicking());
        // Nobody reads it where standard error is closed.
        let _ = writeln!(std::io::stderr(), "{line}");
    }
}

fn line(test: &str, step: &str, took: Duration, failed: bool) -> String {
    let after = if failed { "failed after " } else { "" };
    format!("{test}: {step}: {after}{:.1} s", took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{line, step};

    #[test]
    fn a_step_gives_what_its_work_gives() {
        assert_eq!(step("adding", || 1 + 1), 2);
    }

    #[test]
    fn a_line_says_how_it_went() {
        let took = Duration::from_millis(41_234);
        assert_eq!(line("a_routed_cluster", "network", took, false), "a_routed_cluster: network: 41.2 s");
        assert_eq!(line("a_routed_cluster", "network", took, true), "a_routed_cluster: network: failed after 41.2 s");
    }
}
