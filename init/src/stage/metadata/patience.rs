//! Decides how soon a server that has no metadata yet is asked again, and which of the troubles with it are told.
use std::time::Duration;

/// The first pause between two attempts, and the longest. A switch port that forwards half a minute late, and a server that starts with the rest of its
/// rack, are to cost no more than that.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long the same trouble, and any other one, is not told again: it may last for days.
const SAME: Duration = Duration::from_secs(600);
const OTHER: Duration = Duration::from_secs(60);

/// What was tried and told so far.
#[derive(Debug, Default)]
pub(super) struct Patience {
    attempts: u32,
    told: Option<(String, Duration)>,
}

impl Patience {
    /// Takes a trouble, and says whether a person is told.
    pub(super) fn tells(&mut self, words: &str, now: Duration) -> bool {
        let tells = self.told.as_ref().is_none_or(|(before, at)| {
            let quiet = if before == words { SAME } else { OTHER };
            now.saturating_sub(*at) >= quiet
        });
        if tells {
            self.told = Some((words.to_owned(), now));
        }
        tells
    }

    /// The pause before the next attempt.
    pub(super) fn pause(&mut self) -> Duration {
        let pause = PAUSE.saturating_mul(1 << self.attempts.min(8)).min(LONGEST_PAUSE);
        self.attempts = self.attempts.saturating_add(1);
        pause
    }

    /// A link has an address now: that nobody was reached before says nothing.
    pub(super) fn begin_anew(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Patience;

    #[test]
    fn pauses_grow_to_half_a_minute_and_no_further() {
        let mut patience = Patience::default();
        let mut pauses = |count: usize| -> Vec<u64> { (0..count).map(|_| patience.pause().as_secs()).collect() };
        assert_eq!(pauses(8), [1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(pauses(10_000).last(), Some(&30));
        patience.begin_anew();
        assert_eq!(patience.pause(), Duration::from_secs(1));
    }

    #[test]
    fn a_trouble_is_told_at_once_and_seldom_then() {
        let mut patience = Patience::default();
        for (at, words, want) in [
            (5, "no route", true),
            (6, "no route", false),
            (30, "refused", false),
            (64, "refused", false),
            (65, "refused", true),
            (124, "no route", false),
            (664, "refused", false),
            (665, "refused", true),
            (725, "answers 503", true),
        ] {
            assert_eq!(patience.tells(words, Duration::from_secs(at)), want, "{words} at {at}");
        }
    }
}
