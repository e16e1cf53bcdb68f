//! Performs one step of a plan after the other, and keeps what outlives them: leases and services.
use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use rustix::event::{PollFd, PollFlags, poll};

use super::lease::{self, Keeper};
use super::network::{self, Route};
use super::waiting::{Asking, Awaited, is_enough, misses};
use super::{bridge, certificates, clusterca, dhcp, dhcp6, files, firewall, imageseed, links, nodename};
use crate::log;
use crate::plan::{Phase, Plan, Service, Step};
use crate::sys::Sys;
use kscratch_netlink::{LinkNews, Netlink};

/// How long the first lease may take, as a rule. The keepers go on asking after that, in the event loop.
const LEASE_WITHIN: Duration = Duration::from_secs(30);
/// How long other links are waited for once one has its lease.
const OTHERS_WITHIN: Duration = Duration::from_secs(2);

/// What firmware says that the machine is (Linux, drivers/firmware/dmi-id.c).
const PRODUCT_UUID: &str = "/sys/class/dmi/id/product_uuid";

/// Steps that take longer are told with `kscratch.log=debug`.
const WORTH_A_LINE: Duration = Duration::from_millis(20);

/// The machine that a plan is applied to.
pub struct Machine<'a> {
    sys: &'a dyn Sys,
    root: PathBuf,
    /// 32 hex digits: spreads DHCP's transaction numbers.
    machine_id: String,
    /// The name that a DHCP server is told.
    pub host_name: Option<String>,
    /// How long the first lease may take.
    pub lease_within: Duration,
    /// Leases of links with DHCP, and with DHCPv6.
    pub leases: Vec<Keeper>,
    /// The network that was planned before the metadata was known, and is applied.
    pub network: Option<Plan>,
    /// Links whose leases somebody else keeps.
    pub leased: BTreeSet<String>,
    /// What the supervisor is to run, in the plan's order.
    pub services: Vec<Service>,
}

impl<'a> Machine<'a> {
    /// A machine whose files are below `root`.
    #[must_use]
    pub fn new(sys: &'a dyn Sys, root: &Path, machine_id: &str) -> Self {
        let root = root.to_owned();
        Self {
            sys,
            root,
            machine_id: machine_id.to_owned(),
            host_name: None,
            lease_within: LEASE_WITHIN,
            leases: Vec::new(),
            network: None,
            leased: BTreeSet::new(),
            services: Vec::new(),
        }
    }

    /// Performs the phases of a plan, up to the first that fails.
    ///
    /// # Errors
    /// That phase's.
    pub fn plan(&mut self, plan: &Plan) -> Result<()> {
        plan.phases.iter().try_for_each(|phase| self.phase(phase))
    }

    /// Performs all steps of a phase, also those behind one that failed: most do not need each other, and one message that names
    /// three faults saves two boots.
    ///
    /// # Errors
    /// Every failure, in one text.
    pub fn phase(&mut self, phase: &Phase) -> Result<()> {
        let mut faults = self.all_steps(phase);
        if let Err(error) = self.first_leases(&Awaited::of(phase)) {
            faults.push(format!("{error:#}"));
        }
        if faults.is_empty() { Ok(()) } else { bail!(faults.join("\n")) }
    }

    /// Performs the steps of a plan, as [`Machine::plan`] does, without waiting for the leases that they ask for.
    ///
    /// # Errors
    /// Every failure, in one text.
    pub fn steps_of(&mut self, plan: &Plan) -> Result<()> {
        let faults: Vec<String> = plan.phases.iter().flat_map(|phase| self.all_steps(phase)).collect();
        if faults.is_empty() { Ok(()) } else { bail!(faults.join("\n")) }
    }

    fn all_steps(&mut self, phase: &Phase) -> Vec<String> {
        let kept: BTreeSet<&str> = phase.steps.iter().filter_map(written).collect();
        let mut faults: Vec<String> = Vec::new();
        for step in &phase.steps {
            let begun = log::monotonic();
            if let Err(error) = self.step(step, &kept) {
                faults.push(format!("{error:#}"));
            }
            let took = log::monotonic().saturating_sub(begun);
            if took > WORTH_A_LINE {
                // The first line of a step names it; files and rulesets follow in further ones.
                let step = step.to_string();
                log::debug(format_args!(
                    "{} took {:.3} s",
                    step.lines().next().unwrap_or_default(),
                    took.as_secs_f64()
                ));
            }
        }
        let asks = |keeper: &&mut dhcp::Keeper| {
            phase.steps.iter().any(|step| matches!(step, Step::Dhcp { link, .. } if link == keeper.link()))
        };
        let four = self.leases.iter_mut().filter_map(|keeper| match keeper {
            Keeper::V4(keeper) => Some(keeper),
            Keeper::V6(_) => None,
        });
        for keeper in four.filter(asks) {
            let routes = phase.steps.iter().filter_map(|step| fixed_route(step, keeper.link())).collect();
            let mtu = phase.steps.iter().find_map(|step| match step {
                Step::LinkUp { link, mtu } if link == keeper.link() => *mtu,
                _ => None,
            });
            keeper.plan(routes, mtu);
        }
        faults
    }

    /// Gives up leases of links that a plan does not want to have one: those that a metadata URL was fetched with.
    ///
    /// # Errors
    /// An address cannot be taken from its link.
    pub fn keep_leases_of(&mut self, plan: &Plan) -> Result<()> {
        let steps: Vec<&Step> = plan.phases.iter().flat_map(|phase| &phase.steps).collect();
        let wanted = |keeper: &Keeper| {
            steps.iter().any(|step| match (step, keeper) {
                (Step::Dhcp { link, metric, .. }, Keeper::V4(keeper)) => {
                    link == keeper.link() && *metric == keeper.metric()
                }
                (Step::Dhcp6 { link, .. }, Keeper::V6(keeper)) => link == keeper.link(),
                _ => false,
            })
        };
        let (kept, given_up): (Vec<Keeper>, Vec<Keeper>) = self.leases.drain(..).partition(wanted);
        self.leases = kept;
        for keeper in given_up {
            if let Some(address) = keeper.address() {
                network::remove_address(&mut Netlink::open()?, keeper.link(), address)?;
            }
        }
        Ok(())
    }

    fn step(&mut self, step: &Step, kept: &BTreeSet<&str>) -> Result<()> {
        match step {
            Step::Note(text) => {
                log::line(text);
                Ok(())
            }
            Step::Sysctl { key, value } => files::sysctl(&self.root, key, value),
            Step::Hostname(name) => {
                self.sys.set_host_name(name).with_context(|| format!("setting the host name {name}"))
            }
            Step::Directory { path, mode, owner } => files::directory(&self.root, path, *mode, *owner),
            Step::File { path, contents, mode, owner } => files::file_of(&self.root, path, contents, *mode, *owner),
            Step::ClusterCa { ca, change } => clusterca::remember(&self.root, ca, *change),
            Step::NodeName { name, left, returns } => nodename::take(&self.root, name, left.as_deref(), *returns),
            Step::Prune { path } => files::prune(&self.root, path, kept),
            Step::HalfPair { certificate, key } => files::half_pair(&self.root, certificate, key),
            Step::LinkUp { link, mtu } => network::link_up(&mut Netlink::open()?, link, *mtu).map(drop),
            Step::MakeLink { link, made } => {
                if links::ensure(&mut Netlink::open()?, link, made)? {
                    log::line(format_args!("link {link} is made: {made}"));
                }
                Ok(())
            }
            Step::Dhcp { link, metric, .. } => self.dhcp(link, *metric),
            Step::Dhcp6 { link, .. } => self.dhcp6(link),
            // The phase waits when all its steps are done.
            Step::AnyLease => Ok(()),
            Step::Addresses { link, addresses, alone } => {
                if network::set_addresses(&mut Netlink::open()?, link, addresses, *alone)? {
                    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                    log::line(format_args!("link {link} has {}", addresses.join(", ")));
                }
                Ok(())
            }
            Step::RemoveAddress { link, address } => {
                let netlink = &mut Netlink::open()?;
                match network::link(netlink, link)? {
                    Some(_) => network::remove_address(netlink, link, *address),
                    None => Ok(()),
                }
            }
            Step::Route { destination, gateway, link, metric } => {
                let netlink = &mut Netlink::open()?;
                let route = route(netlink, *destination, *gateway, link.as_deref(), *metric)?;
                network::set_route(netlink, route)
            }
            Step::RemoveRoute { destination, gateway, link, metric } => {
                let netlink = &mut Netlink::open()?;
                let route = route(netlink, *destination, *gateway, link.as_deref(), *metric)?;
                network::remove_route(netlink, route)
            }
            Step::RemoveLink { link } => network::remove_link(&mut Netlink::open()?, link).map(drop),
            Step::Bridge { link, address, mtu } => bridge::ensure(&mut Netlink::open()?, link, *address, *mtu),
            Step::Firewall { ruleset } => firewall::load(self.sys, ruleset),
            Step::Certificates { wanted } => certificates::make(self.sys, wanted),
            Step::SeedImages => {
                let images = imageseed::seed(&self.root)?;
                log::line(format_args!(
                    "images already in docker's store: {}",
                    if images.is_empty() { "none".to_owned() } else { images.join(", ") }
                ));
                Ok(())
            }
            Step::Service(service) => {
                self.services.push(service.clone());
                Ok(())
            }
        }
    }

    fn dhcp(&mut self, link: &str, metric: Option<u32>) -> Result<()> {
        let kept = |keeper: &dhcp::Keeper| keeper.link() == link;
        if self.leased.contains(link) || self.leases.iter().filter_map(Keeper::v4).any(kept) {
            return Ok(());
        }
        let (xid, seed) = self.numbers();
        let keeper = dhcp::Keeper::start(link, self.host_name.clone(), xid, seed, log::monotonic())?;
        self.leases.push(Keeper::V4(keeper.with_metric(metric)));
        Ok(())
    }

    fn dhcp6(&mut self, link: &str) -> Result<()> {
        let kept = |keeper: &dhcp6::Keeper| keeper.link() == link;
        if self.leased.contains(link) || self.leases.iter().filter_map(Keeper::v6).any(kept) {
            return Ok(());
        }
        // Firmware that says nothing, or cannot be asked, leaves the card's address.
        let firmware = fs::read_to_string(files::below(&self.root, PRODUCT_UUID)).unwrap_or_default();
        let (xid, seed) = self.numbers();
        let name = self.host_name.clone();
        self.leases.push(Keeper::V6(dhcp6::Keeper::start(link, &firmware, name, xid, seed, log::monotonic())?));
        Ok(())
    }

    /// Of the next lease's exchanges, and what spreads their messages.
    fn numbers(&self) -> (u32, u64) {
        let digits =
            |from: usize, to: usize| u64::from_str_radix(self.machine_id.get(from..to).unwrap_or("0"), 16).unwrap_or(0);
        let xid = u32::try_from(digits(0, 8)).unwrap_or(0).wrapping_add(u32::try_from(self.leases.len()).unwrap_or(0));
        (xid, digits(8, 24))
    }

    /// The links that ask for a lease, in the order of their keepers.
    fn asking(&self, awaited: &Awaited<'_>) -> Vec<Asking> {
        let asking = |keeper: &Keeper| {
            let v4 = keeper.v4().is_some();
            Asking { v4, has: keeper.address().is_some(), awaited: awaited.names(keeper.link(), v4) }
        };
        self.leases.iter().map(asking).collect()
    }

    /// Waits until every link of a phase that is waited for has its lease; once one has, the others get little time: a card without a cable must
    /// not hold up the boot.
    fn first_leases(&mut self, awaited: &Awaited<'_>) -> Result<()> {
        if !misses(&self.asking(awaited), awaited.any).contains(&true) {
            return Ok(());
        }
        let mut end = log::monotonic() + self.lease_within;
        // A carrier that comes meanwhile is asked at once. Those that came before there were news are looked up.
        let news = LinkNews::open()?;
        let mut changed = network::links(&mut Netlink::open()?)?;
        loop {
            let now = log::monotonic();
            match news.read()? {
                Some(messages) => changed.extend(messages.iter().filter_map(network::read_link)),
                // Some were lost.
                None => changed = network::links(&mut Netlink::open()?)?,
            }
            for keeper in &mut self.leases {
                let mut changes: Vec<lease::Change> =
                    changed.iter().flat_map(|link| keeper.link_changed(link, now)).collect();
                changes.extend(keeper.timer(now));
                changes.extend(keeper.readable(now));
                for change in changes {
                    log::line(format_args!("link {} {change}", keeper.link()));
                }
            }
            changed.clear();
            let asking = self.asking(awaited);
            if is_enough(&asking, awaited.any) {
                end = end.min(now + OTHERS_WITHIN);
            }
            if now >= end || !misses(&asking, awaited.any).contains(&true) {
                break;
            }
            let next = self.leases.iter().filter_map(Keeper::next_deadline).fold(end, Duration::min);
            let timeout =
                rustix::time::Timespec::try_from(next.saturating_sub(now)).context("waiting for a DHCP server")?;
            let mut sources: Vec<PollFd<'_>> =
                self.leases.iter().map(|keeper| PollFd::new(keeper, PollFlags::IN)).collect();
            sources.push(PollFd::new(&news, PollFlags::IN));
            match poll(&mut sources, Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("waiting for a DHCP server"),
            }
        }
        let missing = misses(&self.asking(awaited), awaited.any);
        let without: Vec<&Keeper> =
            self.leases.iter().zip(missing).filter(|(_, missing)| *missing).map(|(keeper, _)| keeper).collect();
        if without.is_empty() {
            return Ok(());
        }
        let text = format!("{}; it is asked on", lease::why_none(&without));
        if self.leases.iter().all(|keeper| keeper.address().is_none()) {
            bail!(text);
        }
        log::line(text);
        Ok(())
    }
}

fn route(
    netlink: &mut Netlink,
    destination: IpNet,
    gateway: Option<IpAddr>,
    link: Option<&str>,
    metric: Option<u32>,
) -> Result<Route> {
    let link = link.map(|link| network::existing_link(netlink, link)).transpose()?.map(|link| link.index);
    Ok(Route { destination, gateway, link, metric })
}

/// A step's route, where it is a fixed one of IPv4 on the link.
fn fixed_route(step: &Step, on: &str) -> Option<Route> {
    match step {
        Step::Route { destination, gateway, link, metric }
            if link.as_deref() == Some(on) && destination.addr().is_ipv4() =>
        {
            Some(Route { destination: *destination, gateway: *gateway, link: None, metric: *metric })
        }
        _ => None,
    }
}

fn written(step: &Step) -> Option<&str> {
    match step {
        Step::File { path, .. } => Some(path),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::Machine;
    use crate::plan::{Phase, Step};
    use crate::sys::Recording;

    #[test]
    fn every_step_is_tried_and_every_fault_told() {
        let root = tempfile::tempdir().unwrap();
        let sys = Recording::new().failing("hostname", std::io::ErrorKind::PermissionDenied);
        let mut machine = Machine::new(&sys, root.path(), "0123456789abcdef0123456789abcdef");
        let file = |path: &str| Step::File { path: path.into(), contents: b"x".to_vec(), mode: 0o600, owner: 0 };
        fs::create_dir_all(root.path().join("run/kscratch/manifests")).unwrap();
        fs::write(root.path().join("run/kscratch/manifests/stale.yaml"), "").unwrap();
        let steps = vec![
            Step::Sysctl { key: "vm/none".into(), value: "1".into() },
            Step::Hostname("node".into()),
            file("/run/kscratch/manifests/pod.yaml"),
            Step::Prune { path: "/run/kscratch/manifests".into() },
            Step::Directory { path: "/var/lib/kubelet".into(), mode: 0o750, owner: 0 },
        ];
        let error = machine.phase(&Phase { name: "system", steps }).unwrap_err().to_string();
        let lines: Vec<&str> = error.lines().collect();
        assert_eq!(lines.len(), 2, "{error}");
        assert!(lines[0].starts_with("setting the sysctl vm/none to 1"), "{error}");
        assert_eq!(lines[1], "setting the host name node: permission denied");
        let left: Vec<_> = fs::read_dir(root.path().join("run/kscratch/manifests"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["pod.yaml"]);
        assert!(root.path().join("var/lib/kubelet").is_dir());
    }
}
