//! Takes up network cards that come while the machine runs: the network's plan is made anew with them and applied again.
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use kscratch_metadata::RoleMetadata;
use kscratch_netlink::{LinkNews, Netlink};
use netlink_packet_route::RouteNetlinkMessage;

use super::beside;
use super::carriers::Teller;
use crate::apply::network;
use crate::apply::steps::Machine;
use crate::facts::Facts;
use crate::log;
use crate::plan::{self, Step};
use crate::run::inbox::{Message, Sender};
use crate::sys::Sys;

/// How long the thread sleeps where nothing happens.
const IDLE: Duration = Duration::from_secs(3600);

/// Metric of the routes that DHCP brings on a card that comes, where the metadata name no links, and its number at the kernel's behind that: no two
/// cards have one number, and which metrics those have that were there is not to be known from the plan.
const LATE_METRIC: u32 = 1024;

/// Names of the cards that are there, and the kernel's numbers for them: a card that was pulled and put back has another one.
pub type Cards = BTreeMap<String, u32>;

/// Told of a link and its address.
pub type AddressCame = Box<dyn Fn(&str, Ipv4Addr) + Send>;

/// What the network is planned from, and who keeps what comes of it.
pub struct Late {
    /// Runs programs.
    pub sys: &'static dyn Sys,
    /// Folder that stands for `/`.
    pub root: &'static Path,
    /// What the machine is.
    pub metadata: RoleMetadata,
    /// What was found at the boot; the links are found anew each time.
    pub facts: Facts,
    /// Links whose leases are kept already.
    pub leased: BTreeSet<String>,
    /// The cards that the network was planned with.
    pub known: Cards,
    /// Says which cables are out.
    pub teller: Teller,
    /// The event loop.
    pub sender: Sender,
    /// Told of a fixed address that the node has only now.
    pub address_came: AddressCame,
}

/// The cards that are there now.
///
/// # Errors
/// rtnetlink does not answer.
pub fn cards() -> Result<Cards> {
    let links = network::links(&mut Netlink::open()?)?;
    Ok(links.into_iter().filter(|link| link.hardware).map(|link| (link.name, link.index)).collect())
}

/// What has become of the cards.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    came: BTreeSet<String>,
    went: BTreeSet<String>,
}

fn changes(before: &Cards, now: &Cards) -> Changes {
    let lacking = |of: &Cards, there: &Cards| {
        of.iter().filter(|(name, index)| there.get(*name) != Some(*index)).map(|(name, _)| name.clone()).collect()
    };
    Changes { came: lacking(now, before), went: lacking(before, now) }
}

/// Leases are kept of links that are there: a VLAN is gone with its card, and what kept its lease asks on a link that comes back no more.
fn forget_gone(leased: &mut BTreeSet<String>, went: &BTreeSet<String>, there: &BTreeSet<String>) {
    leased.retain(|name| !went.contains(name) && there.contains(name));
}

/// Who is still missing was said at the boot; a card that comes takes no default route from one that was there, and no address that others gave
/// a link (one that masters share).
fn beside_others(steps: &mut Vec<Step>, named: bool, cards: &Cards) {
    steps.retain(|step| !matches!(step, Step::Note(_)));
    for step in steps {
        match step {
            Step::Dhcp { link, metric, .. } if !named => {
                *metric = Some(LATE_METRIC.saturating_add(cards.get(link).copied().unwrap_or(0)));
            }
            Step::Addresses { alone, .. } => *alone = false,
            _ => {}
        }
    }
}

impl Late {
    /// Starts the thread, which goes on for as long as the machine runs. `news` was opened before the cards were looked for.
    pub fn watch(self, news: LinkNews) {
        let work = move || {
            let mut late = self;
            // A card may have come since.
            late.look();
            loop {
                if let Err(error) = late.next(&news) {
                    return log::line(format_args!("network cards that come are not taken up any more: {error:#}"));
                }
            }
        };
        if let Err(error) = beside::start("late-links", work) {
            log::line(format_args!("network cards that come are not taken up: {error:#}"));
        }
    }

    fn next(&mut self, news: &LinkNews) -> Result<()> {
        if news.wait(IDLE)? && news.read()?.is_none_or(|messages| messages.iter().any(|message| self.concerns(message)))
        {
            self.look();
        }
        Ok(())
    }

    /// Pods' links come and go all the time: only cards are worth a look.
    fn concerns(&self, message: &RouteNetlinkMessage) -> bool {
        match message {
            RouteNetlinkMessage::DelLink(gone) => self.known.values().any(|index| *index == gone.header.index),
            other => network::read_link(other)
                .is_some_and(|link| link.hardware && self.known.get(&link.name) != Some(&link.index)),
        }
    }

    fn look(&mut self) {
        if let Err(error) = self.take_up() {
            log::line(format_args!("taking up a network card: {error:#}"));
        }
    }

    fn take_up(&mut self) -> Result<()> {
        let now = cards()?;
        let Changes { came, went } = changes(&self.known, &now);
        self.known = now;
        let there = network::links(&mut Netlink::open()?)?.into_iter().map(|link| link.name).collect();
        forget_gone(&mut self.leased, &went, &there);
        for name in went {
            log::line(format_args!("link {name} is gone"));
        }
        if came.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = came.iter().map(String::as_str).collect();
        log::line(format_args!("link {} is there now", names.join(", ")));
        let mut netlink = Netlink::open()?;
        let before = plan::uplink(&self.metadata, &self.facts);
        self.facts.links = network::hardware_links(&mut netlink)?;
        self.facts.made = network::made_links(&mut netlink)?;
        let mut plan = plan::network(&self.metadata, &self.facts)?;
        let named = !self.metadata.network.links.is_empty();
        plan.phases.iter_mut().for_each(|phase| beside_others(&mut phase.steps, named, &self.known));
        self.teller.watch(&plan);
        let mut machine = Machine::new(self.sys, self.root, &self.facts.machine_id);
        machine.host_name.clone_from(&self.metadata.node.name);
        machine.lease_within = Duration::ZERO;
        machine.leased.clone_from(&self.leased);
        let applied = machine.steps_of(&plan);
        for keeper in machine.leases.drain(..) {
            self.leased.insert(keeper.link().to_owned());
            self.sender.send(Message::Lease(Box::new(keeper)));
        }
        if let (None, Some((link, address))) = (before, plan::uplink(&self.metadata, &self.facts)) {
            (self.address_came)(&link, address.addr());
        }
        applied
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Cards, Changes, LATE_METRIC, beside_others, changes, forget_gone};
    use crate::plan::Step;

    #[test]
    fn a_card_that_was_put_back_went_and_came() {
        let cards =
            |list: &[(&str, u32)]| list.iter().map(|(name, index)| ((*name).to_owned(), *index)).collect::<Cards>();
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        let check = |before: &[(&str, u32)], now: &[(&str, u32)], came: &[&str], went: &[&str]| {
            assert_eq!(changes(&cards(before), &cards(now)), Changes { came: names(came), went: names(went) });
        };
        check(&[("eth0", 2)], &[("eth0", 2)], &[], &[]);
        check(&[("eth0", 2)], &[("eth0", 2), ("eth1", 3)], &["eth1"], &[]);
        check(&[("eth0", 2), ("eth1", 3)], &[("eth0", 2), ("eth1", 9)], &["eth1"], &["eth1"]);
        check(&[("eth0", 2)], &[], &[], &["eth0"]);
    }

    #[test]
    fn a_lease_of_a_vlan_is_forgotten_with_its_card() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let mut leased = names(&["bond0", "eth0", "eth1", "eth1.5"]);
        // The card is back already, under another number.
        forget_gone(&mut leased, &names(&["eth1"]), &names(&["bond0", "eth0", "eth1", "lo"]));
        assert_eq!(leased, names(&["bond0", "eth0"]));
    }

    #[test]
    fn a_card_that_comes_takes_nothing_from_others() {
        let dhcp = |metric| Step::Dhcp { link: "eth1".into(), metric, optional: false };
        let addresses =
            |alone| Step::Addresses { link: "eth0".into(), addresses: vec!["192.168.7.2/24".parse().unwrap()], alone };
        let cards = Cards::from([("eth0".to_owned(), 2), ("eth1".to_owned(), 7)]);
        for (named, want) in [(true, Some(100)), (false, Some(LATE_METRIC + 7))] {
            let mut steps = vec![Step::Note("eth2 is not there".into()), dhcp(Some(100)), addresses(true)];
            beside_others(&mut steps, named, &cards);
            assert_eq!(steps, [dhcp(want), addresses(false)]);
        }
    }
}
