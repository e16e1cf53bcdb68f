//! The installer: a machine that was started from an ISO image has the image put onto the disk that its metadata name, or is told what disks there are.
//!
//! Nothing is written without an `[install]` table, and nothing to a disk on which there is something that the table does not name. Whatever ends the work
//! before its last second leaves a disk that nothing boots from.
mod choosing;
mod medium;
mod telling;
pub mod writing;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use kscratch_formats::gpt;
use kscratch_install::blockdevice::{BlockDevice, Kernel};
use kscratch_install::refuse::{Needs, Victim};
use kscratch_install::{Failure, Left, Target};
use kscratch_metadata::{Install, RoleMetadata, Selected, Then};
use kscratch_netlink::Netlink;

use super::beside;
use super::block::{Devices, words};
use crate::apply::network::hardware_links;
use crate::cmdline::CommandLine;
use crate::console::board;
use crate::log;
use crate::partition::Guid;
use crate::run::eventloop::{self, Options};
use crate::run::inbox::{self, Message};
use crate::run::power;
use crate::source::{self, Kind, Text, entry};
use crate::supervise::{Ending, Reason};
use crate::sys::Sys;
use choosing::{Candidate, Choice};
use medium::{Hardware, Medium};

/// How long a disk that is named may take to appear: those in a shelf are started one after the other.
const DISK_WITHIN: Duration = Duration::from_secs(60);
const EVERY: Duration = Duration::from_millis(500);
/// Disks that have come by then are on the list that a person gets, and count where a disk is told by its words: another one may have the same.
const LIST_AFTER: Duration = Duration::from_secs(3);
/// How long the work may take to end where the machine is switched off meanwhile.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// Runs the machine as an installer, until it is switched off or starts anew. Whatever goes wrong is told, and waited after: somebody has to see it.
///
/// # Errors
/// The kernel refuses the means of waiting, or to end the machine's run.
pub fn boot(
    sys: &'static dyn Sys,
    root: &'static Path,
    cmdline: &CommandLine,
    wanted: &Result<Guid, String>,
) -> Result<Infallible> {
    let (sender, inbox) = inbox::pair().context("making the event loop's inbox")?;
    // Keys, the power button and ctrl-alt-del end the machine's run from here on.
    board::metadata(None, &sender);
    let stop = Arc::new(AtomicBool::new(false));
    let (done, ended) = mpsc::channel::<()>();
    let installer =
        Installer { sys, root, devices: Devices::of_machine(), cmdline: cmdline.clone(), stop: Arc::clone(&stop) };
    let wanted = wanted.clone();
    beside::start("install", move || {
        match installer.run(&wanted) {
            Ok(Some(then)) => sender.send(Message::Stop(Reason::Installed(ending(then)))),
            Ok(None) => {}
            Err(error) => {
                log::line(format_args!("install: {error:#}"));
                log::hint(
                    "put that right and boot again; the machine waits for the power button, ctrl-alt-del, or a key (`?` lists them)",
                );
            }
        }
        drop(done);
    })?;
    let options = Options { inbox: Some(inbox), containers: Vec::new(), ..Options::machine() };
    let ending = eventloop::run(Vec::new(), options).context("running the event loop")?;
    stop.store(true, Ordering::Relaxed);
    if ended.recv_timeout(ENDS_WITHIN) == Err(mpsc::RecvTimeoutError::Timeout) {
        log::line("install: what is on its way to the disk is not waited for any longer");
    }
    power::finish(sys, ending)?;
    bail!("the kernel did not end the machine's run")
}

fn ending(then: Then) -> Ending {
    match then {
        Then::PowerOff => Ending::PowerOff,
        Then::Reboot => Ending::Reboot,
    }
}

struct Installer {
    sys: &'static dyn Sys,
    root: &'static Path,
    devices: Devices,
    cmdline: CommandLine,
    stop: Arc<AtomicBool>,
}

impl Installer {
    /// Gives what becomes of the machine; nothing where it waits for somebody.
    fn run(&self, wanted: &Result<Guid, String>) -> Result<Option<Then>> {
        let guid = wanted.as_ref().map_err(|text| {
            anyhow!("kscratch.install={text} on the kernel command line is not of the form PARTUUID=<guid of the packed disk>")
        })?;
        let hardware = Hardware::start(self.sys, self.root)?;
        let medium = medium::find(&hardware, &self.devices, *guid, &self.stop)?;
        let needs = Needs { bytes: medium.packed.index().disk, sector: medium.packed.index().sector };
        let text = self.metadata(&medium)?;
        let metadata = text.as_ref().map(|text| self.read(text)).transpose()?;
        let Some(install) = metadata.and_then(|metadata| metadata.install) else {
            let why = if text.is_some() { "the metadata have no [install] table" } else { "there are no metadata" };
            log::line(format_args!("install: {why}, so nothing is written"));
            let end = Instant::now() + LIST_AFTER;
            while Instant::now() < end {
                hardware.settle(end)?;
            }
            choosing::listed(&self.candidates(&medium), &needs).iter().for_each(log::line);
            choosing::HOW.iter().for_each(log::hint);
            return Ok(None);
        };
        let candidate = self.wait_for(&install, &hardware, &medium, &needs)?;
        let refusals = candidate.refusals(&needs, install.replaces.as_deref());
        if !refusals.is_empty() {
            choosing::listed(std::slice::from_ref(&candidate), &needs).iter().for_each(log::line);
            let (why, ways) = choosing::refused(&refusals);
            ways.iter().for_each(log::hint);
            bail!("nothing is written to {}, {}: {why}", candidate.device.display(), install.told_by());
        }
        let what = format!("{} ({})", candidate.device.display(), install.told_by());
        let image = gpt::read(&medium.packed, needs.bytes).context("reading the image's partition table")?.disk;
        let contents = candidate.victim.contents.as_ref();
        if choosing::is_done(contents, &image.to_string(), self.attempt_of(&candidate), &install) {
            log::hint(format_args!(
                "to have it installed again, write attempt = {} into [install]",
                install.attempt + 1
            ));
            bail!(
                "{what} holds this very image already; nothing is written, as it would be at every boot from this medium"
            );
        }
        log::line(format_args!("install: onto {what}, {}", candidate.words()));
        let looked_at = (candidate.victim.device.as_ref(), &Kernel::default());
        let target = Target::open(&candidate.device, needs.bytes, looked_at, true)?;
        let watch = telling::Telling::new(Arc::clone(&self.stop));
        writing::onto(&medium.packed, &target, text.as_ref(), &watch).map_err(|Failure { left, error }| {
            error.context(match left {
                Left::Untouched => format!("nothing was written to {what}"),
                Left::WithoutTable => {
                    format!("{what} has no partition table now, so nothing boots from it by half, and it can be installed again")
                }
                Left::Unknown => format!("{what} fails where its partition table stands, which may be there, whole or not: nothing is to boot from it"),
            })
        })?;
        log::line(format_args!("install: {what} is installed and was read back; the medium can be taken out"));
        Ok(Some(install.then))
    }

    /// The text that counts: of firmware, or of the medium.
    fn metadata(&self, medium: &Medium) -> Result<Option<Text>> {
        let mut answers = source::ask_firmware(self.root, &self.cmdline);
        answers.push((Kind::Esp, medium.text()));
        let choice = source::choose(answers)?;
        choice.lines.iter().for_each(log::line);
        Ok(choice.winner.map(|(_, text)| text))
    }

    fn read(&self, text: &Text) -> Result<RoleMetadata> {
        let selected = self.own(text)?;
        if let Some(entry) = &selected.entry {
            log::line(format_args!("role metadata: this machine is {entry}"));
        }
        Ok(selected.metadata)
    }

    /// What a text says of this machine.
    fn own(&self, text: &Text) -> Result<Selected> {
        // No card has a driver here, unless the kernel brings it: a rack's entries are told by serial or uuid.
        let links = Netlink::open().and_then(|mut netlink| hardware_links(&mut netlink));
        let links = links.unwrap_or_else(|error| {
            log::debug(format_args!("{error:#}"));
            BTreeMap::new()
        });
        entry::read(text, &entry::identity(self.root, &links))
    }

    /// By which attempt a disk got its image, as the metadata on it say.
    fn attempt_of(&self, candidate: &Candidate) -> Option<u32> {
        let text = medium::text_on(&candidate.device).ok()??;
        Some(self.own(&text).ok()?.metadata.install?.attempt)
    }

    /// The disk that is named; one that comes late is waited for, and so is another one that might be meant as well.
    fn wait_for(&self, install: &Install, hardware: &Hardware, medium: &Medium, needs: &Needs) -> Result<Candidate> {
        let end = Instant::now() + DISK_WITHIN;
        let (mut told, mut alone_until) = (false, None);
        loop {
            let all = self.candidates(medium);
            match choosing::choose(install, all) {
                Choice::One(candidate) => {
                    let until = *alone_until.get_or_insert_with(|| Instant::now() + LIST_AFTER);
                    if Instant::now() >= until {
                        return Ok(*candidate);
                    }
                    hardware.settle(until)?;
                    continue;
                }
                Choice::Several(names) => {
                    bail!("more than one disk has {}: {}; give its path too", install.told_by(), names.join(", "))
                }
                Choice::None(all) if Instant::now() >= end => {
                    choosing::listed(&all, needs).iter().for_each(log::line);
                    bail!("no disk has {}", install.told_by());
                }
                Choice::None(_) => {}
            }
            if self.stop.load(Ordering::Relaxed) {
                bail!("the machine stops");
            }
            if !std::mem::replace(&mut told, true) {
                let within = DISK_WITHIN.as_secs();
                log::line(format_args!("install: waiting up to {within} s for a disk that has {}", install.told_by()));
            }
            hardware.settle(Instant::now() + EVERY)?;
        }
    }

    /// All disks there are, with what they say of themselves.
    fn candidates(&self, medium: &Medium) -> Vec<Candidate> {
        let kernel = Kernel::default();
        let candidate = |disk: super::block::Disk| {
            // One that the kernel does not tell of has gone by now.
            let device = BlockDevice::at(&disk.device, &kernel).ok().flatten()?;
            Some(Candidate {
                medium: medium.disks.contains(&disk.name),
                words: words::of(&self.devices, &disk.name),
                victim: Victim::of(&disk.device, Some(device), false),
                device: disk.device,
            })
        };
        self.devices.disks().into_iter().filter_map(candidate).collect()
    }
}
