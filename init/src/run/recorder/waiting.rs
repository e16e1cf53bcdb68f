//! Decides when what waits to be recorded goes to the disk: together with what comes within a second, or at once where something went wrong.
use std::time::{Duration, Instant};

/// How long something that was said may wait for more, to share a block with it.
const TOGETHER: Duration = Duration::from_secs(1);
/// How long at least there is between two blocks that are written at once.
const APART: Duration = Duration::from_millis(100);

/// What waits, and since when.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    since: Option<Instant>,
    /// Something of it must be on the disk before the next cut.
    urgent: bool,
    /// When a block was last written.
    written: Option<Instant>,
}

impl Waiting {
    /// Something waits from now on.
    pub(super) fn add(&mut self, urgent: bool, now: Instant) {
        self.since.get_or_insert(now);
        self.urgent |= urgent;
    }

    /// A block was written; something may wait still.
    pub(super) fn wrote(&mut self, now: Instant) {
        self.written = Some(now);
    }

    /// Nothing waits any more.
    pub(super) fn flushed(&mut self) {
        (self.since, self.urgent) = (None, false);
    }

    /// When a block is to be written, if something waits.
    pub(super) fn due(&self) -> Option<Instant> {
        let since = self.since?;
        let together = since + TOGETHER;
        if !self.urgent {
            return Some(together);
        }
        Some(self.written.map_or(since, |written| (written + APART).max(since)).min(together))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Waiting;

    #[test]
    fn what_goes_wrong_waits_for_no_more_than_the_block_before() {
        let start = Instant::now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        let mut waiting = Waiting::default();
        assert_eq!(waiting.due(), None);
        waiting.add(false, at(0));
        assert_eq!(waiting.due(), Some(at(1000)));
        waiting.add(true, at(10));
        // What was said before goes with it.
        assert_eq!(waiting.due(), Some(at(0)));
        waiting.wrote(at(20));
        waiting.flushed();
        assert_eq!(waiting.due(), None);
        // Within the tenth of a second it waits, and is not forgotten however often it is looked at, nor when more comes.
        waiting.add(true, at(50));
        assert_eq!(waiting.due(), Some(at(120)));
        waiting.add(false, at(60));
        assert_eq!(waiting.due(), Some(at(120)));
        waiting.wrote(at(125));
        waiting.flushed();
        waiting.add(false, at(130));
        assert_eq!(waiting.due(), Some(at(1130)));
        // A full block that goes by itself leaves the last of it to wait.
        waiting.add(true, at(140));
        waiting.wrote(at(150));
        assert_eq!(waiting.due(), Some(at(250)));
    }
}
