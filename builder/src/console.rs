//! What happens becomes lines and bars for a person: steps, progress of bytes, and errors with their causes and one hint.
use std::fmt;
use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

pub use kscratch_install::words::{human_bytes, is_obeyed, shown};

/// The command that helps: attached to an error as its context, printed last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint(pub String);

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hint: {}", self.0)
    }
}

/// How much is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Errors alone.
    Quiet,
    /// Steps, and progress of long ones.
    Normal,
    /// Details of steps too.
    Verbose,
    /// Everything.
    Debug,
}

/// Where progress goes: bars on a terminal, otherwise plain lines. Cheap to clone; shared by threads.
#[derive(Debug, Clone)]
pub struct Console {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    verbosity: Verbosity,
    colour: bool,
    /// Present where bars can move.
    bars: Option<MultiProgress>,
}

impl Console {
    /// A console on standard error. `colour` as the user wants it: `None` decides by the terminal and `NO_COLOR`.
    pub fn stderr(verbosity: Verbosity, colour: Option<bool>) -> Console {
        let terminal = io::stderr().is_terminal();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let bars = (terminal && verbosity != Verbosity::Quiet)
            .then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));
        Console { inner: Arc::new(Inner { verbosity, colour: colour.unwrap_or(terminal && !no_color), bars }) }
    }

    /// A console that says nothing (tests, and library calls that report by themselves).
    pub fn silent() -> Console {
        Console { inner: Arc::new(Inner { verbosity: Verbosity::Quiet, colour: false, bars: None }) }
    }

    /// How much is told.
    pub fn verbosity(&self) -> Verbosity {
        self.inner.verbosity
    }

    /// Whether lines can move: it is a terminal, and not quiet.
    pub fn moves(&self) -> bool {
        self.inner.bars.is_some()
    }

    /// Says one line, unless quiet.
    pub fn say(&self, line: impl fmt::Display) {
        if self.inner.verbosity >= Verbosity::Normal {
            self.line(&line.to_string());
        }
    }

    /// Says one line that only `-v` shows.
    pub fn detail(&self, line: impl fmt::Display) {
        if self.inner.verbosity >= Verbosity::Verbose {
            self.line(&line.to_string());
        }
    }

    /// Says a warning, unless quiet.
    pub fn warn(&self, line: impl fmt::Display) {
        if self.inner.verbosity >= Verbosity::Normal {
            self.line(&format!("{} {line}", self.paint("1;33", "warning:")));
        }
    }

    /// Asks a person, and gives the line that is the answer; none where there is no terminal to ask on.
    ///
    /// # Errors
    /// The terminal cannot be written to or read.
    pub fn ask(&self, question: impl fmt::Display) -> io::Result<Option<String>> {
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Ok(None);
        }
        let mut out = io::stderr().lock();
        write!(out, "{question} ")?;
        out.flush()?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        Ok(Some(answer.trim().to_owned()))
    }

    /// Prints an error: what failed, why, and the hint if one is attached. Quiet consoles print it too.
    pub fn error(&self, error: &anyhow::Error) {
        for line in error_lines(error) {
            let line = match line.split_once(": ") {
                Some(("error", rest)) => format!("{} {rest}", self.paint("1;31", "error:")),
                Some(("hint", rest)) => format!("{} {rest}", self.paint("1;36", "hint:")),
                _ => line,
            };
            self.line(&line);
        }
    }

    /// Starts telling of something that moves `total` bytes (0: not known).
    pub fn bytes(&self, label: &str, total: u64) -> Progress {
        let bar = self.inner.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new(total));
            let template = "{prefix:32!} {bar:24} {binary_bytes:>11} of {binary_total_bytes:<11} {rate:>11} {left:>8}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                // Means since the start: what comes in whole files makes every momentary rate absurd.
                let rate = |state: &ProgressState, out: &mut dyn fmt::Write| {
                    let rate = mean_rate(state.pos(), state.elapsed());
                    // There is nobody to tell where a line cannot be made.
                    let _ = write!(out, "{}/s", human_bytes(rate));
                };
                let left = |state: &ProgressState, out: &mut dyn fmt::Write| {
                    let rate = mean_rate(state.pos(), state.elapsed());
                    if let Some(seconds) = state.len().and_then(|len| len.saturating_sub(state.pos()).checked_div(rate))
                    {
                        let _ = write!(out, "{seconds} s left");
                    }
                };
                bar.set_style(style.progress_chars("=> ").with_key("rate", rate).with_key("left", left));
            }
            bar.set_prefix(label.to_owned());
            bar
        });
        Progress {
            console: self.clone(),
            bar,
            label: label.to_owned(),
            state: PlainState { done: 0, total, said: Instant::now() },
        }
    }

    /// Starts telling of something of unknown length.
    pub fn spinner(&self, label: &str) -> Progress {
        let bar = self.inner.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new_spinner());
            bar.set_message(label.to_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        if bar.is_none() {
            self.say(label);
        }
        Progress {
            console: self.clone(),
            bar,
            label: label.to_owned(),
            state: PlainState { done: 0, total: 0, said: Instant::now() },
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.inner.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn line(&self, line: &str) {
        // A closed standard error is no reason to stop a build.
        let print = || drop(writeln!(io::stderr().lock(), "{line}"));
        match &self.inner.bars {
            Some(bars) => bars.suspend(print),
            None => print(),
        }
    }
}

/// The progress of one thing. Dropped, its bar goes away.
#[derive(Debug)]
pub struct Progress {
    console: Console,
    bar: Option<ProgressBar>,
    label: String,
    state: PlainState,
}

#[derive(Debug)]
struct PlainState {
    done: u64,
    total: u64,
    said: Instant,
}

/// Without a terminal, a long thing says how far it is this often.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

impl Progress {
    /// `bytes` more are done.
    pub fn add(&mut self, bytes: u64) {
        self.state.done += bytes;
        match &self.bar {
            Some(bar) => bar.inc(bytes),
            None if self.state.said.elapsed() >= PLAIN_EVERY => {
                self.state.said = Instant::now();
                let done = human_bytes(self.state.done);
                match self.state.total {
                    0 => self.console.say(format_args!("{}: {done}", self.label)),
                    total => self.console.say(format_args!("{}: {done} of {}", self.label, human_bytes(total))),
                }
            }
            None => {}
        }
    }

    /// Says how long it is, once that is known.
    pub fn set_total(&mut self, total: u64) {
        self.state.total = total;
        if let Some(bar) = &self.bar {
            bar.set_length(total);
        }
    }

    /// Replaces what is shown beside a spinner.
    pub fn message(&self, message: impl fmt::Display) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{}: {message}", self.label));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// `1 master`, `2 masters`.
pub(crate) fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Bytes in a second.
fn mean_rate(bytes: u64, elapsed: Duration) -> u64 {
    (bytes as f64 / elapsed.as_secs_f64().max(0.001)) as u64
}

/// An error as lines: `error:`, `because:` for every cause, and the outermost hint last.
pub fn error_lines(error: &anyhow::Error) -> Vec<String> {
    let mut lines = Vec::new();
    let mut hint = None;
    for cause in error.chain() {
        let text = cause.to_string();
        // A hint stands in the chain as a context; `downcast_ref` sees only the outermost of a type, so it is told by its words.
        if let Some(words) = text.strip_prefix("hint: ") {
            hint.get_or_insert_with(|| words.to_owned());
            continue;
        }
        // Libraries often repeat their cause in their own text.
        if lines.last().is_some_and(|last: &String| last.ends_with(&text)) {
            continue;
        }
        lines.push(if lines.is_empty() { format!("error: {text}") } else { format!("  because: {text}") });
    }
    lines.extend(hint.map(|hint| format!("hint: {hint}")));
    lines
}

#[cfg(test)]
mod tests {
    use super::{Hint, error_lines};
    use anyhow::anyhow;

    #[test]
    fn an_error_is_told_from_what_was_done_to_why() {
        let error = anyhow!("the digest is 9f2c, the lock says 41aa")
            .context(Hint("kscratch-image lock --update kubelet".into()))
            .context("fetching kubelet v1.36.2")
            .context(Hint("another".into()));
        assert_eq!(
            error_lines(&error),
            ["error: fetching kubelet v1.36.2", "  because: the digest is 9f2c, the lock says 41aa", "hint: another"]
        );
        assert_eq!(error_lines(&anyhow!("b").context("a: b")), ["error: a: b"]);
    }
}
