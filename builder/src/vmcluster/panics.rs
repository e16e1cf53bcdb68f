//! Tells a kernel's panic that its own restart heals from one that nothing heals.
//!
//! The image's kernels start anew ten seconds after a panic, as on metal. QEMU 7.2's emulated processors now and then stumble over code that the kernel
//! patches while it boots (`Oops: int3`); the next start is a good one.
use std::collections::BTreeMap;
use std::time::Duration;

/// How a phase begins that is a panic's.
const PANIC: &str = "Kernel panic";
/// A kernel that has not started anew by then does not.
const RESTARTS_WITHIN: Duration = Duration::from_secs(60);
/// So many panics of one machine are no accident.
const MOST: u32 = 3;

/// The panics of all machines. Times are since any one moment.
#[derive(Debug, Default)]
pub struct Panics {
    machines: BTreeMap<String, Panicked>,
}

#[derive(Debug, Default)]
struct Panicked {
    times: u32,
    since: Option<Duration>,
}

impl Panics {
    /// Takes what a machine is at; gives why there is no hope for it, if there is none.
    pub fn note(&mut self, machine: &str, phase: &str, now: Duration) -> Option<String> {
        if !phase.contains(PANIC) {
            if let Some(panicked) = self.machines.get_mut(machine) {
                panicked.since = None;
            }
            return None;
        }
        let panicked = self.machines.entry(machine.to_owned()).or_default();
        let since = *panicked.since.get_or_insert_with(|| {
            panicked.times += 1;
            now
        });
        if panicked.times >= MOST {
            return Some(format!("{machine} panicked {} times: {phase}", panicked.times));
        }
        let stays = now.saturating_sub(since) >= RESTARTS_WITHIN;
        stays.then(|| format!("{machine} did not start anew after its panic: {phase}"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Panics;

    #[test]
    fn a_panic_is_an_accident_twice() {
        let mut panics = Panics::default();
        let mut note = |second, phase: &str| panics.note("n1", phase, Duration::from_secs(second));
        let panic = "Kernel panic - not syncing: x";
        assert_eq!(note(0, "kernel"), None);
        assert_eq!((note(1, panic), note(11, panic), note(12, "firmware")), (None, None, None));
        assert_eq!((note(20, panic), note(31, "kernel")), (None, None));
        assert_eq!(note(40, panic), Some(format!("n1 panicked 3 times: {panic}")));
    }

    #[test]
    fn a_kernel_that_stays_down() {
        let mut panics = Panics::default();
        let mut note = |second| panics.note("n1", "Kernel panic", Duration::from_secs(second));
        assert_eq!((note(5), note(64)), (None, None));
        assert_eq!(note(65), Some("n1 did not start anew after its panic: Kernel panic".to_owned()));
    }
}
