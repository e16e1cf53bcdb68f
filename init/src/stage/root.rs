//! The second stage: turns a mounted root into a running node, phase by phase, and hands it to the event loop.
mod applying;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kscratch_metadata::{Role, RoleMetadata};
use kscratch_netlink::LinkNews;

use super::beside;
use super::block::Devices;
use super::carriers::Teller;
use super::clock;
use super::emulation;
use super::furtherdisks::{self, FurtherDisks};
use super::gather;
use super::initramfs::Early;
use super::latelinks::{self, Late};
use super::metadata;
use super::mounts;
use super::newlease::{self, Leases, RESOLV_CONF};
use super::orders;
use super::phases::Phases;
use super::plugging::{self, Plugging};
use super::podnetwork;
use super::synchronise::Synchroniser;
use crate::apply::disk::reserve::{self, Place};
use crate::apply::disk::reset;
use crate::apply::disk::whereabouts::{self, Nowhere, Whereabouts};
use crate::apply::disk::{self, State};
use crate::apply::files;
use crate::apply::lease::Change;
use crate::apply::steps::Machine;
use crate::cmdline::CommandLine;
use crate::console::{attending, board};
use crate::log;
use crate::plan::{self, Phase, Plan, PlanError};
use crate::run::eventloop::{self, Options};
use crate::run::inbox::{self, Message, Sender};
use crate::run::{power, watchdog};
use crate::source::Surroundings;
use crate::sys::Sys;
use applying::hint;

/// Folders that programs expect on an empty `/var`; what each service needs besides is the plan's business.
const VAR: [&str; 6] = ["/var/cache", "/var/lib", "/var/lib/kscratch", "/var/log", "/var/log/kscratch", "/var/tmp"];

/// How long the phases may take to notice that the machine stops: what they are at is ended with it.
const PHASES_END_WITHIN: Duration = Duration::from_secs(3);

/// How long the first lease may take where the machine has started anew because of one: it may have come too late (a switch that keeps a
/// new link from sending for a minute), and would again.
const LATE_LEASE_WITHIN: Duration = Duration::from_secs(180);

/// How long a watchdog's driver may come after the others.
const LATE_WATCHDOG: Duration = Duration::from_secs(10);

/// How long the console shows that the phases have failed for good before the machine starts anew: as long as for a failure of all the boot (`main.rs`).
const BEFORE_REBOOT: Duration = Duration::from_secs(60);

/// Runs the stage: the boot in order, from where the initramfs left off, if there was one. Returns only on failure.
///
/// # Errors
/// Something without which there is no machine: the early mounts, the event loop.
pub fn boot(sys: &'static dyn Sys, mut early: Option<Early>) -> Result<std::convert::Infallible> {
    let fetching = early.as_mut().and_then(|early| early.fetching.take()).unwrap_or_default();
    let begun = early.as_ref().map_or_else(log::monotonic, |early| early.begun);
    let root = Path::new("/");
    mounts::early(sys, root)?;
    log::open();
    let text = fs::read_to_string("/proc/cmdline").context("reading the kernel command line")?;
    let cmdline = CommandLine::parse(&text);
    log::set_debug(cmdline.debug);
    log::line(format_args!("kscratch {} on the root", env!("CARGO_PKG_VERSION")));
    if early.is_none() {
        attending::start(root);
    }
    wake_random_numbers();
    if let Err(error) = sys.catch_ctrl_alt_del() {
        log::line(format_args!("ctrl-alt-del resets at once: {error}"));
    }
    if emulation::is_emulated() {
        emulation::suit(sys, root);
    }
    let mut phases = Phases::default();
    let devices = Devices::of_machine().led_by_disk_of(root);
    let mut plugging = Plugging::start(sys, root.to_owned(), early);

    phases.run("mounts", "report this: the image and its kernel do not fit together", || mounts::late(sys, root));
    let mut wiped = true;
    let state = phases.run("state", STATE_HINT, || state(sys, root, &devices, &cmdline, &mut wiped)).flatten();
    let id = phases
        .run("identity", "look at the state partition: it cannot be written", || identity(root))
        .unwrap_or_default();
    phases.run_hinting("hardware", plugging::hint, || plugging.wait_for_hardware());
    tell_twins(&devices, &cmdline);

    let mut machine = Machine::new(sys, root, &id);
    (machine.leases, machine.network) = (fetching.leases, fetching.plan);
    let (sender, inbox) = inbox::pair().context("making the event loop's inbox")?;
    let (device, written) = state.unzip();
    let stop: Arc<AtomicBool> = Arc::default();
    let rest = Rest {
        sys,
        phases,
        machine,
        plugging,
        state: device.map(|device| disk::Growing { device, devices: devices.clone() }),
        further: FurtherDisks::new(devices.clone()),
        written: written.flatten(),
        lifted: false,
        wiped,
        root,
        cmdline,
        devices,
        id,
        teller: Teller::start(),
        sender: sender.clone(),
        stop: Arc::clone(&stop),
    };
    let (done, ended) = mpsc::channel::<()>();
    let stopped = Arc::clone(&stop);
    // From here on beside the event loop: a server may be hours away with the metadata, and the power button is heard meanwhile.
    beside::start("phases", move || {
        let places = beside::or_start_anew(&sender, BEFORE_REBOOT, || rest.run(done)).unwrap_or_default();
        furtherdisks::keep_reserves(root, &places, &stopped);
    })?;
    let options = Options { inbox: Some(inbox), begun: Some(begun), ..Options::machine() };
    let ending = eventloop::run(Vec::new(), options).context("running the event loop")?;
    // A phase that goes on writing would keep state from being unmounted.
    stop.store(true, Ordering::Relaxed);
    if ended.recv_timeout(PHASES_END_WITHIN) == Err(mpsc::RecvTimeoutError::Timeout) {
        log::line("the boot's phases are not over yet; the machine does not wait for them");
    }
    power::finish(sys, ending)?;
    bail!("the kernel did not end the machine's run")
}

/// Two disks with the same image are told apart by nothing: this machine's state is on the disk that its root is on.
fn tell_twins(devices: &Devices, cmdline: &CommandLine) {
    let Some(guid) = cmdline.root_partition() else { return };
    let names: Vec<String> = devices.find(guid).into_iter().map(|found| found.disk.name).collect();
    if names.len() > 1 {
        log::line(format_args!(
            "the disks {} carry the same image; this machine runs from {}",
            names.join(", "),
            names[0]
        ));
    }
}

const STATE_HINT: &str = "state is in memory and is lost at the next boot; put the partition right (e2fsck), or wipe its first MiB to have it made anew: on a master that is the end of its etcd's data, and of the cluster where there is no other master";
const NO_DISK_HINT: &str = "a disk of this machine keeps it: sgdisk -n 0:0:0 -t 0:4d21b016-b534-45c2-a9fb-5c16e091fd2d -c 0:state /dev/DISK makes the partition, and the next boot the rest";
const NO_SERVICE: &str = "no service but containerd is started, and nothing runs in that";

/// On a machine without a hardware source the kernel begins to collect randomness only when somebody asks and waits for it
/// (drivers/char/random.c, `try_to_generate_entropy`); whoever merely polls `/dev/random` would wait for minutes. So ask now, beside
/// the rest of the boot: DHCP, dockerd and kubelet all need it.
fn wake_random_numbers() {
    let work = || {
        let begun = log::monotonic();
        let got = rustix::rand::getrandom(&mut [0_u8; 1], rustix::rand::GetRandomFlags::empty());
        let took = log::monotonic().saturating_sub(begun).as_secs_f64();
        log::debug(format_args!("random numbers are ready after {took:.3} s ({got:?})"));
    };
    if let Err(error) = beside::start("random", work) {
        log::line(format_args!("waking the random numbers: {error:#}"));
    }
}

/// Mounts state; gives its device, and when it was last written to; `None` where it is in memory because it may be on any disk, and none has a place for it. `wiped` becomes
/// false where a reset was asked for and is not done: what is left of the old machine must not run.
fn state(
    sys: &dyn Sys,
    root: &Path,
    devices: &Devices,
    cmdline: &CommandLine,
    wiped: &mut bool,
) -> Result<Option<(PathBuf, Option<i64>)>> {
    let whereabouts = Whereabouts::of(cmdline);
    let state = disk::mount_state(sys, root, devices, whereabouts)?;
    if let Err(error) = reserve::give_away_if_full(root, &reserve::STATE) {
        log::line(format_args!("{error:#}; state stays as full as it is"));
    }
    if matches!(state, State::Partition { .. })
        && let Err(error) = reset::begin(root)
    {
        *wiped = false;
        log::line(format_args!("{error:#}; the next boot goes on with that"));
    }
    for folder in VAR {
        files::directory(root, folder, if folder == "/var/tmp" { 0o1777 } else { 0o755 }, 0)?;
    }
    match state {
        State::Partition { device, made, written } => {
            log::line(format_args!("state is {}{}", device.display(), if made { ", made anew" } else { "" }));
            Ok(Some((device, written)))
        }
        // Of such a machine nobody expects a disk. One with a partition that is not to be used has a fault, as any other.
        State::Memory { reason } if whereabouts::find(devices, whereabouts).err() == Some(Nowhere::OnNoDisk) => {
            log::line(format_args!("state is in memory, and lost at the next boot: {reason}"));
            log::hint(NO_DISK_HINT);
            Ok(None)
        }
        State::Memory { reason } => bail!(reason),
    }
}

/// Also writes what `/etc` links to before the plan knows better: programs must never find these dangling.
fn identity(root: &Path) -> Result<String> {
    let id = gather::machine_id(root)?;
    files::file(root, "/run/kscratch/machine-id", format!("{id}\n").as_bytes(), 0o444)?;
    files::file(root, RESOLV_CONF, b"", 0o644)?;
    files::file(root, "/run/kscratch/hosts", b"127.0.0.1 localhost\n::1 localhost\n", 0o644)?;
    log::line(format_args!("machine {id}"));
    Ok(id)
}

/// What is left of the boot once the hardware is there, done in a thread beside the event loop: services start meanwhile.
struct Rest {
    sys: &'static dyn Sys,
    phases: Phases,
    machine: Machine<'static>,
    plugging: Plugging,
    /// The state partition, unless state is in memory.
    state: Option<disk::Growing>,
    /// The disks that the metadata name.
    further: FurtherDisks,
    /// When it was last written to before this boot.
    written: Option<i64>,
    /// The clock was found wrong in this boot.
    lifted: bool,
    /// No reset is left undone.
    wiped: bool,
    root: &'static Path,
    cmdline: CommandLine,
    devices: Devices,
    id: String,
    /// Says which cables are out.
    teller: Teller,
    sender: Sender,
    /// The machine is to stop: no further phase is begun.
    stop: Arc<AtomicBool>,
}

impl Rest {
    /// Finds the metadata and makes the machine what they say. Gives what a piece is to be kept back of; `done` goes when nothing is written any more.
    fn run(mut self, done: mpsc::Sender<()>) -> Vec<Place> {
        let metadata = self.metadata();
        let places = match metadata.filter(|_| self.wiped) {
            Some(metadata) => self.machine(metadata),
            None => {
                self.idle();
                Vec::new()
            }
        };
        drop(done);
        places
    }

    /// Finds the metadata, and has the machine guarded as soon as they are known.
    fn metadata(&mut self) -> Option<RoleMetadata> {
        match clock::lift_to_image(self.sys, self.root) {
            Ok(lifted) => self.lifted = lifted,
            Err(error) => log::line(format_args!("{error:#}; the clock stays as it is")),
        }
        let (sys, root, lasting) = (self.sys, self.root, self.state.is_some());
        let around = Surroundings { sys, root, devices: &self.devices, cmdline: &self.cmdline };
        let (phases, machine) = (&mut self.phases, &mut self.machine);
        let metadata = metadata::find(phases, machine, &around, &self.id, lasting, &self.teller, &self.stop);
        board::metadata(metadata.as_ref(), &self.sender);
        if let Some(wanted) = metadata.as_ref().map(|metadata| &metadata.watchdog).filter(|wanted| wanted.enabled) {
            let timeout = Duration::from_secs(wanted.timeout.into());
            let (root, sender, stop) = (root.to_owned(), self.sender.clone(), Arc::clone(&self.stop));
            let loader = self.plugging.loaded();
            let means = watchdog::Means { sys, root, timeout, late: LATE_WATCHDOG, sender, lasting, stop };
            watchdog::start(means, move || loader.is_some_and(|loader| loader.load("softdog").unwrap_or_default()));
        }
        metadata
    }

    /// There is nothing that the machine could be.
    fn idle(&mut self) {
        if self.stop.load(Ordering::Relaxed) {
            return;
        }
        let why = if self.wiped { "nothing is configured and" } else { "the reset is not done," };
        log::line(format_args!("{why} no service is started; the machine waits for the power button or a reboot"));
        // The addresses stay, so somebody has to go on asking for them: a server gives what nobody asks for to another machine.
        let leases = std::mem::take(&mut self.machine.leases);
        self.sender.send(Message::Leases { leases, changed: Box::new(|_, _| {}) });
    }

    /// Makes the machine what its metadata say.
    fn machine(&mut self, metadata: RoleMetadata) -> Vec<Place> {
        self.node(metadata);
        self.sender.send(Message::Booted);
        // A large disk takes its time, and there is room enough to start in.
        if let Some(state) = self.state.as_ref().filter(|_| !self.stop.load(Ordering::Relaxed))
            && let Err(error) = state.grow(self.sys, &self.root.join("var"))
        {
            log::line(format_args!("{error:#}; state keeps its size"));
        }
        if !self.stop.load(Ordering::Relaxed) {
            self.further.grow(self.sys, self.root);
        }
        self.state.iter().map(|_| reserve::STATE).chain(self.further.places()).collect()
    }

    /// Applies the plan of a node. A phase that fails does not keep back those that can do without it.
    fn node(&mut self, metadata: RoleMetadata) {
        self.machine.host_name = metadata.node.name.clone();
        // Before anything looks at a certificate, or dates a file.
        if let Err(error) = clock::lift(self.sys, self.root, &metadata, self.written, self.lifted) {
            log::line(format_args!("{error:#}; the clock stays as it is"));
        }
        // The runtime needs nothing of the network, and takes longer to start than all the rest of the boot.
        self.apply(&plan::runtime(&metadata));
        let (root, id) = (self.root, self.id.clone());
        let lasting = self.state.is_some();
        let disks = self.further.mount(self.sys, root, &mut self.phases, &metadata, lasting);
        let wiped = if lasting && disks { reset::finish(root, &self.further.places()) } else { Ok(()) };
        if let Err(error) = &wiped {
            log::line(format_args!("{error:#}; the next boot begins again with that, and nothing is started before"));
        }
        let plan_hint = if metadata.role == Role::Master && !lasting { STATE_HINT } else { metadata::HINT };
        let machine = &mut self.machine;
        if newlease::restarts(root) > 0 {
            machine.lease_within = LATE_LEASE_WITHIN;
        }
        // Open before the cards are looked for: one that comes meanwhile is taken up.
        let (news, known) = (LinkNews::open(), latelinks::cards().unwrap_or_default());
        let teller = self.teller.clone();
        self.phases.run("network", hint("network"), || {
            let facts = gather::facts(root, &id, &machine.leases, lasting)?;
            let plan = plan::network(&metadata, &facts).map_err(PlanError::with_hint)?;
            machine.keep_leases_of(&plan)?;
            if let Some(before) = machine.network.take() {
                let steps = plan::superseded(&before, &plan);
                let stale = Plan { phases: vec![Phase { name: "network", steps }] };
                if let Err(error) = machine.steps_of(&stale) {
                    log::line(format_args!("taking back the network that the metadata were fetched over: {error:#}"));
                }
            }
            teller.watch(&plan);
            machine.plan(&plan)
        });
        let leased = machine.leases.iter().map(|keeper| keeper.link().to_owned()).collect();
        let mut synchroniser = Synchroniser::start(self.sys, root, &metadata);
        machine.leases.iter().for_each(|keeper| synchroniser.has(keeper));
        let mut gathered = None;
        let plan = self.phases.run("plan", plan_hint, || {
            let facts = gathered.insert(gather::facts(root, &id, &machine.leases, lasting)?);
            plan::node(&metadata, facts).map_err(PlanError::with_hint)
        });
        // What belongs onto a disk that is not there is not begun elsewhere, and nothing runs on what was to be wiped.
        let plan = plan.filter(|_| disks && wiped.is_ok());
        let leases = std::mem::take(&mut machine.leases);
        let Some(facts) = gathered else {
            log::line(NO_SERVICE);
            let changed = move |link: &str, change: &Change| synchroniser.lease_changed(link, change);
            return self.sender.send(Message::Leases { leases, changed: Box::new(changed) });
        };
        if metadata.cluster.is_some() && plan.is_some() {
            orders::watch(root, &self.sender, lasting);
            podnetwork::watch(self.sys, root, &metadata, &facts, plan::known_range(&metadata, &facts), &self.sender);
        }
        let pods = plan::known_range(&metadata, &facts).map(|range| plan::known_pods(&metadata, &facts, range));
        // Without a plan, too: there may be one with the next address.
        let watch = Arc::new(Leases::new(root, metadata.clone(), facts.clone(), lasting, self.sender.clone()));
        let watched = Arc::clone(&watch);
        let changed = move |link: &str, change: &Change| {
            match change {
                Change::V4(change) => watched.changed(link, change),
                Change::V6(change) => watched.changed6(link, change),
            }
            synchroniser.lease_changed(link, change);
        };
        self.sender.send(Message::Leases { leases, changed: Box::new(changed) });
        let address_came = Box::new(move |link: &str, address| watch.address_came(link, address));
        let (sys, sender) = (self.sys, self.sender.clone());
        match news {
            Ok(news) => Late { sys, root, metadata, facts, leased, known, teller, sender, address_came }.watch(news),
            Err(error) => log::line(format_args!("network cards that come are not taken up: {error:#}")),
        }
        let Some(plan) = plan else { return log::line(NO_SERVICE) };
        let plugging = &mut self.plugging;
        self.phases.run_hinting("modules", plugging::hint, || plugging.load_list());
        let undone = self.apply(&plan);
        // Nobody else does: the cluster gives a range that the machine has already, if there is a cluster at all.
        if let Some(pods) = pods.filter(|_| undone.contains("pods")) {
            podnetwork::make(self.sys, root, id, pods);
        }
    }

    /// Applies phases and hands over the services that they bring. Gives those that are not done.
    fn apply(&mut self, plan: &Plan) -> BTreeSet<&'static str> {
        let sender = &self.sender;
        let hand_over = |service| sender.send(Message::Service(Box::new(service)));
        applying::apply(&mut self.phases, &mut self.machine, plan, &self.stop, hand_over)
    }
}
