//! Turns the bytes of a serial line into stamped [`Line`]s that can be waited for, and keeps all of them.
use std::fmt;
use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::TAIL;

/// One line of the console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its place in the console, from 0.
    pub number: usize,
    /// When its end came, since the machine's start, by the host's clock.
    pub at: Duration,
    /// Its text without line ends and terminal escapes.
    pub text: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:9.3} {}", self.at.as_secs_f64(), self.text)
    }
}

/// What a line is to look like.
#[derive(Debug, Clone)]
pub enum Pattern {
    /// The line contains this text.
    Text(String),
    /// The line matches this expression somewhere.
    Regex(regex::Regex),
}

impl Pattern {
    /// Whether the text is of this form.
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Pattern::Text(part) => text.contains(part.as_str()),
            Pattern::Regex(regex) => regex.is_match(text),
        }
    }
}

impl From<&str> for Pattern {
    fn from(text: &str) -> Self {
        Pattern::Text(text.to_owned())
    }
}

impl From<String> for Pattern {
    fn from(text: String) -> Self {
        Pattern::Text(text)
    }
}

impl From<regex::Regex> for Pattern {
    fn from(regex: regex::Regex) -> Self {
        Pattern::Regex(regex)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Text(text) => write!(f, "the line `{text}`"),
            Pattern::Regex(regex) => write!(f, "a line that matches `{regex}`"),
        }
    }
}

/// How a wait ended.
#[derive(Debug)]
pub enum Waited {
    /// The line came.
    Found(Line),
    /// The kernel's panic came first.
    Panicked(Line),
    /// The console closed first: QEMU has ended.
    Closed,
    /// Neither came in time.
    Timeout,
}

/// The console of one run, filled by a thread that reads the serial line.
#[derive(Debug, Clone)]
pub struct Console {
    shared: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<Line>,
    partial: Vec<u8>,
    closed: bool,
}

impl Console {
    /// A console on which nothing was said yet.
    pub fn new() -> Self {
        Console { shared: Arc::default() }
    }

    /// Reads until the other end closes; stamps are counted from `start`.
    pub fn read_from(&self, mut serial: impl Read, start: Instant) {
        let mut buffer = [0; 4096];
        loop {
            match serial.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => self.push(&buffer[..length], start.elapsed()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.state().closed = true;
        self.shared.1.notify_all();
    }

    fn push(&self, bytes: &[u8], at: Duration) {
        let mut state = self.state();
        for byte in bytes {
            if *byte == b'\n' {
                let text = readable(&std::mem::take(&mut state.partial));
                let number = state.lines.len();
                state.lines.push(Line { number, at, text });
            } else {
                state.partial.push(*byte);
            }
        }
        drop(state);
        self.shared.1.notify_all();
    }

    /// Waits for the first line from number `from` on that matches.
    pub fn wait(&self, pattern: &Pattern, from: usize, bound: Duration) -> Waited {
        let deadline = Instant::now() + bound;
        let mut state = self.state();
        let mut next = from;
        loop {
            let start = next.min(state.lines.len());
            for line in &state.lines[start..] {
                if pattern.matches(&line.text) {
                    return Waited::Found(line.clone());
                }
                if line.text.contains("Kernel panic - not syncing") {
                    return Waited::Panicked(line.clone());
                }
            }
            next = next.max(state.lines.len());
            if state.closed {
                return Waited::Closed;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Waited::Timeout;
            }
            state = self.shared.1.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until the other end has closed and everything it said is in.
    pub fn wait_for_end(&self, bound: Duration) {
        let deadline = Instant::now() + bound;
        let mut state = self.state();
        while !state.closed {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.shared.1.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Every whole line so far.
    pub fn lines(&self) -> Vec<Line> {
        self.state().lines.clone()
    }

    /// What `see` makes of the latest line that it makes anything of.
    pub fn latest<T>(&self, see: impl FnMut(&Line) -> Option<T>) -> Option<T> {
        self.state().lines.iter().rev().find_map(see)
    }

    /// The last lines as they go into an error: with stamps, and with the line that was not ended yet.
    pub fn tail(&self) -> String {
        let state = self.state();
        let skip = state.lines.len().saturating_sub(TAIL);
        let mut lines: Vec<String> = state.lines.iter().skip(skip).map(Line::to_string).collect();
        let partial = readable(&state.partial);
        if !partial.is_empty() {
            lines.push(format!("          {partial}"));
        }
        if lines.is_empty() {
            return "\nthe console is empty".to_owned();
        }
        format!("\nthe console's last lines:\n{}", lines.join("\n"))
    }

    // A thread that panicked while holding the lock left whole lines behind: its panic must not hide the console from the error.
    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Console {
    fn default() -> Self {
        Console::new()
    }
}

/// The text of a line without what steers a terminal: escape sequences (ECMA-48, 5.4) and control characters.
pub fn readable(bytes: &[u8]) -> String {
    let mut text = String::new();
    let decoded = String::from_utf8_lossy(bytes);
    let mut chars = decoded.chars().peekable();
    while let Some(char) = chars.next() {
        if char == '\u{1b}' {
            if chars.next() == Some('[') {
                // Parameters and intermediates up to the final byte, 0x40 to 0x7e.
                for next in chars.by_ref() {
                    if ('\u{40}'..='\u{7e}').contains(&next) {
                        break;
                    }
                }
            }
        } else if char == '\t' || !char.is_control() {
            text.push(char);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Write, pipe};
    use std::thread;

    #[track_caller]
    fn check(bytes: &[u8], want: &str) {
        assert_eq!(readable(bytes), want);
    }

    #[test]
    fn lines_lose_what_steers_a_terminal() {
        check(b"plain\r", "plain");
        check(b"\x1b[2J\x1b[01;01H\x1b[=3hBdsDxe: starting", "BdsDxe: starting");
        check(b"\x1bcreset", "reset");
        check(b"a\tb\x00\x07c", "a\tbc");
        check(b"\xff ok", "\u{fffd} ok");
        check(b"\x1b[", "");
    }

    #[test]
    fn a_wait_sees_lines_of_before_and_of_later() {
        let console = Console::new();
        let (reader, mut writer) = pipe().unwrap();
        let start = Instant::now();
        let reading = thread::spawn({
            let console = console.clone();
            move || console.read_from(reader, start)
        });
        writer.write_all(b"one\r\ntwo\r\nth").unwrap();
        let second = Duration::from_secs(1);
        let Waited::Found(two) = console.wait(&"two".into(), 0, second) else { panic!("two") };
        assert_eq!((two.number, two.text.as_str()), (1, "two"));
        let Waited::Found(one) = console.wait(&"one".into(), 0, second) else { panic!("one is before two") };
        assert!(one.at <= two.at);
        assert!(matches!(console.wait(&"one".into(), 1, Duration::from_millis(20)), Waited::Timeout));
        assert!(matches!(console.wait(&"three".into(), 0, Duration::ZERO), Waited::Timeout));
        assert!(console.tail().ends_with("two\n          th"), "{}", console.tail());
        writer.write_all(b"ree\nKernel panic - not syncing: x\nfour\n").unwrap();
        let pattern = Pattern::from(regex::Regex::new("^th.*e$").unwrap());
        assert!(matches!(console.wait(&pattern, 0, second), Waited::Found(line) if line.number == 2));
        assert!(matches!(console.wait(&"five".into(), 0, second), Waited::Panicked(line) if line.number == 3));
        assert!(matches!(console.wait(&"panic".into(), 0, second), Waited::Found(_)));
        drop(writer);
        reading.join().unwrap();
        assert!(matches!(console.wait(&"five".into(), 4, second), Waited::Closed));
        assert!(matches!(console.wait(&"five".into(), 99, second), Waited::Closed));
    }
}
