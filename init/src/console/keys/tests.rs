//! What keys ask for: a table, and bytes of any kind.
use std::time::Duration;

use proptest::prelude::{Just, Strategy, any, prop, prop_assert, prop_oneof, proptest};

use super::{Action, Allowed, Keys, chosen, word};
use crate::supervise::Ending;

/// Presses keys a tenth of a second apart; `@N` in between lets N seconds pass.
fn press(text: &str, allowed: Allowed) -> Vec<Action> {
    let (mut keys, mut now, mut actions) = (Keys::default(), Duration::from_secs(100), Vec::new());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let (next, action) = if byte == b'@' {
            now += Duration::from_secs(u64::from(rest.next().unwrap() - b'0'));
            keys.pass(now)
        } else {
            now += Duration::from_millis(100);
            keys.press(byte, now, allowed)
        };
        keys = next;
        if action != Action::Nothing {
            actions.push(action);
        }
    }
    actions
}

#[track_caller]
fn check(text: &str, want: &[Action]) {
    assert_eq!(press(text, Allowed::All), want, "{text:?}");
}

const REBOOT: Ending = Ending::Reboot;
const OFF: Ending = Ending::PowerOff;

#[test]
fn a_key_shows_something() {
    check("s", &[Action::Status]);
    check("\r", &[Action::Status]);
    check("\n", &[Action::Status]);
    check("?", &[Action::Help]);
    check("xyz \0\x7f\u{fffd}", &[]);
    // The Enter after a key, and Enters of two bytes.
    check("s\r\n@2\r\n", &[Action::Status, Action::Status]);
    check("?\n", &[Action::Help]);
    // Caps lock.
    check("S", &[Action::Status]);
}

#[test]
fn the_machine_ends_by_a_word() {
    check("rreboot\r", &[Action::Ask(REBOOT), Action::End(REBOOT)]);
    check("r@1reboot\r", &[Action::Ask(REBOOT), Action::End(REBOOT)]);
    check("p@1poweroff\n", &[Action::Ask(OFF), Action::End(OFF)]);
    check("r\r\nreboot\r\n", &[Action::Ask(REBOOT), Action::End(REBOOT)]);
    check("r@1REBOOT\r", &[Action::Ask(REBOOT), Action::End(REBOOT)]);
    check("r@1rebx\x7foot\r", &[Action::Ask(REBOOT), Action::End(REBOOT)]);
    for text in ["r@1poweroff\r", "r@1\r", "r@1reboot \r", "r@1rebooted\r", "r@1re\0", "r@1\x1b", "r@1rebo\x1b[D"] {
        check(text, &[Action::Ask(REBOOT), Action::Cancelled]);
    }
    check("reboot\r", &[Action::Ask(REBOOT), Action::Cancelled]);
    // A blank is an answer, and what comes then is another question.
    check("r@1 @1reboot\r", &[Action::Ask(REBOOT), Action::Cancelled, Action::Ask(REBOOT), Action::Cancelled]);
    // In the midst of others a key asks for nothing, or whoever quotes this page would have the machine ended.
    check("r@1 reboot\r", &[Action::Ask(REBOOT), Action::Cancelled]);
    check("xrreboot\r", &[]);
    check("xppoweroff\r@1x@1ppoweroff\r", &[Action::Ask(OFF), Action::End(OFF)]);
    // Too late, and then it is no answer any more.
    check("r@9@9@3reboot\r", &[Action::Ask(REBOOT), Action::Cancelled, Action::Ask(REBOOT), Action::Cancelled]);
    check("r@9@9reboot\r", &[Action::Ask(REBOOT), Action::End(REBOOT)]);
}

#[test]
fn a_log_is_chosen() {
    check("l1\r", &[Action::AskLog, Action::Log("1".into())]);
    check("lkube-proxy\r", &[Action::AskLog, Action::Log("kube-proxy".into())]);
    check("l@1\r", &[Action::AskLog, Action::Cancelled]);
    check("l\r\n1\r\n", &[Action::AskLog, Action::Log("1".into())]);
    check("l/etc\r", &[Action::AskLog, Action::Cancelled]);
    check(&format!("l{}", "a".repeat(41)), &[Action::AskLog, Action::Cancelled]);
    let names = ["containerd", "dockerd", "kubelet", "kube-proxy"];
    for (typed, want) in [
        ("1", Some("containerd")),
        ("4", Some("kube-proxy")),
        ("0", None),
        ("5", None),
        ("99999999999999999999999", None),
        ("dockerd", Some("dockerd")),
        ("c", Some("containerd")),
        ("kube", None),
        ("kubel", Some("kubelet")),
        ("x", None),
        ("", None),
    ] {
        assert_eq!(chosen(typed, &names), want, "{typed}");
    }
}

#[test]
fn keys_of_several_bytes_are_no_keys() {
    // Arrows, F1 of the kernel's console, F3, Home, the keypad of a terminal in application mode, a report of the cursor's place.
    for text in ["\x1b[A", "\x1b[[A", "\x1bOR", "\x1b[1~", "\x1bOr\x1bOp\x1bOs", "\x1b[24;80R", "\x1bs"] {
        check(text, &[]);
    }
    check("\x1b@1s", &[Action::Status]);
}

#[test]
fn an_owner_turns_keys_off() {
    for text in ["s", "?", "l1\r", "r@1reboot\r", "\r"] {
        assert_eq!(press(text, Allowed::Nothing), [], "{text:?}");
    }
    for allowed in [Allowed::Look, Allowed::LookYet] {
        assert_eq!(press("s@1r", allowed), [Action::Status, Action::Refuse(REBOOT)]);
        assert_eq!(press("p", allowed), [Action::Refuse(OFF)]);
        assert_eq!(press("xp", allowed), []);
    }
    // Between the question and the answer.
    let (keys, _) = Keys::default().press(b'r', Duration::ZERO, Allowed::All);
    let keys = b"reboot".iter().fold(keys, |keys, byte| keys.press(*byte, Duration::ZERO, Allowed::All).0);
    assert_eq!(keys.typed(), Some("reboot"));
    assert_eq!(keys.clone().press(b'\r', Duration::ZERO, Allowed::Look).1, Action::Refuse(REBOOT));
    assert_eq!(keys.press(b'\r', Duration::ZERO, Allowed::Nothing), (Keys::default(), Action::Nothing));
}

#[test]
fn a_line_that_never_rests_is_answered_seldom() {
    let (mut keys, mut answers) = (Keys::default(), 0);
    for tenth in 0..600 {
        let (next, action) = keys.press(b's', Duration::from_millis(tenth * 100), Allowed::All);
        keys = next;
        answers += usize::from(action == Action::Status);
    }
    assert!((20..=26).contains(&answers), "{answers} in a minute");
}

/// Bytes that come near what is a command, and those that do not.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let words = ["r", "p", "\r", "\n", "reboot", "poweroff", "reb", "oot", "\x1b[A", "s", "l", "\x7f", "R", " "];
    let word = prop::sample::select(words.to_vec()).prop_map(|word| word.as_bytes().to_vec());
    let part = prop_oneof![4 => word, 1 => any::<u8>().prop_map(|byte| vec![byte]), 1 => Just(Vec::new())];
    prop::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
}

/// Whether the bytes have a word and the Enter behind it.
fn has_word(bytes: &[u8]) -> bool {
    let text: Vec<u8> = bytes.to_ascii_lowercase();
    [REBOOT, OFF].iter().any(|ending| {
        let word = word(*ending).as_bytes();
        text.windows(word.len() + 1).any(|part| part.starts_with(word) && matches!(part.last(), Some(b'\r' | b'\n')))
    })
}

proptest! {
    #[test]
    fn nothing_ends_the_machine_but_a_word(bytes in noise(), pauses in prop::collection::vec(0_u64..3000, 200)) {
        let (mut keys, mut now, mut seen) = (Keys::default(), Duration::ZERO, Vec::new());
        let mut asked = false;
        for (byte, pause) in bytes.iter().zip(pauses.into_iter().cycle()) {
            now += Duration::from_millis(pause);
            let (next, action) = keys.press(*byte, now, Allowed::All);
            keys = next;
            // As whoever types sees it: what was taken back is not there.
            if matches!(byte, 0x08 | 0x7f) { seen.pop(); } else { seen.push(*byte); }
            asked |= matches!(action, Action::Ask(_));
            if let Action::End(_) = action {
                prop_assert!(asked && has_word(&seen), "{seen:?}");
            }
            prop_assert!(keys.typed().is_none_or(|typed| typed.len() <= super::LONGEST));
        }
    }

    #[test]
    fn whoever_may_look_only_looks(bytes in noise(), all in any::<bool>()) {
        let allowed = if all { Allowed::Look } else { Allowed::LookYet };
        let mut keys = Keys::default();
        for (index, byte) in bytes.iter().enumerate() {
            let (next, action) = keys.press(*byte, Duration::from_millis(700 * index as u64), allowed);
            keys = next;
            prop_assert!(!matches!(action, Action::End(_) | Action::Ask(_)));
        }
    }
}
