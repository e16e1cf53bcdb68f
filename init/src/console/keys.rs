//! Turns keys, a byte at a time, into what is wanted of the console: a pure state machine, in which nothing ends the machine but a whole word.
//!
//! A serial line may send noise, what it was sent itself (a loop), or another machine's words: all of that is keys here.
use std::time::Duration;

use crate::supervise::Ending;

/// How long a question waits for its answer.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// An Enter that follows a key this soon belongs to it; a sequence of bytes that one key sends is over by then; and a key that is to end the machine's
/// run comes this long after any other: a stream of text asks for nothing.
const TOGETHER: Duration = Duration::from_secs(1);
/// How many answers are given one right after the other ...
const AT_ONCE: u8 = 5;
/// ... and then one each time that this has passed: noise must not fill the line.
const ANSWER_EVERY: Duration = Duration::from_secs(3);
/// Letters of an answer that are kept: one more than any name has is enough to be none.
const LONGEST: usize = 40;

/// What keys may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Allowed {
    /// Nothing at all.
    Nothing,
    /// Show things; nobody knows yet what the machine's owner allows.
    #[default]
    LookYet,
    /// Show things.
    Look,
    /// Show things, and end the machine's run.
    All,
}

/// What a key asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Nothing,
    /// The machine's state.
    Status,
    /// What keys there are.
    Help,
    /// To be asked which service's log is wanted.
    AskLog,
    /// The log of the service that this names: a number of the list, a name, or the beginning of one.
    Log(String),
    /// To be asked for the word that ends the machine's run so.
    Ask(Ending),
    /// That end.
    End(Ending),
    /// To be told why that end is not for these keys.
    Refuse(Ending),
    /// To be told that nothing was done.
    Cancelled,
}

/// Which word ends the machine's run so.
#[must_use]
pub fn word(ending: Ending) -> &'static str {
    match ending {
        Ending::Reboot => "reboot",
        Ending::PowerOff => "poweroff",
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum State {
    #[default]
    Idle,
    /// Asked which log.
    Choosing { typed: String, until: Duration },
    /// Asked for the word.
    Confirming { ending: Ending, typed: String, until: Duration },
}

impl State {
    /// Whether this byte is an Enter where nothing is typed yet.
    fn is_asked_by_enter(&self, byte: u8) -> bool {
        let (Self::Choosing { typed, .. } | Self::Confirming { typed, .. }) = self else { return false };
        typed.is_empty() && matches!(byte, b'\r' | b'\n')
    }
}

/// Where an escape sequence stands (ECMA-48, 5.4; SS3 for some keys): arrows and the like are several bytes, and none of them is a key of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    Begun,
    Parameters,
    Last,
}

/// One terminal's keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    state: State,
    escape: Escape,
    /// When the last byte came.
    last: Option<Duration>,
    /// Answers given, less those that time has forgiven, and up to when it has.
    answered: u8,
    forgiven: Duration,
}

impl Keys {
    /// Takes a byte. `now` is any clock that does not go back.
    #[must_use]
    pub fn press(self, byte: u8, now: Duration, allowed: Allowed) -> (Self, Action) {
        if allowed == Allowed::Nothing {
            return (Self::default(), Action::Nothing);
        }
        let (mut keys, _) = self.pass(now);
        let soon = keys.last.is_some_and(|last| now.saturating_sub(last) < TOGETHER);
        keys.last = Some(now);
        if !soon {
            keys.escape = Escape::None;
        }
        if byte == 0x1b {
            keys.escape = Escape::Begun;
            return keys.cancel();
        }
        if keys.escape != Escape::None {
            keys.escape = match (keys.escape, byte) {
                (Escape::Begun, b'[') => Escape::Parameters,
                (Escape::Begun, b'O') => Escape::Last,
                (Escape::Parameters, 0x20..=0x3f) => Escape::Parameters,
                _ => Escape::None,
            };
            return (keys, Action::Nothing);
        }
        match std::mem::take(&mut keys.state) {
            State::Idle => keys.idle(byte, soon, now, allowed),
            // The Enter of whoever ends every key with one: the question was not read yet.
            state @ (State::Choosing { .. } | State::Confirming { .. }) if soon && state.is_asked_by_enter(byte) => {
                (Self { state, ..keys }, Action::Nothing)
            }
            State::Choosing { typed, until } => match edit(typed, byte) {
                Edited::Typing(typed) => (Self { state: State::Choosing { typed, until }, ..keys }, Action::Nothing),
                Edited::Done(typed) if !typed.is_empty() => (keys, Action::Log(typed)),
                Edited::Done(_) | Edited::Wrong => (keys, Action::Cancelled),
            },
            State::Confirming { ending, typed, until } => match edit(typed, byte) {
                Edited::Typing(typed) => {
                    (Self { state: State::Confirming { ending, typed, until }, ..keys }, Action::Nothing)
                }
                // Whoever allowed it when it was asked may not any more.
                Edited::Done(typed) if typed == word(ending) => match allowed {
                    Allowed::All => (keys, Action::End(ending)),
                    _ => (keys, Action::Refuse(ending)),
                },
                Edited::Done(_) | Edited::Wrong => (keys, Action::Cancelled),
            },
        }
    }

    /// Lets time pass: a question that was not answered is none any more.
    #[must_use]
    pub fn pass(mut self, now: Duration) -> (Self, Action) {
        let steps = now.saturating_sub(self.forgiven).as_secs() / ANSWER_EVERY.as_secs();
        let forgiven = u8::try_from(steps).unwrap_or(u8::MAX).min(self.answered);
        self.answered -= forgiven;
        self.forgiven = if self.answered == 0 { now } else { self.forgiven + ANSWER_EVERY * u32::from(forgiven) };
        match self.deadline() {
            Some(until) if until <= now => self.cancel(),
            _ => (self, Action::Nothing),
        }
    }

    /// When [`Keys::pass`] has something to say at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        match &self.state {
            State::Idle => None,
            State::Choosing { until, .. } | State::Confirming { until, .. } => Some(*until),
        }
    }

    /// What is typed of an answer, while there is a question.
    #[must_use]
    pub fn typed(&self) -> Option<&str> {
        match &self.state {
            State::Idle => None,
            State::Choosing { typed, .. } | State::Confirming { typed, .. } => Some(typed),
        }
    }

    fn cancel(mut self) -> (Self, Action) {
        match std::mem::take(&mut self.state) {
            State::Idle => (self, Action::Nothing),
            State::Choosing { .. } | State::Confirming { .. } => (self, Action::Cancelled),
        }
    }

    fn idle(mut self, byte: u8, soon: bool, now: Duration, allowed: Allowed) -> (Self, Action) {
        let end = |ending| if allowed == Allowed::All { Action::Ask(ending) } else { Action::Refuse(ending) };
        let action = match byte.to_ascii_lowercase() {
            b'\r' | b'\n' if !soon => Action::Status,
            b's' => Action::Status,
            b'?' | b'h' => Action::Help,
            b'l' => Action::AskLog,
            b'r' if !soon => end(Ending::Reboot),
            b'p' if !soon => end(Ending::PowerOff),
            _ => return (self, Action::Nothing),
        };
        if self.answered >= AT_ONCE {
            return (self, Action::Nothing);
        }
        self.answered += 1;
        let until = now + ANSWER_WITHIN;
        self.state = match action {
            Action::AskLog => State::Choosing { typed: String::new(), until },
            Action::Ask(ending) => State::Confirming { ending, typed: String::new(), until },
            _ => State::Idle,
        };
        (self, action)
    }
}

enum Edited {
    Typing(String),
    Done(String),
    Wrong,
}

/// An answer with one more byte: letters, digits and dashes, the two bytes that keyboards send to take one back, and Enter.
fn edit(mut typed: String, byte: u8) -> Edited {
    match byte {
        b'\r' | b'\n' => return Edited::Done(typed),
        0x08 | 0x7f => _ = typed.pop(),
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' if typed.len() < LONGEST => {
            typed.push(char::from(byte.to_ascii_lowercase()));
        }
        _ => return Edited::Wrong,
    }
    Edited::Typing(typed)
}

/// The service that an answer means: by its number in the list, from 1, by its name, or by the beginning of one alone.
#[must_use]
pub fn chosen<'a>(typed: &str, names: &[&'a str]) -> Option<&'a str> {
    if let Ok(number) = typed.parse::<usize>() {
        return names.get(number.checked_sub(1)?).copied();
    }
    let exact = names.iter().find(|name| **name == typed).copied();
    let mut begun = names.iter().filter(|name| name.starts_with(typed));
    exact.or_else(|| begun.next().copied().filter(|_| begun.next().is_none()))
}

#[cfg(test)]
mod tests;
