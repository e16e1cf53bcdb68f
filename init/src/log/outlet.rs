//! An [`Outlet`] hands lines to a terminal as it takes them and keeps the rest for later: whoever speaks never waits for it.
use std::collections::VecDeque;
use std::io::{ErrorKind, Write};

/// Bytes that wait at the most: a line that is held up is not the whole log's place, the disk is.
const ROOM: usize = 256 << 10;

/// A terminal, opened so that it never blocks, and what it did not take yet.
#[derive(Debug)]
pub(super) struct Outlet<W> {
    to: W,
    waiting: VecDeque<u8>,
    left_out: usize,
}

impl<W: Write> Outlet<W> {
    pub(super) fn new(to: W) -> Self {
        Self { to, waiting: VecDeque::new(), left_out: 0 }
    }

    pub(super) fn terminal(&self) -> &W {
        &self.to
    }

    /// Writes whole lines, now or later; leaves them out where too much waits already.
    pub(super) fn say(&mut self, text: &str) {
        // Also until what was left out is told: lines keep their order.
        if self.left_out > 0 || self.waiting.len() + text.len() > ROOM {
            self.left_out += text.lines().count();
        } else {
            self.waiting.extend(text.bytes());
        }
        self.drain();
    }

    /// Whether something waits.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Writes as much of what waits as the terminal takes.
    pub(super) fn drain(&mut self) {
        loop {
            let (part, _) = self.waiting.as_slices();
            if part.is_empty() {
                if self.left_out == 0 {
                    return;
                }
                let told = format!("{} lines are left out here: the console did not take them\n", self.left_out);
                self.left_out = 0;
                self.waiting.extend(told.into_bytes());
                continue;
            }
            match self.to.write(part) {
                Ok(count) if count > 0 => drop(self.waiting.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // It is gone: there is nobody left to tell.
                Ok(_) | Err(_) => {
                    self.waiting.clear();
                    self.left_out = 0;
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, ErrorKind, Write};

    use super::{Outlet, ROOM};

    /// Takes so many bytes, then none.
    #[derive(Default)]
    struct Line {
        taken: Vec<u8>,
        takes: usize,
        gone: bool,
    }

    impl Write for Line {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match (self.gone, self.takes.min(bytes.len())) {
                (true, _) => Err(ErrorKind::BrokenPipe.into()),
                (false, 0) => Err(ErrorKind::WouldBlock.into()),
                (false, count) => {
                    self.takes -= count;
                    self.taken.extend(&bytes[..count]);
                    Ok(count)
                }
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_line_does_not_take_comes_later_and_in_order() {
        let mut outlet = Outlet::new(Line { takes: 6, ..Line::default() });
        outlet.say("one\n");
        assert!(!outlet.is_waiting());
        outlet.say("two\n");
        outlet.say("three\n");
        assert_eq!((outlet.is_waiting(), outlet.to.taken.as_slice()), (true, b"one\ntw".as_slice()));
        outlet.to.takes = 100;
        outlet.drain();
        assert_eq!((outlet.is_waiting(), outlet.to.taken.as_slice()), (false, b"one\ntwo\nthree\n".as_slice()));
    }

    #[test]
    fn a_line_that_is_held_up_costs_bounded_room_and_says_what_it_lost() {
        let mut outlet = Outlet::new(Line::default());
        let line = format!("{}\n", "x".repeat(1023));
        for _ in 0..300 {
            outlet.say(&line);
        }
        outlet.say("short\n");
        assert_eq!(outlet.waiting.len(), ROOM);
        outlet.to.takes = usize::MAX;
        outlet.say("after\n");
        let text = String::from_utf8(outlet.to.taken.clone()).unwrap();
        assert_eq!(text.lines().filter(|line| line.starts_with('x')).count(), ROOM / 1024);
        assert!(text.ends_with("x\n46 lines are left out here: the console did not take them\n"), "{}", text.len());
        outlet.say("next\n");
        assert!(outlet.to.taken.ends_with(b"take them\nnext\n"));
    }

    #[test]
    fn a_line_that_is_gone_is_no_trouble() {
        let mut outlet = Outlet::new(Line { gone: true, ..Line::default() });
        outlet.say("one\n");
        assert!(!outlet.is_waiting());
    }
}
