//! A [`Heard`] is what a machine says on its console from a moment on.
use std::thread;
use std::time::{Duration, Instant};

use kscratch_tests::cluster::Cluster;
use regex::Regex;

/// From power on to a phase or a service, under emulation and beside other machines.
const PHASE: Duration = Duration::from_secs(10 * 60);
/// What a boot says once, and first.
pub const BOOTS: &str = r"\] kscratch \S+ in the initramfs";

/// What a machine says since a moment.
pub struct Heard<'a> {
    cluster: &'a Cluster,
    machine: &'a str,
    from: usize,
}

impl Heard<'_> {
    /// From now on.
    pub fn of<'a>(cluster: &'a Cluster, machine: &'a str) -> Heard<'a> {
        Heard { cluster, machine, from: cluster.console(machine).len() }
    }

    /// All of it.
    pub fn said(&self) -> String {
        self.cluster.console(self.machine).get(self.from..).unwrap_or_default().to_owned()
    }

    /// How often it has said something.
    pub fn times(&self, pattern: &str) -> usize {
        Regex::new(pattern).unwrap().find_iter(&self.said()).count()
    }

    /// Waits until it says one of two things; whether it was the first.
    #[track_caller]
    pub fn either(&self, first: &str, second: &str) -> bool {
        let [one, other] = [first, second].map(|pattern| Regex::new(pattern).unwrap());
        let end = Instant::now() + PHASE;
        loop {
            let said = self.said();
            if one.is_match(&said) {
                return true;
            }
            if other.is_match(&said) {
                return false;
            }
            assert!(Instant::now() < end, "{} says neither {first} nor {second}", self.machine);
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until it says something.
    #[track_caller]
    pub fn wait(&self, pattern: &str) {
        assert!(self.either(pattern, pattern));
    }
}
