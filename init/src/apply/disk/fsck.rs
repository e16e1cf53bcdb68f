//! Turns a device with a filesystem of ours into a mounted folder: checked where it is not clean, and made where it is blank.
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::repairs::{Repairs, in_one_line};
use crate::log;
use crate::superblock::{Errors, Kind, Volume, recognise};
use crate::sys::{Flag, Mount, Sys};

/// A filesystem that is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ours {
    /// What it is called on the console.
    pub what: &'static str,
    /// Its label, by which it is known to be ours.
    pub label: &'static str,
    /// Where it is mounted.
    pub place: &'static str,
}

/// Makes it on a blank device.
pub(super) fn make(sys: &dyn Sys, ours: &Ours, device: &Path) -> Result<()> {
    log::line(format_args!("{} holds nothing yet: making the filesystem of {}", device.display(), ours.what));
    let name = named(ours, device)?;
    // Inode tables are zeroed by the kernel later: the first boot does not wait for it.
    let args = ["-q", "-F", "-L", ours.label, "-m", "1", "-E", "lazy_itable_init=1,lazy_journal_init=1", name];
    let ran = sys.run(Path::new("/usr/sbin/mkfs.ext4"), &args, b"").context("starting mkfs.ext4")?;
    if !ran.ok() {
        bail!("mkfs.ext4 on {name} failed: {}", in_one_line(&ran.text));
    }
    Ok(())
}

/// Mounts it on `target`. `volume` is what its superblock says; `None` where it was made just now.
pub(super) fn mount(
    sys: &dyn Sys,
    ours: &Ours,
    device: &Path,
    target: &Path,
    volume: Option<&Volume>,
    flags: &[Flag],
) -> Result<()> {
    let source = named(ours, device)?;
    let place = ours.place;
    // What is clean is not what e2fsck would look at first: it costs a third of a second of every boot to be told that all is well.
    let unclean = volume.filter(|volume| !matches!(volume.kind, Kind::Ext4 { clean: true, .. }));
    if let Some(volume) = unclean {
        // Of errors alone e2fsck takes no notice, and lets them stand.
        let how = if volume.errors.is_some() { "-pf" } else { "-p" };
        if let Some(errors) = &volume.errors {
            log::line(format_args!("{}; all of it is checked", told(ours, source, errors)));
        }
        check(sys, ours, device, volume.kind, how)?;
    }
    let mount = || sys.mount(&Mount { source, target, kind: "ext4", flags, data: "" });
    let mounted = match (mount(), volume) {
        (Err(error), Some(volume)) if unclean.is_none() => {
            log::line(format_args!("mounting {source} on {place}: {error}; it is checked first then"));
            // It says of itself that nothing is wrong with it.
            check(sys, ours, device, volume.kind, "-pf")?;
            mount()
        }
        (mounted, _) => mounted,
    };
    mounted.with_context(|| format!("mounting {source} on {place}"))
}

fn named<'a>(ours: &Ours, device: &'a Path) -> Result<&'a str> {
    device.to_str().with_context(|| format!("naming the device of {}", ours.what))
}

fn told(ours: &Ours, name: &str, errors: &Errors) -> String {
    let Errors { count, last, function } = errors;
    let at = OffsetDateTime::from_unix_timestamp(*last).ok().and_then(|at| at.format(&Rfc3339).ok());
    let at = at.unwrap_or_else(|| format!("second {last}"));
    let times = if *count == 1 { "once".to_owned() } else { format!("{count} times") };
    format!("the kernel found the filesystem of {} on {name} wrong {times}, at last at {at} in {function}", ours.what)
}

/// `e2fsck -p` (e2fsck(8), "EXIT CODE"): 0 clean, 1 put right, 2 put right and wants a reboot (which an unmounted filesystem never
/// needs), from 4 on not put right. With 8 it did not begin; where that is because of the superblock, it takes the word of none of the copies
/// by itself while nobody is to be asked.
fn check(sys: &dyn Sys, ours: &Ours, device: &Path, kind: Kind, how: &str) -> Result<()> {
    let (name, what) = (named(ours, device)?, ours.what);
    let e2fsck = |args: &[&str]| sys.run(Path::new("/usr/sbin/e2fsck"), args, b"").context("starting e2fsck");
    let mut ran = e2fsck(&[how, name])?;
    if let (Some(8), Kind::Ext4 { block_size, .. }) = (ran.status, kind)
        && ran.text.contains("uperblock")
    {
        let copy = first_copy(block_size);
        fits(ours, device, copy, block_size).with_context(|| format!("the superblock of {name} is damaged"))?;
        log::line(format_args!("the superblock of {name} is damaged, and its copy is taken"));
        ran = e2fsck(&[how, "-b", &copy.to_string(), "-B", &block_size.to_string(), name])?;
        // A copy that was written while the filesystem was mounted says so, which stops e2fsck when it has brought the other one up to date by the journal.
        if ran.status.is_some_and(|status| status & 8 != 0) {
            ran = e2fsck(&[how, name])?;
        }
    }
    match ran.status {
        Some(0..=3) => {
            log::line(format_args!("{what} on {name} was not clean: {}", Repairs::of(&ran.text)));
            Ok(())
        }
        _ => bail!(
            "the filesystem of {what} on {name} is damaged and e2fsck -p cannot put it right: {}",
            in_one_line(&ran.text)
        ),
    }
}

/// The block of the superblock's first copy: the second group's first one, and a group has as many blocks as a block has bits (ext4(5),
/// `sparse_super`). Blocks of 1 KiB begin to count behind the boot block.
pub(super) fn first_copy(block_size: u64) -> u64 {
    block_size * 8 + u64::from(block_size == 1024)
}

/// A copy from before the filesystem grew would take from it all that was written since.
fn fits(ours: &Ours, device: &Path, copy: u64, block_size: u64) -> Result<()> {
    let mut start = vec![0; 2048];
    let mut read = || {
        let file = File::open(device)?;
        file.read_exact_at(&mut start[1024..], copy * block_size)?;
        (&file).seek(SeekFrom::End(0))
    };
    let length = read().with_context(|| format!("reading the copy of it in block {copy}"))?;
    let volume = recognise(&start);
    match volume.kind {
        Kind::Ext4 { blocks, block_size: size, .. } if volume.label == ours.label && size == block_size => {
            if blocks != length / block_size {
                bail!("its copy is of {blocks} blocks, and the partition has {}", length / block_size);
            }
            Ok(())
        }
        _ => bail!("there is no copy of it in block {copy}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Errors, Ours, told};

    #[test]
    fn errors_are_told_with_time_and_place() {
        let ours = Ours { what: "state", label: "kscratch-state", place: "/var" };
        let errors = |count, last| Errors { count, last, function: "ext4_lookup".to_owned() };
        for (errors, want) in [
            (errors(1, 1_801_353_600), "wrong once, at last at 2027-01-31T00:00:00Z in ext4_lookup"),
            (errors(3, i64::MAX), "wrong 3 times, at last at second 9223372036854775807 in ext4_lookup"),
        ] {
            let told = told(&ours, "/dev/vda5", &errors);
            assert_eq!(told, format!("the kernel found the filesystem of state on /dev/vda5 {want}"));
        }
    }
}
