//! Turns sysfs into whether disks on USB are still to come ([`Usb`]): the kernel looks for devices there, and for disks on them, in its own time.
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::names;
use crate::uevent::Uevent;

/// How long nothing may have come on USB before it is believed that nothing more is plugged in. A hub powers its ports for 100 ms and wants a
/// device to stand still for as long before anything of it is in sysfs, each hub behind it again (Linux, drivers/usb/core/hub.c).
const QUIET: Duration = Duration::from_secs(1);

/// States of a port's device before it is known what it is (Linux, drivers/usb/common/common.c, `usb_state_string`).
const UNKNOWN: [&str; 6] = ["attached", "powered", "reconnecting", "unauthenticated", "default", "addressed"];

/// USB, as sysfs tells it at one moment.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Usb {
    /// A controller has its driver: there is a root hub.
    hosts: bool,
    /// Ports at whose devices the kernel still is. Kernels before 6.5 do not say.
    enumerating: Vec<String>,
    storage: Vec<Storage>,
}

/// An interface of the class mass storage.
#[derive(Debug, PartialEq, Eq)]
struct Storage {
    name: String,
    driven: bool,
    units: Vec<Unit>,
}

/// What the interface's driver has found behind it, a SCSI logical unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// No driver wants it, so that it never is a disk.
    Undriven,
    /// A driver is at it.
    Diskless,
    /// It is a block device.
    Disk,
}

impl Storage {
    /// usb-storage waits a second before it looks for units (`delay_use`), and a stick may take longer to answer. Without a driver nothing comes.
    fn is_late(&self) -> bool {
        self.driven && (self.units.is_empty() || self.units.contains(&Unit::Diskless))
    }
}

impl Usb {
    /// Looks at a folder like `/sys`. A machine without USB is asked for one folder, which it has not.
    #[must_use]
    pub fn look(sysfs: &Path) -> Self {
        let folder = sysfs.join("bus/usb/devices");
        let mut usb = Self::default();
        let mut interfaces = Vec::new();
        for name in names(&folder) {
            usb.hosts |= name.starts_with("usb");
            let device = folder.join(&name);
            match text(&device.join("bInterfaceClass")).as_deref() {
                Some("08") => interfaces.push((name, device)),
                Some("09") => {
                    usb.enumerating.extend(names(&device).into_iter().filter(|port| is_busy(&device.join(port))))
                }
                _ => {}
            }
        }
        if !interfaces.is_empty() {
            let disks: Vec<PathBuf> = real(&sysfs.join("block"));
            // Hosts and targets stand there too, and have no type.
            let mut units = real(&sysfs.join("bus/scsi/devices"));
            units.retain(|unit| unit.join("type").exists());
            let storage = interfaces.into_iter().map(|(name, device)| storage(name, &device, &units, &disks));
            usb.storage.extend(storage);
        }
        usb.enumerating.sort();
        usb.storage.sort_by(|one, other| one.name.cmp(&other.name));
        usb
    }

    /// Whether there is any USB at all.
    #[must_use]
    pub fn has_hosts(&self) -> bool {
        self.hosts
    }

    /// What the kernel is at: ports, and interfaces whose disks are not there yet.
    #[must_use]
    pub fn coming(&self) -> Vec<&str> {
        let late = self.storage.iter().filter(|storage| storage.is_late()).map(|storage| storage.name.as_str());
        self.enumerating.iter().map(String::as_str).chain(late).collect()
    }

    /// Whether all disks are there that were plugged in, where nothing has come for so long.
    #[must_use]
    pub fn is_settled(&self, quiet: Duration) -> bool {
        !self.hosts || (quiet >= QUIET && self.coming().is_empty())
    }
}

/// Whether an event tells of something new on USB, or behind it: `/devices/pci0000:00/0000:00:14.0/usb1/1-1/…`.
#[must_use]
pub fn has_come(event: &Uevent) -> bool {
    event.action == "add" && event.devpath.contains("/usb")
}

/// A hub's port (Linux, Documentation/ABI/testing/sysfs-bus-usb, `port<X>/state`). Once its device is known it leads there, also to one that is not
/// authorized, which stays `addressed`.
fn is_busy(port: &Path) -> bool {
    text(&port.join("state")).is_some_and(|state| UNKNOWN.contains(&state.as_str())) && !port.join("device").exists()
}

fn storage(name: String, device: &Path, units: &[PathBuf], disks: &[PathBuf]) -> Storage {
    let driven = device.join("driver").exists();
    let Ok(place) = fs::canonicalize(device) else { return Storage { name, driven: false, units: Vec::new() } };
    let unit = |unit: &PathBuf| match disks.iter().any(|disk| disk.starts_with(unit)) {
        true => Unit::Disk,
        // Others make no disks, of a tape for example.
        false if ["sd", "sr"].iter().any(|driver| is_driven_by(unit, driver)) => Unit::Diskless,
        false => Unit::Undriven,
    };
    let units = units.iter().filter(|unit| unit.starts_with(&place)).map(unit).collect();
    Storage { name, driven, units }
}

fn is_driven_by(device: &Path, driver: &str) -> bool {
    fs::read_link(device.join("driver")).is_ok_and(|link| link.file_name().is_some_and(|name| name == driver))
}

/// Where a folder's links lead.
fn real(folder: &Path) -> Vec<PathBuf> {
    names(folder).into_iter().filter_map(|name| fs::canonicalize(folder.join(name)).ok()).collect()
}

fn text(file: &Path) -> Option<String> {
    fs::read_to_string(file).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
pub(in crate::stage) mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::time::Duration;

    use super::{Usb, has_come};
    use crate::uevent::Uevent;

    const HUB: &str = "devices/pci0/usb1/1-0:1.0";
    const STICK: &str = "devices/pci0/usb1/1-1/1-1:1.0";
    const UNIT: &str = "devices/pci0/usb1/1-1/1-1:1.0/host2/target2:0:0/2:0:0:0";

    fn write(sysfs: &Path, path: &str, text: &str) {
        let path = sysfs.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A link in `folder` by the last name of what it leads to, or by another one.
    fn link(sysfs: &Path, folder: &str, to: &str, name: Option<&str>) {
        let to = sysfs.join(to);
        fs::create_dir_all(&to).unwrap();
        fs::create_dir_all(sysfs.join(folder)).unwrap();
        let name = name.map_or_else(|| to.file_name().unwrap().to_owned(), Into::into);
        symlink(&to, sysfs.join(folder).join(name)).unwrap();
    }

    /// A controller with its driver, whose hub has one port.
    pub fn host(sysfs: &Path) {
        write(sysfs, &format!("{HUB}/bInterfaceClass"), "09\n");
        write(sysfs, &format!("{HUB}/usb1-port1/state"), "not attached\n");
        link(sysfs, "bus/usb/devices", "devices/pci0/usb1", None);
        link(sysfs, "bus/usb/devices", HUB, None);
    }

    fn interface(sysfs: &Path, class: &str) {
        write(sysfs, &format!("{STICK}/bInterfaceClass"), class);
        link(sysfs, "bus/usb/devices", STICK, None);
    }

    /// A stick that usb-storage has not looked at yet.
    pub fn stick(sysfs: &Path) {
        interface(sysfs, "08\n");
        link(sysfs, STICK, "bus/usb/drivers/usb-storage", Some("driver"));
    }

    /// What becomes of it.
    pub fn stick_is_sda(sysfs: &Path) {
        unit(sysfs, UNIT, Some("sd"));
        link(sysfs, "block", &format!("{UNIT}/block/sda"), None);
    }

    /// With a driver, or without.
    fn unit(sysfs: &Path, path: &str, driver: Option<&str>) {
        write(sysfs, &format!("{path}/type"), "0\n");
        link(sysfs, "bus/scsi/devices", path, None);
        if let Some(driver) = driver {
            link(sysfs, path, &format!("bus/scsi/drivers/{driver}"), Some("driver"));
        }
    }

    fn port(sysfs: &Path, state: &str) {
        write(sysfs, &format!("{HUB}/usb1-port1/state"), state);
    }

    #[test]
    fn disks_on_usb_are_to_come_until_they_are_there() {
        type Make = fn(&Path);
        let rows: [(&str, Make, &[&str]); 15] = [
            ("no USB", |_| {}, &[]),
            ("nothing plugged in", host, &[]),
            (
                "a stick that the kernel is still asking what it is",
                |sys| {
                    host(sys);
                    port(sys, "default\n");
                },
                &["usb1-port1"],
            ),
            (
                "one whose interfaces are about to be there",
                |sys| {
                    host(sys);
                    port(sys, "addressed\n");
                },
                &["usb1-port1"],
            ),
            (
                "known",
                |sys| {
                    host(sys);
                    port(sys, "configured\n");
                },
                &[],
            ),
            (
                "asleep",
                |sys| {
                    host(sys);
                    port(sys, "suspended\n");
                },
                &[],
            ),
            (
                "not authorized",
                |sys| {
                    host(sys);
                    port(sys, "addressed\n");
                    link(sys, &format!("{HUB}/usb1-port1"), "devices/pci0/usb1/1-1", Some("device"));
                },
                &[],
            ),
            (
                "a keyboard",
                |sys| {
                    host(sys);
                    interface(sys, "03\n");
                },
                &[],
            ),
            (
                "a stick for which there is no driver",
                |sys| {
                    host(sys);
                    interface(sys, "08\n");
                },
                &[],
            ),
            (
                "usb-storage's second",
                |sys| {
                    host(sys);
                    stick(sys);
                },
                &["1-1:1.0"],
            ),
            (
                "a disk that spins up",
                |sys| {
                    host(sys);
                    stick(sys);
                    link(sys, "bus/scsi/devices", &format!("{STICK}/host2"), None);
                    unit(sys, UNIT, Some("sd"));
                },
                &["1-1:1.0"],
            ),
            (
                "a CD for which there is no driver",
                |sys| {
                    host(sys);
                    stick(sys);
                    unit(sys, UNIT, None);
                },
                &[],
            ),
            (
                "a tape",
                |sys| {
                    host(sys);
                    stick(sys);
                    unit(sys, UNIT, Some("st"));
                },
                &[],
            ),
            (
                "a disk",
                |sys| {
                    host(sys);
                    stick(sys);
                    stick_is_sda(sys);
                },
                &[],
            ),
            (
                "the second of two, and another controller's disk",
                |sys| {
                    host(sys);
                    stick(sys);
                    stick_is_sda(sys);
                    unit(sys, &format!("{STICK}/host2/target2:0:0/2:0:0:1"), Some("sr"));
                    unit(sys, "devices/pci0/host1/target1:0:0/1:0:0:0", Some("sd"));
                    link(sys, "block", "devices/pci0/host1/target1:0:0/1:0:0:0/block/sdb", None);
                },
                &["1-1:1.0"],
            ),
        ];
        for (what, make, coming) in rows {
            let folder = tempfile::tempdir().unwrap();
            make(folder.path());
            let usb = Usb::look(folder.path());
            assert_eq!(usb.coming(), coming, "{what}");
            let settled = [0, 999, 1000, 9000].map(|quiet| usb.is_settled(Duration::from_millis(quiet)));
            let want = match (what, coming) {
                ("no USB", _) => [true; 4],
                (_, []) => [false, false, true, true],
                _ => [false; 4],
            };
            assert_eq!(settled, want, "{what}");
        }
    }

    #[test]
    fn only_what_comes_on_usb_counts() {
        for (action, devpath, want) in [
            ("add", "/devices/pci0000:00/0000:00:14.0/usb1/1-1", true),
            ("add", "/devices/pci0000:00/0000:00:14.0/usb1/1-1/1-1:1.0/host2/target2:0:0/2:0:0:0/block/sda", true),
            // A reader without a card is looked at over and over.
            ("change", "/devices/pci0000:00/0000:00:14.0/usb1/1-1/1-1:1.0/host2/target2:0:0/2:0:0:0/block/sda", false),
            ("add", "/devices/pci0000:00/0000:00:03.0/virtio1/block/vda", false),
        ] {
            let event = Uevent { action: action.into(), devpath: devpath.into(), ..Uevent::default() };
            assert_eq!(has_come(&event), want, "{action} {devpath}");
        }
    }
}
