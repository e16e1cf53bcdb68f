//! Turns what PID 1 has to say into lines `[   3.142] text` on the console and in the kernel's log.
use std::fmt::{Arguments, Display};
use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How a line of init's begins in the kernel's log.
pub const KERNEL_PREFIX: &str = "kscratch: ";

/// `/dev/console` and `/dev/kmsg`, once the machine has them; before that, standard error.
static SINKS: Mutex<Option<Sinks>> = Mutex::new(None);
static DEBUG: AtomicBool = AtomicBool::new(false);

struct Sinks {
    console: Option<File>,
    kernel: Option<File>,
}

/// Opens `/dev/console` and `/dev/kmsg`. Lines before this go to standard error. Call it again after the root was switched.
pub fn open() {
    let console = File::options().write(true).open("/dev/console").ok();
    let kernel = File::options().write(true).open("/dev/kmsg").ok();
    // Otherwise no more than ten lines in five seconds are taken, from all programs (Documentation/admin-guide/sysctl/kernel.rst,
    // printk_devkmsg); the kernel takes the word with its end of line alone.
    let _ = std::fs::write("/proc/sys/kernel/printk_devkmsg", "on\n");
    *SINKS.lock().unwrap_or_else(PoisonError::into_inner) = Some(Sinks { console, kernel });
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
    let mut guard = SINKS.lock().unwrap_or_else(PoisonError::into_inner);
    // A console that cannot be written to must not stop the machine: there is nobody left to tell.
    match guard.as_mut() {
        Some(sinks) => {
            if let Some(file) = &mut sinks.console {
                let _ = file.write_all(console.as_bytes());
            }
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
