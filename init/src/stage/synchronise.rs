//! Keeps the clock by the time servers that the metadata or DHCP name, in a thread that nobody waits for.
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use kscratch_metadata::RoleMetadata;

use super::{beside, clock};
use crate::apply::lease::{Change, Keeper as Leases};
use crate::apply::{dhcp, dhcp6};
use crate::log;
use crate::sntp::ask::{self, PORT, ask};
use crate::sntp::keeper::{Failure, Floor, Keeper, Outcome, Said};
use crate::sys::Sys;

/// More servers than this are not asked: each is asked by a thread of its own.
const MOST: usize = 16;
/// How long a pause is while there is nobody to ask, or all of them rest.
const NOBODY: Duration = Duration::from_secs(64);

/// The thread, seen from the boot.
pub struct Synchroniser {
    /// Those of the metadata, which win.
    named: Vec<String>,
    /// Those that each lease names, of a link and a family.
    leased: BTreeMap<(String, Family), Vec<String>>,
    lists: Sender<Vec<String>>,
}

/// Which of a link's leases is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// DHCP's.
    V4,
    /// DHCPv6's.
    V6,
}

/// What the thread needs of the machine.
pub struct Means {
    /// Sets the clock.
    pub sys: &'static dyn Sys,
    /// What no time is before.
    pub floor: Floor,
    /// Where lines for people go.
    pub say: Box<dyn Fn(&str) + Send>,
}

impl Synchroniser {
    /// Starts the thread, which asks at once where the metadata names servers.
    #[must_use]
    pub fn start(sys: &'static dyn Sys, root: &Path, metadata: &RoleMetadata) -> Self {
        // Whatever a server says comes after the first second; lifting the clock has told why there is no image's date.
        let floor = clock::floor(root, metadata).unwrap_or(Floor { seconds: 0, what: "the year 1970" });
        Self::with(Means { sys, floor, say: Box::new(|line| log::line(line)) }, metadata.time.servers.clone())
    }

    /// The same with other means.
    #[must_use]
    pub fn with(means: Means, named: Vec<String>) -> Self {
        let (lists, news) = mpsc::channel();
        if let Err(error) = beside::start("time", move || keep(&means, &news)) {
            log::line(format_args!("{error:#}: the clock goes on by itself"));
        }
        let synchroniser = Self { named, leased: BTreeMap::new(), lists };
        if !synchroniser.named.is_empty() {
            synchroniser.tell();
        }
        synchroniser
    }

    /// Told of each lease that the machine has, and what becomes of it. Servers of a lease that is lost are asked on: there is nobody better.
    pub fn lease_changed(&mut self, link: &str, change: &Change) {
        match change {
            Change::V4(dhcp::Change::Bound(lease)) => self.leased(link, Family::V4, of_v4(lease)),
            Change::V6(dhcp6::Change::Bound(lease)) => self.leased(link, Family::V6, lease.time_servers.clone()),
            Change::V4(_) | Change::V6(_) => {}
        }
    }

    /// Told of the lease that a link has by now.
    pub fn has(&mut self, keeper: &Leases) {
        match keeper {
            Leases::V4(keeper) => {
                self.leased(keeper.link(), Family::V4, keeper.lease().map(of_v4).unwrap_or_default());
            }
            Leases::V6(keeper) => {
                let servers = keeper.lease().map(|lease| lease.time_servers.clone());
                self.leased(keeper.link(), Family::V6, servers.unwrap_or_default());
            }
        }
    }

    /// Told which servers a lease of a link names, in the order in which they are to be asked.
    pub fn leased(&mut self, link: &str, family: Family, servers: Vec<String>) {
        let before = self.leased.insert((link.to_owned(), family), servers.clone()).unwrap_or_default();
        if self.named.is_empty() && before != servers {
            self.tell();
        }
    }

    fn tell(&self) {
        let mut list: Vec<String> = Vec::new();
        let leased = self.leased.values().flatten().cloned();
        let named = self.named.iter().cloned();
        for server in named.chain(leased.filter(|_| self.named.is_empty())) {
            if !list.contains(&server) && list.len() < MOST {
                list.push(server);
            }
        }
        // A thread that has ended has told why.
        let _ = self.lists.send(list);
    }
}

/// RFC 2132, 8.3.
fn of_v4(lease: &dhcp::Lease) -> Vec<String> {
    lease.time_servers.iter().map(ToString::to_string).collect()
}

/// Asks for ever.
fn keep(means: &Means, news: &Receiver<Vec<String>>) {
    let mut keeper = Keeper::new(means.floor);
    let mut pause = NOBODY;
    let mut failed = false;
    loop {
        match news.recv_timeout(pause) {
            // The last of several counts.
            Ok(list) => {
                let list = news.try_iter().last().unwrap_or(list);
                log::debug(format_args!("time servers: {}", list.join(", ")));
                keeper.serve(list, log::monotonic());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => thread::sleep(pause),
        }
        let now = log::monotonic();
        let due = keeper.due(now);
        if due.is_empty() {
            keeper.idle(now).iter().for_each(|line| (means.say)(line));
            pause = NOBODY;
            continue;
        }
        let said = ask_all(due, means.floor.seconds, &keeper.resting(now));
        for Said { server, time, .. } in &said {
            log::debug(format_args!("time server {server}: {time:?}"));
        }
        let Outcome { adjust, lines, next } = keeper.take(&said, ask::clock(), log::monotonic());
        let done = adjust.map_or(Ok(()), |adjust| means.sys.adjust_clock(&adjust));
        match done {
            Ok(()) => {
                failed = false;
                lines.iter().for_each(|line| (means.say)(line));
            }
            Err(error) if !std::mem::replace(&mut failed, true) => {
                (means.say)(&format!("the kernel does not take the time servers' time: {error}"));
            }
            Err(_) => {}
        }
        pause = spread(next);
    }
}

/// Asks all at once: a name that cannot be looked up takes half a minute.
fn ask_all(servers: Vec<String>, near: i64, resting: &BTreeMap<IpAddr, &'static str>) -> Vec<Said> {
    let thread = |server: String| {
        let (name, resting) = (server.clone(), resting.clone());
        let ask = move || ask(&server, PORT, near, &resting);
        (name, thread::Builder::new().name("time-server".to_owned()).spawn(ask))
    };
    let asked: Vec<_> = servers.into_iter().map(thread).collect();
    let said = |(server, asked): (String, std::io::Result<thread::JoinHandle<Said>>)| {
        let why = match asked.map(thread::JoinHandle::join) {
            Ok(Ok(said)) => return said,
            Ok(Err(_)) => "this machine failed to ask it".to_owned(),
            Err(error) => format!("starting a thread to ask it: {error}"),
        };
        Said { server, time: Err(Failure::Other(why)), refused: Vec::new() }
    };
    asked.into_iter().map(said).collect()
}

/// A pause that is longer by up to a sixteenth, so that machines which were switched on together do not ask together for ever.
fn spread(pause: Duration) -> Duration {
    let nanos = u32::try_from(ask::clock().rem_euclid(1_000_000_000)).unwrap_or_default();
    pause + pause / 16 * (nanos / 1_000_000) / 1000
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::{Family, MOST, Synchroniser, spread};

    #[test]
    fn the_metadatas_servers_win_over_a_leases() {
        let scene = |named: &[&str]| {
            let (lists, told) = mpsc::channel();
            let named = named.iter().map(|name| (*name).to_owned()).collect();
            (Synchroniser { named, leased: Default::default(), lists }, told)
        };
        let (mut from_leases, told) = scene(&[]);
        let leased = |keeper: &mut Synchroniser, link: &str, family, servers: &[&str]| {
            keeper.leased(link, family, servers.iter().map(|server| (*server).to_owned()).collect());
        };
        leased(&mut from_leases, "eth1", Family::V4, &[]);
        assert!(told.try_recv().is_err(), "there is nothing new in a lease without servers");
        leased(&mut from_leases, "eth1", Family::V4, &["10.0.0.2", "10.0.0.1"]);
        leased(&mut from_leases, "eth0", Family::V4, &["10.0.0.1"]);
        leased(&mut from_leases, "eth0", Family::V4, &["10.0.0.1"]);
        // A link may have leases of both kinds.
        leased(&mut from_leases, "eth0", Family::V6, &["2001:db8::123", "time.example"]);
        let lists: Vec<Vec<String>> = told.try_iter().collect();
        let both = vec!["10.0.0.1", "2001:db8::123", "time.example", "10.0.0.2"];
        assert_eq!(lists, [vec!["10.0.0.2", "10.0.0.1"], vec!["10.0.0.1", "10.0.0.2"], both]);
        let many = (0..40).map(|last| format!("10.0.1.{last}")).collect();
        from_leases.leased("eth0", Family::V4, many);
        assert_eq!(told.try_iter().last().unwrap().len(), MOST);
        let (mut from_metadata, told) = scene(&["time.lab"]);
        leased(&mut from_metadata, "eth0", Family::V4, &["10.0.0.1"]);
        assert!(told.try_recv().is_err());
    }

    #[test]
    fn pauses_differ_a_little() {
        for seconds in [0, 2, 64, 1024] {
            let pause = Duration::from_secs(seconds);
            assert!((pause..=pause + pause / 16).contains(&spread(pause)));
        }
    }
}
