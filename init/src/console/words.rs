//! Turns numbers and texts into words for a terminal: plain ASCII, in lines that are cut or wrapped to its width.
use std::time::Duration;

use time::OffsetDateTime;

/// Columns of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Width(usize);

impl Width {
    /// Of a terminal with so many; what says less than 40 or more than 250 of itself is not believed.
    #[must_use]
    pub fn of(columns: usize) -> Self {
        Self(columns.clamp(40, 250))
    }

    /// How many.
    #[must_use]
    pub fn columns(self) -> usize {
        self.0
    }

    /// A text as one line: what is no printable ASCII is a question mark, tabs are spaces, what is too long or blank at the end is left out.
    #[must_use]
    pub fn cut(self, text: &str) -> String {
        let line: String = text.chars().take(self.0).map(printable).collect();
        line.trim_end().to_owned()
    }
}

/// Nothing that is said steers the terminal.
fn printable(character: char) -> char {
    match character {
        '\t' | '\n' | '\r' => ' ',
        ' '..='~' => character,
        _ => '?',
    }
}

/// An entry: the label, then the text in lines of words beside it, `most` of them at most.
#[must_use]
pub fn wrapped(label: &str, text: &str, indent: usize, width: Width, most: usize) -> Vec<String> {
    let room = width.columns().saturating_sub(indent + 1).max(1);
    let text: String = text.chars().map(printable).collect();
    let mut rows: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let mut word = word;
        loop {
            match rows.last_mut() {
                Some(row) if !row.is_empty() && row.len() + 1 + word.len() <= room => {
                    row.push(' ');
                    row.push_str(word);
                    break;
                }
                _ if word.len() <= room => {
                    rows.push(word.to_owned());
                    break;
                }
                // Of ASCII alone, so that any place is one between characters.
                _ => {
                    let (part, rest) = word.split_at(room);
                    rows.push(part.to_owned());
                    word = rest;
                }
            }
        }
    }
    if rows.len() > most {
        rows.truncate(most);
        if let Some(last) = rows.last_mut() {
            last.truncate(room.saturating_sub(4));
            last.push_str(" ...");
        }
    }
    if rows.is_empty() {
        rows.push(String::new());
    }
    let labels = std::iter::once(label).chain(std::iter::repeat(""));
    rows.iter().zip(labels).map(|(row, label)| width.cut(&format!("{label:<indent$} {row}"))).collect()
}

/// How long something takes: exact while it is young, so that a page changes seldom.
#[must_use]
pub fn ago(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds @ 120..=7199 => format!("{} min", seconds / 60),
        seconds @ 7200..=172_799 => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// A certificate's life, in seconds.
#[must_use]
pub fn days(seconds: i64) -> String {
    match seconds {
        ..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// `2026-11-29 05:24 UTC`; what no calendar reaches as a number.
#[must_use]
pub fn date(seconds: i64) -> String {
    match OffsetDateTime::from_unix_timestamp(seconds) {
        Ok(time) => format!("{} {:02}:{:02} UTC", time.date(), time.hour(), time.minute()),
        Err(_) => format!("{seconds} s after 1970"),
    }
}

/// `[  12.345]`, as the line log has it.
#[must_use]
pub fn moment(at: Duration) -> String {
    format!("[{:>4}.{:03}]", at.as_secs(), at.subsec_millis())
}

/// `512 MiB`, `7.4 GiB`.
#[must_use]
pub fn bytes(count: u64) -> String {
    let mib = count >> 20;
    if mib < 1024 {
        return format!("{mib} MiB");
    }
    format!("{}.{} GiB", mib >> 10, ((mib & 1023) * 10) >> 10)
}

/// Rounded up: what is nearly full is not said to have more room than it has.
#[must_use]
pub fn percent(part: u64, whole: u64) -> u64 {
    let (part, whole) = (u128::from(part), u128::from(whole));
    (part * 100).checked_div(whole).map_or(0, |_| u64::try_from((part * 100).div_ceil(whole)).unwrap_or(100).min(100))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::{prop_assert, proptest};

    use super::{Width, ago, bytes, date, days, moment, percent, wrapped};

    #[test]
    fn times() {
        let of = |seconds| ago(Duration::from_secs(seconds));
        let all = [0, 119, 120, 7199, 7200, 172_799, 172_800].map(of);
        assert_eq!(all, ["0 s", "119 s", "2 min", "119 min", "2 h 00 min", "47 h 59 min", "2 d"]);
        assert_eq!([3600, 172_799, 172_800].map(days), ["1 h", "47 h", "2 d"]);
        assert_eq!(date(1_795_000_000), "2026-11-18 11:06 UTC");
        assert_eq!(date(i64::MAX), "9223372036854775807 s after 1970");
        assert_eq!(moment(Duration::from_millis(3142)), "[   3.142]");
    }

    #[test]
    fn sizes() {
        assert_eq!([0, 512 << 20, 1024 << 20, 7577 << 20].map(bytes), ["0 MiB", "512 MiB", "1.0 GiB", "7.3 GiB"]);
        assert_eq!([(0, 0), (0, 5), (1, 1000), (5, 5), (9, 5)].map(|(a, b)| percent(a, b)), [0, 0, 1, 100, 100]);
        assert_eq!(percent(u64::MAX, u64::MAX), 100);
    }

    #[test]
    fn texts_are_wrapped_at_words() {
        let rows = wrapped("boot", "one two three four five six seven eight nine ten", 10, Width::of(40), 9);
        assert_eq!(rows, ["boot       one two three four five six", "           seven eight nine ten"]);
        let long = "x".repeat(70);
        let rows = wrapped("a", &long, 10, Width::of(40), 2);
        assert_eq!(rows, [format!("a          {}", "x".repeat(29)), format!("           {} ...", "x".repeat(25))]);
        assert_eq!(wrapped("a", "", 10, Width::of(40), 2), ["a"]);
        assert_eq!(Width::of(40).cut("caf\u{e9}\x1b[2J\tx \n"), "caf??[2J x");
    }

    proptest! {
        #[test]
        fn no_line_is_too_long_or_steers_a_terminal(label in ".{0,30}", text in ".{0,300}", columns in 0_usize..300) {
            let width = Width::of(columns);
            for line in wrapped(&label, &text, 10, width, 5).iter().chain([&width.cut(&text)]) {
                prop_assert!(line.len() <= width.columns() && line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line:?}");
            }
        }
    }
}
