//! A [`Queue`] gives frames out by the time they are due, in whatever order they came in.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// How many frames wait in one queue; what is more is lost, as in any switch.
pub const MOST: usize = 1024;

/// The frames that wait, [`MOST`] of them at the most.
#[derive(Debug, Default)]
pub struct Queue {
    /// By when it is due, then by the order of coming in: where nothing delays frames, none overtakes another.
    frames: BTreeMap<(Instant, u64), Arc<[u8]>>,
    pushed: u64,
}

impl Queue {
    /// Takes a frame in; `false` where one was lost for want of room. That is the one due last, be it this one or another: frames of
    /// a slow cable that wait for their time keep no place from those that are due now.
    #[must_use]
    pub fn push(&mut self, due: Instant, frame: Arc<[u8]>) -> bool {
        self.frames.insert((due, self.pushed), frame);
        self.pushed += 1;
        self.frames.len() <= MOST || self.frames.pop_last().is_none()
    }

    /// When the next frame is due.
    pub fn due(&self) -> Option<Instant> {
        self.frames.first_key_value().map(|((due, _), _)| *due)
    }

    /// Gives out the next frame, and when it was due, if that is so by `now`.
    pub fn pop(&mut self, now: Instant) -> Option<(Instant, Arc<[u8]>)> {
        let first = self.frames.first_entry().filter(|first| first.key().0 <= now)?;
        let ((due, _), frame) = first.remove_entry();
        Some((due, frame))
    }

    /// Loses all that waits.
    pub fn clear(&mut self) {
        self.frames.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn frame(number: usize) -> Arc<[u8]> {
        number.to_be_bytes().as_slice().into()
    }

    /// Pushes frames that are due at `dues`, in milliseconds, and tells the numbers of those that come out by `now`.
    #[track_caller]
    fn check(dues: &[u64], now: u64, want: &[usize]) {
        let (start, mut queue) = (Instant::now(), Queue::default());
        for (number, due) in dues.iter().enumerate() {
            assert!(queue.push(start + Duration::from_millis(*due), frame(number)));
        }
        let now = start + Duration::from_millis(now);
        let out: Vec<_> = std::iter::from_fn(|| queue.pop(now)).map(|(_, frame)| frame).collect();
        assert_eq!(out, want.iter().map(|number| frame(*number)).collect::<Vec<_>>(), "{dues:?} by {now:?}");
        assert_eq!(queue.frames.len(), dues.len() - want.len());
        assert!(queue.due().is_none_or(|due| due > now));
        queue.clear();
        assert_eq!(queue.due(), None);
    }

    #[test]
    fn frames_come_out_when_they_are_due_and_in_the_order_of_that() {
        check(&[], 9, &[]);
        check(&[5], 4, &[]);
        check(&[5], 5, &[0]);
        check(&[5000, 0, 1], 9, &[1, 2]);
        check(&[5000, 0, 1], 5000, &[1, 2, 0]);
        check(&[3, 2, 1, 0], 2, &[3, 2, 1]);
        check(&[0, 0, 0, 0], 0, &[0, 1, 2, 3]);
        check(&[7, 1, 7, 1, 7], 7, &[1, 3, 0, 2, 4]);
    }

    /// Fills a queue with frames that are due after 10 ms and tells which one more loses.
    #[track_caller]
    fn check_full(due: u64, first: usize, last: usize) {
        let (start, mut queue) = (Instant::now(), Queue::default());
        let at = |millis| start + Duration::from_millis(millis);
        for number in 0..MOST {
            assert!(queue.push(at(10), frame(number)));
        }
        assert!(!queue.push(at(due), frame(MOST)), "one is lost");
        let out: Vec<_> = std::iter::from_fn(|| queue.pop(at(99))).map(|(_, frame)| frame).collect();
        assert_eq!((out.len(), out.first(), out.last()), (MOST, Some(&frame(first)), Some(&frame(last))), "due {due}");
        assert!(queue.push(at(due), frame(0)), "there is room again");
    }

    #[test]
    fn what_is_due_last_is_lost_where_there_is_no_room() {
        check_full(20, 0, MOST - 1);
        check_full(10, 0, MOST - 1);
        check_full(5, MOST, MOST - 2);
    }
}
