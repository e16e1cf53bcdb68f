//! Turns what `e2fsck -p` says into one line with counts.
use std::fmt;

/// What was done to a filesystem.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Repairs {
    /// The journal was replayed: it was not unmounted.
    replayed: bool,
    /// Inodes of files that were deleted while somebody had them open.
    orphans: usize,
    /// Everything else, and the first of it in its words.
    faults: usize,
    first: Option<String>,
}

/// How much of its words is told: the rest is of no use on a console.
const WORDS: usize = 160;

impl Repairs {
    /// Reads what it said; it names the filesystem by label or device before each line.
    pub(super) fn of(text: &str) -> Self {
        let mut repairs = Self::default();
        for line in text.lines().map(own_words).filter(|line| !line.is_empty()) {
            let summary = line.ends_with(" blocks") && line.contains(" files");
            if summary || line.ends_with("check forced.") || line.starts_with("e2fsck ") {
                continue;
            }
            if line == "recovering journal" {
                repairs.replayed = true;
            } else if line.contains("orphaned inode") {
                repairs.orphans += 1;
            } else {
                repairs.faults += 1;
                repairs.first.get_or_insert_with(|| shortened(line));
            }
        }
        repairs
    }
}

impl fmt::Display for Repairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |number: usize, one: &str, many: &str| match number {
            0 => None,
            1 => Some(one.to_owned()),
            number => Some(format!("{number} {many}")),
        };
        let parts: Vec<String> = [
            self.replayed.then(|| "its journal was replayed".to_owned()),
            count(self.orphans, "one half-deleted file is gone", "half-deleted files are gone"),
            count(self.faults, "one fault was put right", "faults were put right"),
        ]
        .into_iter()
        .flatten()
        .collect();
        if parts.is_empty() {
            return f.write_str("nothing had to be put right");
        }
        f.write_str(&parts.join(", "))?;
        self.first.as_ref().map_or(Ok(()), |first| write!(f, " ({first})"))
    }
}

/// All that it said, in one line: where it gave up, the reason is somewhere in it.
pub(super) fn in_one_line(text: &str) -> String {
    let told = |line: &&str| !line.is_empty() && !line.ends_with("check forced.") && !line.starts_with("(i.e., ");
    let lines: Vec<&str> = text.lines().map(own_words).filter(told).collect();
    shortened(&lines.join("; "))
}

/// A line without the name before it.
fn own_words(line: &str) -> &str {
    let line = line.trim();
    line.split_once(": ").filter(|(name, _)| !name.contains(' ')).map_or(line, |(_, words)| words.trim())
}

fn shortened(text: &str) -> String {
    let text: String = text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    match text.char_indices().nth(WORDS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::proptest;

    use super::{Repairs, in_one_line};

    #[track_caller]
    fn check(text: &str, want: &str) {
        assert_eq!(Repairs::of(text).to_string(), want);
    }

    #[test]
    fn one_line_says_what_was_done() {
        check("", "nothing had to be put right");
        check("kscratch-state: clean, 11/16384 files, 9513/65536 blocks\n", "nothing had to be put right");
        check(
            "kscratch-state: recovering journal\nkscratch-state: Clearing orphaned inode 313 (uid=0, gid=0, mode=0100644, size=6)\n\
             kscratch-state: clean, 312/16384 files, 10027/65536 blocks\n",
            "its journal was replayed, one half-deleted file is gone",
        );
        check(
            "/dev/vda5 contains a file system with errors, check forced.\n/dev/vda5: Inode 13 ref count is 2, should be 1.  FIXED.\n\
             /dev/vda5: Entry 'f1' in / (2) has deleted/unused inode 310.  CLEARED.\n\
             /dev/vda5: 11/16384 files (0.0% non-contiguous), 9513/65536 blocks\n",
            "2 faults were put right (Inode 13 ref count is 2, should be 1.  FIXED.)",
        );
    }

    #[test]
    fn where_it_gave_up_the_reason_is_told() {
        let text = "kscratch-state was not cleanly unmounted, check forced.\nkscratch-state: Inode 312 has corrupt extent header.\n\n\n\
                    kscratch-state: UNEXPECTED INCONSISTENCY; RUN fsck MANUALLY.\n\t(i.e., without -a or -p options)\n";
        let want = "Inode 312 has corrupt extent header.; UNEXPECTED INCONSISTENCY; RUN fsck MANUALLY.";
        assert_eq!(in_one_line(text), want);
        assert_eq!(in_one_line(&"x".repeat(300)).chars().count(), 161);
    }

    proptest! {
        #[test]
        fn whatever_it_says_is_one_short_line(text in "(\\PC{0,40}[\n\t:]){0,12}") {
            for line in [Repairs::of(&text).to_string(), in_one_line(&text)] {
                assert!(!line.contains('\n') && line.chars().count() < 400, "{line}");
            }
        }
    }
}
