//! Turns the bytes of a service's log, file after file, into lines that know their boot and where they end.
//!
//! PID 1 puts a line `-- boot BOOT --` before what a boot writes first and at the beginning of each further file (`run/logs.rs` of kscratch-init); it cuts files
//! between two writes, so that a line may begin in one and end in the next.
use std::rc::Rc;

use super::said::LONGEST;

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Its boot, where the log says it.
    pub boot: Option<Rc<str>>,
    /// The line, of one that is too long its beginning; what is no UTF-8 is replaced.
    pub text: String,
    /// Where it ends in its file, its end included.
    pub end: u64,
}

/// What of the line that is not over yet is kept.
#[derive(Debug, Default)]
pub struct Pieces {
    boot: Option<Rc<str>>,
    line: Vec<u8>,
    /// What the file before this one ended with.
    carried: Option<Vec<u8>>,
}

impl Pieces {
    /// Begins at the beginning of a line that is of this boot.
    pub fn of(boot: Option<Rc<str>>) -> Self {
        Self { boot, ..Self::default() }
    }

    /// Goes on in another file.
    pub fn next_file(&mut self) {
        let line = std::mem::take(&mut self.line);
        let carried = self.carried.get_or_insert_default();
        carried.extend_from_slice(&line);
        carried.truncate(LONGEST + 1);
        if carried.is_empty() {
            self.carried = None;
        }
    }

    /// Takes bytes of the file that stand there from `at` on, and gives the lines that they end. Empty ones are left out.
    pub fn feed(&mut self, bytes: &[u8], at: u64, found: &mut Vec<Piece>) {
        let (mut rest, mut at) = (bytes, at);
        while let Some(length) = rest.iter().position(|byte| *byte == b'\n') {
            let (end, more) = rest.split_at(length);
            self.keep(end);
            at = at.saturating_add(length as u64 + 1);
            self.finish(at, found);
            rest = more.get(1..).unwrap_or_default();
        }
        self.keep(rest);
    }

    /// One byte more than is sent, so that it shows that something is left out.
    fn keep(&mut self, bytes: &[u8]) {
        let room = (LONGEST + 1).saturating_sub(self.line.len());
        self.line.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }

    fn finish(&mut self, end: u64, found: &mut Vec<Piece>) {
        let line = std::mem::take(&mut self.line);
        let carried = self.carried.take();
        let Some(boot) = boot(&line) else {
            let mut whole = carried.unwrap_or_default();
            whole.extend_from_slice(&line);
            return self.give(&whole, end, found);
        };
        match carried {
            // The same boot goes on in the next file, and so does its line.
            Some(begun) if self.boot.as_deref() == Some(boot) => self.line = begun,
            Some(begun) => self.give(&begun, end, found),
            None => {}
        }
        if self.boot.as_deref() != Some(boot) {
            self.boot = Some(boot.into());
        }
    }

    fn give(&self, line: &[u8], end: u64, found: &mut Vec<Piece>) {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end();
        if !text.is_empty() {
            found.push(Piece { boot: self.boot.clone(), text: text.to_owned(), end });
        }
    }
}

/// The boot that a mark names.
fn boot(line: &[u8]) -> Option<&str> {
    let name = std::str::from_utf8(line).ok()?.strip_prefix("-- boot ")?.strip_suffix(" --")?;
    let fits = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    (name.len() == 36 && name.bytes().all(fits)).then_some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    use super::{LONGEST, Piece, Pieces};

    const ONE: &str = "11111111-1111-1111-1111-111111111111";
    const TWO: &str = "22222222-2222-2222-2222-222222222222";

    /// What is found in files, as `boot's first letter:text@end`.
    fn found(files: &[&str]) -> Vec<String> {
        let (mut pieces, mut found) = (Pieces::default(), Vec::new());
        for (number, file) in files.iter().enumerate() {
            if number > 0 {
                pieces.next_file();
            }
            pieces.feed(file.as_bytes(), 0, &mut found);
        }
        let show = |piece: &Piece| {
            format!("{}:{}@{}", piece.boot.as_ref().map_or("-", |boot| &boot[..1]), piece.text, piece.end)
        };
        found.iter().map(show).collect()
    }

    fn mark(boot: &str) -> String {
        format!("-- boot {boot} --\n")
    }

    #[test]
    fn lines_are_of_the_boot_before_them() {
        let text = format!("old\n{}one\n\ntwo \r\nhalf\n{}three\nnot yet", mark(ONE), mark(TWO));
        assert_eq!(found(&[&text]), ["-:old@4", "1:one@56", "1:two@63", "1:half@68", "2:three@122"]);
        // Only a whole line is a mark.
        let text = format!("x{}-- boot 1 --\n-- boot {} --\n", mark(ONE), "g".repeat(36));
        assert_eq!(found(&[&text]).len(), 3);
    }

    #[test]
    fn a_line_goes_on_in_the_next_file() {
        let (one, two) = (mark(ONE), mark(TWO));
        let first = format!("{one}a\nbeg");
        assert_eq!(found(&[&first, &format!("{one}un\nc\n")]), ["1:a@50", "1:begun@51", "1:c@53"]);
        // Where a file has no mark, as before there were any.
        assert_eq!(found(&[&first, "un\nc\n"]), ["1:a@50", "1:begun@3", "1:c@5"]);
        // A boot that ended in the middle of a line does not go on with it.
        assert_eq!(found(&[&first, &format!("{two}un\n")]), ["1:a@50", "1:beg@48", "2:un@51"]);
        assert_eq!(found(&[&first, "", &one, &format!("{one}un\n")]), ["1:a@50", "1:begun@51"]);
    }

    #[test]
    fn a_line_without_an_end_takes_bounded_memory() {
        let (mut pieces, mut found) = (Pieces::default(), Vec::new());
        for _ in 0..100 {
            pieces.feed(&[b'x'; 1000], 0, &mut found);
            pieces.next_file();
        }
        pieces.feed(b"\n", 0, &mut found);
        assert_eq!(found.len(), 1);
        assert!(found[0].text.len() > LONGEST);
        assert!(pieces.line.capacity() < 3 * LONGEST);
    }

    proptest! {
        /// However the bytes come, they are the same lines.
        #[test]
        fn lines_do_not_depend_on_how_they_are_read(bytes in prop::collection::vec(any::<u8>(), 0..300), cuts in prop::collection::vec(0..300_usize, 0..5)) {
            let (mut whole, mut all) = (Pieces::default(), Vec::new());
            whole.feed(&bytes, 0, &mut all);
            let (mut parts, mut found, mut at) = (Pieces::default(), Vec::new(), 0);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([bytes.len()]).collect();
            cuts.sort_unstable();
            for cut in cuts {
                parts.feed(&bytes[at..cut], at as u64, &mut found);
                at = cut;
            }
            prop_assert_eq!(found, all);
        }

        /// And whoever goes on at the end of any of them finds the rest.
        #[test]
        fn a_reader_goes_on_at_the_end_of_a_line(text in "([a-z]{0,4}\n|-- boot [12]{36} --\n){0,12}", after in any::<prop::sample::Index>()) {
            let (mut whole, mut all) = (Pieces::default(), Vec::new());
            whole.feed(text.as_bytes(), 0, &mut all);
            if !all.is_empty() {
                let after = after.index(all.len());
                let (last, mut rest) = (&all[after], Vec::new());
                let mut again = Pieces::of(last.boot.clone());
                again.feed(&text.as_bytes()[last.end as usize..], last.end, &mut rest);
                prop_assert_eq!(&rest, &all[after + 1..]);
            }
        }
    }
}
