//! Decides which links' leases the boot waits for, and when it has waited enough for them.
use std::collections::BTreeSet;

use crate::plan::{Phase, Step};

/// Whom a phase waits for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Awaited<'a> {
    /// Links with DHCP, and with DHCPv6.
    four: BTreeSet<&'a str>,
    six: BTreeSet<&'a str>,
    /// Whether one of IPv4 is waited for, of whichever link that has none.
    pub any: bool,
}

impl<'a> Awaited<'a> {
    /// A phase waits for the leases that it asks for itself: one that asks for none waits for nobody, whatever is asked for already.
    pub fn of(phase: &'a Phase) -> Self {
        let mut awaited = Self::default();
        for step in &phase.steps {
            match step {
                Step::Dhcp { link, optional: false, .. } => _ = awaited.four.insert(link),
                Step::Dhcp6 { link, optional: false } => _ = awaited.six.insert(link),
                Step::AnyLease => awaited.any = true,
                _ => {}
            }
        }
        awaited
    }

    /// Whether a link's lease of this family is waited for by itself.
    pub fn names(&self, link: &str, v4: bool) -> bool {
        if v4 { self.four.contains(link) } else { self.six.contains(link) }
    }
}

/// A link that asks for a lease.
#[derive(Debug, Clone, Copy)]
pub struct Asking {
    /// Whether it is one of IPv4.
    pub v4: bool,
    /// Whether it has one.
    pub has: bool,
    /// Whether it is waited for by itself.
    pub awaited: bool,
}

/// Which of these are waited for now: for one of IPv6 only where there is none of IPv4, which the node's address is of. `any` as in [`Awaited`].
pub fn misses(all: &[Asking], any: bool) -> Vec<bool> {
    let has_v4 = has_v4(all);
    let misses = |one: &Asking| match one {
        Asking { has: true, .. } => false,
        Asking { v4: true, awaited, .. } => *awaited || (any && !has_v4),
        Asking { v4: false, awaited, .. } => *awaited && !has_v4,
    };
    all.iter().map(misses).collect()
}

/// Whether there is a lease that shortens the time of those that are missed. One of IPv6 does not shorten the time of those of IPv4.
pub fn is_enough(all: &[Asking], any: bool) -> bool {
    let misses_v4 = || all.iter().zip(misses(all, any)).any(|(one, missed)| one.v4 && missed);
    has_v4(all) || (all.iter().any(|one| one.has) && !misses_v4())
}

fn has_v4(all: &[Asking]) -> bool {
    all.iter().any(|one| one.v4 && one.has)
}

#[cfg(test)]
mod tests {
    use super::{Asking, Awaited, is_enough, misses};
    use crate::plan::{Phase, Step};

    #[test]
    fn a_phase_waits_for_what_it_asks_for() {
        let dhcp = |link: &str, optional| Step::Dhcp { link: link.into(), metric: None, optional };
        let dhcp6 = |link: &str, optional| Step::Dhcp6 { link: link.into(), optional };
        let phase = |steps| Phase { name: "network", steps };
        let one = phase(vec![dhcp("eth0", false), dhcp("eth1", true), dhcp6("eth1", false), dhcp6("eth2", true)]);
        let awaited = Awaited::of(&one);
        let named: Vec<(&str, bool)> = ["eth0", "eth1", "eth2"]
            .into_iter()
            .flat_map(|link| [(link, true), (link, false)])
            .filter(|(link, v4)| awaited.names(link, *v4))
            .collect();
        assert_eq!((named, awaited.any), (vec![("eth0", true), ("eth1", false)], false));
        assert!(Awaited::of(&phase(vec![dhcp("eth0", true), Step::AnyLease])).any);
        // As `runtime` and `logs` after a network boot, whose leases are there already: one of a card without a cable holds up nothing.
        let other = phase(vec![Step::Hostname("n1".into())]);
        let none = Awaited::of(&other);
        assert_eq!(none, Awaited::default());
        assert!(!none.names("eth0", true));
    }

    #[test]
    fn whose_lease_is_waited_for_and_when_that_is_enough() {
        // 4 or 6, `+` where it has its lease, `?` where it is optional.
        let asking =
            |text: &str| Asking { v4: text.starts_with('4'), has: text.contains('+'), awaited: !text.contains('?') };
        for (all, any, want, enough) in [
            ("4", false, "4", false),
            ("4+", false, "", true),
            ("4 4", false, "4 4", false),
            // Also where it has that from the start, as after a network boot.
            ("4+ 4", false, "4", true),
            ("4+ 4?", false, "", true),
            ("4 4?", false, "4", false),
            ("4? 4?", false, "", false),
            // Machines of a cluster with such links alone.
            ("4? 4?", true, "4? 4?", false),
            ("4?+ 4?", true, "", true),
            ("4? 6", true, "4? 6", false),
            ("4? 6?", true, "4?", false),
            ("4? 6+", true, "4?", false),
            ("6 6?", false, "6", false),
            ("6+ 6", false, "6", true),
            ("4 6+", false, "4", false),
            ("4? 6+ 6", false, "6", true),
            ("4+ 6", false, "", true),
            ("", false, "", false),
            ("", true, "", false),
        ] {
            let words: Vec<&str> = all.split_whitespace().collect();
            let links: Vec<Asking> = words.iter().map(|word| asking(word)).collect();
            let missed: Vec<&str> =
                words.iter().zip(misses(&links, any)).filter(|(_, missed)| *missed).map(|(word, _)| *word).collect();
            assert_eq!((missed.join(" ").as_str(), is_enough(&links, any)), (want, enough), "{all} {any}");
        }
    }
}
