//! Turns numbers of bytes, and texts that disks hold, into words that any terminal may be shown.

/// Bytes with a binary unit and one decimal, as in `22.0 MiB`.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut value = bytes as f64;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {name}") }
}

/// A text from outside without what a terminal would obey: a question mark stands for it, a blank for a tab.
pub fn shown(text: &str) -> String {
    let tame = |char| if char == '\t' { ' ' } else { '?' };
    text.chars().map(|char| if is_obeyed(char) { tame(char) } else { char }).collect()
}

/// Whether a terminal obeys it rather than shows it: control characters, and what turns the direction of writing around or ends a line.
pub fn is_obeyed(char: char) -> bool {
    let turns = matches!(char, '\u{61C}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    char.is_control() || turns
}

#[cfg(test)]
mod tests {
    use super::{human_bytes, shown};

    #[test]
    fn nothing_from_outside_moves_the_terminal() {
        for (text, want) in [
            ("plain \u{1F980} \u{e4}", "plain \u{1F980} \u{e4}"),
            ("\x1b[2J\r\n\x07", "?[2J???"),
            ("\u{9b}1m\x7f", "?1m?"),
            ("a\tb", "a b"),
            ("\u{202e}cod\u{2069}\u{2028}", "?cod??"),
        ] {
            assert_eq!(shown(text), want);
        }
    }

    #[test]
    fn bytes_are_told_with_one_decimal() {
        for (bytes, want) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (23_037_844, "22.0 MiB"), (1 << 30, "1.0 GiB")]
        {
            assert_eq!(human_bytes(bytes), want);
        }
    }
}
