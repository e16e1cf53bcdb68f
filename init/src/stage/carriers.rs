//! Tells of each link in use, as soon as it is so, that its cable carries nothing, or carries again.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use kscratch_netlink::{LinkNews, Netlink};

use super::beside;
use crate::apply::network;
use crate::log;
use crate::plan::{self, Plan};

/// A card and its switch agree on a speed within so much, as a rule: no word of it.
const GRACE: Duration = Duration::from_millis(1200);
/// How long the thread sleeps where nothing is due.
const IDLE: Duration = Duration::from_secs(3600);

/// What has been said of one link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    /// Nothing: it came up a moment ago.
    Nothing {
        /// When it is told that it has no carrier.
        until: Duration,
    },
    /// It is not there, or not up.
    Absent,
    /// It has none since it came up.
    NeverHad,
    /// It has one.
    Has,
    /// It had one.
    Lost,
}

/// What is known of the links in use.
#[derive(Debug, Default)]
struct Carriers {
    said: BTreeMap<String, Said>,
}

impl Carriers {
    /// Takes the names of the links in use from now on.
    fn watch(&mut self, names: BTreeSet<String>, now: Duration) {
        self.said.retain(|name, _| names.contains(name));
        for name in names {
            self.said.entry(name).or_insert(Said::Nothing { until: now + GRACE });
        }
    }

    /// Takes how a link is; gives what there is to say of it.
    fn is(&mut self, name: &str, carrier: bool, now: Duration) -> Option<String> {
        let said = self.said.get_mut(name)?;
        let (next, words) = match (*said, carrier) {
            (Said::Nothing { .. } | Said::Absent, true) => (Said::Has, None),
            (Said::Absent, false) => (Said::Nothing { until: now + GRACE }, None),
            (Said::Nothing { until }, false) if now < until => return None,
            (Said::Nothing { .. }, false) => (Said::NeverHad, Some("has no carrier: is the cable in?")),
            (Said::NeverHad, true) => (Said::Has, Some("has its carrier")),
            (Said::Lost, true) => (Said::Has, Some("has its carrier again")),
            (Said::Has, false) => (Said::Lost, Some("has lost its carrier: is the cable in?")),
            (Said::NeverHad | Said::Lost, false) | (Said::Has, true) => return None,
        };
        *said = next;
        words.map(|words| format!("link {name} {words}"))
    }

    /// When the next word is due.
    fn due(&self) -> Option<Duration> {
        let times = self.said.values().filter_map(|said| match said {
            Said::Nothing { until } => Some(*until),
            _ => None,
        });
        times.min()
    }
}

/// The thread, seen from the boot.
#[derive(Clone)]
pub struct Teller(Arc<Mutex<Carriers>>);

impl Teller {
    /// Starts the thread, which goes on for as long as the machine runs. Without it nothing is said.
    #[must_use]
    pub fn start() -> Self {
        let carriers = Arc::new(Mutex::new(Carriers::default()));
        let shared = Arc::clone(&carriers);
        let begun = LinkNews::open().and_then(|news| {
            beside::start("carriers", move || {
                if let Err(error) = tell(&news, &shared) {
                    log::line(format_args!("cables that are out are not told of any more: {error:#}"));
                }
            })
        });
        if let Err(error) = begun {
            log::line(format_args!("cables that are out are not told of: {error:#}"));
        }
        Self(carriers)
    }

    /// Tells of the links of this plan from now on, which is about to be applied: their coming up wakes the thread.
    pub fn watch(&self, plan: &Plan) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).watch(plan::links_of(plan), log::monotonic());
    }
}

fn tell(news: &LinkNews, carriers: &Mutex<Carriers>) -> Result<()> {
    loop {
        let due = carriers.lock().unwrap_or_else(PoisonError::into_inner).due();
        let heard = news.wait(due.map_or(IDLE, |due| due.saturating_sub(log::monotonic())))?;
        let links = match if heard { news.read()? } else { None } {
            Some(messages) => messages.iter().filter_map(network::read_link).collect(),
            // Time is over, or news were lost: all are looked at.
            None => network::links(&mut Netlink::open()?)?,
        };
        let now = log::monotonic();
        let mut carriers = carriers.lock().unwrap_or_else(PoisonError::into_inner);
        // Down, it has none, and that is no cable's fault.
        let words = links.iter().filter(|link| link.up).filter_map(|link| carriers.is(&link.name, link.carrier, now));
        words.collect::<Vec<_>>().iter().for_each(log::line);
        carriers.give_up(now);
    }
}

impl Carriers {
    /// Of links that are due and not up, or not there, nothing is said until they come.
    fn give_up(&mut self, now: Duration) {
        for said in self.said.values_mut() {
            if let Said::Nothing { until } = said
                && *until <= now
            {
                *said = Said::Absent;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Carriers, GRACE};

    #[test]
    fn each_change_is_told_once() {
        let at = Duration::from_millis;
        let mut carriers = Carriers::default();
        carriers.watch(["eth0".to_owned(), "eth1".to_owned()].into(), at(0));
        assert_eq!(carriers.due(), Some(GRACE));
        let table = [
            ("eth0", false, 10, ""),
            ("eth1", true, 20, ""),
            ("eth9", false, 5000, ""),
            ("eth0", false, 1200, "has no carrier: is the cable in?"),
            ("eth0", false, 1300, ""),
            ("eth0", true, 1400, "has its carrier"),
            ("eth0", false, 1500, "has lost its carrier: is the cable in?"),
            ("eth1", false, 1500, "has lost its carrier: is the cable in?"),
            ("eth1", false, 1600, ""),
            ("eth1", true, 1700, "has its carrier again"),
        ];
        for (link, carrier, now, want) in table {
            let said = carriers.is(link, carrier, at(now)).unwrap_or_default();
            assert_eq!(said, if want.is_empty() { String::new() } else { format!("link {link} {want}") }, "at {now}");
        }
        assert_eq!(carriers.due(), None);
        // Another plan leaves one of them alone, and brings up another, which is not there yet.
        carriers.watch(["eth1".to_owned(), "eth2".to_owned()].into(), at(2000));
        assert_eq!(carriers.is("eth0", true, at(2100)), None);
        assert_eq!(carriers.due(), Some(at(3200)));
        carriers.give_up(at(3300));
        assert_eq!(carriers.due(), None);
        assert_eq!(carriers.is("eth2", false, at(8000)), None);
        assert_eq!(carriers.due(), Some(at(9200)));
        assert_eq!(carriers.is("eth2", true, at(9000)), None);
        assert_eq!(carriers.is("eth2", false, at(9001)).unwrap(), "link eth2 has lost its carrier: is the cable in?");
    }
}
