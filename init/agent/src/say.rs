//! Turns what the agent has to say into lines on its standard output, which PID 1 stamps and keeps.
use std::error::Error;
use std::fmt::Display;
use std::io::Write as _;

use kscratch_pki::{OffsetDateTime, moment};
use kube::runtime::watcher;

/// How many letters of a stranger's words are told.
const LONGEST: usize = 300;

/// Tells one line.
pub fn line(text: impl Display) {
    // Where nobody reads any more there is nobody to tell that to.
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Tells why the agent ends, on standard error.
pub fn fault(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// What a stranger says, fit for a line of ours: he may send megabytes, and lines that look like somebody else's.
pub fn short(text: &str) -> String {
    let mut letters = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    let mut short: String = letters.by_ref().take(LONGEST).collect();
    if letters.next().is_some() {
        short.push('…');
    }
    short
}

/// An error and its causes in one line; a cause that the text before it has said already is left out.
pub fn words(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let more = own_words(error);
        if text.is_empty() {
            text = more;
        } else if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = cause(error);
    }
    // The TLS library ends some with the address of its manual.
    let text = text.split(": https://docs.rs/").next().unwrap_or_default();
    dated(&text.replace('\n', " "))
}

/// The TLS library tells the times of a certificate that is not valid now as seconds since 1970.
fn dated(text: &str) -> String {
    const CLOCK: &str = ": verification time ";
    const BOUNDS: [(&str, &str); 2] = [
        (" (UNIX), but certificate is not valid after ", "it has ended on"),
        (" (UNIX), but certificate is not valid before ", "it begins on"),
    ];
    let read = |(bound, words): (&str, &str)| {
        let (before, rest) = text.split_once(CLOCK)?;
        let (clock, rest) = rest.split_once(bound)?;
        let (time, rest) = rest.split_once(" (")?;
        let (_, after) = rest.split_once(')')?;
        let at = |seconds: &str| Some(moment(OffsetDateTime::from_unix_timestamp(seconds.parse().ok()?).ok()?));
        Some(format!("{before}: {words} {}, and the clock says {}{after}", at(time)?, at(clock)?))
    };
    BOUNDS.into_iter().find_map(read).unwrap_or_else(|| text.to_owned())
}

/// What an error itself says. Those of the library repeat their causes, and say an API server's answer as its fields.
fn own_words(error: &(dyn Error + 'static)) -> String {
    if let Some(kube::Error::Api(status)) = error.downcast_ref() {
        return if status.message.is_empty() { format!("status {}", status.code) } else { status.message.clone() };
    }
    if let Some(kube::Error::Service(_)) = error.downcast_ref() {
        return "the API server cannot be reached".to_owned();
    }
    match error.downcast_ref() {
        Some(watcher::Error::InitialListFailed(_)) => "listing failed".to_owned(),
        Some(watcher::Error::WatchStartFailed(_) | watcher::Error::WatchFailed(_)) => "the watch failed".to_owned(),
        Some(watcher::Error::WatchError(status)) => format!("the watch was refused: {}", status.message),
        _ => error.to_string(),
    }
}

/// What is behind an error; an answer says everything itself.
fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref() {
        Some(kube::Error::Api(_)) => None,
        _ => error.source(),
    }
}

#[cfg(test)]
mod tests {
    use super::{LONGEST, short, words};

    #[test]
    fn strangers_have_one_line() {
        assert_eq!(short("node n1 (ä)"), "node n1 (ä)");
        assert_eq!(short("n1\nservice kubelet: ready\r\u{1b}[2J\0"), "n1 service kubelet: ready  [2J ");
        let long = "ä".repeat(LONGEST);
        assert_eq!(short(&long), long);
        assert_eq!(short(&format!("{long}b")), format!("{long}…"));
    }

    #[test]
    fn a_cause_is_said_once() {
        let plain = anyhow::anyhow!("connection refused").context("connecting").context("asking: connecting");
        assert_eq!(words(plain.as_ref()), "asking: connecting: connection refused");
    }

    #[test]
    fn times_of_certificates_are_told_as_times() {
        use rustls::CertificateError::{ExpiredContext, NotValidYetContext};
        let at = |seconds| rustls::pki_types::UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        for (error, want) in [
            (
                ExpiredContext { time: at(1_795_000_000), not_after: at(1_790_000_000) },
                "invalid peer certificate: certificate expired: it has ended on 2026-09-21T14:13:20Z, and the clock says 2026-11-18T11:06:40Z",
            ),
            (
                NotValidYetContext { time: at(3), not_before: at(1_795_000_000) },
                "invalid peer certificate: certificate not valid yet: it begins on 2026-11-18T11:06:40Z, and the clock says 1970-01-01T00:00:03Z",
            ),
        ] {
            assert_eq!(words(&rustls::Error::InvalidCertificate(error)), want);
        }
        let far = "certificate expired: verification time 1 (UNIX), but certificate is not valid after 99999999999999999999 (x)";
        assert_eq!(words(anyhow::anyhow!(far).as_ref()), far);
    }

    #[test]
    fn an_answer_is_its_message() {
        let status = kube::core::Status::failure("nodes is forbidden", "Forbidden").with_code(403);
        let error = kube::runtime::watcher::Error::InitialListFailed(kube::Error::Api(status.boxed()));
        assert_eq!(words(&error), "listing failed: nodes is forbidden");
    }
}
