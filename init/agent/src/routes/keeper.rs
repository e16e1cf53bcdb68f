//! Holds the machines that are known and brings the kernel's tables, the file of them and the file of the own range in line with them.
use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ipnet::Ipv4Net;

use super::kernel::{Device, Kernel};
use super::memory;
use super::tables::{Change, Tables, difference, mac};
use super::wanted::{Own, Peer, Peers, Reach, reach};
use crate::contract::{Mode, Routes};
use crate::outage::Outage;
use crate::{place, say};

/// Name of the overlay's device.
const DEVICE: &str = "kscratch-vx";

/// See the module.
pub struct Keeper {
    wanted: Routes,
    peers: Peers,
    /// What the state file holds, as far as is known.
    kept: Option<Peers>,
    /// Whether the API server has said what `peers` holds.
    said: bool,
    left_out: BTreeMap<String, String>,
    tables: Outage,
    state: Outage,
    range: Outage,
}

impl Keeper {
    /// Knows nobody yet.
    pub fn new(wanted: Routes) -> Self {
        Self {
            wanted,
            peers: Peers::new(),
            kept: None,
            said: false,
            left_out: BTreeMap::new(),
            tables: Outage::new("keeping the routes", 0),
            state: Outage::new("keeping the known nodes for the next start", 0),
            range: Outage::new("writing down the range of this node", 0),
        }
    }

    /// Takes what the state file holds for what is known.
    pub fn remember(&mut self) {
        match memory::read(&self.wanted.state) {
            Ok(None) => {}
            Ok(Some(peers)) => {
                say::line(format_args!("{} nodes are known from before", peers.len()));
                self.kept = Some(peers.clone());
                self.peers = peers;
            }
            Err(error) => say::line(format_args!("what was known before is lost: {error:#}")),
        }
    }

    /// The API server has listed all machines.
    pub fn replace(&mut self, peers: Peers, now: Duration) {
        self.said = true;
        self.peers = peers;
        self.look(now);
    }

    /// The API server says what a machine is.
    pub fn put(&mut self, name: &str, peer: Peer, now: Duration) {
        if self.peers.get(name) != Some(&peer) {
            self.peers.insert(name.to_owned(), peer);
            self.look(now);
        }
    }

    /// The API server says that a machine is none of the cluster's any more.
    pub fn drop(&mut self, name: &str, now: Duration) {
        self.peers.remove(name);
        self.look(now);
    }

    /// Brings everything in line; where nothing changed it does nothing.
    pub fn look(&mut self, now: Duration) {
        // Where nobody is known, not even from before, what the kernel has is better than nothing.
        if self.said || self.kept.is_some() {
            let kept = self.keep_tables();
            told(&mut self.tables, now, kept);
        }
        if self.said {
            let kept = self.keep_state();
            told(&mut self.state, now, kept);
            let kept = self.keep_range();
            told(&mut self.range, now, kept);
        }
    }

    fn own_range(&self) -> Option<Ipv4Net> {
        self.peers.get(&self.wanted.node).and_then(Peer::range)
    }

    fn keep_tables(&mut self) -> Result<()> {
        let mut kernel = Kernel::open()?;
        let wanted = match self.wanted.mode {
            Mode::Routed => {
                kernel.remove_device(DEVICE)?;
                let link = kernel.link(&self.wanted.link)?;
                let networks = kernel.addresses(link)?;
                Tables::routed(&self.reached(Some(&networks)), link)
            }
            Mode::Overlay => {
                let device = Device { local: self.wanted.address, mac: mac(self.wanted.address), mtu: self.wanted.mtu };
                let link = kernel.ensure_device(DEVICE, device)?;
                if let Some(range) = self.own_range() {
                    kernel.set_only_address(link, range.network())?;
                }
                Tables::overlay(&self.reached(None), link)
            }
        };
        let device = match self.wanted.mode {
            Mode::Routed => None,
            Mode::Overlay => Some(kernel.link(DEVICE)?),
        };
        let mut first = Ok(());
        for change in difference(&kernel.tables(device)?, &wanted) {
            match kernel.change(change, device).with_context(|| change.to_string()) {
                // A neighbour comes and goes with its machine.
                Ok(()) if matches!(change, Change::SetNeighbour(..) | Change::DropNeighbour(..)) => {}
                Ok(()) => say::line(change),
                // One machine that cannot be reached is no reason to give up the others.
                Err(error) => first = first.and(Err(error)),
            }
        }
        first
    }

    /// Decides what is reached, and tells of those that from now on are left out.
    fn reached(&mut self, on_link: Option<&[Ipv4Net]>) -> BTreeMap<Ipv4Net, std::net::Ipv4Addr> {
        let own = Own {
            node: &self.wanted.node,
            address: self.wanted.address,
            cluster: self.wanted.cluster_pod_range,
            on_link,
        };
        let Reach { ranges, left_out } = reach(&self.peers, own);
        for (name, why) in &left_out {
            if self.left_out.get(name) != Some(why) {
                say::line(format_args!("the pods of node {name} are not reached: {why}"));
            }
        }
        self.left_out = left_out;
        ranges
    }

    fn keep_state(&mut self) -> Result<()> {
        if self.kept.as_ref() != Some(&self.peers) {
            memory::write(&self.wanted.state, &self.peers)?;
            self.kept = Some(self.peers.clone());
        }
        Ok(())
    }

    fn keep_range(&self) -> Result<()> {
        let Some(range) = self.own_range() else { return Ok(()) };
        let (path, text) = (&self.wanted.pod_range_file, format!("{range}\n"));
        if std::fs::read(path).is_ok_and(|found| found == text.as_bytes()) {
            return Ok(());
        }
        place::file(path, text.as_bytes(), 0o644, rustix::process::geteuid().as_raw())?;
        say::line(format_args!("the range of this node is {range}"));
        if !self.wanted.cluster_pod_range.contains(&range) {
            say::line(format_args!("{range} is no part of the cluster's range {}", self.wanted.cluster_pod_range));
        }
        Ok(())
    }
}

fn told(outage: &mut Outage, now: Duration, done: Result<()>) {
    let line = match done {
        Ok(()) => outage.well(now),
        Err(error) => outage.failed(now, &format!("{error:#}")).line,
    };
    line.into_iter().for_each(say::line);
}
