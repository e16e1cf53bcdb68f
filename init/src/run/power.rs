//! Turns an [`Ending`] into a machine that is off or starts anew, with clean filesystems.
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions};

use crate::log;
use crate::run::{recorder, watchdog};
use crate::supervise::Ending;
use crate::sys::{Everyone, Power, Sys};

/// How long the processes that nobody supervises may take to end, each time.
const STRAYS_WITHIN: Duration = Duration::from_secs(2);
/// How long the console may take to be told all.
const CONSOLE_WITHIN: Duration = Duration::from_secs(1);
/// Filesystems without a disk behind them hold nothing to be saved, and PID 1 needs some of them to the end.
const KERNEL_FILESYSTEMS: [&str; 14] = [
    "autofs",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "fusectl",
    "mqueue",
    "nsfs",
    "proc",
    "securityfs",
    "sysfs",
];

/// Ends every process that is left, lets go of the filesystems and ends the machine's run. Returns only where the kernel refuses that.
pub fn finish(sys: &dyn Sys, ending: Ending) -> Result<()> {
    end_strays(sys);
    release_filesystems(sys);
    let (power, words) = match ending {
        Ending::PowerOff => (Power::Off, "power off"),
        Ending::Reboot => (Power::Restart, "reboot"),
    };
    log::line(words);
    recorder::end(words);
    log::flush(CONSOLE_WITHIN);
    watchdog::disarm();
    sys.power(power).with_context(|| format!("asking the kernel for {words}"))
}

/// SIGTERM to all, a bounded wait, SIGKILL to all, a bounded wait.
fn end_strays(sys: &dyn Sys) {
    for signal in [Everyone::Terminate, Everyone::Kill] {
        if let Err(error) = sys.signal_everyone(signal) {
            log::line(format_args!("ending all processes: {error}"));
        }
        match reap_all(STRAYS_WITHIN) {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => log::line(format_args!("waiting for all processes to end: {error:#}")),
        }
    }
}

/// Reaps until no child is left, or the time is over. As PID 1 every process becomes a child before it is gone.
fn reap_all(within: Duration) -> Result<bool> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_block().context("blocking SIGCHLD")?;
    let signals =
        SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).context("opening a signalfd")?;
    let end = log::monotonic() + within;
    loop {
        while matches!(signals.read_signal(), Ok(Some(_))) {}
        loop {
            match rustix::process::waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
                Ok(None) => break,
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Err(Errno::CHILD) => return Ok(true),
                Err(error) => return Err(error).context("reaping"),
            }
        }
        let left = end.saturating_sub(log::monotonic());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = rustix::time::Timespec::try_from(left).context("waiting for SIGCHLD")?;
        match rustix::event::poll(&mut [PollFd::new(&signals, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for SIGCHLD"),
        }
    }
}

/// Writes everything out and unmounts it, the last mounted first; what is busy is made read-only.
fn release_filesystems(sys: &dyn Sys) {
    sys.sync();
    let mounts = match std::fs::read("/proc/self/mounts") {
        Ok(mounts) => mounts,
        Err(error) => {
            log::line(format_args!("reading /proc/self/mounts: {error}"));
            return;
        }
    };
    release(sys, &mounts);
    sys.sync();
}

fn release(sys: &dyn Sys, mounts: &[u8]) {
    let mut busy = Vec::new();
    for target in targets(mounts).iter().rev() {
        if let Err(error) = sys.unmount(target, false) {
            busy.push((target.clone(), error));
        }
    }
    // A mount may have been busy only because of one that was in a namespace which ended meanwhile.
    for (target, error) in busy {
        if sys.unmount(&target, false).is_err()
            && let Err(second) = sys.remount_read_only(&target)
        {
            log::line(format_args!("unmounting {}: {error}; making it read-only: {second}", target.display()));
        }
    }
    // The root stays mounted; it is read-only already where the boot went as planned.
    if let Err(error) = sys.remount_read_only(Path::new("/")) {
        log::line(format_args!("making / read-only: {error}"));
    }
}

/// What is to be unmounted, in the order in which it was mounted (`/proc/self/mounts`: fields of fstab(5)).
fn targets(mounts: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for line in mounts.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b' ');
        let (Some(_), Some(target), Some(kind)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let kept = KERNEL_FILESYSTEMS.iter().any(|name| name.as_bytes() == kind);
        // The runtime's tmpfs goes with the memory, and netns files pin nothing.
        if kept || target == b"/" || target == b"/run" || target == b"/dev/shm" {
            continue;
        }
        found.push(PathBuf::from(OsStr::from_bytes(&unescape(target))));
    }
    found
}

/// Space, tab, line feed and backslash stand as three octal digits after a backslash (getmntent(3)).
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let code = after
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (first, code) {
            (b'\\', Some(code)) => {
                text.push(code);
                rest = &after[3..];
            }
            _ => {
                text.push(first);
                rest = after;
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::targets;

    #[test]
    fn disks_and_what_stands_on_them_are_unmounted() {
        let mounts = b"\
/dev/vda2 / ext4 ro,relatime 0 0
proc /proc proc rw 0 0
sysfs /sys sysfs rw 0 0
cgroup2 /sys/fs/cgroup cgroup2 rw 0 0
devtmpfs /dev devtmpfs rw 0 0
tmpfs /run tmpfs rw 0 0
tmpfs /tmp tmpfs rw 0 0
/dev/vda4 /var ext4 rw 0 0
tmpfs /var/lib/kubelet/pods/a\\040b/volumes tmpfs rw 0 0
overlay /var/lib/docker/overlay2/x/merged overlay rw 0 0
nsfs /run/docker/netns/default nsfs rw 0 0
broken
";
        let found: Vec<String> = targets(mounts).iter().map(|path| path.display().to_string()).collect();
        assert_eq!(found, ["/tmp", "/var", "/var/lib/kubelet/pods/a b/volumes", "/var/lib/docker/overlay2/x/merged"]);
    }
}
