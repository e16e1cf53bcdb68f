//! Turns lines into what a VT100 has to be sent to show them, given what it shows already: nothing where nothing changed.
use std::collections::VecDeque;
use std::time::Duration;

use super::words::{Width, moment};

/// Rows and columns of a screen that does not say.
const COMMON: (usize, usize) = (25, 80);
/// A larger one is not believed.
const LARGEST: (usize, usize) = (150, 250);
/// Rows that the last lines of the log get at least, with their heading: a page that leaves less is cut.
const LOG_LEAST: usize = 4;

/// A screen's rows and columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
}

impl Size {
    /// As a terminal tells it (TIOCGWINSZ): zeros where it does not know.
    #[must_use]
    pub fn of(rows: u16, columns: u16) -> Self {
        let or = |told: u16, common, largest| if told == 0 { common } else { usize::from(told).min(largest) };
        Self { rows: or(rows, COMMON.0, LARGEST.0), columns: or(columns, COMMON.1, LARGEST.1) }
    }
}

/// Rows that a page has on a screen, beside a question of so many lines.
#[must_use]
pub fn room(size: Size, question: usize) -> usize {
    size.rows.saturating_sub(LOG_LEAST + question)
}

/// Puts a page together: the lines, the last lines of the log below them, and a question in the last rows.
#[must_use]
pub fn compose(
    mut lines: Vec<String>,
    log: &VecDeque<(Duration, String)>,
    keys: &str,
    question: &[String],
    size: Size,
) -> Vec<String> {
    let width = Width::of(size.columns);
    lines.truncate(room(size, question.len()));
    let heading = format!("---- log {keys}");
    lines.push(width.cut(&format!("{heading:-<columns$}", columns = size.columns)));
    let rows = size.rows.saturating_sub(question.len());
    let last = log.iter().skip(log.len().saturating_sub(rows.saturating_sub(lines.len())));
    lines.extend(last.map(|(at, text)| width.cut(&format!("{} {text}", moment(*at)))));
    lines.resize(rows, String::new());
    lines.extend(question.iter().map(|line| width.cut(line)));
    // A narrow screen is no narrower for being small.
    lines.iter_mut().for_each(|line| line.truncate(size.columns));
    lines.truncate(size.rows);
    lines
}

/// What a screen shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Screen {
    shown: Option<(Size, Vec<String>)>,
}

impl Screen {
    /// Somebody else wrote to it: the next page is drawn whole.
    pub fn torn(&mut self) {
        self.shown = None;
    }

    /// What to send. The first line stands reversed: it is the heading.
    pub fn draw(&mut self, lines: Vec<String>, size: Size) -> Vec<u8> {
        let known = self.shown.as_ref().filter(|(shown, _)| *shown == size).map(|(_, lines)| lines.as_slice());
        let mut sent = String::new();
        if known.is_none() {
            // No blinking cursor (DECTCEM), plain characters, from the first place on, and nothing of before.
            sent.push_str("\x1b[?25l\x1b[m\x1b[H\x1b[J");
        }
        for (row, line) in lines.iter().enumerate() {
            if known.map_or_else(String::new, |known| known.get(row).cloned().unwrap_or_default()) == *line {
                continue;
            }
            sent.push_str(&format!("\x1b[{};1H", row + 1));
            if row == 0 {
                sent.push_str(&format!("\x1b[7m{line:<columns$}\x1b[m", columns = size.columns));
            } else {
                sent.push_str(line);
                // Behind the last column there is nothing to clear, and the cursor still stands on that.
                if line.len() < size.columns {
                    sent.push_str("\x1b[K");
                }
            }
        }
        self.shown = Some((size, lines));
        sent.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Duration;

    use proptest::prelude::{prop, prop_assert, proptest};

    use super::{Screen, Size, compose};

    /// What a terminal that knows these sequences shows: home, place, clear to the end of the line and of the screen, attributes.
    fn shown(screen: &mut [String], sent: &[u8], columns: usize) {
        let (mut row, mut column, mut bytes) = (0, 0, sent.iter().copied());
        while let Some(byte) = bytes.next() {
            if byte != 0x1b {
                assert!((b' '..=b'~').contains(&byte), "{byte}");
                assert!(column < columns, "behind the last column");
                let line = &mut screen[row];
                while line.len() <= column {
                    line.push(' ');
                }
                line.replace_range(column..=column, &char::from(byte).to_string());
                column += 1;
                continue;
            }
            assert_eq!(bytes.next(), Some(b'['));
            let mut parameters = String::new();
            let last = loop {
                match bytes.next().unwrap() {
                    last @ b'@'..=b'~' => break last,
                    byte => parameters.push(char::from(byte)),
                }
            };
            match (last, parameters.as_str()) {
                (b'H', "") => (row, column) = (0, 0),
                (b'H', place) => {
                    let (down, along) = place.split_once(';').unwrap();
                    (row, column) = (down.parse::<usize>().unwrap() - 1, along.parse::<usize>().unwrap() - 1);
                }
                (b'K', "") => screen[row].truncate(column),
                (b'J', "") => screen.iter_mut().for_each(String::clear),
                (b'm', "" | "7") | (b'l', "?25") => {}
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_did_not_change_is_not_sent() {
        let size = Size::of(25, 80);
        let mut screen = Screen::default();
        let page = |third: &str| vec!["head".to_owned(), "one".into(), third.into()];
        let first = screen.draw(page("two"), size);
        assert!(first.starts_with(b"\x1b[?25l\x1b[m\x1b[H\x1b[J\x1b[1;1H\x1b[7mhead  "));
        assert!(first.ends_with(b"\x1b[2;1Hone\x1b[K\x1b[3;1Htwo\x1b[K"));
        assert!(screen.draw(page("two"), size).is_empty());
        assert_eq!(screen.draw(page("three"), size), b"\x1b[3;1Hthree\x1b[K");
        assert_eq!(screen.draw(page(""), size), b"\x1b[3;1H\x1b[K");
        screen.torn();
        assert!(screen.draw(page(""), size).starts_with(b"\x1b[?25l"));
        assert!(screen.draw(page(""), Size::of(50, 80)).starts_with(b"\x1b[?25l"), "the screen has another size");
    }

    #[test]
    fn a_page_has_the_log_below_and_a_question_last() {
        let log: VecDeque<(Duration, String)> =
            (0..9).map(|second| (Duration::from_secs(second), format!("line {second}"))).collect();
        let lines = || vec!["head".to_owned(), "boot".into()];
        let page = compose(lines(), &log, "", &["sure?".to_owned()], Size { rows: 7, columns: 40 });
        let rule = format!("---- log {}", "-".repeat(31));
        let tail = ["[   6.000] line 6", "[   7.000] line 7", "[   8.000] line 8"];
        assert_eq!(page, [&["head", "boot", &rule], tail.as_slice(), &["sure?"]].concat());
        let cut = compose(lines(), &log, "", &[], Size { rows: 5, columns: 40 });
        assert_eq!((cut.len(), cut[0].as_str(), cut[1].as_str()), (5, "head", rule.as_str()));
        assert_eq!(Size::of(0, 0), Size { rows: 25, columns: 80 });
        assert_eq!(Size::of(1000, 1000), Size { rows: 150, columns: 250 });
    }

    proptest! {
        #[test]
        fn a_screen_shows_the_page(
            pages in prop::collection::vec((prop::collection::vec("[ -~]{0,60}", 0..30), ".{0,90}"), 1..8),
            rows in 1_u16..60, columns in 1_u16..140,
        ) {
            let size = Size::of(rows, columns);
            let mut screen = Screen::default();
            let mut terminal = vec![String::new(); size.rows];
            for (lines, text) in pages {
                let log = VecDeque::from([(Duration::ZERO, text.clone())]);
                let page = compose(lines, &log, "keys", std::slice::from_ref(&text), size);
                prop_assert!(page.len() <= size.rows && page.iter().all(|line| line.len() <= size.columns));
                shown(&mut terminal, &screen.draw(page.clone(), size), size.columns);
                for (row, line) in terminal.iter().enumerate() {
                    let want = page.get(row).map_or("", String::as_str);
                    prop_assert!(line.trim_end() == want.trim_end(), "{row}: {line:?} {want:?}");
                }
            }
        }
    }
}
