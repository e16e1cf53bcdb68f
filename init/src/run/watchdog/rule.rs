//! Decides which watchdog guards the machine, and whether the machine is well enough for it to be fed.
use std::time::Duration;

/// The name that the kernel's watchdog without hardware gives itself (drivers/watchdog/softdog.c).
const SOFTWARE: &str = "Software Watchdog";

/// How often the watchdog's own time the event loop may be silent ...
const LOOP: u32 = 2;
/// ... state may take for a small write: slow disks under load take a minute and more ...
const STATE: u32 = 5;
/// ... and the machine may take for its end once all services have ended: what is written to disks only then takes its time.
const STOP: u32 = 5;

/// What is seen of the machine. All durations since then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signs {
    /// The event loop took what was handed to it.
    pub turned: Duration,
    /// State answered a small write, with whatever; none where it is in memory.
    pub answered: Option<Duration>,
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
pub fn judge(signs: Signs, timeout: Duration) -> Result<(), String> {
    let late = |since: Duration, times: u32| since > timeout * times;
    if let Some(stopping) = signs.stopping {
        if late(stopping, STOP) {
            return Err(format!("it stops since {} s and does not come to its end", stopping.as_secs()));
        }
        return Ok(());
    }
    if late(signs.turned, LOOP) {
        return Err(format!("PID 1's event loop has not turned for {} s", signs.turned.as_secs()));
    }
    match signs.answered.filter(|answered| late(*answered, STATE)) {
        Some(answered) => Err(format!("state has not answered a write for {} s", answered.as_secs())),
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

    use super::{Signs, choose, judge};

    #[track_caller]
    fn check(turned: u64, answered: Option<u64>, stopping: Option<u64>, want: Result<(), &str>) {
        let seconds = Duration::from_secs;
        let signs = Signs { turned: seconds(turned), answered: answered.map(seconds), stopping: stopping.map(seconds) };
        assert_eq!(judge(signs, seconds(60)), want.map_err(str::to_owned));
    }

    #[test]
    fn the_rule() {
        check(0, Some(0), None, Ok(()));
        check(120, Some(300), None, Ok(()));
        check(121, Some(0), None, Err("PID 1's event loop has not turned for 121 s"));
        check(121, None, None, Err("PID 1's event loop has not turned for 121 s"));
        check(0, Some(301), None, Err("state has not answered a write for 301 s"));
        check(0, None, None, Ok(()));
        // A loop that has ended does not turn, and state is let go of.
        check(299, Some(400), Some(299), Ok(()));
        check(0, None, Some(300), Ok(()));
        check(301, Some(400), Some(301), Err("it stops since 301 s and does not come to its end"));
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
