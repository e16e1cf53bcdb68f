//! Turns the disk's state partition into a mounted `/var`: checked where it is not clean, made where it is blank; and grows it to the disk's end.
pub mod reserve;

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::log;
use crate::partition::{Growth, Guid, Write};
use crate::stage::block::{Devices, Found};
use crate::superblock::{Kind, Volume, look, recognise};
use crate::sys::{Flag, Mount, Sys};

/// GPT name of the partition.
pub const NAME: &str = "state";
/// Label of its filesystem.
pub const LABEL: &str = "kscratch-state";

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
pub fn mount_state(sys: &dyn Sys, root: &Path, devices: &Devices, root_guid: Option<Guid>) -> Result<State> {
    let target = root.join("var");
    match partition(sys, &target, devices, root_guid) {
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

fn partition(sys: &dyn Sys, target: &Path, devices: &Devices, root_guid: Option<Guid>) -> Result<State> {
    let found = find(devices, root_guid)?;
    let device = found.device().context("the kernel does not know the state partition")?;
    let volume = File::open(&device).and_then(|mut file| look(&mut file));
    let volume = volume.with_context(|| format!("reading {}", device.display()))?;
    let wanted = usable(&volume, &found)?;
    let made = match wanted {
        Use::Make => {
            make(sys, &device)?;
            true
        }
        Use::Check => {
            check(sys, &device, volume.kind, "-p")?;
            false
        }
        Use::AsItIs => false,
    };
    let source = device.to_str().context("naming the state partition")?;
    let mount = || sys.mount(&Mount { source, target, kind: "ext4", flags: &[Flag::NoAtime], data: "" });
    let mounted = match mount() {
        Err(error) if matches!(wanted, Use::AsItIs) => {
            log::line(format_args!("mounting {source} on /var: {error}; it is checked first then"));
            // It says of itself that nothing is wrong with it.
            check(sys, &device, volume.kind, "-pf")?;
            mount()
        }
        mounted => mounted,
    };
    mounted.with_context(|| format!("mounting {source} on /var"))?;
    // What is mounted bears the time of now.
    let written = match volume.kind {
        Kind::Ext4 { written, .. } if !made => Some(written),
        _ => None,
    };
    Ok(State::Partition { device, made, written })
}

/// On the disk of the root, by type and name; without a root GUID (a root that is not ours) on any disk.
fn find(devices: &Devices, root_guid: Option<Guid>) -> Result<Found> {
    let is_root =
        |found: &Found| root_guid.is_none_or(|guid| found.table.partitions.iter().any(|one| one.guid == guid));
    let all = devices.tables().into_iter().filter_map(|(disk, table)| {
        let partition = table.partitions.iter().find(|one| one.kind == Guid::VAR && one.name == NAME)?.clone();
        Some(Found { disk, table, partition })
    });
    let found = all.into_iter().find(is_root);
    found.with_context(|| format!("the root's disk has no partition of the type {} with the name {NAME}", Guid::VAR))
}

enum Use {
    Make,
    Check,
    AsItIs,
}

/// Whether the partition is ours to use: never a byte is written over what somebody else may miss.
fn usable(volume: &Volume, found: &Found) -> Result<Use> {
    let place = format!("partition {} of {}", found.partition.number, found.disk.name);
    match volume.kind {
        Kind::Blank => Ok(Use::Make),
        // What e2fsck would look at first, too: it costs a third of a second of every boot to be told that all is well.
        Kind::Ext4 { clean: true, .. } if volume.label == LABEL => Ok(Use::AsItIs),
        Kind::Ext4 { .. } if volume.label == LABEL => Ok(Use::Check),
        Kind::Ext4 { .. } => {
            bail!("{place} should be state, but holds an ext4 labelled {:?} and not {LABEL:?}", volume.label)
        }
        kind => bail!("{place} should be state, but holds {}", kind.name().unwrap_or("something that is no ext4")),
    }
}

fn make(sys: &dyn Sys, device: &Path) -> Result<()> {
    log::line(format_args!("{} is blank: making the state filesystem", device.display()));
    let name = device.to_str().context("naming the state partition")?;
    // Inode tables are zeroed by the kernel later: the first boot does not wait for it.
    let args = ["-q", "-F", "-L", LABEL, "-m", "1", "-E", "lazy_itable_init=1,lazy_journal_init=1", name];
    let ran = sys.run(Path::new("/usr/sbin/mkfs.ext4"), &args, b"").context("starting mkfs.ext4")?;
    if !ran.ok() {
        bail!("mkfs.ext4 on {name} failed: {}", ran.text.trim());
    }
    Ok(())
}

/// `e2fsck -p` (e2fsck(8), "EXIT CODE"): 0 clean, 1 put right, 2 put right and wants a reboot (which an unmounted filesystem never
/// needs), from 4 on not put right. With 8 it did not begin; where that is because of the superblock, it takes the word of none of the copies
/// by itself while nobody is to be asked.
fn check(sys: &dyn Sys, device: &Path, kind: Kind, how: &str) -> Result<()> {
    let name = device.to_str().context("naming the state partition")?;
    let e2fsck = |args: &[&str]| sys.run(Path::new("/usr/sbin/e2fsck"), args, b"").context("starting e2fsck");
    let mut ran = e2fsck(&[how, name])?;
    if let (Some(8), Kind::Ext4 { block_size, .. }) = (ran.status, kind)
        && ran.text.contains("uperblock")
    {
        let copy = first_copy(block_size);
        fits(device, copy, block_size).with_context(|| format!("the superblock of {name} is damaged"))?;
        log::line(format_args!("the superblock of {name} is damaged, and its copy is taken"));
        ran = e2fsck(&[how, "-b", &copy.to_string(), "-B", &block_size.to_string(), name])?;
        // A copy that was written while the filesystem was mounted says so, which stops e2fsck when it has brought the other one up to date by the journal.
        if ran.status.is_some_and(|status| status & 8 != 0) {
            ran = e2fsck(&[how, name])?;
        }
    }
    match ran.status {
        Some(0) => Ok(()),
        Some(1..=3) => {
            log::line(format_args!("e2fsck put {name} right: {}", ran.text.trim()));
            Ok(())
        }
        _ => bail!("the state filesystem on {name} is damaged and e2fsck -p cannot put it right: {}", ran.text.trim()),
    }
}

/// The block of the superblock's first copy: the second group's first one, and a group has as many blocks as a block has bits (ext4(5),
/// `sparse_super`). Blocks of 1 KiB begin to count behind the boot block.
fn first_copy(block_size: u64) -> u64 {
    block_size * 8 + u64::from(block_size == 1024)
}

/// A copy from before the filesystem grew would take from it all that was written since.
fn fits(device: &Path, copy: u64, block_size: u64) -> Result<()> {
    let mut start = vec![0; 2048];
    let mut read = || {
        let file = File::open(device)?;
        file.read_exact_at(&mut start[1024..], copy * block_size)?;
        (&file).seek(SeekFrom::End(0))
    };
    let length = read().with_context(|| format!("reading the copy of it in block {copy}"))?;
    let volume = recognise(&start);
    match volume.kind {
        Kind::Ext4 { blocks, block_size: size, .. } if volume.label == LABEL && size == block_size => {
            if blocks != length / block_size {
                bail!("its copy is of {blocks} blocks, and the partition has {}", length / block_size);
            }
            Ok(())
        }
        _ => bail!("there is no copy of it in block {copy}"),
    }
}

fn grow_partition(sys: &dyn Sys, found: &Found) -> Result<()> {
    let Some(growth) = found.table.grow(found.partition.number, found.disk.size) else { return Ok(()) };
    let context = || format!("growing partition {} of {}", found.partition.number, found.disk.name);
    write_growth(&found.disk.device, &growth).with_context(context)?;
    sys.resize_partition(&found.disk.device, found.partition.number, growth.start, growth.length)
        .with_context(context)?;
    log::line(format_args!("state partition grown to {} MiB", growth.length >> 20));
    Ok(())
}

fn write_growth(disk: &Path, growth: &Growth) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(disk)?;
    for Write { offset, bytes } in [&growth.backup, &growth.primary] {
        file.write_all_at(bytes, *offset)?;
        // The second copy is not begun before the first is safe.
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
    /// GUID of the root partition, which is on the same disk.
    pub root: Option<Guid>,
}

impl Growing {
    /// Grows the partition to the end of its disk, and the filesystem to the end of the partition.
    ///
    /// # Errors
    /// The table cannot be written, or the kernel refuses.
    pub fn grow(&self, sys: &dyn Sys, mountpoint: &Path) -> Result<()> {
        grow_partition(sys, &find(&self.devices, self.root)?)?;
        grow_filesystem(sys, &self.device, mountpoint)
    }
}

fn grow_filesystem(sys: &dyn Sys, device: &Path, mountpoint: &Path) -> Result<()> {
    let mut file = File::open(device).with_context(|| format!("opening {}", device.display()))?;
    let Kind::Ext4 { blocks, block_size, .. } = look(&mut file).context("reading the state filesystem's size")?.kind
    else {
        return Ok(());
    };
    let wanted = file.seek(SeekFrom::End(0)).context("reading the state partition's size")? / block_size;
    if wanted <= blocks {
        return Ok(());
    }
    sys.resize_ext4(mountpoint, wanted).context("growing the state filesystem")?;
    log::line(format_args!("state filesystem grown to {} MiB", (wanted * block_size) >> 20));
    Ok(())
}

#[cfg(test)]
mod tests;
