//! Loads drivers in a thread beside the boot, which waits for them where it needs them ([`Plugging::wait_for_hardware`]).
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::beside;
use super::block::usb::{self, Usb};
use super::hardware::Loader;
use super::initramfs::Early;
use super::lastwords;
use super::listener::{Heard, Listener};
use crate::log;
use crate::sys::Sys;

/// How long a driver may keep the boot waiting: those of slow controllers take up to half a minute.
const WITHIN: Duration = Duration::from_secs(60);
/// How long disks on USB are waited for: one that spins up takes so long, and a device that never becomes a disk must not cost more.
const USB_WITHIN: Duration = Duration::from_secs(10);
/// How often USB is looked at meanwhile: no event tells that the kernel has given a device up.
const LOOKS: Duration = Duration::from_millis(100);

/// What helps where a driver does not come back. The image is not to blame: it has the driver.
const SLOW_HINT: &str = "a disk or card does not answer its driver (the kernel's lines say which): mend it or take it out; the boot goes on, but role metadata on a disk behind it are not seen";
/// What helps against all else that goes wrong with modules.
const MODULES_HINT: &str = "build the image again: it lacks the modules of its kernel";

/// What reading a volume's role metadata takes. The kernel would ask for them too, each through a `modprobe` of its own.
const VOLUMES: [&str; 3] = ["vfat", "nls_cp437", "nls_ascii"];

/// What hears the power button. The kernel asks for the second one when the first has found it; whoever presses it meanwhile is not heard.
const BUTTON: [&str; 2] = ["button", "evdev"];

/// What the thread tells.
enum News {
    /// Modules can be loaded.
    Opened(Arc<Loader<'static>>),
    /// The hardware that was there has its drivers.
    Plugged,
}

/// A driver is at work for longer than the boot waits.
#[derive(Debug, thiserror::Error)]
#[error("a driver is still being loaded after {} s", WITHIN.as_secs())]
struct StillLoading;

/// The thread, seen from the boot.
pub struct Plugging {
    news: Receiver<Result<News>>,
    loader: Option<Arc<Loader<'static>>>,
    plugged: bool,
}

/// What helps against a failure of [`Plugging::wait_for_hardware`] or [`Plugging::load_list`].
#[must_use]
pub fn hint(error: &anyhow::Error) -> &'static str {
    if error.is::<StillLoading>() { SLOW_HINT } else { MODULES_HINT }
}

impl Plugging {
    /// Starts the thread for the modules below `root`, which takes over what the initramfs began. It goes on loading drivers for hardware
    /// that comes, for as long as the machine runs.
    pub fn start(sys: &'static dyn Sys, root: PathBuf, before: Option<Early>) -> Self {
        let (sender, news) = mpsc::channel();
        let told = sender.clone();
        if let Err(error) = beside::start("hardware", move || work(sys, &root, before, &sender)) {
            // Whoever waits is told.
            let _ = told.send(Err(error));
        }
        Self { news, loader: None, plugged: false }
    }

    /// Waits until the hardware that was there has its drivers, and volumes can be read.
    ///
    /// # Errors
    /// There are no modules for this kernel, or a driver does not come back in time.
    pub fn wait_for_hardware(&mut self) -> Result<()> {
        self.hear(Instant::now() + WITHIN, |plugging| plugging.plugged)
    }

    /// Loads what the image lists. Only what comes after containerd's start needs it. Hardware that still waits for its driver keeps none of it back.
    ///
    /// # Errors
    /// There are no modules for this kernel.
    pub fn load_list(&mut self) -> Result<()> {
        self.hear(Instant::now() + WITHIN, |plugging| plugging.loader.is_some())?;
        if let Some(loader) = &self.loader {
            loader.load_list_beside();
        }
        Ok(())
    }

    /// What loads further modules, once [`Plugging::wait_for_hardware`] was called.
    #[must_use]
    pub fn loaded(&self) -> Option<Arc<Loader<'static>>> {
        self.loader.clone()
    }

    /// Hears the thread until it has told enough.
    fn hear(&mut self, end: Instant, enough: fn(&Self) -> bool) -> Result<()> {
        while !enough(self) {
            match self.news.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(news) => match news? {
                    News::Opened(loader) => self.loader = Some(loader),
                    News::Plugged => self.plugged = true,
                },
                Err(RecvTimeoutError::Timeout) => return Err(StillLoading.into()),
                Err(RecvTimeoutError::Disconnected) => bail!("no modules are loaded any more; the line above says why"),
            }
        }
        Ok(())
    }
}

fn work(sys: &'static dyn Sys, root: &Path, before: Option<Early>, news: &Sender<Result<News>>) {
    let begun = Instant::now();
    // Open before the first driver is loaded: what a driver brings up is heard.
    let opened = Listener::open()
        .context("listening to the kernel's uevents")
        .and_then(|listener| Ok((listener, Arc::new(Loader::open(sys, root)?))));
    let (listener, loader) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let _ = news.send(Err(error));
            return;
        }
    };
    // Before any driver: one may be at work for minutes, at a disk that dies behind its controller. That nobody waits any more is no reason to stop.
    let _ = news.send(Ok(News::Opened(Arc::clone(&loader))));
    loader.load_beside(&VOLUMES);
    loader.load_beside(&BUTTON);
    loader.coldplug();
    if let Some(before) = before {
        before.finish();
    }
    loader.coldplug_controllers();
    // Role metadata may be on a stick, or on a CD that a BMC plays on USB.
    wait_for_usb(root, &listener, &loader, begun);
    let reset = lastwords::reset(root);
    let _ = news.send(Ok(News::Plugged));
    lastwords::begin(root, &loader, reset);
    keep_plugging(&listener, &loader);
}

/// Loads drivers for what comes until the disks on USB are there. `last` is a time after which nothing has come that was not heard.
fn wait_for_usb(root: &Path, listener: &Listener, loader: &Loader<'_>, mut last: Instant) {
    let sysfs = root.join("sys");
    if !Usb::look(&sysfs).has_hosts() {
        return;
    }
    let begun = Instant::now();
    let end = begun + USB_WITHIN;
    // What was heard meanwhile comes first.
    let mut until = begun;
    while let Ok(heard) = listener.next(until) {
        let now = Instant::now();
        if heard == Heard::Nothing {
            let usb = Usb::look(&sysfs);
            if usb.is_settled(now.saturating_duration_since(last)) {
                let took = (now - begun).as_secs_f64();
                return log::debug(format_args!("the disks on USB are there after {took:.3} s"));
            }
            // A disk is in sysfs before its partitions are.
            if !usb.coming().is_empty() {
                last = now;
            }
            until = now + LOOKS;
        } else {
            if heard == Heard::Lost || matches!(&heard, Heard::Event(event) if usb::has_come(event)) {
                last = now;
            }
            plug(loader, heard);
        }
        // However much comes, the end does.
        if now >= end {
            let usb = Usb::look(&sysfs);
            return log::line(format_args!(
                "USB is not done after {} s ({}); role metadata on a disk that is late are not seen",
                USB_WITHIN.as_secs(),
                usb.coming().join(", ")
            ));
        }
    }
}

/// Loads the drivers for what was heard of.
fn plug(loader: &Loader<'_>, heard: Heard) {
    match heard {
        Heard::Event(event) if event.action == "add" => {
            if let Some(alias) = event.modalias {
                loader.plug(&alias);
            }
        }
        Heard::Event(_) | Heard::Nothing => {}
        Heard::Lost => {
            loader.coldplug();
            loader.coldplug_controllers();
        }
    }
}

fn keep_plugging(listener: &Listener, loader: &Loader<'_>) {
    loop {
        match listener.next(Instant::now() + Duration::from_secs(3600)) {
            Ok(heard) => plug(loader, heard),
            Err(error) => {
                log::line(format_args!("hardware that comes later gets no driver: {error}"));
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use anyhow::anyhow;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::{MODULES_HINT, Plugging, SLOW_HINT, hint};
    use crate::kmod::Modules;
    use crate::stage::block::usb::tests::{host, stick, stick_is_sda};
    use crate::sys::Recording;

    #[test]
    fn waiting_ends_with_a_reason() {
        let (sender, news) = mpsc::channel();
        let mut plugging = Plugging { news, loader: None, plugged: false };
        let mut error = || {
            let error = plugging.hear(soon(), |plugging| plugging.plugged).unwrap_err();
            (error.to_string(), hint(&error))
        };
        assert_eq!(error(), ("a driver is still being loaded after 60 s".to_owned(), SLOW_HINT));
        sender.send(Err(anyhow!("no modules"))).unwrap();
        assert_eq!(error(), ("no modules".to_owned(), MODULES_HINT));
        drop(sender);
        assert_eq!(error().0, "no modules are loaded any more; the line above says why");
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(200)
    }

    /// A root with modules, a list of them, and a piece of hardware; the lines of what is loaded.
    fn scene(root: &Path) -> (&'static Recording, impl Fn() -> Vec<String>) {
        let write = |path: PathBuf, text: &str| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let modules = Modules::folder(root);
        write(modules.join("modules.dep"), "overlay.ko:\nvfat.ko:\nvirtio_net.ko:\n");
        write(modules.join("modules.alias"), "alias virtio:d00000001v* virtio_net\n");
        write(root.join("usr/share/kscratch/modules-load"), "overlay\n");
        write(root.join("sys/bus/virtio/devices/virtio0/modalias"), "virtio:d00000001v00001AF4\n");
        let sys: &'static Recording = Box::leak(Box::new(Recording::new()));
        (sys, || sys.calls().iter().map(|line| line.rsplit('/').next().unwrap().to_owned()).collect())
    }

    #[test]
    fn hardware_comes_first_and_the_list_when_it_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let (sys, calls) = scene(folder.path());
        let mut plugging = Plugging::start(sys, folder.path().to_owned(), None);
        plugging.wait_for_hardware().unwrap();
        assert_eq!(calls(), ["vfat.ko async_probe", "virtio_net.ko"]);
        plugging.load_list().unwrap();
        assert_eq!(calls(), ["vfat.ko async_probe", "virtio_net.ko", "overlay.ko async_probe"]);
    }

    #[test]
    fn a_driver_that_does_not_come_back_does_not_keep_the_list_back() {
        let folder = tempfile::tempdir().unwrap();
        let (sys, calls) = scene(folder.path());
        // The thread hangs at a file that nobody writes to.
        let stuck = folder.path().join("sys/bus/virtio/devices/virtio1/modalias");
        fs::create_dir_all(stuck.parent().unwrap()).unwrap();
        mknodat(CWD, &stuck, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let mut plugging = Plugging::start(sys, folder.path().to_owned(), None);
        // Open once the thread is there (fifo(7)).
        let writer = fs::File::options().write(true).open(&stuck).unwrap();
        let error = plugging.hear(soon(), |plugging| plugging.plugged).unwrap_err();
        assert_eq!(hint(&error), SLOW_HINT);
        plugging.load_list().unwrap();
        assert_eq!(calls(), ["vfat.ko async_probe", "overlay.ko async_probe"]);
        assert!(plugging.loaded().is_some());
        // It comes back, and so do the others.
        fs::remove_file(stuck).unwrap();
        drop(writer);
        plugging.wait_for_hardware().unwrap();
        assert_eq!(calls()[2..], ["virtio_net.ko"]);
    }

    #[test]
    fn a_stick_without_its_disk_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let _ = scene(folder.path());
        let sys: &'static Recording = Box::leak(Box::new(Recording::new()));
        let sysfs = folder.path().join("sys");
        host(&sysfs);
        stick(&sysfs);
        let mut plugging = Plugging::start(sys, folder.path().to_owned(), None);
        // Longer than nothing may come where no stick is.
        let end = Instant::now() + Duration::from_millis(1500);
        assert!(plugging.hear(end, |plugging| plugging.plugged).is_err());
        stick_is_sda(&sysfs);
        plugging.wait_for_hardware().unwrap();
        assert!(end.elapsed() < Duration::from_secs(5), "the disk ends the wait");
    }

    #[test]
    fn a_kernel_without_modules_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let sys: &'static Recording = Box::leak(Box::new(Recording::new()));
        let error = Plugging::start(sys, folder.path().to_owned(), None).wait_for_hardware().unwrap_err();
        assert!(format!("{error:#}").contains("modules.dep: No such file"), "{error:#}");
    }
}
