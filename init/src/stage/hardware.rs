//! Turns what hardware is there, and what the image lists, into loaded modules.
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};

use crate::kmod::{Found, Modules, Step};
use crate::log;
use crate::sys::Sys;
use anyhow::{Context, Result};

/// Parameters without which a module makes links that nobody asked for.
const PARAMETERS: [(&str, &str); 1] = [("bonding", "max_bonds=0")];

/// Loads modules of one kernel, each at most once, from as many threads as like.
pub struct Loader<'a> {
    sys: &'a dyn Sys,
    root: PathBuf,
    folder: PathBuf,
    modules: Modules,
    files: Mutex<BTreeMap<String, File>>,
    done: Condvar,
}

/// How far one module's file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum File {
    /// A thread is at it.
    UnderWay,
    /// It is loaded, or the kernel has refused it.
    Done,
}

impl<'a> Loader<'a> {
    /// For the modules below `root/usr/lib/modules/<running kernel>`.
    ///
    /// # Errors
    /// There are none for the running kernel.
    pub fn open(sys: &'a dyn Sys, root: &Path) -> Result<Self> {
        Self::of(sys, root, &Modules::folder(root))
    }

    fn of(sys: &'a dyn Sys, root: &Path, folder: &Path) -> Result<Self> {
        Self::with(sys, root, folder, Modules::read(folder))
    }

    /// With modules that were read.
    pub(super) fn with(sys: &'a dyn Sys, root: &Path, folder: &Path, modules: io::Result<Modules>) -> Result<Self> {
        let modules = modules.with_context(|| format!("reading {}", folder.join("modules.dep").display()))?;
        let (root, folder) = (root.to_owned(), folder.to_owned());
        Ok(Self { sys, root, folder, modules, files: Mutex::default(), done: Condvar::new() })
    }

    /// Loads what a name or alias stands for, with all it needs. `Ok(false)` where this kernel knows no such thing.
    ///
    /// # Errors
    /// The kernel refuses a module.
    pub fn load(&self, wanted: &str) -> Result<bool> {
        self.load_with(wanted, "")
    }

    fn load_with(&self, wanted: &str, parameters: &str) -> Result<bool> {
        let steps = match self.modules.find(wanted) {
            Found::Files(steps) => steps,
            Found::Builtin => return Ok(true),
            Found::Unknown => return Ok(false),
        };
        for Step { file, soft } in &steps {
            match self.file(file, wanted, parameters) {
                Err(error) if *soft => log::debug(format_args!("{error:#}")),
                loaded => loaded?,
            }
        }
        Ok(true)
    }

    /// Loads one file, or waits for the thread that is at it: what comes next needs its symbols.
    fn file(&self, file: &str, wanted: &str, parameters: &str) -> Result<()> {
        {
            let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
            while files.get(file) == Some(&File::UnderWay) {
                files = self.done.wait(files).unwrap_or_else(PoisonError::into_inner);
            }
            if files.contains_key(file) {
                return Ok(());
            }
            files.insert(file.to_owned(), File::UnderWay);
        }
        let path = self.folder.join(file);
        let own = path.file_stem().and_then(|stem| PARAMETERS.iter().find(|(module, _)| stem == *module));
        let parameters = own.map_or_else(|| parameters.to_owned(), |(_, own)| format!("{own} {parameters}"));
        let parameters = parameters.trim();
        let live = self.is_live(&path);
        let loaded = if live { Ok(false) } else { self.sys.load_module(&path, parameters).map(|()| true) };
        self.files.lock().unwrap_or_else(PoisonError::into_inner).insert(file.to_owned(), File::Done);
        self.done.notify_all();
        if loaded.with_context(|| format!("loading the module {file}"))? {
            log::debug(format_args!("module {file} loaded for {wanted}"));
        }
        Ok(())
    }

    /// Loads what `/usr/share/kscratch/modules-load` lists. One that fails is told and does not keep the others back.
    pub fn load_list(&self) {
        self.load_listed("");
    }

    /// The same without the wait for other drivers, as [`Loader::load_beside`]: one of a controller may be at work for minutes.
    pub fn load_list_beside(&self) {
        self.load_listed("async_probe");
    }

    fn load_listed(&self, parameters: &str) {
        let list = fs::read_to_string(self.root.join("usr/share/kscratch/modules-load")).unwrap_or_default();
        for name in list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            match self.load_with(name, parameters) {
                Ok(true) => {}
                Ok(false) => log::line(format_args!("module {name} is listed, but not part of this image")),
                Err(error) => log::line(format_args!("{error:#}")),
            }
        }
    }

    /// Loads drivers for the hardware that is there already, every `modalias` of every bus, but for controllers of disks.
    pub fn coldplug(&self) {
        self.aliases().iter().filter(|alias| !is_controller(alias)).for_each(|alias| self.plug(alias));
    }

    /// Loads drivers for the controllers of disks that are there already. They sleep while their links come up.
    pub fn coldplug_controllers(&self) {
        self.aliases().iter().filter(|alias| is_controller(alias)).for_each(|alias| self.plug(alias));
    }

    /// Loads drivers until `found` gives something; it is asked after each. Controllers come last: an emulated one without a disk takes
    /// half a second to say so.
    pub fn coldplug_until<T>(&self, mut found: impl FnMut() -> Option<T>) -> Option<T> {
        let mut aliases = self.aliases();
        // A virtual machine's disk is a virtio one wherever it has such devices at all.
        aliases.sort_by_key(|alias| (is_controller(alias), !alias.starts_with("virtio:")));
        aliases.iter().find_map(|alias| {
            self.plug(alias);
            found()
        })
    }

    /// Loads modules that drive no hardware, without the wait for other drivers that the kernel ends every loading with
    /// (`async_synchronize_full` in kernel/module/main.c).
    pub fn load_beside(&self, names: &[&str]) {
        for name in names {
            if let Err(error) = self.load_with(name, "async_probe") {
                log::debug(format_args!("{error:#}"));
            }
        }
    }

    fn aliases(&self) -> Vec<String> {
        let buses = self.root.join("sys/bus");
        let devices = entries(&buses).into_iter().flat_map(|bus| entries(&bus.join("devices")));
        let aliases: BTreeSet<String> = devices
            .filter_map(|device| fs::read_to_string(device.join("modalias")).ok())
            .map(|alias| alias.trim().to_owned())
            .filter(|alias| !alias.is_empty())
            .collect();
        aliases.into_iter().collect()
    }

    /// Loads a driver for one piece of hardware. Hardware that no driver wants is not worth a line.
    pub fn plug(&self, alias: &str) {
        if let Err(error) = self.load(alias) {
            log::debug(format_args!("{error:#} (for {alias})"));
        }
    }

    /// Whether it is loaded already: by the initramfs, or by someone else.
    fn is_live(&self, file: &Path) -> bool {
        let name = file.file_stem().and_then(|name| name.to_str()).unwrap_or_default().replace('-', "_");
        fs::read_to_string(self.root.join("sys/module").join(name).join("initstate"))
            .is_ok_and(|state| state.trim() == "live")
    }
}

/// A PCI device of the base class 01, mass storage (PCI Code and ID Assignment Specification, section 1.2).
fn is_controller(alias: &str) -> bool {
    alias.starts_with("pci:") && alias.contains("bc01sc")
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;
    use std::path::Path;

    use super::Loader;
    use crate::sys::Recording;

    /// A root with three modules, a list, one live module and a device.
    pub fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(
            "m/modules.dep",
            "kernel/virtio_blk.ko: kernel/virtio_ring.ko kernel/virtio.ko\nkernel/virtio_ring.ko: kernel/virtio.ko\nkernel/virtio.ko:\nkernel/br-netfilter.ko:\nkernel/overlay.ko:\n",
        );
        write("m/modules.alias", "alias virtio:d00000002v* virtio_blk\n");
        write("usr/share/kscratch/modules-load", "# what kubelet needs\nbr_netfilter\nmissing\noverlay\n\n");
        write("sys/module/virtio/initstate", "live\n");
        write("sys/bus/virtio/devices/virtio0/modalias", "virtio:d00000002v00001AF4\n");
        write("sys/bus/virtio/devices/virtio1/modalias", "virtio:d00000002v00001AF4\n");
        write("sys/bus/virtio/devices/virtio2/modalias", "\n");
        root
    }

    fn calls(sys: &Recording, root: &Path) -> Vec<String> {
        sys.calls().iter().map(|line| line.replace(root.to_str().unwrap(), "R")).collect()
    }

    #[test]
    fn the_list_is_loaded_and_what_fails_does_not_keep_back_the_rest() {
        let root = root();
        let sys = Recording::new()
            .failing(&format!("load {}/m/kernel/br-netfilter", root.path().display()), std::io::ErrorKind::InvalidData);
        Loader::of(&sys, root.path(), &root.path().join("m")).unwrap().load_list();
        assert_eq!(calls(&sys, root.path()), ["load R/m/kernel/br-netfilter.ko", "load R/m/kernel/overlay.ko"]);
    }

    #[test]
    fn hardware_gets_its_driver_once_and_live_modules_stay() {
        let root = root();
        let sys = Recording::new();
        let loader = Loader::of(&sys, root.path(), &root.path().join("m")).unwrap();
        loader.coldplug();
        loader.coldplug();
        assert_eq!(calls(&sys, root.path()), ["load R/m/kernel/virtio_ring.ko", "load R/m/kernel/virtio_blk.ko"]);
    }

    #[test]
    fn a_soft_dependency_that_fails_keeps_nothing_back_and_a_hard_one_does() {
        let root = root();
        fs::write(root.path().join("m/modules.softdep"), "softdep overlay pre: br_netfilter\n").unwrap();
        let failing = |file: &str| {
            Recording::new()
                .failing(&format!("load {}/m/kernel/{file}", root.path().display()), std::io::ErrorKind::NotFound)
        };
        let sys = failing("br-netfilter");
        assert!(Loader::of(&sys, root.path(), &root.path().join("m")).unwrap().load("overlay").unwrap());
        assert_eq!(calls(&sys, root.path()), ["load R/m/kernel/br-netfilter.ko", "load R/m/kernel/overlay.ko"]);
        let sys = failing("virtio_ring");
        let loader = Loader::of(&sys, root.path(), &root.path().join("m")).unwrap();
        let error = format!("{:#}", loader.load("virtio_blk").unwrap_err());
        assert!(error.contains("loading the module kernel/virtio_ring.ko"), "{error}");
        assert_eq!(calls(&sys, root.path()), ["load R/m/kernel/virtio_ring.ko"]);
    }

    #[test]
    fn threads_wait_for_each_others_modules() {
        // Many devices behind the same two modules: whoever comes second must not load its own before those are there.
        let root = root();
        for number in 2..40 {
            let device = root.path().join(format!("sys/bus/pci/devices/{number}"));
            fs::create_dir_all(&device).unwrap();
            let class = if number % 2 == 0 { "bc01sc" } else { "bc02sc" };
            fs::write(device.join("modalias"), format!("pci:v{number}{class}")).unwrap();
        }
        let names: Vec<String> = (2..40).map(|number| format!("driver_{number}")).collect();
        let dep: String = names.iter().map(|name| format!("{name}.ko: two.ko one.ko\n")).collect();
        fs::write(root.path().join("m/modules.dep"), dep + "two.ko: one.ko\none.ko:\n").unwrap();
        let alias: String = (2..40).map(|number| format!("alias pci:v{number}bc* driver_{number}\n")).collect();
        fs::write(root.path().join("m/modules.alias"), alias).unwrap();
        let sys = Recording::new();
        let loader = Loader::of(&sys, root.path(), &root.path().join("m")).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| loader.coldplug_controllers());
            loader.coldplug();
        });
        let calls = calls(&sys, root.path());
        assert_eq!(calls[..2], ["load R/m/one.ko", "load R/m/two.ko"]);
        assert_eq!(calls.len(), 2 + names.len(), "{calls:?}");
    }

    #[test]
    fn nothing_is_loaded_any_more_once_the_root_is_found() {
        let root = root();
        let other = root.path().join("sys/bus/acpi/devices/0");
        fs::create_dir_all(&other).unwrap();
        fs::write(other.join("modalias"), "acpi:PNP0001").unwrap();
        fs::write(
            root.path().join("m/modules.alias"),
            "alias virtio:d00000002v* virtio_blk\nalias acpi:PNP0001 overlay\n",
        )
        .unwrap();
        let sys = Recording::new();
        let loader = Loader::of(&sys, root.path(), &root.path().join("m")).unwrap();
        let found = loader.coldplug_until(|| (sys.calls().len() == 2).then_some("vda"));
        assert_eq!(found, Some("vda"));
        let virtio = ["load R/m/kernel/virtio_ring.ko", "load R/m/kernel/virtio_blk.ko"];
        assert_eq!(calls(&sys, root.path()), virtio);
        assert_eq!(loader.coldplug_until(|| None::<()>), None);
        assert_eq!(calls(&sys, root.path())[2..], ["load R/m/kernel/overlay.ko"]);
    }

    #[test]
    fn no_modules_for_the_kernel_is_told() {
        let root = tempfile::tempdir().unwrap();
        let error = Loader::open(&Recording::new(), root.path()).err().unwrap();
        assert!(format!("{error:#}").contains("modules.dep: No such file"), "{error:#}");
    }
}
