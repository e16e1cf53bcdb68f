//! A [`Fleet`] is a plan's switch, gateway and machines while they run; all of it ends when it is dropped.
//!
//! It works in the current folder, the machines': paths of unix sockets are bounded, and a folder's may be long.
use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use kscratch_qemu::console::Line;
use kscratch_qemu::{
    Condition, Disk, Firmware, Gateway, Link, Machine, Overlay, RunningGateway, Toolset, Vm, accelerator,
};

use super::phase;
use super::place::{CONSOLE, DISK, PLAN, ROLE};
use super::plan::{Plan, PlannedMachine};
use super::protocol::{Answer, Cable, MachineStatus, Request, Status};
use crate::console::Hint;
use crate::run::FW_CFG_ROLE;
use crate::run::hardware::sector_of;

/// The gateway's port on the link.
const GATEWAY: &str = "gateway";
/// How many addresses its DHCP gives away (`NB_BOOTP_CLIENTS` in libslirp's bootp.h).
const LEASES: u32 = 16;
/// How far nodes stand back behind masters where they are emulated: nodes without processors are slow, an API server without them loses its etcd, ends, and
/// takes minutes to begin again.
const NODES_STAND_BACK: u8 = 6;

/// Switch, gateway and machines.
#[derive(Debug)]
pub struct Fleet {
    tools: Toolset,
    plan: Plan,
    accelerated: bool,
    // Machines and gateway end before the link that they are plugged into.
    slots: Vec<Slot>,
    /// `None` where it could not be started anew.
    gateway: Option<RunningGateway>,
    outside: PathBuf,
    link: Link,
}

/// Where a machine stands.
#[derive(Debug)]
struct Slot {
    planned: PlannedMachine,
    plug: PathBuf,
    vm: Option<Vm>,
    since: Instant,
    /// How it ended the last time, or that it was never on.
    rest: String,
}

impl Fleet {
    /// Starts switch and gateway; the machines are off.
    ///
    /// # Errors
    /// A port of this host is taken, or QEMU cannot be started.
    pub fn start(plan: Plan, tools: Toolset) -> Result<Fleet> {
        let mut link = Link::new(Path::new(""));
        let outside = link.plug(GATEWAY)?;
        let mut fleet = Fleet { tools, plan, accelerated: false, slots: Vec::new(), gateway: None, outside, link };
        fleet.start_gateway(&fleet.plan.gateway())?;
        for planned in fleet.plan.machines.clone() {
            fleet.plug(planned)?;
        }
        // Asked once, before anybody waits for an answer: it takes seconds where there is a KVM that does not work. It is asked by a machine, which wants
        // its disks; whoever switches that one on is told if they cannot be made.
        if let Some(slot) = fleet.slots.first()
            && lay(&fleet.tools, &fleet.plan.name, &slot.planned).is_ok()
        {
            fleet.accelerated = accelerator::kvm_works(&fleet.tools, &machine(slot, &fleet.plan.name, None, true));
        }
        Ok(fleet)
    }

    fn start_gateway(&mut self, gateway: &Gateway) -> Result<()> {
        // The ports of this host that the new one takes are the old one's.
        self.gateway = None;
        let running = gateway.start(&self.tools, &self.outside, Path::new(""));
        self.gateway = Some(running.context("starting the cluster's gateway")?);
        Ok(())
    }

    fn plug(&mut self, planned: PlannedMachine) -> Result<()> {
        let plug = self.link.plug(&planned.name)?;
        self.slots.push(Slot {
            planned,
            plug,
            vm: None,
            since: Instant::now(),
            rest: "not switched on yet".to_owned(),
        });
        Ok(())
    }

    /// Does what is asked for; what concerns the keeper itself is not its business.
    ///
    /// # Errors
    /// There is no such machine, or it is not in the state for it.
    pub fn answer(&mut self, request: &Request) -> Result<Answer> {
        match request {
            Request::Status => return Ok(Answer::Status(self.status())),
            Request::On { machine, clock } => self.on(machine, clock.as_deref())?,
            Request::Off { machine } => self.running(machine)?.power_button()?,
            Request::Reset { machine } => self.running(machine)?.reset()?,
            Request::Cut { machine } => self.cut(machine)?,
            Request::Cable { machine, cable } => self.cable(machine, *cable)?,
            Request::Leases { first } => self.leases(*first)?,
            Request::Reload => self.reload()?,
            Request::Detach | Request::Abandoned | Request::End => {}
        }
        Ok(Answer::Done)
    }

    fn slot(&mut self, name: &str) -> Result<&mut Slot> {
        self.plan.machine(name)?;
        self.slots.iter_mut().find(|slot| slot.planned.name == name).ok_or_else(|| anyhow!("{name} is not plugged in"))
    }

    fn running(&mut self, name: &str) -> Result<&mut Vm> {
        let slot = self.slot(name)?;
        slot.settle();
        slot.vm.as_mut().ok_or_else(|| anyhow!("{name} is off"))
    }

    fn on(&mut self, name: &str, clock: Option<&str>) -> Result<()> {
        let (tools, cluster, accelerated) = (self.tools.clone(), self.plan.name.clone(), self.accelerated);
        let slot = self.slot(name)?;
        slot.settle();
        if slot.vm.is_some() {
            bail!("{name} is on already");
        }
        lay(&tools, &cluster, &slot.planned)?;
        let vm = Vm::start(&tools, &machine(slot, &cluster, clock, accelerated))
            .with_context(|| format!("starting {name}"))?;
        slot.vm = Some(vm);
        slot.since = Instant::now();
        match self.link.condition(name).unwrap_or_default().up {
            true => Ok(()),
            false => self.carrier(name, false),
        }
    }

    fn cut(&mut self, name: &str) -> Result<()> {
        self.running(name)?.cut_power();
        let slot = self.slot(name)?;
        slot.end("off: its power was cut".to_owned());
        Ok(())
    }

    fn cable(&mut self, name: &str, cable: Cable) -> Result<()> {
        let name = self.slot(name)?.planned.name.clone();
        if cable.loss > 1000 {
            bail!("of a thousand frames no more than a thousand can be lost");
        }
        let condition =
            Condition { up: cable.up, loss: cable.loss, delay: Duration::from_millis(cable.delay), rate: cable.rate };
        self.link.set_condition(&name, condition);
        self.carrier(&name, cable.up)
    }

    /// A pulled cable is seen by the machine, too.
    fn carrier(&mut self, name: &str, up: bool) -> Result<()> {
        match self.slot(name)?.vm.as_mut() {
            Some(vm) if vm.status().is_none() => vm.set_carrier(0, up).with_context(|| format!("the card of {name}")),
            _ => Ok(()),
        }
    }

    /// Starts the gateway anew, with other addresses to give away.
    fn leases(&mut self, first: Ipv4Addr) -> Result<()> {
        let mut gateway = self.plan.gateway();
        refuse_leases(&gateway, first)?;
        gateway.first_lease = first;
        self.start_gateway(&gateway)
    }

    /// Takes in the machines that were added to the plan.
    fn reload(&mut self) -> Result<()> {
        let plan = Plan::read(Path::new(PLAN))?.context("the plan of the machines is gone")?;
        let old = self.plan.machines.len();
        if plan.machines.get(..old) != Some(&self.plan.machines[..]) || plan.forwards != self.plan.forwards {
            bail!("more than new machines was changed in the plan: `cluster down` and `cluster up` take that over");
        }
        let new = plan.machines[old..].to_vec();
        self.plan = plan;
        new.into_iter().try_for_each(|planned| self.plug(planned))
    }

    fn status(&mut self) -> Status {
        self.slots.iter_mut().for_each(Slot::settle);
        Status {
            keeper: std::process::id(),
            gateway: self.gateway.as_ref().filter(|gateway| gateway.status().is_none()).map(RunningGateway::pid),
            accelerated: self.accelerated,
            machines: self.slots.iter().map(|slot| slot.status(&self.link)).collect(),
        }
    }
}

impl Slot {
    /// Takes note of a machine that ended by itself.
    fn settle(&mut self) {
        let Some(status) = self.vm.as_ref().and_then(Vm::status) else { return };
        let said = self.vm.as_ref().map(Vm::stderr).unwrap_or_default();
        self.end(match status.success() {
            true => "off".to_owned(),
            false => format!("off: QEMU ended with {status}: {said}"),
        });
    }

    fn end(&mut self, how: String) {
        self.vm = None;
        self.since = Instant::now();
        self.rest = how;
    }

    fn status(&self, link: &Link) -> MachineStatus {
        let name = &self.planned.name;
        let Condition { up, loss, delay, rate } = link.condition(name).unwrap_or_default();
        let traffic = link.traffic(name).unwrap_or_default();
        let phase = match &self.vm {
            Some(vm) => vm.latest(|line| phase::of_line(&line.text)).unwrap_or_else(|| "switched on".to_owned()),
            None => self.rest.clone(),
        };
        MachineStatus {
            name: name.clone(),
            master: self.planned.master,
            address: self.planned.address,
            pid: self.vm.as_ref().map(Vm::pid),
            seconds: self.since.elapsed().as_secs(),
            phase,
            kubelet: self.vm.as_ref().and_then(|vm| vm.latest(kubelet)).unwrap_or(false),
            cable: Cable { up, loss, delay: u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), rate },
            frames: (traffic.sent, traffic.received, traffic.lost),
        }
    }
}

/// Addresses that are not the network's, or that its machines have or may have one day.
fn refuse_leases(gateway: &Gateway, first: Ipv4Addr) -> Result<()> {
    let lowest = gateway.first_lease;
    // The last address is the broadcast's.
    let highest = Ipv4Addr::from(u32::from(gateway.network) | (u32::MAX >> gateway.prefix));
    let highest = Ipv4Addr::from(u32::from(highest) - LEASES);
    if first < lowest || first > highest {
        bail!("DHCP gives {LEASES} addresses, of which the first may be from {lowest} to {highest}, not {first}");
    }
    Ok(())
}

/// What a line tells of the kubelet: a new boot or a new start takes back what an earlier one said.
fn kubelet(line: &Line) -> Option<bool> {
    if phase::kubelet_ready(&line.text) {
        return Some(true);
    }
    (line.text.contains("] service kubelet: ") || line.text.contains("] Linux version")).then_some(false)
}

/// Makes the disks of a machine where they are missing.
fn lay(tools: &Toolset, cluster: &str, planned: &PlannedMachine) -> Result<()> {
    let (name, image) = (&planned.name, &planned.image);
    let hint = || Hint(format!("kscratch-image cluster down {cluster} --delete, then up, makes the machines anew"));
    image.check().with_context(hint).with_context(|| format!("starting {name}"))?;
    Overlay::kept(tools, &image.path, Some(planned.disk_size), &Path::new(name).join(DISK))
        .with_context(|| format!("laying the disk of {name} over {}", image.path.display()))?;
    for disk in &planned.disks {
        let path = Path::new(name).join(disk.file());
        blank(&path, disk.size).with_context(|| format!("making the disk {} of {name}", path.display()))?;
    }
    Ok(())
}

/// A disk with nothing on it, where there is none. Holes take no room.
fn blank(path: &Path, size: u64) -> std::io::Result<()> {
    match File::create_new(path) {
        Ok(file) => file.set_len(size),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn machine(slot: &Slot, cluster: &str, clock: Option<&str>, accelerated: bool) -> Machine {
    let planned = &slot.planned;
    let folder = Path::new(&planned.name);
    // What is laid over an image has its sectors.
    let mut disk = Disk::new(folder.join(DISK), kscratch_qemu::DiskFormat::Qcow2);
    disk.sector = sector_of(&planned.image.path);
    let mut machine = Machine::new(Firmware::Uefi)
        .named(&planned.name)
        .disk(disk)
        .on_link(&slot.plug, planned.mac())
        .fw_cfg(FW_CFG_ROLE, folder.join(ROLE));
    for disk in &planned.disks {
        let file = Disk::new(folder.join(disk.file()), kscratch_qemu::DiskFormat::Raw);
        machine = machine.disk(Disk { serial: Some(disk.serial(&planned.name)), ..file });
    }
    machine.memory = planned.memory;
    machine.cpus = planned.processors(accelerated);
    machine.own_time = planned.own_time;
    machine.nice = if planned.master { 0 } else { NODES_STAND_BACK };
    machine.serial_number = Some(planned.serial(cluster));
    machine.uuid = planned.uuid_bytes();
    machine.clock = clock.map(str::to_owned);
    machine.console_file = Some(folder.join(CONSOLE));
    machine.folder = Some(folder.to_owned());
    machine.reboots = true;
    machine
}
