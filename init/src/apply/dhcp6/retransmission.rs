//! Says when a DHCPv6 message that nobody answers is sent again, and when no more (RFC 8415, 15; the numbers are those of 7.6).
use std::time::Duration;

use crate::apply::dhcp::Jitter;

/// How a kind of message is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    /// IRT: the first wait.
    pub first: Duration,
    /// MRT: no wait is longer; none where that is not bounded.
    pub longest: Option<Duration>,
    /// MRC: how often it is sent at most.
    pub most: Option<u32>,
    /// MRD: for how long it is sent at most.
    pub within: Option<Duration>,
}

const fn pace(first: u64, longest: Option<u64>, most: Option<u32>, within: Option<u64>) -> Pace {
    const fn seconds(seconds: Option<u64>) -> Option<Duration> {
        match seconds {
            Some(seconds) => Some(Duration::from_secs(seconds)),
            None => None,
        }
    }
    Pace { first: Duration::from_secs(first), longest: seconds(longest), most, within: seconds(within) }
}

pub(super) const SOLICIT: Pace = pace(1, Some(3600), None, None);
pub(super) const REQUEST: Pace = pace(1, Some(30), Some(10), None);
pub(super) const CONFIRM: Pace = pace(1, Some(4), None, Some(10));
pub(super) const RENEW: Pace = pace(10, Some(600), None, None);
pub(super) const REBIND: Pace = pace(10, Some(600), None, None);
pub(super) const DECLINE: Pace = pace(1, None, Some(4), None);

/// Where the repetition of one message stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Retransmission {
    pace: Pace,
    /// When the exchange began.
    pub begun: Duration,
    /// When it was sent last.
    pub sent: Duration,
    /// When it is due again.
    pub next: Duration,
    /// RT: the wait until then.
    wait: Duration,
    /// How often it was sent.
    pub times: u32,
}

impl Retransmission {
    /// Of a message that is sent now.
    pub(super) fn begin(pace: Pace, now: Duration, jitter: &mut Jitter) -> Self {
        let wait = spread(pace.first, jitter);
        Self { pace, begun: now, sent: now, next: now + wait, wait, times: 1 }
    }

    /// Of a first solicitation: its wait is not shorter than it says, for servers have just that to answer in (RFC 8415, 18.2.1).
    pub(super) fn soliciting(pace: Pace, now: Duration, jitter: &mut Jitter) -> Self {
        let wait = pace.first + pace.first * (1 + below(jitter, 100)) / 1000;
        Self { pace, begun: now, sent: now, next: now + wait, wait, times: 1 }
    }

    /// The same after it was sent once more.
    pub(super) fn again(&self, now: Duration, jitter: &mut Jitter) -> Self {
        let doubled = self.wait + spread(self.wait, jitter);
        let wait = match self.pace.longest {
            Some(longest) if doubled > longest => spread(longest, jitter),
            _ => doubled,
        };
        Self { sent: now, next: now + wait, wait, times: self.times + 1, ..self.clone() }
    }

    /// When something is due: the next message, or the end.
    pub(super) fn due(&self) -> Duration {
        self.end().map_or(self.next, |end| end.min(self.next))
    }

    /// Whether it is not sent any more.
    pub(super) fn is_over(&self, now: Duration) -> bool {
        self.pace.most.is_some_and(|most| self.times >= most) || self.end().is_some_and(|end| now >= end)
    }

    fn end(&self) -> Option<Duration> {
        self.pace.within.map(|within| self.begun + within)
    }
}

/// RAND: a tenth more or less.
fn spread(wait: Duration, jitter: &mut Jitter) -> Duration {
    wait * (900 + below(jitter, 201)) / 1000
}

fn below(jitter: &mut Jitter, bound: u64) -> u32 {
    u32::try_from(jitter.below(bound)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{CONFIRM, DECLINE, Pace, REBIND, RENEW, REQUEST, Retransmission, SOLICIT};
    use crate::apply::dhcp::Jitter;

    /// Waits of a message that nobody answers, in whole seconds, until it is over or the list is full.
    fn waits(pace: Pace, seed: u64) -> Vec<f64> {
        let mut jitter = Jitter(seed);
        let mut turns = Retransmission::begin(pace, Duration::ZERO, &mut jitter);
        let mut waits = Vec::new();
        while waits.len() < 14 {
            let now = turns.due();
            waits.push((now - turns.sent).as_secs_f64());
            if turns.is_over(now) {
                break;
            }
            turns = turns.again(now, &mut jitter);
        }
        waits
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let doubling = |first: f64, longest: f64, count: usize| {
            let mut want = vec![first];
            while want.len() < count {
                want.push((want[want.len() - 1] * 2.0).min(longest));
            }
            want
        };
        for (pace, want) in [
            (SOLICIT, doubling(1.0, 3600.0, 14)),
            (REQUEST, doubling(1.0, 30.0, 10)),
            (RENEW, doubling(10.0, 600.0, 14)),
            (REBIND, doubling(10.0, 600.0, 14)),
            (DECLINE, doubling(1.0, f64::MAX, 4)),
        ] {
            for seed in 1..50 {
                let got = waits(pace, seed);
                assert_eq!(got.len(), want.len(), "{pace:?}");
                let mut before: Option<f64> = None;
                for (wait, want) in got.iter().zip(&want) {
                    // A tenth of the wait before it, or of the longest.
                    let middle = before.map_or(*want, |before| {
                        let longest = pace.longest.map_or(f64::MAX, |longest| longest.as_secs_f64());
                        if before * 2.1 > longest && (wait - longest).abs() <= longest * 0.1 {
                            longest
                        } else {
                            before * 2.0
                        }
                    });
                    assert!(
                        (wait - middle).abs() <= middle * 0.1 + 1e-6,
                        "{wait} s, about {middle} s are wanted: {got:?}"
                    );
                    before = Some(*wait);
                }
            }
        }
    }

    #[test]
    fn a_confirmation_ends_after_ten_seconds() {
        for seed in 1..50 {
            let sum: f64 = waits(CONFIRM, seed).iter().sum();
            assert!((sum - 10.0).abs() < 1e-6, "{sum}");
        }
    }

    #[test]
    fn servers_have_a_whole_second_for_the_first_solicitation() {
        for seed in 1..200 {
            let turns = Retransmission::soliciting(SOLICIT, Duration::ZERO, &mut Jitter(seed));
            assert!(turns.next > Duration::from_secs(1) && turns.next <= Duration::from_millis(1100), "{turns:?}");
        }
    }
}
