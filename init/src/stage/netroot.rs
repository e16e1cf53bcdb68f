//! Turns a URL and a digest on the kernel command line into a mounted root: the network comes up, the file is fetched, proved and unpacked in memory.
mod fetch;
mod trouble;
mod unpack;

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kscratch_metadata::{Link, RoleMetadata};
use kscratch_netlink::LinkNews;

use super::beside;
use super::commandnetwork;
use super::gather;
use super::hardware::Loader;
use super::latelinks;
use super::listener::{Heard, Listener};
use crate::apply::lease::Keeper;
use crate::apply::steps::Machine;
use crate::cmdline::{CommandLine, Fetched};
use crate::console::sampling;
use crate::http::Url;
use crate::log;
use crate::plan::{self, Plan, PlanError};
use crate::sys::{Flag, Mount, Sys};
use trouble::{BESIDES, Tried, Trouble};

/// Where the fetched file and what it unpacks to are, in memory of their own. The name goes once the root is mounted.
const PLACE: &str = "fetched";
/// How long the first network card may take to appear: drivers of some wait for their firmware.
const CARD_WITHIN: Duration = Duration::from_secs(10);
/// How long the listening thread sleeps where no hardware comes.
const LISTENS: Duration = Duration::from_millis(500);
/// What a file may be longer than its digest's neighbour says, in memory: tables, and the pages at the ends of frames.
const SLACK: u64 = 16 << 20;

/// The network that the root was fetched over. It goes on, and the metadata have the last word of it.
#[derive(Default)]
pub struct Fetching {
    /// Leases that links have.
    pub leases: Vec<Keeper>,
    /// What was planned and is applied.
    pub plan: Option<Plan>,
}

/// Loads drivers for hardware that comes, until it is dropped.
struct Plugged(Arc<AtomicBool>);

impl Plugged {
    fn start(listener: Listener, loader: Arc<Loader<'static>>) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        beside::start("plugging", move || {
            while !stopped.load(Ordering::Relaxed) {
                match listener.next(Instant::now() + LISTENS) {
                    Ok(Heard::Event(event)) if event.action == "add" => {
                        if let Some(alias) = event.modalias {
                            loader.plug(&alias);
                        }
                    }
                    Ok(Heard::Event(_) | Heard::Nothing) => {}
                    Ok(Heard::Lost) => loader.coldplug(),
                    Err(error) => return log::line(format_args!("hardware that comes later gets no driver: {error}")),
                }
            }
        })?;
        Ok(Self(stop))
    }
}

impl Drop for Plugged {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Mounts the root that the command line names. `listener` was opened before the first driver was loaded.
///
/// # Errors
/// It is not to be had, is not what the digest says, or there is too little memory; the text says what to do.
pub fn mount(
    sys: &'static dyn Sys,
    (root, new_root): (&Path, &Path),
    wanted: &Fetched,
    cmdline: &CommandLine,
    (listener, loader): (Listener, Arc<Loader<'static>>),
) -> Result<Fetching> {
    let url = Url::parse(&wanted.url).context("reading kscratch.root on the kernel command line")?;
    let (free, all) = memory(root)?;
    if let Err(trouble) = trouble::room(wanted.bytes.unwrap_or(0), free, all) {
        bail!("{trouble}");
    }
    let _plugged = Plugged::start(listener, Arc::clone(&loader))?;
    loader.coldplug();
    // No hardware asks for these.
    if !loader.load("loop").context("loading what mounts the root's file")? {
        bail!("this initramfs lacks the module loop: it is none of kscratch-image build --format pxe");
    }
    for kind in link_kinds(cmdline) {
        if let Err(error) = loader.load(kind) {
            log::line(format_args!("{error:#}"));
        }
    }

    let place = root.join(PLACE);
    // Whatever a server sends, the machine keeps the rest of its memory.
    let most = wanted.bytes.map_or(free.saturating_sub(BESIDES), |bytes| bytes.saturating_add(SLACK).min(free));
    memory_filesystem(sys, &place, most)?;
    let path = place.join("root.zst");
    let mut packed = new_file(&path)?;
    let mut network = Network::new(sys, root, cmdline)?;
    let length = network.fetch(&url, wanted, &mut packed, most)?;

    let begun = log::monotonic();
    let whole = new_file(&place.join("root"))?;
    unpack::all(&packed, &whole).with_context(|| format!("taking what {} sent as the root", wanted.url))?;
    drop(packed);
    fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
    mount_file(sys, &whole, new_root)?;
    sys.unmount(&place, true).with_context(|| format!("letting go of {}", place.display()))?;
    log::line(format_args!(
        "root {} ({} MiB, its digest is right) unpacked in {:.3} s and mounted read-only",
        wanted.url,
        length >> 20,
        log::monotonic().saturating_sub(begun).as_secs_f64()
    ));
    Ok(network.into_fetching())
}

/// Modules of the links that the command line has made. The kernel asks for them too, and there is no `modprobe` here.
fn link_kinds(cmdline: &CommandLine) -> Vec<&'static str> {
    let any = |is: fn(&Link) -> bool| cmdline.network.links.values().any(is);
    let kinds = [
        ("bonding", any(|link| link.bond.is_some())),
        ("8021q", any(|link| link.vlan.is_some())),
        ("bridge", any(|link| link.bridge.is_some())),
    ];
    kinds.into_iter().filter(|(_, wanted)| *wanted).map(|(kind, _)| kind).collect()
}

/// Bytes of memory: available, and in all.
fn memory(root: &Path) -> Result<(u64, u64)> {
    let text = fs::read_to_string(root.join("proc/meminfo")).context("reading /proc/meminfo")?;
    let found = sampling::memory(&text, "").context("finding the memory in /proc/meminfo")?;
    Ok((found.available, found.total))
}

fn memory_filesystem(sys: &dyn Sys, place: &Path, bytes: u64) -> Result<()> {
    fs::create_dir_all(place).with_context(|| format!("making {}", place.display()))?;
    let data = format!("mode=0700,size={bytes}");
    let flags = &[Flag::NoSuid, Flag::NoDev, Flag::NoExec];
    let mount = Mount { source: "tmpfs", target: place, kind: "tmpfs", flags, data: &data };
    sys.mount(&mount).with_context(|| format!("mounting memory for the root on {}", place.display()))
}

fn new_file(path: &Path) -> Result<File> {
    let file = File::options().read(true).write(true).create_new(true).open(path);
    file.with_context(|| format!("making {}", path.display()))
}

fn mount_file(sys: &dyn Sys, file: &File, new_root: &Path) -> Result<()> {
    let (device, held) = sys.loop_device(file).context("making a loop device of the root's file")?;
    fs::create_dir_all(new_root).with_context(|| format!("making {}", new_root.display()))?;
    let source = device.to_str().context("naming the loop device")?;
    let mount = Mount { source, target: new_root, kind: "ext4", flags: &[Flag::ReadOnly], data: "" };
    let mounted = sys.mount(&mount).with_context(|| format!("mounting the root in {source} read-only"));
    // The mount holds the device from now on; without one it goes.
    drop(held);
    mounted
}

/// The network of the initramfs.
struct Network<'a> {
    machine: Machine<'static>,
    root: &'a Path,
    id: String,
    cmdline: &'a CommandLine,
    plan: Option<Plan>,
}

impl<'a> Network<'a> {
    fn new(sys: &'static dyn Sys, root: &'a Path, cmdline: &'a CommandLine) -> Result<Self> {
        // Nothing is kept of the machine here: what spreads DHCP's numbers is this boot's.
        let id = fs::read_to_string(root.join("proc/sys/kernel/random/boot_id")).context("reading the boot's id")?;
        let id: String = id.trim().chars().filter(|one| *one != '-').collect();
        cmdline.network.faults.iter().for_each(log::line);
        Ok(Self { machine: Machine::new(sys, root, &id), root, id, cmdline, plan: None })
    }

    fn into_fetching(self) -> Fetching {
        Fetching { leases: self.machine.leases, plan: self.plan }
    }

    /// Fetches the file, however often that is worth it.
    fn fetch(&mut self, url: &Url, wanted: &Fetched, file: &mut File, most: u64) -> Result<u64> {
        let (begun, mut quiet_since) = (Instant::now(), Instant::now());
        let mut tried = Tried::default();
        loop {
            let done = self.up().and_then(|()| {
                log::line(format_args!("root: fetching {}", wanted.url));
                fetch::attempt(url, wanted, file, most)
            });
            let trouble = match done {
                Ok(length) => return Ok(length),
                Err(trouble) => trouble,
            };
            if trouble.brought_something() {
                quiet_since = Instant::now();
            }
            tried.attempts += 1;
            tried.others += u32::from(matches!(trouble, Trouble::Digest(_)));
            (tried.quiet, tried.all) = (quiet_since.elapsed(), begun.elapsed());
            let Some(pause) = trouble.again(tried) else { bail!("root {}: {trouble}", wanted.url) };
            log::line(format_args!("root {}: {trouble}; again in {} s", wanted.url, pause.as_secs()));
            thread::sleep(pause);
        }
    }

    /// Has the cards that are there do what the command line says, or ask by DHCP. A link that fails is no trouble while another one has an address.
    fn up(&mut self) -> Result<(), Trouble> {
        let applied = self.plan();
        match self.addressed() {
            Ok(true) => {
                if let Err(error) = applied {
                    log::line(format_args!("{error:#}"));
                }
                Ok(())
            }
            Ok(false) => {
                let why =
                    applied.err().map_or_else(|| "no link has an address".to_owned(), |error| format!("{error:#}"));
                Err(Trouble::NoNetwork(why.replace('\n', "; ")))
            }
            Err(error) => Err(Trouble::NoNetwork(format!("{error:#}"))),
        }
    }

    fn plan(&mut self) -> Result<()> {
        if !a_card_within(CARD_WITHIN)? {
            bail!("there is no network card that this image has a driver for");
        }
        let facts = gather::facts(self.root, &self.id, &self.machine.leases, false)?;
        let mut metadata = RoleMetadata::standalone();
        let lines = commandnetwork::lay_under(&self.cmdline.network, &mut metadata, &facts);
        if self.plan.is_none() {
            lines.iter().for_each(log::line);
        }
        let plan = plan::network(&metadata, &facts).map_err(PlanError::with_hint)?;
        let applied = self.machine.plan(&plan);
        self.plan = Some(plan);
        // The URL may have a name in it.
        let facts = gather::facts(self.root, &self.id, &self.machine.leases, false)?;
        let text = facts.name_server_lines(&self.cmdline.network.dns_servers);
        fs::write(self.root.join("etc/resolv.conf"), text).context("writing /etc/resolv.conf")?;
        applied
    }

    /// Whether a link has an address of its own, of whichever family.
    fn addressed(&self) -> Result<bool> {
        let facts = gather::facts(self.root, &self.id, &self.machine.leases, false)?;
        let words = &self.cmdline.network;
        let fixed = words
            .links
            .values()
            .chain(&words.others)
            .any(|link| !link.addresses.is_empty() || link.accept_ra.is_some());
        let leased = self.machine.leases.iter().any(|keeper| keeper.address().is_some());
        Ok(fixed || leased || facts.links.values().chain(facts.made.values()).any(|link| !link.addresses.is_empty()))
    }
}

/// Waits for the first network card.
fn a_card_within(within: Duration) -> Result<bool> {
    let end = Instant::now() + within;
    // Open before it is looked: a card that comes in between is news.
    let news = LinkNews::open()?;
    loop {
        if !latelinks::cards()?.is_empty() {
            return Ok(true);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || !news.wait(left)? {
            return Ok(false);
        }
        news.read()?;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{link_kinds, memory, memory_filesystem, mount_file};
    use crate::cmdline::CommandLine;
    use crate::sys::Recording;

    #[test]
    fn links_that_are_made_have_their_modules() {
        let of = |text: &str| link_kinds(&CommandLine::parse(text));
        assert!(of("ip=dhcp").is_empty());
        assert_eq!(of("bond=bond0:eth0,eth1 vlan=bond0.7:bond0 ip=bond0.7:dhcp"), ["bonding", "8021q"]);
        assert_eq!(of("bridge=br0:eth0"), ["bridge"]);
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("proc")).unwrap();
        fs::write(root.path().join("proc/meminfo"), "MemTotal:  1000 kB\nMemAvailable:  600 kB\n").unwrap();
        assert_eq!(memory(root.path()).unwrap(), (600 << 10, 1000 << 10));
    }

    #[test]
    fn the_file_is_mounted_read_only_out_of_bounded_memory() {
        let folder = tempfile::tempdir().unwrap();
        let sys = Recording::new();
        memory_filesystem(&sys, &folder.path().join("fetched"), 4096).unwrap();
        mount_file(&sys, &tempfile::tempfile().unwrap(), &folder.path().join("sysroot")).unwrap();
        let calls: Vec<String> =
            sys.calls().iter().map(|line| line.replace(folder.path().to_str().unwrap(), "R")).collect();
        let want = [
            "mount tmpfs R/fetched tmpfs nosuid,nodev,noexec mode=0700,size=4096",
            "loop device",
            "mount /dev/loop0 R/sysroot ext4 readonly",
        ];
        assert_eq!(calls, want);
    }
}
