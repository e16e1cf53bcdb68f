//! A [`Said`] is something that a service, the kernel or init said, and becomes the one line of JSON that servers get.
use std::rc::Rc;

use kscratch_pki::{OffsetDateTime, moment};
use serde::Serialize;

use super::places::Place;

/// Bytes of a message at the most; a datagram holds that even where every one of them is escaped.
pub const LONGEST: usize = 4096;

/// What somebody said.
#[derive(Debug, Clone)]
pub struct Said {
    /// When: of services' lines, when their log was last written to as the line was read.
    pub time: OffsetDateTime,
    /// In which boot, where that is known.
    pub boot: Option<Rc<str>>,
    /// A service, `kernel`, `init`, or `kmsg` for others who speak in the kernel's log.
    pub source: Rc<str>,
    /// How bad it is, where that was said (RFC 5424's severities by syslog's words).
    pub severity: Option<&'static str>,
    /// What.
    pub message: String,
    /// Where it stands; nowhere where `logs` itself says it.
    pub place: Option<Place>,
    /// For which servers it is, by their numbers.
    pub to: Recipients,
    /// For which it was said too early: they are told nothing of what stands up to here.
    pub passed: Recipients,
}

/// A set of servers, by their numbers below eight.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recipients(u8);

impl Recipients {
    /// Those of which it is true.
    pub fn of(mut whether: impl FnMut(usize) -> bool) -> Self {
        Self((0..8).filter(|number| whether(*number)).fold(0, |set, number| set | 1 << number))
    }

    /// Whether it is one of them.
    pub fn has(self, number: usize) -> bool {
        number < 8 && self.0 >> number & 1 == 1
    }
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    host: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    boot: Option<&'a str>,
    source: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    severity: Option<&'a str>,
    message: &'a str,
}

impl Said {
    /// The line with its end.
    pub fn line(&self, host: &str) -> String {
        let line = Line {
            time: to_the_microsecond(self.time),
            host,
            boot: self.boot.as_deref(),
            source: &self.source,
            severity: self.severity,
            message: &short(&self.message),
        };
        // Strings always become JSON.
        let mut text = serde_json::to_string(&line).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// RFC 3339 in UTC with six digits behind the second, so that lines sort as texts.
fn to_the_microsecond(time: OffsetDateTime) -> String {
    let whole = moment(time);
    format!("{}.{:06}Z", whole.trim_end_matches('Z'), time.microsecond())
}

/// At most [`LONGEST`] bytes; what is left out shows.
fn short(text: &str) -> String {
    if text.len() <= LONGEST {
        return text.to_owned();
    }
    let end = (0..=LONGEST - '…'.len_utf8()).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", text.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use kscratch_pki::OffsetDateTime;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::{LONGEST, Recipients, Said};

    fn said(message: &str) -> Said {
        let time = OffsetDateTime::from_unix_timestamp_nanos(1_795_000_000_042_007_999).unwrap();
        Said {
            time,
            boot: Some("b1".into()),
            source: "kubelet".into(),
            severity: None,
            message: message.into(),
            place: None,
            to: Recipients::of(|_| true),
            passed: Recipients::default(),
        }
    }

    #[test]
    fn a_line_is_one_object() {
        let want = "{\"time\":\"2026-11-18T11:06:40.042007Z\",\"host\":\"n1\",\"boot\":\"b1\",\"source\":\"kubelet\",\"message\":\"a \\\"b\\\"\\u001b[0m\"}\n";
        assert_eq!(said("a \"b\"\u{1b}[0m").line("n1"), want);
        let kernel = Said { boot: None, source: "kernel".into(), severity: Some("err"), ..said("x") };
        let want = "{\"time\":\"2026-11-18T11:06:40.042007Z\",\"host\":\"n1\",\"source\":\"kernel\",\"severity\":\"err\",\"message\":\"x\"}\n";
        assert_eq!(kernel.line("n1"), want);
    }

    #[test]
    fn recipients_are_a_set() {
        let some = Recipients::of(|number| number % 2 == 1);
        assert_eq!([0, 1, 2, 7, 8].map(|number| some.has(number)), [false, true, false, true, false]);
    }

    proptest! {
        #[test]
        fn every_message_is_one_line_that_a_datagram_holds(message in any::<String>(), times in 1..400_usize, host in "[a-z]{1,63}") {
            let line = said(&message.repeat(times)).line(&host);
            let whole = line.len() < 65_000 && line.ends_with("}\n") && line.matches('\n').count() == 1;
            prop_assert!(whole, "{}", line);
            let read: serde_json::Value = serde_json::from_str(&line).unwrap();
            let read = read["message"].as_str().unwrap();
            prop_assert!(read.len() <= LONGEST);
            prop_assert_eq!(read.strip_suffix('…').is_some_and(|read| message.repeat(times).starts_with(read)) || read == message.repeat(times), true);
        }
    }
}
