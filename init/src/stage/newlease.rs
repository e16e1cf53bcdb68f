//! Takes up what a lease brings while the machine runs: other name servers at once, another address by a start anew.
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use ipnet::Ipv4Net;
use kscratch_metadata::RoleMetadata;

use super::{beside, gather};
use crate::apply::dhcp::{Change, Lease, Loss};
use crate::apply::dhcp6;
use crate::apply::files;
use crate::facts::{Facts, Names, Names6};
use crate::log;
use crate::plan::{self, Plan, Step, UPSTREAM};
use crate::run::inbox::{Message, Sender};
use crate::supervise::Reason;
use rule::{Due, Meaning, Own, State, earliest, meaning};

mod rule;

/// What libc reads of the machine's network.
pub const RESOLV_CONF: &str = "/run/kscratch/resolv.conf";
const HOSTS: &str = "/run/kscratch/hosts";
/// How many starts in a row were for an address. On state.
const RESTARTS: &str = "/var/lib/kscratch/address-restarts";

/// See [`Starter::again`].
const AGAIN: Duration = Duration::from_secs(600);

const DEFAULT_ROUTE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0);

/// What the machine was planned from, and what has become of its address.
pub struct Leases {
    root: &'static Path,
    metadata: RoleMetadata,
    facts: Facts,
    own: Option<Own>,
    /// What the lease of each link says of names, from the boot's on.
    names: Mutex<BTreeMap<String, Names>>,
    /// The same of its DHCPv6 lease.
    names6: Mutex<BTreeMap<String, Names6>>,
    /// Time since the kernel's start.
    clock: fn() -> Duration,
    state: Arc<Mutex<State>>,
    starter: Starter,
}

/// Has the machine start anew.
#[derive(Clone)]
struct Starter {
    root: &'static Path,
    sender: Sender,
    /// Whether it is known afterwards that it did: not where state is in memory.
    lasting: bool,
    /// Between two tries to write down that it does: a disk that is full may have room again.
    again: Duration,
}

/// How many starts in a row, this one the last of them, were for an address. A file that is damaged counts as one.
#[must_use]
pub fn restarts(root: &Path) -> u32 {
    match fs::read_to_string(files::below(root, RESTARTS)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        text => text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1),
    }
}

impl Leases {
    /// Of a machine that was planned from these. `lasting` says whether state outlives the machine's run.
    #[must_use]
    pub fn new(root: &'static Path, metadata: RoleMetadata, facts: Facts, lasting: bool, sender: Sender) -> Self {
        Self::on(log::monotonic, metadata, facts, Starter { root, sender, lasting, again: AGAIN })
    }

    fn on(clock: fn() -> Duration, metadata: RoleMetadata, facts: Facts, starter: Starter) -> Self {
        let own = plan::uplink(&metadata, &facts).map(|(link, address)| {
            let fixed = plan::is_fixed(&metadata, &facts, &link);
            Own { link, address: address.addr(), fixed }
        });
        let root = starter.root;
        let state = Arc::new(Mutex::new(State::after(if starter.lasting { restarts(root) } else { 0 })));
        let (names, names6) = (Mutex::new(facts.leased.clone()), Mutex::new(facts.leased6.clone()));
        let leases = Self { root, metadata, facts, own, names, names6, clock, state, starter };
        leases.watch_time();
        leases
    }

    /// Where this start was for an address: looks at it again after the time that the rule says.
    fn watch_time(&self) {
        let restarts = self.lock().restarts;
        if restarts == 0 {
            return;
        }
        let (state, starter, clock) = (Arc::clone(&self.state), self.starter.clone(), self.clock);
        let work = move || {
            let period = earliest(restarts);
            let mut next = period;
            loop {
                std::thread::sleep(next.saturating_sub(clock()));
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                match state.due() {
                    Due::Start(other) => {
                        drop(state);
                        if starter.start(restarts, other) {
                            return;
                        }
                        next = clock() + starter.again;
                    }
                    Due::Look => next += period,
                    // Before another address can come, whose start is written down again.
                    Due::Forget => return starter.forget(),
                }
            }
        };
        if let Err(error) = beside::start("address", work) {
            log::line(format_args!("watching this machine's address: {error:#}"));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what became of a link's lease.
    pub fn changed(&self, link: &str, change: &Change) {
        let lease = match change {
            Change::Bound(lease) => lease,
            Change::Lost(lease, loss) => {
                // Where another took its place, that one is known.
                if *loss != Loss::Replaced {
                    self.unname(link);
                }
                return self.lock().lose(lease.address.addr());
            }
            Change::Failed(_) => return,
        };
        let (facts, address) = (self.named(link, Some(gather::names(lease))), lease.address.addr());
        let fits = self.rewrite(link, &facts, &with_lease(facts.clone(), link, lease));
        match (meaning(self.metadata.cluster.is_some(), self.own.as_ref(), link, address), fits) {
            (Meaning::Nothing, _) => {}
            (Meaning::Own, _) => {
                if self.lock().leave() {
                    log::line(format_args!("link {link}: {address} is what this machine booted with: it goes on"));
                }
            }
            (Meaning::Other, Err(why)) => {
                self.lock().leave();
                log::line(format_args!("{}; with that it cannot start: {why}", self.other(link, address)));
            }
            (Meaning::Other, Ok(())) => self.take(link, address),
        }
    }

    /// Takes what became of a link's DHCPv6 lease: its name servers, which are kept where there would be none. Nothing else was made for its
    /// address.
    pub fn changed6(&self, link: &str, change: &dhcp6::Change) {
        let mut names = self.names6.lock().unwrap_or_else(PoisonError::into_inner);
        match change {
            dhcp6::Change::Bound(lease) => _ = names.insert(link.to_owned(), gather::names6(lease)),
            dhcp6::Change::Lost(_, loss) if *loss != dhcp6::Loss::Replaced => _ = names.remove(link),
            dhcp6::Change::Lost(..) | dhcp6::Change::Failed(_) => return,
        }
        drop(names);
        self.rename(link, &self.known());
    }

    /// Takes a fixed address of a link that came: the node has it from now on, where it booted without any.
    pub fn address_came(&self, link: &str, address: Ipv4Addr) {
        if self.metadata.cluster.is_some() && self.own.is_none() {
            self.take(link, address);
        }
    }

    /// What has happened, in words.
    fn other(&self, link: &str, address: Ipv4Addr) -> String {
        match &self.own {
            Some(own) => format!("link {link}: this machine booted with {} and has {address} now", own.address),
            None => format!("link {link}: this machine booted without an address and has {address} now"),
        }
    }

    /// The kubelet, the routes and the certificates are made for an address at the boot.
    fn take(&self, link: &str, address: Ipv4Addr) {
        let what = self.other(link, address);
        if !self.starter.lasting {
            return log::line(format_args!(
                "{what}; its state is in memory, so it does not start anew by itself: restart it"
            ));
        }
        let (wait, restarts) = {
            let mut state = self.lock();
            (state.take(address, (self.clock)()), state.restarts)
        };
        if wait.is_zero() {
            log::line(format_args!("{what}: it starts anew with that"));
            // Writing takes as long as the disk does, and the event loop waits for nobody.
            let (starter, state) = (self.starter.clone(), Arc::clone(&self.state));
            let work = move || {
                while !starter.start(restarts, address) {
                    std::thread::sleep(starter.again);
                    if state.lock().unwrap_or_else(PoisonError::into_inner).other != Some(address) {
                        return;
                    }
                }
            };
            if let Err(error) = beside::start("start-anew", work) {
                log::line(format_args!("this machine does not start anew with {address}: {error:#}"));
            }
            return;
        }
        log::line(format_args!(
            "{what}; it has started anew for an address already: it waits {} min, and does so again if it has another one then than it booted with",
            wait.as_secs().div_ceil(60)
        ));
        log::hint("look for a second DHCP server, or let the server give this machine always the same address");
    }

    /// The facts of the boot with the names of the leases that there are now, of which a link has this one or none: its own link's say first.
    fn named(&self, link: &str, new: Option<Names>) -> Facts {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        match new {
            Some(new) => _ = names.insert(link.to_owned(), new),
            None => _ = names.remove(link),
        }
        drop(names);
        self.known()
    }

    /// The facts of the boot with the names of the leases that there are now.
    fn known(&self) -> Facts {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let own = self.own.as_ref().map(|own| &own.link);
        let (first, others): (Vec<_>, Vec<_>) = names.iter().partition(|(link, _)| Some(*link) == own);
        let mut facts = self.facts.clone();
        facts.take_names(first.into_iter().chain(others).map(|(_, names)| names));
        facts.leased6.clone_from(&self.names6.lock().unwrap_or_else(PoisonError::into_inner));
        facts
    }

    /// A link has no lease any more. The last name servers are kept: nothing is better than they.
    fn unname(&self, link: &str) {
        self.rename(link, &self.named(link, None));
    }

    /// Writes who is asked for names now, unless nobody is. Pods ask servers of IPv4 alone, and keep those that they had for longer.
    fn rename(&self, link: &str, facts: &Facts) {
        let wanted: &[&str] = match (facts.dns_servers.is_empty(), facts.names6().servers.is_empty()) {
            (false, _) => &[RESOLV_CONF, UPSTREAM],
            (true, false) => &[RESOLV_CONF],
            (true, true) => return,
        };
        if let Ok(plan) = plan::node(&self.metadata, facts) {
            self.write(link, &plan, wanted);
        }
    }

    /// Plans the files that libc and CoreDNS read again, as at boot, and says whether there is a plan with the lease's address. `named` has its names alone.
    fn rewrite(&self, link: &str, named: &Facts, facts: &Facts) -> Result<(), String> {
        let planned = plan::node(&self.metadata, facts).map_err(|error| format!("{error}; {}", error.hint()));
        let (plan, fits) = match planned {
            Ok(plan) => (Some(plan), Ok(())),
            // Names are looked up all the same.
            Err(why) => (plan::node(&self.metadata, named).ok(), Err(why)),
        };
        if let Some(plan) = plan {
            self.write(link, &plan, &[RESOLV_CONF, HOSTS, UPSTREAM]);
        }
        fits
    }

    fn write(&self, link: &str, plan: &Plan, wanted: &[&str]) {
        for step in plan.phases.iter().flat_map(|phase| &phase.steps) {
            let Step::File { path, contents, mode, .. } = step else { continue };
            if wanted.contains(&path.as_str())
                && let Err(error) = files::file(self.root, path, contents, *mode)
            {
                log::line(format_args!("after a change of the lease on {link}: {error:#}"));
            }
        }
    }
}

impl Starter {
    /// Nothing is started that is not written down before: a loop could come of it. Says whether it could be.
    fn start(&self, restarts: u32, address: Ipv4Addr) -> bool {
        let text = format!("{}\n", restarts.saturating_add(1));
        let written = files::file(self.root, RESTARTS, text.as_bytes(), 0o644);
        match &written {
            Ok(()) => self.sender.send(Message::Stop(Reason::Address)),
            Err(error) => log::line(format_args!(
                "this machine does not start anew with {address}: {error:#}; again in {} min",
                self.again.as_secs() / 60
            )),
        }
        written.is_ok()
    }

    fn forget(&self) {
        let removed =
            fs::remove_file(files::below(self.root, RESTARTS)).with_context(|| format!("removing {RESTARTS}"));
        if let Err(error) = removed {
            log::line(format_args!("{error:#}"));
        }
    }
}

/// The facts of the boot, as they were had the link had this lease then.
fn with_lease(mut facts: Facts, link: &str, lease: &Lease) -> Facts {
    // One that was there first is not known to be preferred less.
    let elsewhere =
        facts.links.iter().chain(&facts.made).any(|(name, other)| name.as_str() != link && other.default_route);
    if let Some(link) = facts.link_mut(link) {
        link.addresses = vec![lease.address];
        link.default_route |= !elsewhere && lease.routes.iter().any(|route| route.destination == DEFAULT_ROUTE);
    }
    facts
}

#[cfg(test)]
mod tests;
