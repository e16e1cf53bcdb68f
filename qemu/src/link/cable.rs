//! A [`Cable`] joins one machine to the link: it says what becomes of each frame that goes through it, and when.
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::lane::Lane;
use super::queue::Queue;

/// How well the cable of one port works; it counts for both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// Whether anything comes through. The guest's card keeps its carrier: only the frames are gone.
    pub up: bool,
    /// How many of a thousand frames are lost, drawn the same way in every run.
    pub loss: u16,
    /// How much later a frame comes out than it went in.
    pub delay: Duration,
    /// How many kilobits come through a second, each way; 0 for as many as this host can. A frame is lost that would wait for longer
    /// than a second, or behind more than 1024 others.
    pub rate: u32,
}

impl Default for Condition {
    fn default() -> Self {
        Condition { up: true, loss: 0, delay: Duration::ZERO, rate: 0 }
    }
}

/// What went through a port, in frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// From its machine into the link.
    pub sent: u64,
    /// From the link towards its machine.
    pub received: u64,
    /// Lost: the cable is down, lossy or too slow for what comes, or the machine took none.
    pub lost: u64,
}

/// What comes out of a cable next, at its machine's end.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// This frame, now.
    Frame(Arc<[u8]>),
    /// Something at the given time, if nothing comes in before, or nothing as yet.
    Wait(Option<Instant>),
}

/// A cable, and the frames on the way to its machine.
#[derive(Debug)]
pub struct Cable {
    condition: Condition,
    traffic: Traffic,
    dice: u64,
    /// Of the machine's frames.
    outward: Lane,
    /// Of the frames for the machine.
    inward: Lane,
    /// What is still on the cables of its senders. Such a frame takes this cable's time only when it arrives: were it counted before, a
    /// slow sender's would keep all others' off the cable until then.
    coming: Queue,
    /// What is on this cable, or waits for the machine to take it.
    leaving: Queue,
}

impl Cable {
    /// A cable without faults. `dice` says which frames it loses once it is lossy: any number but 0.
    pub fn new(dice: u64) -> Cable {
        Cable {
            condition: Condition::default(),
            traffic: Traffic::default(),
            dice,
            outward: Lane::default(),
            inward: Lane::default(),
            coming: Queue::default(),
            leaving: Queue::default(),
        }
    }

    /// How well it works.
    pub fn condition(&self) -> Condition {
        self.condition
    }

    /// What went through so far.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Sets the condition for what comes from now on, which waits for nothing that came before. What is on the way comes out when it
    /// would have, and so may be overtaken; it is lost only where more than a queue holds is due earlier.
    pub fn set(&mut self, condition: Condition) {
        self.condition = condition;
        (self.outward, self.inward) = (Lane::default(), Lane::default());
    }

    /// Takes a frame of its machine; says when it comes out at the link, or `None` if it is lost.
    pub fn send(&mut self, now: Instant, bytes: usize) -> Option<Instant> {
        self.traffic.sent += 1;
        if !self.passes() {
            return None;
        }
        let through = self.outward.through(self.condition.rate, now, bytes);
        self.traffic.lost += u64::from(through.is_none());
        through.map(|through| through + self.condition.delay)
    }

    /// Takes a frame for its machine, which arrives from its sender's cable at `ready`.
    pub fn take(&mut self, now: Instant, ready: Instant, frame: &Arc<[u8]>) {
        if !self.passes() {
            return;
        }
        let kept = self.coming.push(ready, Arc::clone(frame));
        self.traffic.lost += u64::from(!kept);
        self.arrive(now);
    }

    /// What comes out for the machine. Times may not go back from call to call of this, `send` and `take`.
    pub fn next(&mut self, now: Instant) -> Next {
        self.arrive(now);
        self.leaving.pop(now).map_or_else(|| Next::Wait(self.due()), |(_, frame)| Next::Frame(frame))
    }

    /// When there is something to do next.
    pub fn due(&self) -> Option<Instant> {
        [self.coming.due(), self.leaving.due()].into_iter().flatten().min()
    }

    /// Forgets what is on the way to a machine that is gone.
    pub fn clear(&mut self) {
        self.coming.clear();
        self.leaving.clear();
    }

    /// Lets in, one after the other, what came to the link's end by `now`.
    fn arrive(&mut self, now: Instant) {
        while let Some((ready, frame)) = self.coming.pop(now) {
            let through = self.inward.through(self.condition.rate, ready, frame.len());
            let kept = through.is_some_and(|through| self.leaving.push(through + self.condition.delay, frame));
            // Where this one takes the place of another, that had been counted as received: the sums are right in either case.
            self.traffic.received += u64::from(kept);
            self.traffic.lost += u64::from(!kept);
        }
    }

    /// Whether one frame comes through: it may be lost whatever the time.
    fn passes(&mut self) -> bool {
        let condition = self.condition;
        let passes = condition.up && (condition.loss == 0 || self.roll() >= u64::from(condition.loss));
        self.traffic.lost += u64::from(!passes);
        passes
    }

    /// The next of a fixed row of numbers below 1000 (Marsaglia, "Xorshift RNGs", 2003).
    fn roll(&mut self) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Condition = Condition { up: true, loss: 0, delay: Duration::ZERO, rate: 0 };
    /// A byte a millisecond.
    const SLOW: Condition = Condition { rate: 8, ..GOOD };
    const LATE: Condition = Condition { delay: Duration::from_secs(5), ..GOOD };

    /// What is done to a cable; times in milliseconds, and a frame by its first byte and its length.
    #[derive(Debug, Clone, Copy)]
    enum Do {
        Set(Condition),
        Send(u64, usize, Option<u64>),
        Take(u64, u64, u8, usize),
        Out(u64, u8),
        Wait(u64, Option<u64>),
        Clear,
    }
    use Do::{Clear, Out, Send, Set, Take, Wait};

    #[track_caller]
    fn check(steps: &[Do], traffic: [u64; 3]) {
        let (start, mut cable) = (Instant::now(), Cable::new(1));
        let at = |millis| start + Duration::from_millis(millis);
        for (number, step) in steps.iter().enumerate() {
            match *step {
                Set(condition) => cable.set(condition),
                Send(now, bytes, want) => assert_eq!(cable.send(at(now), bytes), want.map(at), "step {number}"),
                Take(now, ready, first, bytes) => cable.take(at(now), at(ready), &vec![first; bytes].into()),
                Out(now, want) => match cable.next(at(now)) {
                    Next::Frame(frame) => assert_eq!(frame[0], want, "step {number}"),
                    Next::Wait(due) => panic!("step {number}: nothing before {due:?}, now is {:?}", at(now)),
                },
                Wait(now, want) => assert_eq!(cable.next(at(now)), Next::Wait(want.map(at)), "step {number}"),
                Clear => cable.clear(),
            }
        }
        let [sent, received, lost] = traffic;
        assert_eq!(cable.traffic(), Traffic { sent, received, lost }, "{steps:?}");
    }

    #[test]
    fn a_cable_without_faults_keeps_the_order() {
        check(&[Send(0, 1500, Some(0)), Send(0, 60, Some(0)), Wait(0, None)], [2, 0, 0]);
        check(&[Take(0, 0, 1, 1500), Take(0, 0, 2, 60), Take(1, 1, 3, 60), Out(1, 1), Out(1, 2), Out(1, 3)], [0, 3, 0]);
    }

    #[test]
    fn a_delayed_frame_keeps_none_back() {
        // It is delayed by its sender's cable, and then by this one.
        check(
            &[
                Take(0, 5000, 1, 60),
                Wait(0, Some(5000)),
                Take(9, 9, 2, 60),
                Out(9, 2),
                Wait(9, Some(5000)),
                Out(5000, 1),
            ],
            [0, 2, 0],
        );
        check(
            &[Set(LATE), Take(0, 0, 1, 60), Set(GOOD), Take(9, 9, 2, 60), Out(9, 2), Wait(9, Some(5000)), Out(5000, 1)],
            [0, 2, 0],
        );
        check(&[Set(LATE), Send(0, 60, Some(5000)), Set(GOOD), Send(9, 60, Some(9))], [2, 0, 0]);
        // A slow cable is free until a late frame arrives at it.
        check(
            &[
                Set(SLOW),
                Take(0, 5000, 1, 60),
                Take(0, 0, 2, 60),
                Wait(0, Some(60)),
                Out(60, 2),
                Wait(5000, Some(5060)),
            ],
            [0, 2, 0],
        );
        check(
            &[Set(SLOW), Take(0, 100, 1, 60), Take(0, 90, 2, 60), Out(150, 2), Wait(150, Some(210)), Out(210, 1)],
            [0, 2, 0],
        );
    }

    #[test]
    fn a_flooded_cable_loses_what_does_not_fit_and_nothing_more() {
        let flood =
            [Set(SLOW), Send(0, 2000, Some(2000)), Send(0, 60, None), Send(999, 60, None), Send(1000, 60, Some(2060))];
        check(&flood, [4, 0, 2]);
        let flood =
            [Set(SLOW), Take(0, 0, 1, 2000), Take(0, 0, 2, 60), Take(1000, 1000, 3, 60), Out(2000, 1), Out(2060, 3)];
        check(&flood, [0, 2, 1]);
    }

    #[test]
    fn a_cable_that_is_set_anew_forgets_what_it_had_to_do() {
        for (anew, through) in [(GOOD, 1), (Condition { rate: 80, ..GOOD }, 7)] {
            check(&[Set(SLOW), Send(0, 60_000, Some(60_000)), Set(anew), Send(1, 60, Some(through))], [2, 0, 0]);
            let steps =
                [Set(SLOW), Take(0, 0, 1, 60_000), Set(anew), Take(1, 1, 2, 60), Out(through, 2), Out(60_000, 1)];
            check(&steps, [0, 2, 0]);
        }
    }

    #[test]
    fn a_dead_cable_loses_all_and_a_machine_that_is_gone_gets_nothing() {
        let dead = Condition { up: false, ..GOOD };
        check(
            &[Set(dead), Send(0, 60, None), Take(0, 0, 1, 60), Wait(9, None), Set(GOOD), Send(9, 60, Some(9))],
            [2, 0, 2],
        );
        check(&[Take(0, 0, 1, 60), Take(0, 5000, 2, 60), Clear, Wait(9999, None)], [0, 1, 0]);
    }

    #[test]
    fn frames_that_wait_for_their_time_keep_no_place_from_others() {
        let late = std::iter::repeat_n(Take(0, 5000, 1, 60), 1500);
        let steps: Vec<_> = late.chain([Take(1, 1, 2, 60), Out(1, 2), Wait(1, Some(5000))]).collect();
        // The one that is due at once came while 1024 waited, and had the last one's place.
        check(&steps, [0, 1, 1500 - 1023]);
        let late = std::iter::once(Set(LATE)).chain(std::iter::repeat_n(Take(0, 0, 1, 60), 1500));
        let steps: Vec<_> = late.chain([Set(GOOD), Take(1, 1, 2, 60), Out(1, 2), Wait(1, Some(5000))]).collect();
        check(&steps, [0, 1024, 1500 - 1023]);
    }
}
