//! Decides by its answers whether a service that was ready hangs.
use std::time::Duration;

/// A service is asked this often in the time within which it has to answer, …
const TIMES: u32 = 10;
/// … and its silence is told after this part of it.
const TOLD: u32 = 5;

/// The pause between two questions.
pub(super) fn pause(within: Duration) -> Duration {
    within / TIMES
}

/// What was heard of a service since it is ready.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Health {
    silent: Option<Duration>,
    told: bool,
}

/// What follows from no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// It may be busy.
    Borne,
    /// A person is told, once.
    Told,
    /// It does nothing for anybody any more.
    Hangs,
}

impl Health {
    /// It has answered; says whether its silence was told.
    pub(super) fn answered(&mut self) -> bool {
        std::mem::take(self).told
    }

    /// It has not.
    pub(super) fn silent(&mut self, now: Duration, within: Duration) -> Silence {
        let lasts = now.saturating_sub(*self.silent.get_or_insert(now));
        if lasts >= within {
            Silence::Hangs
        } else if lasts >= within / TOLD && !std::mem::replace(&mut self.told, true) {
            Silence::Told
        } else {
            Silence::Borne
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Health, Silence};

    #[test]
    fn silence_is_borne_told_and_ended() {
        let (mut health, within) = (Health::default(), Duration::from_secs(300));
        let mut at = |seconds: u64| health.silent(Duration::from_secs(seconds), within);
        let said: Vec<Silence> = [1000, 1030, 1059, 1060, 1090, 1299, 1300].map(&mut at).into();
        use Silence::{Borne, Hangs, Told};
        assert_eq!(said, [Borne, Borne, Borne, Told, Borne, Borne, Hangs]);
        assert!(health.answered());
        assert!(!health.answered());
        assert_eq!(health.silent(Duration::from_secs(2000), within), Borne);
    }
}
