//! Turns what the agent has to say into lines on its standard output, which PID 1 stamps and keeps.
use std::error::Error;
use std::fmt::Display;
use std::io::Write as _;

/// Tells one line.
pub fn line(text: impl Display) {
    // Where nobody reads any more there is nobody to tell that to.
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Tells why the agent ends, on standard error.
pub fn fault(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// An error and its causes in one line; a cause that the text before it has said already is left out.
pub fn words(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn a_cause_is_said_once() {
        let plain = anyhow::anyhow!("connection refused").context("connecting").context("asking: connecting");
        assert_eq!(words(plain.as_ref()), "asking: connecting: connection refused");
    }
}
