//! Decides which watchdog guards the machine, and whether the machine is well enough for it to be fed.
use std::time::Duration;

/// The name that the kernel's watchdog without hardware gives itself (drivers/watchdog/softdog.c).
const SOFTWARE: &str = "Software Watchdog";

/// How often the watchdog's own time the event loop may be silent, and how long at least: it writes services' logs to state itself, and waits for
/// a slow disk with it ...
const LOOP: (u32, Duration) = (2, Duration::from_secs(300));
/// ... state may take for a small write: slow disks under load take a minute and more ...
const STATE: (u32, Duration) = (5, Duration::from_secs(300));
/// ... and the machine may take for its end once all services have ended: what is written to disks only then takes its time.
const STOP: (u32, Duration) = (5, Duration::from_secs(600));

/// How long what is seen of the machine may last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The event loop's silence.
    pub turned: Duration,
    /// A small write to state.
    pub writes: Duration,
    /// The machine's end.
    pub stopping: Duration,
}

impl Limits {
    /// Those of a watchdog that waits so long for its food.
    #[must_use]
    pub fn of(timeout: Duration) -> Self {
        let [turned, writes, stopping] =
            [LOOP, STATE, STOP].map(|(times, least)| timeout.saturating_mul(times).max(least));
        Self { turned, writes, stopping }
    }
}

/// What is seen of the machine. All durations since then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signs {
    /// The event loop took what was handed to it.
    pub turned: Duration,
    /// State was asked for a small write that it has not answered, with whatever; none where there is no such write.
    pub writes: Option<Duration>,
    /// The event loop has ended, because the machine stops.
    pub stopping: Option<Duration>,
}

/// The rule: PID 1's event loop turns and state answers; while the machine stops, it comes to its end.
///
/// Nothing else counts. What a pod can bring about (a full disk, no memory, no processes) and what is wrong with a service would be the same after a
/// reset, and a machine that is reset in a loop cannot even say so. An answer that is an error is an answer: a disk that is broken stays that.
///
/// # Errors
/// Why the machine is not well, in words.
pub fn judge(signs: Signs, limits: Limits) -> Result<(), String> {
    if let Some(stopping) = signs.stopping {
        if stopping > limits.stopping {
            return Err(format!("it stops since {} s and does not come to its end", stopping.as_secs()));
        }
        return Ok(());
    }
    if signs.turned > limits.turned {
        return Err(format!("PID 1's event loop has not turned for {} s", signs.turned.as_secs()));
    }
    match signs.writes.filter(|writes| *writes > limits.writes) {
        Some(writes) => Err(format!("state has not answered a write for {} s", writes.as_secs())),
        None => Ok(()),
    }
}

/// The watchdog to use, of those with these numbers and names: the first that is a piece of hardware, else the kernel's own.
#[must_use]
pub fn choose(watchdogs: &[(u32, String)]) -> Option<&(u32, String)> {
    watchdogs.iter().min_by_key(|(number, identity)| (!is_hardware(identity), *number))
}

/// Whether it works when the kernel does not.
#[must_use]
pub fn is_hardware(identity: &str) -> bool {
    identity != SOFTWARE
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Limits, Signs, choose, judge};

    #[track_caller]
    fn check(timeout: u64, turned: u64, writes: Option<u64>, stopping: Option<u64>, want: Result<(), &str>) {
        let seconds = Duration::from_secs;
        let signs = Signs { turned: seconds(turned), writes: writes.map(seconds), stopping: stopping.map(seconds) };
        assert_eq!(judge(signs, Limits::of(seconds(timeout))), want.map_err(str::to_owned));
    }

    #[test]
    fn the_rule() {
        check(60, 0, Some(0), None, Ok(()));
        check(60, 300, Some(300), None, Ok(()));
        check(60, 301, Some(0), None, Err("PID 1's event loop has not turned for 301 s"));
        check(60, 301, None, None, Err("PID 1's event loop has not turned for 301 s"));
        check(60, 0, Some(301), None, Err("state has not answered a write for 301 s"));
        check(60, 0, None, None, Ok(()));
        // A loop that has ended does not turn, and state is let go of.
        check(60, 599, Some(700), Some(599), Ok(()));
        check(60, 0, None, Some(600), Ok(()));
        check(60, 601, Some(700), Some(601), Err("it stops since 601 s and does not come to its end"));
    }

    #[test]
    fn a_short_time_shortens_nothing_and_a_long_one_is_taken_by_its_multiples() {
        check(10, 300, Some(300), None, Ok(()));
        check(10, 0, None, Some(600), Ok(()));
        check(200, 400, Some(1000), None, Ok(()));
        check(200, 401, None, None, Err("PID 1's event loop has not turned for 401 s"));
        check(200, 0, Some(1001), None, Err("state has not answered a write for 1001 s"));
        check(200, 0, None, Some(1001), Err("it stops since 1001 s and does not come to its end"));
    }

    #[test]
    fn hardware_comes_before_the_kernel_itself() {
        let list = |all: &[(u32, &str)]| -> Vec<(u32, String)> {
            all.iter().map(|(number, identity)| (*number, (*identity).to_owned())).collect()
        };
        for (watchdogs, want) in [
            (list(&[]), None),
            (list(&[(0, "Software Watchdog")]), Some(0)),
            (list(&[(0, "Software Watchdog"), (1, "iTCO_wdt")]), Some(1)),
            (list(&[(10, "a"), (2, "b"), (0, "Software Watchdog")]), Some(2)),
        ] {
            assert_eq!(choose(&watchdogs).map(|(number, _)| *number), want);
        }
    }
}
