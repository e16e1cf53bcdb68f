//! Which signals this process takes as a wish to end, and the exit status that tells of one.
use std::fs;

use nix::sys::signal::{SigSet, Signal};

/// Those of `wanted` that are heeded. One that this process was started with ignored, as nohup(1) does, is left alone: blocked, it would come
/// all the same.
pub fn heeded(wanted: &[Signal]) -> SigSet {
    // Without /proc it is not known which are ignored.
    not_ignored(wanted, &fs::read_to_string("/proc/self/status").unwrap_or_default()).collect()
}

/// The exit status that shells give to a program which a signal has ended.
pub fn exit_status(signal: Signal) -> u8 {
    u8::try_from(128 + signal as i32).unwrap_or(1)
}

/// By the text of `/proc/PID/status` (proc_pid_status(5)).
fn not_ignored(wanted: &[Signal], status: &str) -> impl Iterator<Item = Signal> {
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    wanted.iter().copied().filter(move |signal| ignored & (1 << (*signal as i32 - 1)) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Signal; 3] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM];

    #[track_caller]
    fn check(status: &str, want: &[Signal]) {
        assert_eq!(not_ignored(&ALL, status).collect::<Vec<_>>(), want);
    }

    #[test]
    fn a_signal_is_heeded_unless_it_is_ignored() {
        let [hangup, interrupt, end] = ALL;
        check("", &ALL);
        // SIGPIPE, as in every program of Rust.
        check("Name:\tx\nSigBlk:\t0000000000004003\nSigIgn:\t0000000000001000\n", &ALL);
        check("SigIgn:\t0000000000000001\n", &[interrupt, end]);
        check("SigIgn:\t0000000000001002\n", &[hangup, end]);
    }

    #[test]
    fn shells_statuses() {
        assert_eq!(ALL.map(exit_status), [129, 130, 143]);
    }
}
