//! Takes up what a lease brings while the machine runs: other name servers at once, another address by a start anew.
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use ipnet::Ipv4Net;
use kscratch_metadata::RoleMetadata;

use super::beside;
use crate::apply::dhcp::{Change, Lease};
use crate::apply::files;
use crate::facts::Facts;
use crate::log;
use crate::plan::{self, Step};
use crate::run::inbox::{Message, Sender};
use crate::supervise::Reason;
use rule::{Due, Meaning, State, earliest, meaning};

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
    own: Option<(String, Ipv4Addr)>,
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
        let own = plan::uplink(&metadata, &facts).map(|(link, address)| (link, address.addr()));
        let root = starter.root;
        let state = Arc::new(Mutex::new(State::after(if starter.lasting { restarts(root) } else { 0 })));
        let leases = Self { root, metadata, facts, own, clock, state, starter };
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
            Change::Lost(lease, _) => return self.lock().lose(lease.address.addr()),
            Change::Failed(_) => return,
        };
        let (facts, address) = (with_lease(&self.facts, link, lease), lease.address.addr());
        let fits = self.rewrite(link, lease, &facts);
        let own = self.own.as_ref().map(|(link, address)| (link.as_str(), *address));
        match (meaning(self.metadata.cluster.is_some(), own, link, address), fits) {
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

    /// Takes a fixed address of a link that came: the node has it from now on, where it booted without any.
    pub fn address_came(&self, link: &str, address: Ipv4Addr) {
        if self.metadata.cluster.is_some() && self.own.is_none() {
            self.take(link, address);
        }
    }

    /// What has happened, in words.
    fn other(&self, link: &str, address: Ipv4Addr) -> String {
        match &self.own {
            Some((_, own)) => format!("link {link}: this machine booted with {own} and has {address} now"),
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

    /// Plans the files that libc reads again, as at boot, and says whether there is a plan with the lease's address.
    fn rewrite(&self, link: &str, lease: &Lease, facts: &Facts) -> Result<(), String> {
        let planned = plan::node(&self.metadata, facts).map_err(|error| format!("{error}; {}", error.hint()));
        let (plan, fits) = match planned {
            Ok(plan) => (Some(plan), Ok(())),
            // Names are looked up all the same.
            Err(why) => (plan::node(&self.metadata, &with_names(&self.facts, lease)).ok(), Err(why)),
        };
        let steps = plan.iter().flat_map(|plan| &plan.phases).flat_map(|phase| &phase.steps);
        for step in steps {
            let Step::File { path, contents, mode, .. } = step else { continue };
            if [RESOLV_CONF, HOSTS].contains(&path.as_str())
                && let Err(error) = files::file(self.root, path, contents, *mode)
            {
                log::line(format_args!("after a new lease on {link}: {error:#}"));
            }
        }
        fits
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

/// The facts of the boot with what a lease says of names.
fn with_names(facts: &Facts, lease: &Lease) -> Facts {
    Facts { dns_servers: lease.dns_servers.clone(), dns_search: lease.search.clone(), ..facts.clone() }
}

/// The facts of the boot, as they were had the link had this lease then.
fn with_lease(facts: &Facts, link: &str, lease: &Lease) -> Facts {
    let mut facts = with_names(facts, lease);
    if let Some(link) = facts.link_mut(link) {
        link.addresses = vec![lease.address];
        link.default_route |= lease.routes.iter().any(|route| route.destination == DEFAULT_ROUTE);
    }
    facts
}

#[cfg(test)]
mod tests;
