//! Decides by what the lease says, and for how long it has said so, whether this machine may have the address that masters share.
//!
//! The rules are those of client-go's leader election: nobody compares the clocks of two machines. Whoever waits counts, by its own clock,
//! how long the lease has stood unchanged; whoever holds counts from the moment before it asked for what it was given. So the holder has
//! always let go before another may take.
use std::time::Duration;

/// How long others leave a lease alone that does not change.
pub const LEASE: Duration = Duration::from_secs(15);

/// How long a holder keeps the address without having been able to renew.
pub const HOLD: Duration = Duration::from_secs(10);

/// What the lease says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Who holds it; empty where it was given back.
    pub holder: String,
    /// The object's version: it is another one after every renewal, whatever clock wrote the time into it.
    pub version: String,
}

/// What the API server of this machine says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// It serves, and reaches most of etcd.
    Yes,
    /// It says that it lacks something.
    No,
    /// It did not answer in time, or at all.
    Silent,
}

/// What is to be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// Write oneself into the lease, and have the address then.
    Take,
    /// Write into the lease that one is still there.
    Renew,
    /// Nothing.
    Wait,
    /// Let the address go.
    Drop(String),
}

/// How this machine stands to the lease. Times are since any one moment.
#[derive(Debug)]
pub struct Tenure {
    own: String,
    /// What the lease said last, and since when it has said that. `None` inside: there is no lease.
    seen: Option<(Option<Seen>, Duration)>,
    /// While the address is held: the moment before the last renewal was asked for.
    held: Option<Duration>,
}

impl Tenure {
    /// Knows nothing yet. `own` is who this machine is in the lease; no other one is called so.
    pub fn new(own: &str) -> Self {
        Self { own: own.to_owned(), seen: None, held: None }
    }

    /// The lease was read.
    pub fn observe(&mut self, lease: Option<Seen>, now: Duration) {
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != lease) {
            self.seen = Some((lease, now));
        }
    }

    /// This machine wrote itself into the lease, which is `version` now; it had asked for that at `asked`.
    pub fn renewed(&mut self, version: String, asked: Duration) {
        self.seen = Some((Some(Seen { holder: self.own.clone(), version }), asked));
        self.held = Some(asked);
    }

    /// The address is gone.
    pub fn dropped(&mut self) {
        self.held = None;
    }

    /// Whether this machine has the address.
    pub fn holds(&self) -> bool {
        self.held.is_some()
    }

    /// Until when the address may be kept, while it is held.
    pub fn end(&self) -> Option<Duration> {
        self.held.map(|asked| asked + HOLD)
    }

    /// Who holds the lease, as far as is known.
    pub fn holder(&self) -> Option<&str> {
        let (seen, _) = self.seen.as_ref()?;
        seen.as_ref().map(|seen| seen.holder.as_str())
    }

    /// What is to be done, after the lease was read or could not be.
    pub fn decide(&self, ready: Ready, now: Duration) -> Turn {
        let seen = self.seen.as_ref().map(|(seen, since)| (seen.as_ref(), now.saturating_sub(*since)));
        if let Some(end) = self.end() {
            if now >= end {
                return Turn::Drop(format!("it could not be renewed for {} s", HOLD.as_secs()));
            }
            return match seen {
                Some((Some(seen), _)) if seen.holder == self.own => match ready {
                    Ready::No => Turn::Wait,
                    // Whether a silent one is alive is seen by the renewal itself.
                    Ready::Yes | Ready::Silent => Turn::Renew,
                },
                Some((Some(seen), _)) if seen.holder.is_empty() => {
                    Turn::Drop("somebody gave the lease back".to_owned())
                }
                Some((Some(seen), _)) => Turn::Drop(format!("{} has taken the lease", seen.holder)),
                Some((None, _)) | None => Turn::Drop("the lease is gone".to_owned()),
            };
        }
        let free = match seen {
            // Not read yet.
            None => false,
            Some((None, _)) => true,
            Some((Some(seen), unchanged)) => seen.holder.is_empty() || seen.holder == self.own || unchanged >= LEASE,
        };
        if free && ready == Ready::Yes { Turn::Take } else { Turn::Wait }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Ready, Seen, Tenure, Turn};

    fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    fn held_by(holder: &str, version: &str) -> Option<Seen> {
        Some(Seen { holder: holder.to_owned(), version: version.to_owned() })
    }

    fn dropped(why: &str) -> Turn {
        Turn::Drop(why.to_owned())
    }

    /// Of a machine that does not have the address: what was read when, and what follows at the end of that.
    #[track_caller]
    fn waits(reads: &[(u64, Option<Seen>)], ready: Ready, now: u64, want: Turn) {
        let mut tenure = Tenure::new("m1");
        for (when, lease) in reads {
            tenure.observe(lease.clone(), at(*when));
        }
        assert_eq!(tenure.decide(ready, at(now)), want);
        assert!(!tenure.holds());
    }

    #[test]
    fn who_does_not_have_it() {
        // Unknown is not free.
        waits(&[], Ready::Yes, 100, Turn::Wait);
        waits(&[(0, None)], Ready::Yes, 0, Turn::Take);
        waits(&[(0, held_by("", "7"))], Ready::Yes, 0, Turn::Take);
        for ready in [Ready::No, Ready::Silent] {
            waits(&[(0, None)], ready, 0, Turn::Wait);
            waits(&[(0, held_by("m2", "7")), (60, held_by("m2", "7"))], ready, 60, Turn::Wait);
        }
        // A holder that renews stays one, however long that goes on and whatever its clock says.
        waits(&[(0, held_by("m2", "7")), (14, held_by("m2", "8"))], Ready::Yes, 28, Turn::Wait);
        waits(&[(0, held_by("m2", "7")), (14, held_by("m2", "7"))], Ready::Yes, 14, Turn::Wait);
        waits(&[(0, held_by("m2", "7")), (15, held_by("m2", "7"))], Ready::Yes, 15, Turn::Take);
        waits(&[(0, held_by("m2", "7")), (15, held_by("m3", "8"))], Ready::Yes, 15, Turn::Wait);
        // After a time without an answer the lease has to stand still anew, if it has moved.
        waits(&[(0, held_by("m2", "7")), (90, held_by("m2", "31"))], Ready::Yes, 90, Turn::Wait);
        // One's own from before a start, or whose answer did not come.
        waits(&[(0, held_by("m1", "7"))], Ready::Yes, 0, Turn::Take);
    }

    /// Of a machine that has the address since second 100: what is read later, and what follows.
    #[track_caller]
    fn holds(read: Option<Option<Seen>>, ready: Ready, now: u64, want: Turn) {
        let mut tenure = Tenure::new("m1");
        tenure.renewed("7".to_owned(), at(100));
        if let Some(lease) = read {
            tenure.observe(lease, at(now));
        }
        assert_eq!(tenure.decide(ready, at(now)), want);
    }

    #[test]
    fn who_has_it() {
        holds(None, Ready::Yes, 103, Turn::Renew);
        holds(None, Ready::Silent, 103, Turn::Renew);
        holds(None, Ready::No, 103, Turn::Wait);
        holds(None, Ready::Yes, 109, Turn::Renew);
        for ready in [Ready::Yes, Ready::No, Ready::Silent] {
            holds(None, ready, 110, dropped("it could not be renewed for 10 s"));
            holds(Some(held_by("m2", "8")), ready, 103, dropped("m2 has taken the lease"));
        }
        // A renewal whose answer did not come was written all the same.
        holds(Some(held_by("m1", "8")), Ready::Yes, 106, Turn::Renew);
        holds(Some(held_by("", "8")), Ready::Yes, 103, dropped("somebody gave the lease back"));
        holds(Some(None), Ready::Yes, 103, dropped("the lease is gone"));
    }

    #[test]
    fn the_time_runs_from_before_the_question() {
        let mut tenure = Tenure::new("m1");
        assert_eq!(tenure.end(), None);
        tenure.renewed("7".to_owned(), at(100));
        assert_eq!((tenure.end(), tenure.holder()), (Some(at(110)), Some("m1")));
        tenure.renewed("8".to_owned(), at(104));
        assert_eq!(tenure.end(), Some(at(114)));
        tenure.dropped();
        assert!(!tenure.holds() && tenure.end().is_none());
        // What it had itself it may take again, without waiting.
        assert_eq!(tenure.decide(Ready::Yes, at(200)), Turn::Take);
    }

    /// Two machines and a lease, each message late by up to four seconds, either cut off at any time: never do both have the address.
    #[test]
    fn never_two() {
        for cut in 0..40 {
            let (mut one, mut two) = (Tenure::new("m1"), Tenure::new("m2"));
            // m1's last renewal was asked for at `cut`, and written four seconds later.
            one.renewed("7".to_owned(), at(cut));
            two.observe(held_by("m1", "6"), at(cut + 3));
            let mut now = cut + 4;
            while two.decide(Ready::Yes, at(now)) != Turn::Take {
                two.observe(held_by("m1", "7"), at(now));
                now += 1;
            }
            assert!(at(now) >= one.end().unwrap() + Duration::from_secs(5), "taken at {now}");
        }
    }
}
