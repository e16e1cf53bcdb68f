//! Adds up how long a boot waited for init itself, and not for a service that was getting ready.
use std::fmt;
use std::time::Duration;

/// Where the boot's time goes. Times are those of the kernel's clock, which starts with the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// When init got the machine from the kernel.
    begun: Duration,
    /// Since when nobody but init is waited for.
    waiting: Option<Duration>,
    own: Duration,
}

/// What came out when the last service was ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// From the kernel's start to init's.
    pub kernel: Duration,
    /// What init took.
    pub own: Duration,
    /// What the services took.
    pub services: Duration,
}

impl Share {
    /// For an init that the kernel started then.
    #[must_use]
    pub fn new(begun: Duration) -> Self {
        Self { begun, waiting: Some(begun), own: Duration::ZERO }
    }

    /// Takes note of whether a service is getting ready from `now` on.
    pub fn note(&mut self, getting_ready: bool, now: Duration) {
        match (self.waiting, getting_ready) {
            (Some(since), true) => {
                self.own += now.saturating_sub(since);
                self.waiting = None;
            }
            (None, false) => self.waiting = Some(now),
            _ => {}
        }
    }

    /// The sums, where the boot ends `now`.
    #[must_use]
    pub fn told(&self, now: Duration) -> Told {
        // What is waited for from the last service's being ready on is nothing of the boot.
        let services = now.saturating_sub(self.begun).saturating_sub(self.own);
        Told { kernel: self.begun, own: self.own, services }
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kernel, own, services) = (self.kernel.as_secs_f64(), self.own.as_secs_f64(), self.services.as_secs_f64());
        write!(f, "init's own share: {own:.3} s (kernel {kernel:.3} s before it, services {services:.3} s)")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Share;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn only_what_nobody_else_is_waited_for_counts() {
        let mut share = Share::new(seconds(3.0));
        share.note(false, seconds(3.5));
        share.note(true, seconds(4.0));
        share.note(true, seconds(6.0));
        // A service is ready, and the next one has to wait for a phase.
        share.note(false, seconds(9.0));
        share.note(false, seconds(9.25));
        share.note(true, seconds(9.5));
        assert_eq!(
            share.told(seconds(30.0)).to_string(),
            "init's own share: 1.500 s (kernel 3.000 s before it, services 25.500 s)"
        );
    }
}
