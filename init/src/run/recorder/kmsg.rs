//! Turns records of `/dev/kmsg` into entries, of which one boot has a share of the recorder's room.
//!
//! Format: Documentation/ABI/testing/dev-kmsg: `priority,sequence,microseconds,flags[,...];text`, lines of a dictionary behind it.
use std::time::Duration;

use kscratch_metadata::without_role;
use kscratch_recorder::{Entry, What};

use crate::log::KERNEL_PREFIX;

/// Bytes that one boot may take of what the kernel says, below its warnings ...
const NOTICES: usize = 256 << 10;
/// ... with its warnings and errors ...
const WARNINGS: usize = 1 << 20;
/// ... and with what init says: a machine that says the same for weeks must not wipe out what it said at first.
const ALL: usize = 2 << 20;
/// The kernel's levels up to this one are warnings and worse.
const WARNING: u8 = 4;

/// Reads a record.
pub(super) fn entry(record: &[u8]) -> Option<Entry> {
    let text = String::from_utf8_lossy(record);
    let (head, text) = text.split_once(';')?;
    let mut fields = head.split(',');
    let priority: u32 = fields.next()?.parse().ok()?;
    let micros: u64 = fields.nth(1)?.parse().ok()?;
    let text = text.lines().next().unwrap_or_default();
    let what = match text.strip_prefix(KERNEL_PREFIX) {
        // The kernel's own have facility 0 (RFC 5424, 6.2.1).
        Some(said) if priority >> 3 != 0 => What::Said(said.to_owned()),
        _ => What::Kernel((priority & 7) as u8, without_role(text).into_owned()),
    };
    Some(Entry { at: Duration::from_micros(micros), what })
}

/// Whether an entry must be on the disk before the next cut.
pub(super) fn is_urgent(what: &What) -> bool {
    match what {
        What::Kernel(level, _) => *level < WARNING,
        // The start of a phase that never ends is what tells where a boot stopped.
        What::Said(text) if text.starts_with("phase ") => !text.contains(": ok "),
        What::Said(text) => text.contains("failed") || text.starts_with("service ") && !text.ends_with(')'),
        _ => true,
    }
}

/// What one boot has taken of the room.
#[derive(Debug, Default)]
pub(super) struct Share {
    taken: usize,
    told: bool,
}

impl Share {
    /// The entry, if there is room for it; at first what is told of the end of it.
    pub(super) fn of(&mut self, entry: Entry) -> Option<Entry> {
        let (room, len) = match &entry.what {
            What::Kernel(level, text) if *level > WARNING => (NOTICES, text.len()),
            What::Kernel(_, text) => (WARNINGS, text.len()),
            What::Said(text) => (ALL, text.len()),
            _ => return Some(entry),
        };
        if self.taken + len > room {
            let told = std::mem::replace(&mut self.told, true);
            let text = "flight recorder: this boot has taken its share of the room; less is kept from here on";
            return (!told).then(|| Entry { at: entry.at, what: What::Said(text.to_owned()) });
        }
        // The head of an entry takes room too.
        self.taken += len + 11;
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, proptest};

    use super::{ALL, Share, entry, is_urgent};
    use kscratch_recorder::{Entry, What};
    use std::time::Duration;

    #[track_caller]
    fn check(record: &str, want: Option<(u64, What)>) {
        let want = want.map(|(micros, what)| Entry { at: Duration::from_micros(micros), what });
        assert_eq!(entry(record.as_bytes()), want);
    }

    #[test]
    fn records_are_the_kernels_or_inits() {
        let kernel = |level, text: &str| What::Kernel(level, text.into());
        check(
            "6,339,5140900,-;NET: Registered protocol\n SUBSYSTEM=net\n",
            Some((5_140_900, kernel(6, "NET: Registered protocol"))),
        );
        check("15,1,7,-;kscratch: phase 01 mounts: start\n", Some((7, What::Said("phase 01 mounts: start".into()))));
        // A program's words, and the kernel's that look like init's.
        check("11,1,7,-,caller=T1;docker: x\n", Some((7, kernel(3, "docker: x"))));
        check("3,1,7,-;kscratch: x\n", Some((7, kernel(3, "kscratch: x"))));
        check("4,1,9,c;\n", Some((9, kernel(4, ""))));
        check(
            "5,1,9,-;Command line: a kscratch.role=eA== b",
            Some((9, kernel(5, "Command line: a kscratch.role=… b"))),
        );
        for nothing in ["", "6,1,2", "x,1,2,-;a", "6,1,x,-;a", "6;a"] {
            check(nothing, None);
        }
    }

    #[test]
    fn what_goes_wrong_does_not_wait() {
        for text in
            ["phase 02 state: start", "phase 02 state: failed: no", "service kubelet: exit status 1", "boot failed: x"]
        {
            assert!(is_urgent(&What::Said(text.into())), "{text}");
        }
        for text in ["phase 02 state: ok (0.1 s)", "service kubelet: ready (0.4 s)", "machine 12"] {
            assert!(!is_urgent(&What::Said(text.into())), "{text}");
        }
        assert!(is_urgent(&What::Kernel(3, "x".into())) && !is_urgent(&What::Kernel(4, "x".into())));
    }

    #[test]
    fn who_says_too_much_is_told_so_once_and_init_is_heard_longest() {
        let mut share = Share::default();
        let line = |what| Entry { at: Duration::ZERO, what };
        let notice = || line(What::Kernel(6, "x".repeat(989)));
        let taken = (0..1000).filter(|_| share.of(notice()) == Some(notice())).count();
        assert_eq!(taken, 262);
        assert!(share.of(notice()).is_none());
        let warning = line(What::Kernel(4, "w".into()));
        assert_eq!(share.of(warning.clone()), Some(warning));
        let said = || line(What::Said("s".repeat(989)));
        let taken = (0..10_000).filter(|_| share.of(said()).is_some()).count();
        assert!((ALL / 1000 - 270..=ALL / 1000).contains(&taken), "{taken}");
    }

    proptest! {
        #[test]
        fn no_record_breaks_it(record in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = entry(&record);
        }
    }
}
