//! The first stage: turns a started kernel into a machine whose root is the disk's root partition, or what a server has.
use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::beside;
use super::block::usb::Usb;
use super::block::{Devices, Found};
use super::hardware::Loader;
use super::install;
use super::listener::{Heard, Listener};
use super::mounts;
use super::netroot::{self, Fetching};
use crate::apply::disk::whereabouts::{self, Nowhere, Whereabouts};
use crate::cmdline::{CommandLine, Root};
use crate::console::attending;
use crate::log;
use crate::partition::{Copy, Guid};
use crate::run::recorder;
use crate::sys::{Flag, Mount, Sys};

/// How long the root partition may take to appear: slow controllers spin up in 10 to 20 s.
const ROOT_WITHIN: Duration = Duration::from_secs(30);
/// How long disks are waited for where state may be on any of them.
const DISKS_WITHIN: Duration = Duration::from_secs(15);
/// How long the drivers of their controllers are waited for: those of slow ones take up to half a minute. A driver that is at work tells that there is one.
const CONTROLLERS_WITHIN: Duration = Duration::from_secs(60);
/// How long nothing may have come before it is believed that all disks are there: of two with state both have to be seen, whichever is slower.
const QUIET: Duration = Duration::from_secs(1);
const NEW_ROOT: &str = "/sysroot";

/// What goes on beside the boot when the root is entered.
pub struct Early {
    /// When the kernel started init.
    pub begun: Duration,
    /// Ends when the controllers that were there have their drivers.
    controllers: Receiver<()>,
    /// The root of the initramfs.
    initramfs: OwnedFd,
    /// The network that the root was fetched over, where it was.
    pub fetching: Option<Fetching>,
}

impl Early {
    /// Waits for the controllers' drivers and gives the initramfs' memory back: its files are of no use from then on.
    pub fn finish(self) {
        // It ends by the sender's end, however that comes.
        let _ = self.controllers.recv();
        free_initramfs(&self.initramfs);
    }
}

/// Runs the stage: afterwards what the command line names is the root, and the same program goes on there. That is the one which stands
/// on the root too: the command line names the root by its contents.
///
/// # Errors
/// There is no such root, or it cannot be mounted.
pub fn boot(sys: &'static dyn Sys) -> Result<Early> {
    let begun = log::monotonic();
    let root = Path::new("/");
    mounts::early(sys, root)?;
    log::open();
    let text = fs::read_to_string("/proc/cmdline").context("reading the kernel command line")?;
    let cmdline = CommandLine::parse(&text);
    log::set_debug(cmdline.debug);
    if !cmdline.kernel_level {
        log::kernel_warnings_only();
    }
    log::line(format_args!("kscratch {} in the initramfs", env!("CARGO_PKG_VERSION")));
    attending::start(root);
    if let Err(error) = mounts::cgroups(sys, root) {
        // The root's stage tries again, and tells what to do.
        log::debug(format_args!("{error:#}"));
    }
    if let Some(wanted) = &cmdline.install {
        match install::boot(sys, root, &cmdline, wanted)? {}
    }
    let wanted = wanted_root(&cmdline)?;

    // Open before the first driver is loaded: no disk can appear unheard.
    let listener = Listener::open().context("listening to the kernel's uevents")?;
    let loader = Arc::new(Loader::open(sys, root)?);
    loader.load_list();
    let initramfs = File::open(root).context("opening the initramfs")?.into();
    let new_root = Path::new(NEW_ROOT);
    let (controllers, fetching) = match wanted {
        Root::Partition(guid) => {
            let controllers = partition(sys, guid, &listener, &loader, new_root)?;
            if Whereabouts::of(&cmdline) == Whereabouts::AnyDisk {
                wait_for_controllers(&controllers);
                wait_for_state(&Devices::of_machine(), &listener, &loader, true)?;
            }
            (controllers, None)
        }
        Root::Fetched(wanted) => {
            let controllers = plug_controllers(Arc::clone(&loader))?;
            let fetching = netroot::mount(sys, (root, new_root), wanted, &cmdline, (listener, Arc::clone(&loader)))?;
            wait_for_controllers(&controllers);
            // The other one belongs to the fetching. What came before this one is open is looked up.
            let listener = Listener::open().context("listening to the kernel's uevents")?;
            wait_for_state(&Devices::of_machine(), &listener, &loader, false)?;
            record_beside_state();
            (controllers, Some(fetching))
        }
    };
    mounts::hand_over(sys, root, new_root)?;
    sys.enter_root(new_root).with_context(|| format!("making {NEW_ROOT} the root"))?;
    Ok(Early { begun, controllers, initramfs, fetching })
}

/// Mounts the root partition, and begins to record on its disk.
fn partition(
    sys: &'static dyn Sys,
    &guid: &Guid,
    listener: &Listener,
    loader: &Arc<Loader<'static>>,
    new_root: &Path,
) -> Result<Receiver<()>> {
    let found = wait_for(&Devices::of_machine(), guid, listener, loader)?;
    let device = found.device().context("naming the root partition's device")?;
    match found.beside(Guid::RECORDER).and_then(|recorder| recorder.device()) {
        Some(device) => recorder::start(&device),
        None => log::line("the root's disk has no partition for the flight recorder: this boot leaves no record"),
    }
    // Role metadata may be on a disk of theirs, and their links take their time.
    let controllers = plug_controllers(Arc::clone(loader))?;
    mount_root(sys, &device, new_root)?;
    let name = &found.partition.name;
    log::line(format_args!("root {} ({name}, PARTUUID={guid}) mounted read-only", device.display()));
    Ok(controllers)
}

/// Loads drivers of disk controllers in a thread; the channel ends with it.
fn plug_controllers(loader: Arc<Loader<'static>>) -> Result<Receiver<()>> {
    let (sender, controllers) = mpsc::channel();
    beside::start("controllers", move || {
        loader.coldplug_controllers();
        drop(sender);
    })?;
    Ok(controllers)
}

/// A machine whose root is on no disk may have state on one, and beside it a place for the record.
fn record_beside_state() {
    let state = whereabouts::find(&Devices::of_machine(), Whereabouts::AnyDisk).ok();
    let recorder = state.and_then(|state| state.found.beside(Guid::RECORDER));
    if let Some(device) = recorder.and_then(|recorder| recorder.device()) {
        recorder::start(&device);
    }
}

/// Waits until the controllers that were there have their drivers: behind any of them may be state.
fn wait_for_controllers(controllers: &Receiver<()>) {
    if controllers.recv_timeout(CONTROLLERS_WITHIN) == Err(RecvTimeoutError::Timeout) {
        log::line(format_args!(
            "a driver of a disk's controller is still being loaded after {} s",
            CONTROLLERS_WITHIN.as_secs()
        ));
    }
}

/// Waits until a disk has a place for state and no further hardware comes; for whatever comes drivers are loaded. That there is none is for the root's
/// stage to tell, and only waited for where there should be one.
fn wait_for_state(devices: &Devices, listener: &Listener, loader: &Loader<'_>, should_be: bool) -> Result<()> {
    let deadline = Instant::now() + DISKS_WITHIN;
    loader.coldplug();
    let (mut quiet, mut told) = (Instant::now() + QUIET, false);
    while Instant::now() < deadline {
        match listener.next(quiet.min(deadline)).context("waiting for the disk with state")? {
            Heard::Event(event) => {
                if let Some(alias) = event.modalias.filter(|_| event.action == "add") {
                    loader.plug(&alias);
                }
            }
            Heard::Lost => {
                loader.coldplug();
                loader.coldplug_controllers();
            }
            Heard::Nothing => {
                let nowhere = whereabouts::find(devices, Whereabouts::AnyDisk).err() == Some(Nowhere::OnNoDisk);
                match awaited(nowhere, &Usb::look(Path::new("/sys")), should_be) {
                    Some(what) if !std::mem::replace(&mut told, true) => {
                        log::line(format_args!("{what}, {} s at most", DISKS_WITHIN.as_secs()));
                    }
                    Some(_) => {}
                    None => return Ok(()),
                }
            }
        }
        quiet = Instant::now() + QUIET;
    }
    Ok(())
}

/// What is still waited for where nothing has come for a while. A disk that the kernel is at may be the one with this machine's state, whatever others hold.
fn awaited(nowhere: bool, usb: &Usb, should_be: bool) -> Option<String> {
    let coming = usb.coming();
    if !coming.is_empty() {
        return Some(format!("a disk on USB ({}) is not there yet; it is waited for", coming.join(", ")));
    }
    (nowhere && should_be).then(|| "no disk has a place for state yet; one is waited for".to_owned())
}

fn wanted_root(cmdline: &CommandLine) -> Result<&Root> {
    match &cmdline.root {
        Some(Ok(root)) => Ok(root),
        Some(Err(why)) => bail!("{why}"),
        None => bail!("the kernel command line lacks kscratch.root=PARTUUID=<guid of the root partition>"),
    }
}

/// Loads drivers until the partition is there, and waits for it by uevent, loading drivers for hardware that comes meanwhile.
fn wait_for(devices: &Devices, wanted: Guid, listener: &Listener, loader: &Loader<'_>) -> Result<Found> {
    let deadline = Instant::now() + ROOT_WITHIN;
    if let Some(found) = look(devices, wanted).or_else(|| loader.coldplug_until(|| look(devices, wanted))) {
        return Ok(found);
    }
    loop {
        if let Some(found) = look(devices, wanted) {
            return Ok(found);
        }
        // Only what concerns disks is worth reading all tables again.
        loop {
            match listener.next(deadline).context("waiting for the root partition")? {
                Heard::Event(event) => {
                    if let Some(alias) = event.modalias.filter(|_| event.action == "add") {
                        loader.plug(&alias);
                    }
                    if event.subsystem == "block" && event.action != "remove" {
                        break;
                    }
                }
                Heard::Lost => {
                    loader.coldplug();
                    loader.coldplug_controllers();
                    break;
                }
                Heard::Nothing => bail!(
                    "no partition PARTUUID={wanted} (kscratch.root) within {} s; there is\n{}",
                    ROOT_WITHIN.as_secs(),
                    devices.describe().trim_end()
                ),
            }
        }
    }
}

fn look(devices: &Devices, wanted: Guid) -> Option<Found> {
    let first = devices.find(wanted).into_iter().find(|found| found.device().is_some())?;
    if first.table.copy == Copy::Backup {
        log::line(format_args!("the primary GPT of {} is damaged, its backup is used", first.disk.name));
    }
    Some(first)
}

fn mount_root(sys: &dyn Sys, device: &Path, new_root: &Path) -> Result<()> {
    fs::create_dir_all(new_root).with_context(|| format!("making {}", new_root.display()))?;
    let source = device.to_str().context("naming the root device")?;
    let mount = Mount { source, target: new_root, kind: "ext4", flags: &[Flag::ReadOnly], data: "" };
    sys.mount(&mount).with_context(|| format!("mounting the root partition {source} read-only"))
}

/// Only on the memory filesystem that the kernel unpacks an initramfs into, and never across a mount. It has no name any more.
fn free_initramfs(root: &OwnedFd) {
    const RAMFS: u64 = 0x8584_58F6;
    const TMPFS: u64 = 0x0102_1994;
    let kind = rustix::fs::fstatfs(root).map(|found| u64::try_from(found.f_type).unwrap_or(0));
    let device = rustix::fs::fstat(root).map(|found| found.st_dev);
    match (kind, device) {
        (Ok(RAMFS | TMPFS), Ok(device)) => {
            remove_below(&Path::new("/proc/self/fd").join(root.as_raw_fd().to_string()), device)
        }
        _ => log::debug("the root of the initramfs is no memory filesystem; its files stay"),
    }
}

fn remove_below(folder: &Path, device: u64) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path: PathBuf = entry.path();
        let Ok(found) = fs::symlink_metadata(&path) else {
            continue;
        };
        if found.dev() != device {
            continue;
        }
        // What cannot be removed costs its memory and nothing else.
        if found.is_dir() {
            remove_below(&path, device);
            let _ = fs::remove_dir(&path);
        } else {
            let _ = fs::remove_file(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    use super::{awaited, look, mount_root, remove_below, wanted_root};
    use crate::cmdline::CommandLine;
    use crate::stage::block::tests::{ROOT, machine};
    use crate::stage::block::usb::Usb;
    use crate::stage::block::usb::tests::{host, stick, stick_is_sda};
    use crate::sys::Recording;

    #[test]
    fn a_command_line_without_a_root_says_what_is_missing() {
        let error = |text: &str| wanted_root(&CommandLine::parse(text)).unwrap_err().to_string();
        assert_eq!(error("quiet"), "the kernel command line lacks kscratch.root=PARTUUID=<guid of the root partition>");
        assert!(error("kscratch.root=/dev/vda2").starts_with("kscratch.root=/dev/vda2 on the kernel command line is"));
    }

    #[test]
    fn the_root_is_looked_for_on_all_disks() {
        let folder = tempfile::tempdir().unwrap();
        let devices = machine(folder.path(), 40);
        assert_eq!(look(&devices, ROOT.parse().unwrap()).unwrap().disk.name, "vda");
        fs::remove_dir_all(devices.sysfs.join("vda/vda2")).unwrap();
        assert!(look(&devices, ROOT.parse().unwrap()).is_none(), "the kernel does not know the partition yet");
    }

    #[test]
    fn whatever_other_disks_hold_one_on_usb_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let usb = || Usb::look(folder.path());
        let words = |nowhere, should_be| awaited(nowhere, &usb(), should_be).unwrap_or_default();
        host(folder.path());
        assert_eq!(words(false, true), "");
        assert_eq!(words(true, true), "no disk has a place for state yet; one is waited for");
        // A machine whose root is a server's may have no disk.
        assert_eq!(words(true, false), "");
        stick(folder.path());
        for (nowhere, should_be) in [(false, true), (false, false), (true, true), (true, false)] {
            assert!(words(nowhere, should_be).starts_with("a disk on USB (1-1:1.0) is not there yet"));
        }
        stick_is_sda(folder.path());
        assert_eq!(words(false, false), "");
    }

    #[test]
    fn the_root_is_mounted_read_only() {
        let folder = tempfile::tempdir().unwrap();
        let sys = Recording::new();
        mount_root(&sys, Path::new("/dev/vda2"), &folder.path().join("sysroot")).unwrap();
        assert_eq!(sys.calls(), [format!("mount /dev/vda2 {}/sysroot ext4 readonly", folder.path().display())]);
    }

    #[test]
    fn files_of_the_initramfs_go_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (inside, outside) = (folder.path().join("inside"), folder.path().join("outside"));
        fs::create_dir_all(inside.join("a/b")).unwrap();
        fs::create_dir_all(&outside).unwrap();
        fs::write(inside.join("a/b/file"), "x").unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
        let device = fs::metadata(&inside).unwrap().dev();
        remove_below(&inside, device + 1);
        assert!(inside.join("a/b/file").exists(), "another device's files stay");
        remove_below(&inside, device);
        assert_eq!(fs::read_dir(&inside).unwrap().count(), 0);
        assert!(outside.join("kept").exists());
    }
}
