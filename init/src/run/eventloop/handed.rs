//! Turns what the boot hands over, and news of links, into services and leases that the loop keeps.
use super::Loop;
use crate::apply::lease::Change;
use crate::apply::network::{self, Link, read_link};
use crate::log::monotonic;
use crate::run::inbox::{Inbox, Message};
use crate::run::logs::Log;
use crate::supervise::Event;
use kscratch_netlink::{LinkNews, Netlink};

impl Loop {
    /// Takes what the boot's phases hand over.
    pub(super) fn read_inbox(&mut self) {
        for message in self.options.inbox.as_ref().map(Inbox::take).unwrap_or_default() {
            match message {
                Message::Service(service) => self.handle(Event::AddService(service)),
                Message::Leases { leases, changed } => {
                    if !leases.is_empty() {
                        self.open_links();
                    }
                    (self.leases, self.lease_changed) = (leases, changed);
                }
                Message::Lease(keeper) => {
                    if self.links.is_none() {
                        self.open_links();
                    }
                    self.leases.retain(|earlier| !earlier.is_for_same(&keeper));
                    self.leases.push(*keeper);
                }
                Message::Watch { name, told } => _ = self.watchers.insert(name, told),
                Message::Recent { name, told } => told(self.logs.get(name).map(Log::recent).unwrap_or_default()),
                Message::Stop(reason) => self.handle(Event::StopAll(reason)),
                Message::Booted => {
                    self.booted = true;
                    self.handle(Event::Timer);
                }
            }
        }
    }

    fn open_links(&mut self) {
        let say = &mut self.options.say;
        self.links = LinkNews::open().inspect_err(|error| say(&format!("{error:#}"))).ok();
    }

    /// Tells the leases what became of their links.
    pub(super) fn read_links(&mut self) {
        let Some(news) = &self.links else { return };
        let links = news.read().and_then(|messages| match messages {
            Some(messages) => Ok(messages.iter().filter_map(read_link).collect()),
            // Some were lost, and nobody knows of which link: each of them may have been away meanwhile.
            None => {
                let now = network::links(&mut Netlink::open()?)?;
                Ok(now.into_iter().flat_map(|link| [Link { carrier: false, ..link.clone() }, link]).collect())
            }
        });
        let links: Vec<Link> = match links {
            Ok(links) => links,
            Err(error) => {
                self.say(&format!("{error:#}"));
                self.links = None;
                return;
            }
        };
        for link in links {
            for index in 0..self.leases.len() {
                let changes = self.leases[index].link_changed(&link, monotonic());
                self.tell_lease(index, &changes);
            }
        }
    }

    /// Tells of a lease what changed.
    pub(super) fn tell_lease(&mut self, index: usize, changes: &[Change]) {
        for change in changes {
            let link = self.leases[index].link().to_owned();
            (self.options.say)(&format!("link {link}: {change}"));
            (self.lease_changed)(&link, change);
        }
    }
}
