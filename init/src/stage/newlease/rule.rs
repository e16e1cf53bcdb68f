//! Decides what a lease's address means for a machine that runs, and when that may start anew for it.
use std::net::Ipv4Addr;
use std::time::Duration;

/// How long a machine that has started anew for an address runs before it does so again.
const FIRST: Duration = Duration::from_secs(3600);
/// Further ones take twice as long each, but no longer than this.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What an address that a link got is to the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Nothing was planned with it.
    Nothing,
    /// The machine booted with it.
    Own,
    /// The machine booted with another one, or with none: kubelet, routes and certificates are not right any more.
    Other,
}

/// What the machine was planned with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// The link.
    pub link: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Whether the metadata give it that: a lease's is beside it.
    pub fixed: bool,
}

/// `own` is what the machine was planned with.
pub fn meaning(clustered: bool, own: Option<&Own>, link: &str, address: Ipv4Addr) -> Meaning {
    match own {
        _ if !clustered => Meaning::Nothing,
        Some(own) if own.link != link || own.fixed => Meaning::Nothing,
        Some(own) if own.address == address => Meaning::Own,
        _ => Meaning::Other,
    }
}

/// How long the machine has to have run before it starts anew for an address; `restarts` is how many starts in a row were for that.
pub fn earliest(restarts: u32) -> Duration {
    match restarts.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => FIRST.saturating_mul(1 << doublings.min(10)).min(LONGEST),
    }
}

/// What is known while the machine runs.
#[derive(Debug, Default)]
pub struct State {
    /// How many starts in a row were for an address, this one the last of them.
    pub restarts: u32,
    /// The address that the machine has, where it booted with another one.
    pub other: Option<Ipv4Addr>,
    /// Whether it had another one since this was looked at last.
    moved: bool,
}

/// What to do when the time that [`earliest`] says is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Start anew, with this address.
    Start(Ipv4Addr),
    /// The address changed and changed back: look again after the same time.
    Look,
    /// It was the same all the time: what came before counts no more.
    Forget,
}

impl State {
    /// At the start, after so many for an address.
    pub fn after(restarts: u32) -> Self {
        Self { restarts, ..Self::default() }
    }

    /// Takes an address that is not the one that the machine booted with. Says how long it has to wait with it, at this time since the kernel's start.
    pub fn take(&mut self, other: Ipv4Addr, now: Duration) -> Duration {
        (self.other, self.moved) = (Some(other), true);
        earliest(self.restarts).saturating_sub(now)
    }

    /// The machine has the one that it booted with again, or one that it cannot start with; says whether it had another one before.
    pub fn leave(&mut self) -> bool {
        self.other.take().is_some()
    }

    /// The machine does not have this address any more.
    pub fn lose(&mut self, address: Ipv4Addr) {
        if self.other == Some(address) {
            self.other = None;
        }
    }

    /// The time is over.
    pub fn due(&mut self) -> Due {
        match (self.other, std::mem::take(&mut self.moved)) {
            (Some(other), _) => Due::Start(other),
            (None, true) => Due::Look,
            (None, false) => {
                self.restarts = 0;
                Due::Forget
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::{Due, Meaning, Own, State, earliest, meaning};

    const A: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 10);
    const B: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 11);

    fn minutes(minutes: u64) -> Duration {
        Duration::from_secs(minutes * 60)
    }

    #[test]
    fn what_an_address_means() {
        let own = |fixed| Some(Own { link: "eth0".into(), address: A, fixed });
        for (clustered, own, link, address, want) in [
            (true, own(false), "eth0", A, Meaning::Own),
            (true, own(false), "eth0", B, Meaning::Other),
            (true, own(false), "eth1", B, Meaning::Nothing),
            (true, own(false), "eth1", A, Meaning::Nothing),
            (true, own(true), "eth0", B, Meaning::Nothing),
            (true, own(true), "eth0", A, Meaning::Nothing),
            (true, None, "eth0", A, Meaning::Other),
            (false, own(false), "eth0", B, Meaning::Nothing),
            (false, None, "eth0", A, Meaning::Nothing),
        ] {
            let means = meaning(clustered, own.as_ref(), link, address);
            assert_eq!(means, want, "{clustered} {own:?} {link} {address}");
        }
    }

    #[test]
    fn each_further_start_takes_twice_as_long() {
        let hours: Vec<u64> = (0..9).map(|restarts| earliest(restarts).as_secs() / 3600).collect();
        assert_eq!(hours, [0, 1, 2, 4, 8, 16, 24, 24, 24]);
        assert_eq!(earliest(u32::MAX), earliest(6));
    }

    #[test]
    fn the_first_change_is_taken_up_at_once_and_the_next_ones_wait() {
        assert_eq!(State::after(0).take(B, minutes(3)), Duration::ZERO);
        for (restarts, now, want) in [(1, 3, 57), (1, 59, 1), (1, 60, 0), (1, 61, 0), (2, 61, 59), (5, 0, 960)] {
            assert_eq!(State::after(restarts).take(B, minutes(now)), minutes(want), "{restarts} at {now}");
        }
    }

    #[test]
    fn what_is_due_after_the_time() {
        let mut quiet = State::after(2);
        assert_eq!((quiet.due(), quiet.restarts), (Due::Forget, 0));

        let mut stays = State::after(2);
        stays.take(B, minutes(1));
        assert_eq!((stays.due(), stays.restarts), (Due::Start(B), 2));

        let mut back = State::after(2);
        back.take(B, minutes(1));
        assert!(back.leave() && !back.leave());
        assert_eq!((back.due(), back.restarts), (Due::Look, 2));
        assert_eq!((back.due(), back.restarts), (Due::Forget, 0));

        let mut lost = State::after(2);
        lost.take(B, minutes(1));
        lost.lose(A);
        assert_eq!(lost.other, Some(B));
        lost.lose(B);
        assert_eq!((lost.due(), lost.restarts), (Due::Look, 2));
    }

    /// Every start for an address is written down, so a machine whose address changes every five minutes starts anew as often as this in a week.
    #[test]
    fn an_address_that_flaps_for_ever_makes_no_loop() {
        let (mut clock, mut restarts, mut starts) = (Duration::ZERO, 0, 0);
        while clock < Duration::from_secs(7 * 24 * 3600) {
            let mut state = State::after(restarts);
            let wait = state.take(B, minutes(5));
            clock += minutes(5) + wait;
            assert_eq!(state.due(), Due::Start(B));
            (restarts, starts) = (restarts + 1, starts + 1);
        }
        assert!(starts <= 12, "{starts} starts in a week");
    }
}
