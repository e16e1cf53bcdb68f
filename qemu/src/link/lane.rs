//! A [`Lane`] is one direction of a cable: it says when a frame is through at a rate, or that it has to wait too long for that.
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::queue;

/// How long a frame waits for those before it, at the most: the buffer of a real link is finite too, and many hold about a second.
const LONGEST: Duration = Duration::from_secs(1);

/// When each of the frames that came before is through, as long as that is to come.
#[derive(Debug, Default)]
pub struct Lane(VecDeque<Instant>);

impl Lane {
    /// When the last bit of a frame is through that stands at the beginning from `ready` on, at `rate` kilobits a second or, for 0, at
    /// once. `None` where it would wait for longer than a second or for more frames than a [`queue::Queue`] could hold: it is
    /// lost, and takes no time from those after it. No frame may be ready before one that came earlier.
    pub fn through(&mut self, rate: u32, ready: Instant, bytes: usize) -> Option<Instant> {
        // Bits by kilobits a second are milliseconds.
        let Some(micros) = (bytes as u64 * 8 * 1000).checked_div(u64::from(rate)) else { return Some(ready) };
        while self.0.front().is_some_and(|through| *through <= ready) {
            self.0.pop_front();
        }
        let begins = self.0.back().copied().unwrap_or(ready);
        if self.0.len() >= queue::MOST || begins.saturating_duration_since(ready) > LONGEST {
            return None;
        }
        let through = begins + Duration::from_micros(micros);
        self.0.push_back(through);
        Some(through)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: when a frame is ready, in milliseconds, its bytes, and when it is through, if ever.
    #[track_caller]
    fn check(rate: u32, rows: &[(u64, usize, Option<u64>)]) {
        let (start, mut lane) = (Instant::now(), Lane::default());
        let at = |millis| start + Duration::from_millis(millis);
        for (row, (ready, bytes, want)) in rows.iter().enumerate() {
            assert_eq!(lane.through(rate, at(*ready), *bytes), want.map(at), "row {row} at {rate} kbit/s");
        }
    }

    #[test]
    fn frames_follow_each_other_and_none_waits_for_longer_than_a_second() {
        check(0, &[(0, 1500, Some(0)), (0, 60_000, Some(0)), (7, 60, Some(7))]);
        // Eight kilobits are a byte a millisecond.
        check(8, &[(0, 60, Some(60)), (0, 60, Some(120)), (120, 60, Some(180)), (500, 60, Some(560))]);
        check(8, &[(0, 1000, Some(1000)), (0, 60, Some(1060)), (0, 60, None), (59, 60, None), (60, 60, Some(1120))]);
        check(8, &[(0, 60_000, Some(60_000)), (0, 60, None), (58_999, 60, None), (59_000, 60, Some(60_060))]);
    }

    #[test]
    fn no_more_frames_wait_than_a_queue_holds() {
        let (start, mut lane) = (Instant::now(), Lane::default());
        let at = |micros| start + Duration::from_micros(micros);
        // A byte a microsecond.
        for number in 1..=queue::MOST as u64 {
            assert_eq!(lane.through(8000, start, 1), Some(at(number)));
        }
        assert_eq!(lane.through(8000, start, 1), None);
        assert_eq!(lane.through(8000, at(1), 1), Some(at(queue::MOST as u64 + 1)), "one is through");
    }
}
