//! Matches a name against a pattern of a shell, as kmod does it for aliases.

/// `fnmatch(3)` without flags and escapes: `*`, `?`, `[a-z]`, `[!a-z]`.
#[must_use]
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at_pattern, mut at_text) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while at_text < text.len() {
        if pattern.get(at_pattern) == Some(&b'*') {
            star = Some((at_pattern + 1, at_text));
            at_pattern += 1;
            continue;
        }
        match one(&pattern[at_pattern.min(pattern.len())..], text[at_text]) {
            Some(length) => {
                at_pattern += length;
                at_text += 1;
            }
            // Only the last star need give way: what an earlier one could take, the last one can.
            None => match star {
                Some((after, taken)) => {
                    (at_pattern, at_text) = (after, taken + 1);
                    star = Some((after, taken + 1));
                }
                None => return false,
            },
        }
    }
    pattern[at_pattern.min(pattern.len())..].iter().all(|byte| *byte == b'*')
}

/// The length of the pattern's first item where that item takes `byte`.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern.first()? {
        b'?' => Some(1),
        b'[' => {
            let negated = pattern.get(1) == Some(&b'!');
            let start = if negated { 2 } else { 1 };
            // A `]` in the first place stands for itself; a bracket without an end is an ordinary character.
            let Some(end) = (start + 1..pattern.len()).find(|at| pattern[*at] == b']') else {
                return (byte == b'[').then_some(1);
            };
            (in_set(&pattern[start..end], byte) != negated).then_some(end + 1)
        }
        literal => (*literal == byte).then_some(1),
    }
}

fn in_set(mut set: &[u8], byte: u8) -> bool {
    loop {
        match set {
            [] => return false,
            [low, b'-', high, rest @ ..] => {
                if (*low..=*high).contains(&byte) {
                    return true;
                }
                set = rest;
            }
            [literal, rest @ ..] => {
                if *literal == byte {
                    return true;
                }
                set = rest;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, proptest};

    use super::matches;

    #[test]
    fn fnmatch_table() {
        for (pattern, text, want) in [
            ("", "", true),
            ("*", "", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("[0-9a-f]x", "bx", true),
            ("[!0-9]x", "1x", false),
            ("[!0-9]x", "zx", true),
            ("[]]x", "]x", true),
            ("[abc", "[abc", true),
            ("*[12]", "ab3", false),
            ("**a", "a", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), want, "{pattern} on {text}");
        }
    }

    proptest! {
        #[test]
        fn a_star_takes_everything(text: Vec<u8>) {
            prop_assert!(matches(b"*", &text));
            prop_assert!(matches(&[b"*", text.iter().filter(|b| b.is_ascii_alphanumeric()).copied().collect::<Vec<u8>>().as_slice(), b"*"].concat(),
                &text.iter().filter(|b| b.is_ascii_alphanumeric()).copied().collect::<Vec<u8>>()));
        }
    }
}
