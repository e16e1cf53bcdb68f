//! Turns what PID 1 has to say into lines `[   3.142] text` on the console and in the kernel's log.
use std::fmt::{Arguments, Display};
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

mod outlet;
use outlet::Outlet;

/// How a line of init's begins in the kernel's log.
pub const KERNEL_PREFIX: &str = "kscratch: ";

/// `/dev/console` and `/dev/kmsg`, once the machine has them; before that, standard error.
static SINKS: Mutex<Option<Sinks>> = Mutex::new(None);
static DEBUG: AtomicBool = AtomicBool::new(false);

#[derive(Default)]
struct Sinks {
    console: Option<Outlet<File>>,
    kernel: Option<File>,
    /// Rung while the console has not taken all.
    bell: Option<Arc<OwnedFd>>,
}

impl Sinks {
    fn say(&mut self, text: &str) {
        let Some(console) = &mut self.console else { return };
        console.say(text);
        if let Some(bell) = self.bell.as_ref().filter(|_| console.is_waiting()) {
            // It fails only where it rings already.
            let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
        }
    }
}

fn sinks() -> MutexGuard<'static, Option<Sinks>> {
    SINKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens `/dev/console` and `/dev/kmsg`. Lines before this go to standard error. Call it again after the root was switched.
pub fn open() {
    let kernel = File::options().write(true).open("/dev/kmsg").ok();
    // Otherwise no more than ten lines in five seconds are taken, from all programs (Documentation/admin-guide/sysctl/kernel.rst,
    // printk_devkmsg); the kernel takes the word with its end of line alone.
    let _ = std::fs::write("/proc/sys/kernel/printk_devkmsg", "on\n");
    let mut guard = sinks();
    let sinks = guard.get_or_insert_default();
    sinks.kernel = kernel;
    // What was opened before stays as good as it was, with what waits for it.
    if sinks.console.is_none() {
        sinks.console = outlet(Path::new("/dev/console"));
    }
}

/// Takes another terminal for the console from here on, where there is one of that name.
pub fn move_to(terminal: &Path) {
    let moved = outlet(terminal);
    let mut guard = sinks();
    let sinks = guard.get_or_insert_default();
    sinks.console = moved.or(sinks.console.take());
}

/// A terminal that is held up (flow control, a host that does not read) must hold up nobody who speaks, PID 1 first.
fn outlet(terminal: &Path) -> Option<Outlet<File>> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::options().write(true).custom_flags(flags.bits().cast_signed()).open(terminal);
    file.ok().map(Outlet::new)
}

/// Says which bell is rung when the console has not taken all: whoever hears it calls [`drain`] once the console takes more.
pub fn ring(bell: Arc<OwnedFd>) {
    sinks().get_or_insert_default().bell = Some(bell);
}

/// Whether the console has not taken all yet.
#[must_use]
pub fn is_waiting() -> bool {
    sinks().as_ref().and_then(|sinks| sinks.console.as_ref()).is_some_and(Outlet::is_waiting)
}

/// Hands the console what it takes of what waits.
pub fn drain() {
    if let Some(console) = sinks().as_mut().and_then(|sinks| sinks.console.as_mut()) {
        console.drain();
    }
}

/// Waits until the console has taken all, but no longer than that: the machine's run is about to end.
pub fn flush(within: Duration) {
    let end = monotonic() + within;
    while is_waiting() {
        let terminal = sinks().as_ref().and_then(|sinks| sinks.console.as_ref()?.terminal().try_clone().ok());
        let (Some(terminal), left) = (terminal, end.saturating_sub(monotonic())) else { return };
        let Some(left) = Timespec::try_from(left).ok().filter(|_| !left.is_zero()) else { return };
        let _ = poll(&mut [PollFd::new(&terminal, PollFlags::OUT)], Some(&left));
        drain();
    }
}

/// Shows lines on the console alone, without a stamp: they answer somebody there, and are nothing that happened.
pub fn show(lines: &[String]) {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    if let Some(sinks) = sinks().as_mut() {
        sinks.say(&text);
    }
}

/// Lets the kernel print no more on its consoles than warnings and worse; its log keeps all. From here on the story is init's, and
/// a line of the kernel's cuts a line of ours in two: both write to the same port, and neither waits for the other.
pub fn kernel_warnings_only() {
    // Levels below the number are printed (Documentation/admin-guide/sysctl/kernel.rst, printk). A kernel that does not take it
    // tells more than it should, which hinders nothing.
    let _ = std::fs::write("/proc/sys/kernel/printk", "5");
}

/// Whether [`debug`] lines are told (`kscratch.log=debug`).
pub fn set_debug(on: bool) {
    DEBUG.store(on, Ordering::Relaxed);
}

/// Time since the kernel started, the clock of all stamps (`CLOCK_MONOTONIC`, as in the kernel's own log).
#[must_use]
pub fn monotonic() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Tells one line, or several, each with the stamp.
pub fn line(text: impl Display) {
    emit(format_args!("{text}"));
}

/// Tells what the reader can do about the line before: `hint: text`.
pub fn hint(text: impl Display) {
    emit(format_args!("hint: {text}"));
}

/// Tells a line where `kscratch.log=debug` asked for it.
pub fn debug(text: impl Display) {
    if DEBUG.load(Ordering::Relaxed) {
        emit(format_args!("debug: {text}"));
    }
}

fn emit(text: Arguments<'_>) {
    let (console, kernel) = render(monotonic(), &text.to_string());
    let mut guard = sinks();
    // A console that cannot be written to must not stop the machine: there is nobody left to tell.
    match guard.as_mut() {
        Some(sinks) => {
            sinks.say(&console);
            if let Some(file) = &mut sinks.kernel {
                for record in &kernel {
                    let _ = file.write_all(record.as_bytes());
                }
            }
        }
        None => {
            let _ = std::io::stderr().write_all(console.as_bytes());
        }
    }
}

/// The console's text, and the kernel log's records. Those are of level 7 (debug), which the kernel does not print on the console
/// by default: the line stands there already.
fn render(now: Duration, text: &str) -> (String, Vec<String>) {
    let stamp = format!("[{:>4}.{:03}]", now.as_secs(), now.subsec_millis());
    let lines = || text.lines().map(str::trim_end).filter(|line| !line.is_empty());
    let console = lines().map(|line| format!("{stamp} {line}\n")).collect();
    (console, lines().map(|line| format!("<7>{KERNEL_PREFIX}{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::render;

    #[test]
    fn a_line_has_the_stamp_of_the_contract() {
        let (console, kernel) = render(Duration::from_millis(3142), "phase 04 network: start");
        assert_eq!(console, "[   3.142] phase 04 network: start\n");
        assert_eq!(kernel, ["<7>kscratch: phase 04 network: start\n"]);
    }

    #[test]
    fn every_line_of_a_text_is_stamped() {
        let (console, kernel) = render(Duration::from_secs(12345), "one\n\ntwo\r\n");
        assert_eq!(console, "[12345.000] one\n[12345.000] two\n");
        assert_eq!(kernel.len(), 2);
    }
}
