//! Finds the disk that the machine was started from by what is on it, never by its place or its order.
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kscratch_formats::bytes::Window;
use kscratch_install::packed::Packed;
use kscratch_install::{Plain, esp};

use crate::log;
use crate::partition::Guid;
use crate::source::Text;
use crate::stage::block::{Devices, Found};
use crate::stage::hardware::Loader;
use crate::stage::listener::{Heard, Listener};
use crate::sys::Sys;

/// How long the medium may take to appear: drives spin up, and buses of sticks are slow to say what is on them.
const WITHIN: Duration = Duration::from_secs(60);
/// How often it is looked whether the machine is to stop meanwhile.
const TURN: Duration = Duration::from_secs(1);

/// What is installed from.
#[derive(Debug)]
pub struct Medium {
    /// The disk that is installed.
    pub packed: Packed<Window<Plain>>,
    /// Names of all disks with that very content: one is as good as the other, and none is written to.
    pub disks: Vec<String>,
    found: Found,
}

/// Finds the disk with the packed disk of that identity.
///
/// # Errors
/// There is none in time, or what it has is damaged.
pub fn find(hardware: &Hardware, devices: &Devices, guid: Guid, stop: &AtomicBool) -> Result<Medium> {
    let medium = open(wait_for(hardware, devices, guid, stop)?, guid)?;
    log::line(format_args!(
        "install: from {} (PARTUUID={guid}), a disk of {} MiB",
        medium.found.disk.device.display(),
        medium.packed.index().disk >> 20
    ));
    Ok(medium)
}

fn wait_for(hardware: &Hardware, devices: &Devices, guid: Guid, stop: &AtomicBool) -> Result<Vec<Found>> {
    let deadline = Instant::now() + WITHIN;
    loop {
        let all = devices.find(guid);
        if !all.is_empty() {
            return Ok(all);
        }
        if stop.load(Ordering::Relaxed) {
            bail!("the machine stops");
        }
        if Instant::now() >= deadline {
            let there = devices.describe();
            bail!(
                "no disk has the partition PARTUUID={guid} (kscratch.install) within {} s; there is\n{}",
                WITHIN.as_secs(),
                there.trim_end()
            );
        }
        hardware.settle(deadline.min(Instant::now() + TURN))?;
    }
}

/// Drivers for what is there and for what comes.
pub struct Hardware {
    listener: Listener,
    loader: Loader<'static>,
}

impl Hardware {
    /// Loads drivers for all that is there: disks come by themselves then.
    ///
    /// # Errors
    /// The kernel does not tell of its devices, or there are no modules for it.
    pub fn start(sys: &'static dyn Sys, root: &Path) -> Result<Self> {
        // Open before the first driver is loaded: no disk can appear unheard.
        let listener = Listener::open().context("listening to the kernel's uevents")?;
        let loader = Loader::open(sys, root)?;
        loader.load_list();
        loader.coldplug();
        loader.coldplug_controllers();
        Ok(Self { listener, loader })
    }

    /// Loads drivers for what comes until then, or until a disk has come.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn settle(&self, until: Instant) -> Result<()> {
        loop {
            match self.listener.next(until).context("waiting for disks")? {
                Heard::Event(event) => {
                    if let Some(alias) = event.modalias.filter(|_| event.action == "add") {
                        self.loader.plug(&alias);
                    }
                    if event.subsystem == "block" && event.action != "remove" {
                        return Ok(());
                    }
                }
                Heard::Lost => {
                    self.loader.coldplug();
                    self.loader.coldplug_controllers();
                    return Ok(());
                }
                Heard::Nothing => return Ok(()),
            }
        }
    }
}

/// Opens the first of the disks that are all the medium.
///
/// # Errors
/// It cannot be read, is damaged, or is not what its table says.
pub fn open(all: Vec<Found>, guid: Guid) -> Result<Medium> {
    let disks = all.iter().map(|found| found.disk.name.clone()).collect();
    let found = all.into_iter().next().context("there is no medium")?;
    let name = found.disk.device.display().to_string();
    let disk = Plain::open(&found.disk.device).with_context(|| format!("opening {name}"))?;
    let (first, last) = (found.partition.first, found.partition.last);
    let (start, len) = (first * found.table.sector, (last + 1 - first) * found.table.sector);
    let packed = Packed::open(Window { inner: disk, start, len }, len).with_context(|| format!("reading {name}"))?;
    // Of the bytes that were started, this is the one thing that speaks of those that are installed.
    if packed.identity().to_string() != guid.to_string() {
        bail!("what {name} holds is not what it was made of: it is {}, and should be {guid}", packed.identity());
    }
    Ok(Medium { packed, disks, found })
}

impl Medium {
    /// The metadata on its EFI system partition, where `kscratch-image stamp` puts them.
    ///
    /// # Errors
    /// There is no such partition, or it cannot be read.
    pub fn text(&self) -> Result<Option<Text>> {
        text_on(&self.found.disk.device)
    }
}

/// The metadata on the EFI system partition of a disk.
///
/// # Errors
/// There is no such partition, or it cannot be read.
pub fn text_on(device: &Path) -> Result<Option<Text>> {
    let name = device.display();
    let disk = Plain::open(device).with_context(|| format!("opening {name}"))?;
    let volume = esp::open(&disk, esp::place(&disk, disk.len())?)?;
    let read = |file: &str| esp::text(&volume, &esp::path_of(file));
    let Some(role) = read("role.toml")? else { return Ok(None) };
    let place = format!("{} on {name}", esp::path_of("role.toml"));
    Ok(Some(Text { place, role, secrets: read("secrets.toml")? }))
}
