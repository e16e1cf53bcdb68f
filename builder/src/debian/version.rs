//! Two Debian version strings become their order, as Debian Policy 5.6.12 has it.
use std::cmp::Ordering;

/// Which of two versions is newer.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (epoch_a, upstream_a, revision_a) = split(a);
    let (epoch_b, upstream_b, revision_b) = split(b);
    number(epoch_a, epoch_b).then_with(|| part(upstream_a, upstream_b)).then_with(|| part(revision_a, revision_b))
}

/// `[epoch:]upstream[-revision]`; what is missing counts as 0.
fn split(version: &str) -> (&str, &str, &str) {
    let (epoch, rest) = version.split_once(':').unwrap_or(("0", version));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, "0"));
    (epoch, upstream, revision)
}

/// Compares runs of other characters and runs of digits in turn.
fn part(mut a: &str, mut b: &str) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        let (text_a, rest_a) = run(a, |c| !c.is_ascii_digit());
        let (text_b, rest_b) = run(b, |c| !c.is_ascii_digit());
        let (digits_a, rest_a) = run(rest_a, |c| c.is_ascii_digit());
        let (digits_b, rest_b) = run(rest_b, |c| c.is_ascii_digit());
        match text(text_a, text_b).then_with(|| number(digits_a, digits_b)) {
            Ordering::Equal => (a, b) = (rest_a, rest_b),
            unequal => return unequal,
        }
    }
    Ordering::Equal
}

fn run(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

/// Letters sort before everything else, the end before letters, and `~` before even the end.
fn text(a: &str, b: &str) -> Ordering {
    let weight = |byte: Option<u8>| match byte {
        Some(b'~') => -1,
        None => 0,
        Some(letter) if letter.is_ascii_alphabetic() => i32::from(letter),
        Some(other) => i32::from(other) + 256,
    };
    let (mut a, mut b) = (a.bytes(), b.bytes());
    loop {
        match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (from_a, from_b) => match weight(from_a).cmp(&weight(from_b)) {
                Ordering::Equal => {}
                unequal => return unequal,
            },
        }
    }
}

/// Numbers of any length.
fn number(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::compare;
    use proptest::prelude::{ProptestConfig, proptest};
    use std::cmp::Ordering;
    use std::process::Command;

    /// Asks dpkg, the reference.
    fn reference(a: &str, b: &str) -> Ordering {
        let asked = |relation: &str| {
            let status = Command::new("dpkg").args(["--compare-versions", a, relation, b]).status();
            status.expect("dpkg is needed for this test: apt-get install dpkg").success()
        };
        match (asked("lt"), asked("gt")) {
            (true, _) => Ordering::Less,
            (_, true) => Ordering::Greater,
            _ => Ordering::Equal,
        }
    }

    #[test]
    fn known_orders() {
        for (a, b) in [
            ("1.0~rc1-1", "1.0-1"),
            ("26.1.5+dfsg1-9", "26.1.5+dfsg1-9+deb13u1"),
            ("1.4.8-2", "1:0.1-1"),
            ("2.9", "2.10"),
            ("6.12.107-1", "6.12.117-1"),
            ("1.0a", "1.0+"),
            ("1-1~bpo", "1-1"),
        ] {
            assert_eq!(compare(a, b), Ordering::Less, "{a} {b}");
            assert_eq!(compare(b, a), Ordering::Greater, "{b} {a}");
            assert_eq!(reference(a, b), Ordering::Less, "{a} {b}");
        }
        assert_eq!(compare("0:1.00-0", "1.0"), Ordering::Equal);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn as_dpkg_orders(a in "[0-2][0-2.a+~]{0,4}(-[0-2a~]{1,2})?", b in "[0-2][0-2.a+~]{0,4}(-[0-2a~]{1,2})?") {
            assert_eq!(compare(&a, &b), reference(&a, &b), "{} {}", a, b);
        }
    }
}
