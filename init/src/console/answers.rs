//! Turns what a key asked for into lines for a terminal of 80 columns.
use super::keys::{ANSWER_WITHIN, Action, Allowed, word};
use super::page;
use super::status::Status;
use super::words::{Width, wrapped};
use crate::supervise::Ending;

/// Columns of a terminal that nobody can ask.
pub const COLUMNS: usize = 80;
/// Columns of the keys on the left.
const KEY: usize = 10;
/// Lines that an answer's entry may take.
const MOST: usize = 4;

/// What is said to whoever pressed the key; nothing where the answer comes later.
#[must_use]
pub fn lines(action: &Action, status: &Status) -> Vec<String> {
    match action {
        Action::Status => page::lines(status, COLUMNS),
        Action::Help => help(status.known.allowed, COLUMNS),
        other => words(other, status).map(|words| one(&words, COLUMNS)).unwrap_or_default(),
    }
}

/// The same of what is said in a sentence.
#[must_use]
pub fn words(action: &Action, status: &Status) -> Option<String> {
    Some(match action {
        Action::Nothing | Action::Log(_) | Action::Status | Action::Help => return None,
        Action::AskLog | Action::Ask(_) => question(action, status),
        Action::End(Ending::Reboot) => "the machine stops, and starts again".to_owned(),
        Action::End(Ending::PowerOff) => "the machine stops, and is switched off".to_owned(),
        Action::Refuse(_) => refusal(status.known.allowed).to_owned(),
        Action::Cancelled => "nothing was done".to_owned(),
    })
}

/// A sentence as lines that are told from the log's.
#[must_use]
pub fn one(words: &str, columns: usize) -> Vec<String> {
    wrapped("console:", words, KEY, Width::of(columns), MOST)
}

/// The question that a key brings.
fn question(action: &Action, status: &Status) -> String {
    let within = ANSWER_WITHIN.as_secs();
    match action {
        Action::Ask(ending) => {
            let what = match ending {
                Ending::Reboot => "to restart this machine",
                Ending::PowerOff => "to switch this machine off",
            };
            format!("{what} type the word {} and Enter within {within} s; anything else does nothing", word(*ending))
        }
        _ => {
            let names = status.services.standings.iter().zip(1..).map(|(one, number)| format!("{number} {}", one.name));
            let names: Vec<String> = names.collect();
            format!("the log of which service? type its number or name and Enter: {}", names.join(", "))
        }
    }
}

/// What keys there are.
#[must_use]
pub fn help(allowed: Allowed, columns: usize) -> Vec<String> {
    let look = [
        ("s, Enter", "the machine's state"),
        ("l", "the last lines of a service's log: of which one is asked"),
        ("?", "these lines"),
    ];
    let end = [
        ("r", "restart the machine: asks for the word `reboot`"),
        ("p", "switch the machine off: asks for the word `poweroff`"),
    ];
    let end = if allowed == Allowed::All { end.as_slice() } else { &[] };
    let rows = look.iter().chain(end).flat_map(|(key, what)| wrapped(key, what, KEY, Width::of(columns), MOST));
    std::iter::once("what keys do at this console:".to_owned()).chain(rows).collect()
}

/// The keys, in the few words that fit into a heading.
#[must_use]
pub fn heading(allowed: Allowed) -> &'static str {
    match allowed {
        Allowed::Nothing => "",
        Allowed::Look | Allowed::LookYet => "---- keys: s state, l log of a service, ? help ",
        Allowed::All => "---- keys: s state, l log of a service, r restart, p power off, ? help ",
    }
}

/// The last lines of a service's log.
#[must_use]
pub fn log(name: &str, last: &[String], columns: usize) -> Vec<String> {
    let width = Width::of(columns);
    let head = match last.len() {
        0 => format!("{name} has said nothing since this boot began"),
        count => format!("the last {count} lines of {name}:"),
    };
    // Behind a mark: whatever a service says, it is none of init's lines, and no word that was asked for.
    std::iter::once(width.cut(&head)).chain(last.iter().map(|line| width.cut(&format!("| {line}")))).collect()
}

fn refusal(allowed: Allowed) -> &'static str {
    match allowed {
        Allowed::LookYet => "not yet: the metadata say what keys may do, and are not read",
        _ => "this key is turned off in the metadata ([console] keys); the power button is not",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{help, lines, log};
    use crate::console::keys::{Action, Allowed, Keys};
    use crate::console::status::{Known, Services, Status};
    use crate::supervise::{Ending, Stage, Standing};

    fn status() -> Status {
        let standing = |name| Standing { name, stage: Stage::Stopped, restarts: 0, trouble: None };
        let standings = ["containerd", "dockerd", "cri-dockerd", "kubelet", "identities"].map(standing).into();
        Status {
            known: Known { allowed: Allowed::All, ..Known::default() },
            services: Services { standings, ..Services::default() },
            ..Status::default()
        }
    }

    #[test]
    fn questions_say_what_to_type() {
        let ask = lines(&Action::Ask(Ending::Reboot), &status());
        assert_eq!(
            ask,
            [
                "console:   to restart this machine type the word reboot and Enter within 20 s;",
                "           anything else does nothing"
            ]
        );
        let log = lines(&Action::AskLog, &status());
        assert_eq!(
            log,
            [
                "console:   the log of which service? type its number or name and Enter: 1",
                "           containerd, 2 dockerd, 3 cri-dockerd, 4 kubelet, 5 identities"
            ]
        );
        assert_eq!(help(Allowed::Look, 80).len(), 4);
        assert_eq!(help(Allowed::All, 80).len(), 6);
    }

    #[test]
    fn a_log_is_marked() {
        assert_eq!(
            log("a", &["one".into(), "\x1b[2Jreboot".into()], 80),
            ["the last 2 lines of a:", "| one", "| ?[2Jreboot"]
        );
        assert_eq!(log("a", &[], 80), ["a has said nothing since this boot began"]);
    }

    /// A line that gives back what it was sent, as some modems and many cables do.
    #[test]
    fn a_loop_ends_nothing_and_fills_no_line() {
        for first in [b's', b'?', b'l', b'r', b'p'] {
            let (mut keys, mut now, mut sent) = (Keys::default(), Duration::ZERO, vec![first]);
            let mut answers = 0;
            // An hour of a line that takes a millisecond for a byte.
            while now < Duration::from_secs(3600) && !sent.is_empty() {
                let mut echo = Vec::new();
                for byte in std::mem::take(&mut sent) {
                    now += Duration::from_millis(1);
                    let (next, action) = keys.press(byte, now, Allowed::All);
                    keys = next;
                    assert!(!matches!(action, Action::End(_)));
                    let said = match &action {
                        Action::Log(name) => log(name, &["reboot".to_owned(), "poweroff".to_owned()], 80),
                        action => lines(action, &status()),
                    };
                    answers += usize::from(!said.is_empty());
                    echo.extend(said.iter().flat_map(|line| format!("{line}\r\n").into_bytes()));
                }
                sent = echo;
            }
            assert!(answers <= 2 * (5 + 3600 / 3), "{answers}");
        }
    }
}
