//! Turns the disks that the metadata name into mounted folders, or into one message for each that is missing, bad, full or somebody else's.
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Error, Result, bail};
use kscratch_metadata::{Disk, Purpose};
use rustix::fs::OFlags;

use super::layout::{Layout, Verdict};
use super::reserve::{self, Place};
use super::{etcdplace, fsck, grow_filesystem, grow_partition, write_table};
use crate::apply::files;
use crate::log;
use crate::partition::single::Single;
use crate::partition::{Guid, Partition, Table};
use crate::stage::block::{self, Devices, Found, words};
use crate::superblock::{Volume, look};
use crate::sys::Sys;

/// How long a disk that is named may take to appear once the drivers are there: those in a shelf are started one after the other.
pub const WITHIN: Duration = Duration::from_secs(60);
const EVERY: Duration = Duration::from_millis(100);
/// Waiting for less is not worth a line.
const WORTH_A_LINE: Duration = Duration::from_secs(2);
/// How long the kernel may take to read a disk's table after the disk is there, and to make a partition's device file.
const PARTITION_WITHIN: Duration = Duration::from_secs(2);

/// What is read of both ends of a disk, and how many places between, before it counts as blank.
const ENDS: u64 = 16 << 20;
const PLACES: u64 = 256;
const PLACE: u64 = 16 << 10;

/// A further disk, mounted.
#[derive(Debug)]
pub struct Further {
    /// Its reserve.
    pub place: Place,
    found: Found,
    device: PathBuf,
    what: &'static str,
}

impl Further {
    /// Grows it to the end of its disk. It is of use meanwhile.
    ///
    /// # Errors
    /// The table cannot be written, or the kernel refuses.
    pub fn grow(&self, sys: &dyn Sys, root: &Path) -> Result<()> {
        grow_partition(sys, self.what, &self.found)?;
        grow_filesystem(sys, self.what, &self.device, &files::below(root, self.place.mount))
    }
}

/// Mounts all of them; those that come late are waited for, `within` this time all in all.
///
/// # Errors
/// Beside what could be mounted, every failure in one text.
pub fn mount_all(
    sys: &dyn Sys,
    root: &Path,
    devices: &Devices,
    disks: &[&Disk],
    within: Duration,
) -> (Vec<Further>, Result<()>) {
    let (mut mounted, mut faults) = (Vec::new(), Vec::new());
    let end = log::monotonic() + within;
    for wanted in disks {
        let what = Layout::of(wanted.purpose).ours.what;
        let disk = find(devices, wanted, end).with_context(|| what.to_owned());
        match disk.and_then(|disk| mount(sys, root, devices, wanted, disk)) {
            Ok(further) => mounted.push(further),
            Err(error) => faults.push(format!("{error:#}")),
        }
    }
    let result = if faults.is_empty() { Ok(()) } else { Err(Error::msg(faults.join("\n"))) };
    (mounted, result)
}

/// The one disk of which all is true that the metadata say.
fn find(devices: &Devices, wanted: &Disk, end: Duration) -> Result<block::Disk> {
    let begun = log::monotonic();
    let mut told = false;
    loop {
        let all = devices.disks();
        let mut found: Vec<&block::Disk> = all.iter().filter(|one| wanted.is(&words::of(devices, &one.name))).collect();
        match (found.pop(), found.is_empty()) {
            (Some(one), true) => return Ok(one.clone()),
            (Some(one), false) => {
                let names: Vec<&str> = found.iter().copied().chain([one]).map(|one| one.name.as_str()).collect();
                bail!("more than one disk has {}: {}; give its path too", wanted.told_by(), names.join(", "));
            }
            (None, _) => {}
        }
        let now = log::monotonic();
        if now >= end {
            let there: Vec<String> = all.iter().map(|one| shown(devices, one)).collect();
            let there = if there.is_empty() { "none".to_owned() } else { there.join("; ") };
            bail!("no disk has {}; there are: {there}", wanted.told_by());
        }
        if !told && now.saturating_sub(begun) > WORTH_A_LINE {
            let left = end.saturating_sub(now).as_secs();
            log::line(format_args!("waiting up to {left} s for a disk that has {}", wanted.told_by()));
            told = true;
        }
        thread::sleep(EVERY);
    }
}

fn shown(devices: &Devices, disk: &block::Disk) -> String {
    format!("{} of {} MiB ({})", disk.name, disk.size >> 20, words::told(&words::of(devices, &disk.name)))
}

/// Has a disk be what it is named for.
///
/// # Errors
/// It is not ours and not blank, it is damaged, or the machine runs from it.
pub fn mount(sys: &dyn Sys, root: &Path, devices: &Devices, wanted: &Disk, disk: block::Disk) -> Result<Further> {
    let layout = Layout::of(wanted.purpose);
    let what = layout.ours.what;
    let named = || format!("{what}, {},", disk.name);
    if devices.first.as_ref() == Some(&disk.name) {
        bail!("{} is the disk that the machine runs from", named());
    }
    let (table, whole) = read(&disk.device).map_err(|error| error.context(named()))?;
    let verdict = layout.decide(&table, &whole).map_err(|why| Error::msg(format!("{} {why}", named())))?;
    if wanted.purpose == Purpose::Etcd {
        let now = if let Verdict::Mount(partition) = &verdict { Some(partition.guid) } else { None };
        etcdplace::allow(&etcdplace::before(root)?, now, wanted.replaces.as_deref()).with_context(named)?;
    }
    let ready = ready(sys, devices, &layout, &disk, &table.ok(), verdict).map_err(|error| error.context(named()))?;
    let Ready { found, device, volume } = ready;
    let place = layout.ours.place;
    let target = files::below(root, place);
    if wanted.purpose == Purpose::Docker && fs::read_dir(&target).is_ok_and(|mut entries| entries.next().is_some()) {
        log::line("docker's earlier store stays on state, and is hidden by docker's disk");
    }
    files::directory(root, place, layout.mode, 0)?;
    if wanted.purpose == Purpose::Etcd {
        etcdplace::remember(root, found.partition.guid)?;
    }
    fsck::mount(sys, &layout.ours, &device, &target, volume.as_ref(), layout.flags)?;
    if volume.is_none() {
        // etcd takes it for something that it does not know. e2fsck makes it again if it needs one.
        let _ = fs::remove_dir(target.join("lost+found"));
    }
    let made = if volume.is_none() { ", made anew" } else { "" };
    log::line(format_args!("{what} is {}, {}{made}", device.display(), wanted.told_by()));
    let file = match wanted.purpose {
        Purpose::Docker => "/var/lib/docker/kscratch-reserve",
        Purpose::Etcd => "/var/lib/etcd/kscratch-reserve",
    };
    let place = Place { what, mount: place, file };
    if let Err(error) = reserve::give_away_if_full(root, &place) {
        log::line(format_args!("{error:#}; {what} stays as full as it is"));
    }
    Ok(Further { place, found, device, what })
}

type Look = (Result<Table, crate::partition::Error>, Volume);

fn read(device: &Path) -> Result<Look> {
    let mut file = File::open(device).context("opening it")?;
    let table = Table::read(&mut file);
    // Where there is a table, what stands before its first partition is of no interest.
    let whole = look(&mut file).context("reading it")?;
    Ok((table, whole))
}

/// A partition that can be mounted.
struct Ready {
    found: Found,
    device: PathBuf,
    /// What its superblock says; `None` where it was made just now.
    volume: Option<Volume>,
}

fn ready(
    sys: &dyn Sys,
    devices: &Devices,
    layout: &Layout,
    disk: &block::Disk,
    table: &Option<Table>,
    verdict: Verdict,
) -> Result<Ready> {
    let (table, partition, blank) = match (verdict, table) {
        (Verdict::Mount(partition), Some(table)) => (table.clone(), partition, false),
        (Verdict::Finish(partition), Some(table)) => (table.clone(), partition, true),
        _ => {
            let [own, guid] = [random()?, random()?];
            let table = divide(devices, layout, disk, own, guid)?;
            let partition = table.partitions.first().cloned().context("its partition is not there")?;
            (table, partition, true)
        }
    };
    let device = device(sys, devices, disk, &table, &partition)?;
    let mut found = Found { disk: disk.clone(), table, partition };
    if !blank {
        let volume = File::open(&device).and_then(|mut file| look(&mut file));
        let volume = volume.with_context(|| format!("reading {}", device.display()))?;
        layout.accept(&volume).map_err(Error::msg)?;
        return Ok(Ready { found, device, volume: Some(volume) });
    }
    fsck::make(sys, &layout.ours, &device)?;
    // Only now it has the name by which it may hold something.
    found.table = name(layout, &found, layout.name, devices.sector(&disk.name))?;
    Ok(Ready { found, device, volume: None })
}

/// Makes the table of a disk that is blank.
fn divide(devices: &Devices, layout: &Layout, disk: &block::Disk, own: Guid, guid: Guid) -> Result<Table> {
    let exclusive = OFlags::EXCL.bits().cast_signed();
    // A disk that the kernel has in use for something (a part of a RAID, a mapping) is nobody's to take.
    let file = File::options().read(true).write(true).custom_flags(exclusive).open(&disk.device);
    let file = file.context("taking it for this machine alone")?;
    if let Some(at) = first_use(&file, disk.size).context("looking whether it is blank")? {
        bail!("is not blank: there are data at byte {at}; nothing was written to it");
    }
    let name = layout.unfinished();
    let single = Single { kind: layout.kind, name: &name, disk: own, guid };
    write(&single, devices.sector(&disk.name), disk)
}

/// Gives the partition another name.
fn name(layout: &Layout, found: &Found, name: &str, sector: u64) -> Result<Table> {
    let single = Single { kind: layout.kind, name, disk: found.table.disk_guid(), guid: found.partition.guid };
    write(&single, sector, &found.disk)
}

fn write(single: &Single<'_>, sector: u64, disk: &block::Disk) -> Result<Table> {
    let growth = single.table(sector, disk.size).with_context(|| format!("{} bytes are too few", disk.size))?;
    write_table(&disk.device, &growth).context("writing its partition table")?;
    let mut file = File::open(&disk.device).context("opening it")?;
    Ok(Table::read(&mut file)?)
}

/// Where the first byte that is not zero was found, of those that are looked at.
fn first_use(file: &File, size: u64) -> std::io::Result<Option<u64>> {
    let mut places: Vec<(u64, u64)> = vec![(0, ENDS.min(size)), (size.saturating_sub(ENDS), ENDS.min(size))];
    let step = (size / PLACES).next_multiple_of(4096).max(4096);
    places.extend((0..size).step_by(usize::try_from(step).unwrap_or(usize::MAX)).map(|at| (at, PLACE.min(size - at))));
    // Two stretches of memory are compared at once, and bytes one by one.
    let (mut bytes, zeros) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    for (mut at, length) in places {
        let end = at + length;
        while at < end {
            let piece = usize::try_from((end - at).min(1 << 20)).unwrap_or(0);
            let Some(piece) = bytes.get_mut(..piece) else { break };
            file.read_exact_at(piece, at)?;
            if Some(&*piece) != zeros.get(..piece.len())
                && let Some(place) = piece.iter().position(|byte| *byte != 0)
            {
                return Ok(Some(at + place as u64));
            }
            at += piece.len() as u64;
        }
    }
    Ok(None)
}

/// The partition's device file. A kernel that does not know the partition (it does not take the table's second copy by itself) is told.
fn device(
    sys: &dyn Sys,
    devices: &Devices,
    disk: &block::Disk,
    table: &Table,
    partition: &Partition,
) -> Result<PathBuf> {
    let (number, sector) = (partition.number, table.sector);
    let known = || {
        let end = log::monotonic() + PARTITION_WITHIN;
        loop {
            let name = devices.named(&disk.name).and_then(|disk| disk.partitions.get(&number).cloned());
            let device = name.map(|name| disk.device.with_file_name(name)).filter(|device| device.exists());
            if device.is_some() || log::monotonic() >= end {
                return device;
            }
            thread::sleep(Duration::from_millis(20));
        }
    };
    let now = devices.named(&disk.name).is_some_and(|disk| disk.partitions.contains_key(&number));
    if !now || known().is_none() {
        let (start, length) = (partition.first * sector, (partition.last + 1 - partition.first) * sector);
        if let Err(error) = sys.add_partition(&disk.device, number, start, length) {
            log::debug(format_args!("telling the kernel of partition {number} of {}: {error}", disk.name));
        }
    }
    known().with_context(|| format!("the kernel does not know its partition {number}"))
}

fn random() -> Result<Guid> {
    let mut bytes = [0; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).context("getting random numbers")?;
    Ok(Guid::version_4(bytes))
}

#[cfg(test)]
mod tests;
