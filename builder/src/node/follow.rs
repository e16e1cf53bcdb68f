//! Turns what is added to a machine's log into bytes as they come, over every rotation.
use std::io::{ErrorKind, Write};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Error, Result};

use super::logs::{Seen, read};
use crate::vmcluster::api::{Api, Part};

/// How often a log is asked for more.
const EVERY: Duration = Duration::from_secs(1);
/// So many of the last bytes that are known are asked for again. A log that has grown by nothing has these to answer, and one that was begun anew has others, or none.
const KNOWN: u64 = 256;

/// Writes what is added to a log behind its first `from` bytes, until nobody reads it any more. `warn` is told what is in the way.
///
/// # Errors
/// The log is not there any more, or the API server refuses. A machine that is away for a while is waited for.
pub fn follow(api: &Api, node: &str, file: &str, from: u64, out: &mut impl Write, warn: &dyn Fn(String)) -> Result<()> {
    let mut log = Following::new(api, node, file, from, warn);
    loop {
        thread::sleep(EVERY);
        let fresh = log.look()?;
        match out.write_all(&fresh).and_then(|()| out.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            other => other.context("writing to standard output")?,
        }
    }
}

/// A log, and how far it is known.
pub(super) struct Following<'a> {
    api: &'a Api,
    node: &'a str,
    file: &'a str,
    from: u64,
    /// The last bytes before that, once they were seen.
    known: Option<Vec<u8>>,
    /// Whether the machine did not answer the last time.
    away: bool,
    warn: &'a dyn Fn(String),
}

impl<'a> Following<'a> {
    pub(super) fn new(api: &'a Api, node: &'a str, file: &'a str, from: u64, warn: &'a dyn Fn(String)) -> Self {
        Self { api, node, file, from, known: None, away: false, warn }
    }

    /// What was added since the last time.
    ///
    /// # Errors
    /// As for [`follow`].
    pub(super) fn look(&mut self) -> Result<Vec<u8>> {
        let part = Part::From(self.from.saturating_sub(KNOWN));
        let seen = read(self.api, self.node, self.file, part)?;
        if let Seen::Away(error) = seen {
            return Ok(self.is_away(&error));
        }
        self.away = false;
        if let Some(fresh) = self.goes_on(&seen) {
            return Ok(fresh);
        }
        // It was begun anew, and what was added to it before that stands in the file that was put aside.
        let rest = match read(self.api, self.node, &aside(self.file), part) {
            Ok(Seen::Away(error)) => return Ok(self.is_away(&error)),
            Ok(seen) => self.goes_on(&seen).context("the file that was put aside is another one"),
            Err(error) => Err(error),
        };
        (self.from, self.known) = (0, None);
        Ok(rest.unwrap_or_else(|error| {
            let why = error.root_cause();
            (self.warn)(format!("{} was begun anew, and lines before that may be missing here: {why}", self.file));
            Vec::new()
        }))
    }

    /// What a file has behind what is known; nothing where it is another file.
    fn goes_on(&mut self, seen: &Seen) -> Option<Vec<u8>> {
        let bytes = match seen {
            Seen::Bytes(bytes, _) => bytes.as_slice(),
            _ => &[],
        };
        let (known, fresh) = bytes.split_at_checked(usize::try_from(self.from.min(KNOWN)).ok()?)?;
        if self.known.as_deref().is_some_and(|last| last != known) {
            return None;
        }
        self.from += fresh.len() as u64;
        let first = bytes.len().saturating_sub(usize::try_from(KNOWN).ok()?);
        self.known = bytes.get(first..).map(<[u8]>::to_vec);
        Some(fresh.to_vec())
    }

    /// While it starts anew, for one.
    fn is_away(&mut self, error: &Error) -> Vec<u8> {
        if !std::mem::replace(&mut self.away, true) {
            (self.warn)(format!("{error:#}; it is asked again until it answers"));
        }
        Vec::new()
    }
}

/// What PID 1 calls the file that it puts aside.
fn aside(file: &str) -> String {
    if file.contains('/') || file.contains(".log") { format!("{file}.1") } else { format!("{file}.log.1") }
}
