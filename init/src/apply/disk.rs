//! Turns the disk's state partition into a mounted `/var`: checked where it is not clean, made where it is blank; and grows it to the disk's end.
mod etcdplace;
mod fsck;
pub mod further;
mod layout;
mod repairs;
pub mod reserve;
pub mod reset;
pub mod whereabouts;

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, bail};

use fsck::Ours;

use crate::log;
use crate::partition::{Change, Table, Write};
use crate::stage::block::{Devices, Found};
use crate::superblock::{Kind, Volume, look};
use crate::sys::{Flag, Mount, Sys};

/// GPT name of the partition.
pub const NAME: &str = "state";
/// GPT name of a partition for state whose filesystem is not finished: nothing on it could be missed.
const UNFINISHED: &str = "state-unfinished";
/// Label of its filesystem.
pub const LABEL: &str = "kscratch-state";

const STATE: Ours = Ours { what: "state", label: LABEL, place: "/var" };

pub use etcdplace::elsewhere;
use whereabouts::{Place, Whereabouts};

/// What `/var` is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// The state partition.
    Partition {
        /// Its device file.
        device: PathBuf,
        /// Whether its filesystem was made just now.
        made: bool,
        /// When its filesystem was last written to before this boot, in seconds since 1970; none where it was made just now.
        written: Option<i64>,
    },
    /// A memory filesystem, because of this: nothing outlives a reboot.
    Memory {
        /// Why the partition could not be used, with what to do.
        reason: String,
    },
}

/// Mounts `/var`. Only a machine without memory for a tmpfs fails here; every trouble with the partition ends in [`State::Memory`], so
/// that the machine can say what is wrong and still be of use.
///
/// # Errors
/// Not even a tmpfs can be mounted.
pub fn mount_state(sys: &dyn Sys, root: &Path, devices: &Devices, whereabouts: Whereabouts) -> Result<State> {
    let target = root.join("var");
    match partition(sys, &target, devices, whereabouts) {
        Ok(state) => Ok(state),
        Err(error) => {
            let mount = Mount {
                source: "tmpfs",
                target: &target,
                kind: "tmpfs",
                flags: &[Flag::NoSuid, Flag::NoDev],
                data: "mode=0755",
            };
            sys.mount(&mount).with_context(|| format!("mounting a tmpfs on /var, after this: {error:#}"))?;
            Ok(State::Memory { reason: format!("{error:#}") })
        }
    }
}

fn partition(sys: &dyn Sys, target: &Path, devices: &Devices, whereabouts: Whereabouts) -> Result<State> {
    let Place { mut found, passed_over } = whereabouts::find(devices, whereabouts)?;
    if !passed_over.is_empty() {
        let (disk, others) = (&found.disk.name, passed_over.join(", "));
        log::line(format_args!(
            "state is on {disk}, the only disk that holds it; other partitions for state are left alone: {others}"
        ));
    }
    let device = found.device().context("the kernel does not know the state partition")?;
    let volume = File::open(&device).and_then(|mut file| look(&mut file));
    let volume = volume.with_context(|| format!("reading {}", device.display()))?;
    let made = is_blank(&volume, &found)?;
    if made {
        make(sys, &mut found, &device)?;
    }
    fsck::mount(sys, &STATE, &device, target, Some(&volume).filter(|_| !made), &[Flag::NoAtime])?;
    // What is mounted bears the time of now.
    let written = match volume.kind {
        Kind::Ext4 { written, .. } if !made => Some(written),
        _ => None,
    };
    Ok(State::Partition { device, made, written })
}

/// Whether the partition is still to become ours; an error where it is not ours to use: never a byte is written over what somebody else may miss.
fn is_blank(volume: &Volume, found: &Found) -> Result<bool> {
    if found.partition.name == UNFINISHED {
        return Ok(true);
    }
    let place = format!("partition {} of {}", found.partition.number, found.disk.name);
    match volume.kind {
        Kind::Blank => Ok(true),
        Kind::Ext4 { .. } if volume.label == LABEL => Ok(false),
        Kind::Ext4 { .. } => {
            bail!("{place} should be state, but holds an ext4 labelled {:?} and not {LABEL:?}", volume.label)
        }
        kind => bail!("{place} should be state, but holds {}", kind.name().unwrap_or("something that is no ext4")),
    }
}

/// Makes the filesystem. The partition has another name meanwhile: what a power cut leaves of it looks like what somebody may miss, or like state that is damaged.
fn make(sys: &dyn Sys, found: &mut Found, device: &Path) -> Result<()> {
    rename(found, UNFINISHED)?;
    fsck::make(sys, &STATE, device)?;
    rename(found, NAME)
}

fn rename(found: &mut Found, name: &str) -> Result<()> {
    let Found { disk, table, partition } = found;
    if partition.name == name {
        return Ok(());
    }
    let context = || format!("naming partition {} of {} {name}", partition.number, disk.name);
    let change = table.rename(partition.number, name, disk.size);
    let change = change.context("its partition table has no room for its second copy").with_context(context)?;
    write_table(&disk.device, &change).with_context(context)?;
    *table = File::open(&disk.device)
        .map_err(Error::from)
        .and_then(|mut disk| Ok(Table::read(&mut disk)?))
        .with_context(context)?;
    name.clone_into(&mut partition.name);
    Ok(())
}

fn grow_partition(sys: &dyn Sys, what: &str, found: &Found) -> Result<()> {
    let Some(grown) = found.table.grow(found.partition.number, found.disk.size) else { return Ok(()) };
    let context = || format!("growing partition {} of {}", found.partition.number, found.disk.name);
    write_table(&found.disk.device, &grown).with_context(context)?;
    sys.resize_partition(&found.disk.device, found.partition.number, grown.start, grown.length)
        .with_context(context)?;
    log::line(format_args!("{what}: partition grown to {} MiB", grown.length >> 20));
    Ok(())
}

fn write_table(disk: &Path, change: &Change) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(disk)?;
    for Write { offset, bytes } in [&change.first, &change.then] {
        file.write_all_at(bytes, *offset)?;
        // The other copy is not begun before the one is safe.
        file.sync_all()?;
    }
    Ok(())
}

/// A mounted state that may be smaller than its disk has room for. Growing may take long on a large disk, and state is of use meanwhile.
#[derive(Debug)]
pub struct Growing {
    /// The partition's device file.
    pub device: PathBuf,
    /// The machine's disks.
    pub devices: Devices,
}

impl Growing {
    /// Grows the partition to the end of its disk, and the filesystem to the end of the partition.
    ///
    /// # Errors
    /// The table cannot be written, or the kernel refuses.
    pub fn grow(&self, sys: &dyn Sys, mountpoint: &Path) -> Result<()> {
        let found =
            whereabouts::with_device(&self.devices, &self.device).context("looking for the partition of state")?;
        grow_partition(sys, STATE.what, &found)?;
        grow_filesystem(sys, STATE.what, &self.device, mountpoint)
    }
}

fn grow_filesystem(sys: &dyn Sys, what: &str, device: &Path, mountpoint: &Path) -> Result<()> {
    let mut file = File::open(device).with_context(|| format!("opening {}", device.display()))?;
    let Kind::Ext4 { blocks, block_size, .. } =
        look(&mut file).with_context(|| format!("reading the size of the filesystem of {what}"))?.kind
    else {
        return Ok(());
    };
    let wanted = file.seek(SeekFrom::End(0)).with_context(|| format!("reading the size of the partition of {what}"))?
        / block_size;
    if wanted <= blocks {
        return Ok(());
    }
    sys.resize_ext4(mountpoint, wanted).with_context(|| format!("growing the filesystem of {what}"))?;
    log::line(format_args!("{what}: filesystem grown to {} MiB", (wanted * block_size) >> 20));
    Ok(())
}

#[cfg(test)]
mod tests;
