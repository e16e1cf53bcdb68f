//! Loads drivers in a thread beside the boot, which waits for them where it needs them ([`Plugging::wait_for_hardware`]).
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::beside;
use super::hardware::Loader;
use super::initramfs::Early;
use super::lastwords;
use super::listener::{Heard, Listener};
use crate::log;
use crate::sys::Sys;

/// How long a driver may keep the boot waiting: those of slow controllers take up to half a minute.
const WITHIN: Duration = Duration::from_secs(60);

/// What reading a volume's role metadata takes. The kernel would ask for them too, each through a `modprobe` of its own.
const VOLUMES: [&str; 3] = ["vfat", "nls_cp437", "nls_ascii"];

/// The thread, seen from the boot.
pub struct Plugging {
    news: Receiver<Result<Arc<Loader<'static>>>>,
    loader: Option<Arc<Loader<'static>>>,
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
        Self { news, loader: None }
    }

    /// Waits until the hardware that was there has its drivers, and volumes can be read.
    ///
    /// # Errors
    /// There are no modules for this kernel, or a driver does not come back in time.
    pub fn wait_for_hardware(&mut self) -> Result<()> {
        self.loader(Instant::now() + WITHIN).map(drop)
    }

    /// Loads what the image lists. Only what comes after containerd's start needs it.
    ///
    /// # Errors
    /// As [`Plugging::wait_for_hardware`].
    pub fn load_list(&mut self) -> Result<()> {
        self.loader(Instant::now() + WITHIN)?.load_list();
        Ok(())
    }

    /// What loads further modules, once [`Plugging::wait_for_hardware`] has come to its end.
    #[must_use]
    pub fn loaded(&self) -> Option<Arc<Loader<'static>>> {
        self.loader.clone()
    }

    fn loader(&mut self, end: Instant) -> Result<Arc<Loader<'static>>> {
        if let Some(loader) = &self.loader {
            return Ok(Arc::clone(loader));
        }
        match self.news.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(loader) => Ok(Arc::clone(self.loader.insert(loader?))),
            Err(RecvTimeoutError::Timeout) => bail!("a driver is still being loaded after {} s", WITHIN.as_secs()),
            Err(RecvTimeoutError::Disconnected) => bail!("no modules are loaded any more; the line above says why"),
        }
    }
}

fn work(sys: &'static dyn Sys, root: &Path, before: Option<Early>, news: &Sender<Result<Arc<Loader<'static>>>>) {
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
    loader.load_beside(&VOLUMES);
    loader.coldplug();
    if let Some(before) = before {
        before.finish();
    }
    loader.coldplug_controllers();
    let reset = lastwords::reset(root);
    // That nobody waits any more is no reason to stop.
    let _ = news.send(Ok(Arc::clone(&loader)));
    lastwords::begin(root, &loader, reset);
    keep_plugging(&listener, &loader);
}

fn keep_plugging(listener: &Listener, loader: &Loader<'_>) {
    loop {
        match listener.next(Instant::now() + Duration::from_secs(3600)) {
            Ok(Heard::Event(event)) if event.action == "add" => {
                if let Some(alias) = event.modalias {
                    loader.plug(&alias);
                }
            }
            Ok(Heard::Event(_) | Heard::Nothing) => {}
            Ok(Heard::Lost) => {
                loader.coldplug();
                loader.coldplug_controllers();
            }
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
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use anyhow::anyhow;

    use super::Plugging;
    use crate::kmod::Modules;
    use crate::sys::Recording;

    #[test]
    fn waiting_ends_with_a_reason() {
        let (sender, news) = mpsc::channel();
        let mut plugging = Plugging { news, loader: None };
        let mut error = || plugging.loader(Instant::now() + Duration::from_millis(20)).err().unwrap().to_string();
        assert_eq!(error(), "a driver is still being loaded after 60 s");
        sender.send(Err(anyhow!("no modules"))).unwrap();
        assert_eq!(error(), "no modules");
        drop(sender);
        assert_eq!(error(), "no modules are loaded any more; the line above says why");
    }

    #[test]
    fn hardware_comes_first_and_the_list_when_it_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let write = |path: std::path::PathBuf, text: &str| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let modules = Modules::folder(root);
        write(modules.join("modules.dep"), "overlay.ko:\nvfat.ko:\nvirtio_net.ko:\n");
        write(modules.join("modules.alias"), "alias virtio:d00000001v* virtio_net\n");
        write(root.join("usr/share/kscratch/modules-load"), "overlay\n");
        write(root.join("sys/bus/virtio/devices/virtio0/modalias"), "virtio:d00000001v00001AF4\n");
        let sys: &'static Recording = Box::leak(Box::new(Recording::new()));
        let calls =
            || -> Vec<String> { sys.calls().iter().map(|line| line.rsplit('/').next().unwrap().to_owned()).collect() };
        let mut plugging = Plugging::start(sys, root.to_owned(), None);
        plugging.wait_for_hardware().unwrap();
        assert_eq!(calls(), ["vfat.ko async_probe", "virtio_net.ko"]);
        plugging.load_list().unwrap();
        assert_eq!(calls(), ["vfat.ko async_probe", "virtio_net.ko", "overlay.ko"]);
    }

    #[test]
    fn a_kernel_without_modules_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let sys: &'static Recording = Box::leak(Box::new(Recording::new()));
        let error = Plugging::start(sys, folder.path().to_owned(), None).wait_for_hardware().unwrap_err();
        assert!(format!("{error:#}").contains("modules.dep: No such file"), "{error:#}");
    }
}
