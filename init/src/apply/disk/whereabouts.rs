//! Turns the machine's disks into the one partition that state is on, or into why there is none.
use std::fs::File;
use std::path::Path;

use super::{LABEL, NAME, UNFINISHED};
use crate::cmdline::CommandLine;
use crate::partition::{Guid, Partition};
use crate::stage::block::{Devices, Found};
use crate::superblock::{Kind, look};

/// Where state is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whereabouts {
    /// On the disk that has the root, the partition with this GUID.
    BesideRoot(Guid),
    /// On whichever disk has a partition for it.
    AnyDisk,
}

impl Whereabouts {
    /// Beside the root, unless that is on no disk, or its image has no place for state.
    #[must_use]
    pub fn of(cmdline: &CommandLine) -> Self {
        let beside = cmdline.root_partition().filter(|_| !cmdline.state_is_elsewhere);
        beside.map_or(Self::AnyDisk, Self::BesideRoot)
    }
}

/// Why there is no partition for state.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Nowhere {
    /// The root's disk should have one.
    #[error("the root's disk has no partition of the type {} with the name {}", Guid::VAR, NAME)]
    BesideRoot,
    /// There is none at all.
    #[error("no disk has a partition of the type {} with the name {}", Guid::VAR, NAME)]
    OnNoDisk,
    /// There are several, named with what they hold, and nothing says which one is this machine's.
    #[error(
        "there are several partitions for state, and not one alone that holds it: {0}; pull the disk that is another machine's, or give its partition another type (sgdisk -t NUMBER:8300 /dev/DISK)"
    )]
    Several(String),
}

/// The partition that state is on.
#[derive(Debug)]
pub struct Place {
    /// It.
    pub found: Found,
    /// Others of its kind, with what they hold, which are left alone.
    pub passed_over: Vec<String>,
}

/// What a partition for state holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// A machine's state.
    State,
    /// Nothing yet.
    Nothing,
    /// Something else, or what cannot be read.
    Other,
}

impl Holds {
    fn words(self) -> &'static str {
        match self {
            Self::State => "holds state",
            Self::Nothing => "holds nothing yet",
            Self::Other => "holds something else",
        }
    }
}

/// Finds the partition, by type and name.
///
/// # Errors
/// There is none, or more than one that it may be.
pub fn find(devices: &Devices, whereabouts: Whereabouts) -> Result<Place, Nowhere> {
    let mut all = partitions(devices);
    let root = match whereabouts {
        Whereabouts::BesideRoot(root) => root,
        Whereabouts::AnyDisk => return one_of(all),
    };
    // Of two disks with the same image the one that the machine runs from comes first.
    all.retain(|found| found.table.partitions.iter().any(|one| one.guid == root));
    let found = all.into_iter().next().ok_or(Nowhere::BesideRoot)?;
    Ok(Place { found, passed_over: Vec::new() })
}

/// The partition with this device file, as its disk's table says now.
pub(super) fn with_device(devices: &Devices, device: &Path) -> Option<Found> {
    partitions(devices).into_iter().find(|found| found.device().as_deref() == Some(device))
}

fn partitions(devices: &Devices) -> Vec<Found> {
    let mut all = Vec::new();
    for (disk, table) in devices.tables() {
        let is_ours = |one: &&Partition| one.kind == Guid::VAR && [NAME, UNFINISHED].contains(&one.name.as_str());
        let ours = table.partitions.iter().filter(is_ours);
        all.extend(ours.map(|one| Found { disk: disk.clone(), table: table.clone(), partition: one.clone() }));
    }
    all
}

fn one_of(mut all: Vec<Found>) -> Result<Place, Nowhere> {
    let holds: Vec<Holds> = all.iter().map(holds).collect();
    let mut words: Vec<String> =
        all.iter().zip(&holds).map(|(found, holds)| format!("{} {}", name(found), holds.words())).collect();
    match choose(&holds) {
        Some(at) => {
            words.remove(at);
            Ok(Place { found: all.swap_remove(at), passed_over: words })
        }
        None if all.is_empty() => Err(Nowhere::OnNoDisk),
        None => Err(Nowhere::Several(words.join(", "))),
    }
}

/// Which of them is this machine's. Names of disks change from boot to boot, so that of several only the one with state is: a blank one that is taken
/// while another disk is late, or damaged, would be the end of the machine that it was.
fn choose(holds: &[Holds]) -> Option<usize> {
    if let [_] = holds {
        return Some(0);
    }
    let mut with_state = holds.iter().enumerate().filter(|(_, holds)| **holds == Holds::State).map(|(at, _)| at);
    with_state.next().filter(|_| with_state.next().is_none())
}

fn holds(found: &Found) -> Holds {
    if found.partition.name == UNFINISHED {
        return Holds::Nothing;
    }
    let volume = found.device().and_then(|device| File::open(device).ok()).and_then(|mut file| look(&mut file).ok());
    match volume {
        Some(volume) if volume.kind == Kind::Blank => Holds::Nothing,
        Some(volume) if matches!(volume.kind, Kind::Ext4 { .. }) && volume.label == LABEL => Holds::State,
        _ => Holds::Other,
    }
}

/// The kernel's name of it, or where it is.
fn name(found: &Found) -> String {
    let known = found.disk.partitions.get(&found.partition.number);
    known.cloned().unwrap_or_else(|| format!("partition {} of {}", found.partition.number, found.disk.name))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;
    use std::process::Command;

    use super::Holds::{Nothing, Other, State};
    use super::{Nowhere, Place, Whereabouts, choose, find};
    use crate::cmdline::CommandLine;
    use crate::stage::block::Devices;
    use crate::stage::block::tests::{ROOT, machine};

    #[test]
    fn of_several_only_the_one_that_holds_state_is_taken() {
        for (holds, want) in [
            (&[][..], None),
            (&[State], Some(0)),
            // What becomes of one alone is for whoever mounts it: made, or told.
            (&[Nothing], Some(0)),
            (&[Other], Some(0)),
            (&[State, Nothing], Some(0)),
            (&[Nothing, State], Some(1)),
            (&[Other, Nothing, State], Some(2)),
            (&[State, State], None),
            (&[State, Nothing, State], None),
            (&[Nothing, Nothing], None),
            // The other one may be this machine's, damaged.
            (&[Nothing, Other], None),
            (&[Other, Other], None),
        ] {
            assert_eq!(choose(holds), want, "{holds:?}");
        }
    }

    #[test]
    fn state_is_beside_the_root_unless_that_is_on_no_disk_or_its_image_says_so() {
        let beside = Whereabouts::BesideRoot(ROOT.parse().unwrap());
        let fetched = format!("kscratch.root=http://h/root kscratch.root.sha256={}", "0".repeat(64));
        for (line, want) in [
            (format!("kscratch.root=PARTUUID={ROOT}"), beside),
            (format!("kscratch.root=PARTUUID={ROOT} kscratch.state=here"), beside),
            (format!("kscratch.root=PARTUUID={ROOT} kscratch.state=elsewhere"), Whereabouts::AnyDisk),
            (fetched, Whereabouts::AnyDisk),
        ] {
            assert_eq!(Whereabouts::of(&CommandLine::parse(&line)), want, "{line}");
        }
    }

    /// A further disk that has a partition for state alone, whose device is a file of so many MiB.
    fn add(devices: &Devices, name: &str, make: impl FnOnce(&Path)) {
        let disk = devices.dev.join(name);
        File::create(&disk).unwrap().set_len(40 << 20).unwrap();
        let args = ["-n1:1M:+16M", "-t1:8310", "-c1:state"];
        let output = Command::new("sgdisk").args(args).arg(&disk).output().expect("apt-get install gdisk");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let partition = devices.dev.join(format!("{name}1"));
        File::create(&partition).unwrap().set_len(16 << 20).unwrap();
        make(&partition);
        let folder = devices.sysfs.join(name);
        fs::create_dir_all(folder.join(format!("{name}1"))).unwrap();
        fs::write(folder.join(format!("{name}1/partition")), "1\n").unwrap();
        fs::write(folder.join("size"), format!("{}\n", 40 << 11)).unwrap();
    }

    fn with_state(path: &Path) {
        let args = ["-q", "-t", "ext4", "-L", "kscratch-state"];
        assert!(Command::new("mke2fs").args(args).arg(path).status().expect("apt-get install e2fsprogs").success());
    }

    /// A machine whose own disk has no place for state.
    fn without_state(folder: &Path) -> Devices {
        let devices = machine(folder, 40);
        assert!(Command::new("sgdisk").arg("-d4").arg(devices.dev.join("vda")).status().unwrap().success());
        devices
    }

    /// Name of the disk, and what was passed over.
    fn place(devices: &Devices) -> Result<(String, Vec<String>), Nowhere> {
        find(devices, Whereabouts::AnyDisk).map(|Place { found, passed_over }| (found.disk.name, passed_over))
    }

    #[test]
    fn names_of_disks_say_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let devices = without_state(folder.path());
        assert_eq!(place(&devices), Err(Nowhere::OnNoDisk));
        let root = Whereabouts::BesideRoot(ROOT.parse().unwrap());
        assert_eq!(find(&devices, root).unwrap_err(), Nowhere::BesideRoot);
        add(&devices, "sdb", |_| {});
        assert_eq!(place(&devices), Ok(("sdb".into(), vec![])));
        // Another one, with state, that comes before it or behind it.
        for name in ["sda", "sdc"] {
            add(&devices, name, with_state);
            assert_eq!(place(&devices), Ok((name.into(), vec!["sdb1 holds nothing yet".into()])), "{name}");
            fs::remove_dir_all(devices.sysfs.join(name)).unwrap();
        }
        add(&devices, "sda", |_| {});
        let told = place(&devices).unwrap_err().to_string();
        assert!(told.contains(": sda1 holds nothing yet, sdb1 holds nothing yet; pull the disk"), "{told}");
        for name in ["sda", "sdb"] {
            with_state(&devices.dev.join(format!("{name}1")));
        }
        let told = place(&devices).unwrap_err().to_string();
        assert!(told.contains(": sda1 holds state, sdb1 holds state; pull the disk"), "{told}");
        // Half a filesystem with the label of state, by the name of its partition.
        let rename =
            |name: &str| Command::new("sgdisk").args(["-c", name]).arg(devices.dev.join("sda")).status().unwrap();
        assert!(rename("1:state-unfinished").success());
        assert_eq!(place(&devices), Ok(("sdb".into(), vec!["sda1 holds nothing yet".into()])));
        assert!(rename("1:state").success());
        fs::write(devices.dev.join("sda1"), "LUKS").unwrap();
        assert_eq!(place(&devices), Ok(("sdb".into(), vec!["sda1 holds something else".into()])));
        // On the image's own disk it is as good as on another.
        let devices = machine(folder.path(), 40);
        assert!(devices.tables().iter().any(|(disk, _)| disk.name == "vda"));
        assert_eq!(find(&devices, root).unwrap().found.disk.name, "vda");
    }
}
