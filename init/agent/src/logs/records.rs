//! Turns records of `/dev/kmsg` into what the kernel, init and others said there.
//!
//! Format: Documentation/ABI/testing/dev-kmsg: `priority,sequence,microseconds,flags[,...];text`, lines of a dictionary behind it.
use std::time::Duration;

use kscratch_metadata::without_role;

/// How lines of init's begin (`log::KERNEL_PREFIX` of kscratch-init).
const INIT: &str = "kscratch: ";

/// RFC 5424, 6.2.1, by the words of syslog.conf(5).
const SEVERITIES: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number; those of one boot have no gaps.
    pub sequence: u64,
    /// When, since the kernel's start.
    pub at: Duration,
    /// `kernel`, `init`, or `kmsg` for others.
    pub source: &'static str,
    /// How bad it is. Init's lines have a level that keeps the kernel from printing them, which says nothing.
    pub severity: Option<&'static str>,
    /// What.
    pub text: String,
}

/// Reads a record; `None` for what is none.
pub fn record(bytes: &[u8]) -> Option<Record> {
    let split = bytes.iter().position(|byte| *byte == b';')?;
    let (head, text) = bytes.split_at(split);
    let mut fields = std::str::from_utf8(head).ok()?.split(',');
    let priority: u32 = fields.next()?.parse().ok()?;
    let sequence = fields.next()?.parse().ok()?;
    let at = Duration::from_micros(fields.next()?.parse().ok()?);
    let text = text.get(1..)?.split(|byte| *byte == b'\n').next()?;
    let text = unescaped(text);
    let severity = SEVERITIES.get((priority & 7) as usize).copied();
    // The kernel's own have facility 0 (RFC 5424, 6.2.1), which nobody else is given.
    let (source, severity, text) = match text.strip_prefix(INIT) {
        _ if priority >> 3 == 0 => ("kernel", severity, without_role(&text).into_owned()),
        Some(said) => ("init", None, said.to_owned()),
        None => ("kmsg", severity, text),
    };
    Some(Record { sequence, at, source, severity, text })
}

/// The kernel writes what is not printable ASCII, and the backslash, as `\xNN`.
fn unescaped(text: &[u8]) -> String {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, more)) = rest.split_first() {
        if let Some(byte) = escaped(rest) {
            plain.push(byte);
            rest = rest.get(4..).unwrap_or_default();
        } else {
            plain.push(first);
            rest = more;
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// The byte that a text begins with in that form.
fn escaped(text: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(text.strip_prefix(b"\\x")?.get(..2)?).ok()?;
    digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u8::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    use super::{Record, record, unescaped};

    #[track_caller]
    fn check(text: &str, want: Option<(u64, u64, &'static str, Option<&'static str>, &str)>) {
        let want = want.map(|(sequence, micros, source, severity, text)| Record {
            sequence,
            at: Duration::from_micros(micros),
            source,
            severity,
            text: text.to_owned(),
        });
        assert_eq!(record(text.as_bytes()), want);
    }

    #[test]
    fn records_are_the_kernels_inits_or_others() {
        check(
            "6,339,5140900,-;NET: Registered protocol\n SUBSYSTEM=net\n",
            Some((339, 5_140_900, "kernel", Some("info"), "NET: Registered protocol")),
        );
        check("3,1,7,c;oops", Some((1, 7, "kernel", Some("err"), "oops")));
        check("15,2,7,-;kscratch: phase 01 mounts: start\n", Some((2, 7, "init", None, "phase 01 mounts: start")));
        check("12,3,7,-,caller=T1;docker: x\n", Some((3, 7, "kmsg", Some("warning"), "docker: x")));
        // Secrets of the command line.
        check(
            "5,4,7,-;Command line: a kscratch.role=eA== b",
            Some((4, 7, "kernel", Some("notice"), "Command line: a kscratch.role=… b")),
        );
        // The kernel's, that look like init's.
        check("4,4,7,-;kscratch: x\n", Some((4, 7, "kernel", Some("warning"), "kscratch: x")));
        check(
            "15,5,9,-;kscratch: a\\x5cb \\xe2\\x80\\xa6 \\x0a\\xff\n",
            Some((5, 9, "init", None, "a\\b … \n\u{fffd}")),
        );
        for nothing in ["", "6,1,2", "x,1,2,-;a", "6,x,2,-;a", "6,1,x,-;a", "6;a", "-1,1,2,-;a"] {
            check(nothing, None);
        }
    }

    #[test]
    fn half_an_escape_stays_as_it_is() {
        for text in ["\\", "\\x", "\\x4", "\\xg0", "\\x+1", "\\u0041", "a\\"] {
            assert_eq!(unescaped(text.as_bytes()), text);
        }
    }

    proptest! {
        #[test]
        fn no_record_breaks_it(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = record(&bytes);
            let _ = record(&[b"6,1,2,-;", bytes.as_slice()].concat());
        }

        /// As the kernel escapes (kernel/printk/printk.c, `append_char`).
        #[test]
        fn what_the_kernel_escapes_is_read_back(text in "\\PC{0,40}") {
            let escape = |byte: u8| match byte {
                b' '..127 if byte != b'\\' => char::from(byte).to_string(),
                _ => format!("\\x{byte:02x}"),
            };
            let escaped: String = text.bytes().map(escape).collect();
            prop_assert_eq!(unescaped(escaped.as_bytes()), text);
        }
    }
}
