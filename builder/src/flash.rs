//! An image becomes the contents of a device: nothing boots from it before every byte was written, read back and found right.
mod interrupt;

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, anyhow, ensure};
use kscratch_formats::bmap::{self, BlockMap};
use kscratch_formats::bytes::ReadAt;
use kscratch_install::blockdevice::{BlockDevice, Kernel, Kind};
use kscratch_install::refuse::{Needs, Override, Refusal, Victim, refusals};
use kscratch_install::{Failure, Left, Step, Target, Took, Watch};
use sha2::{Digest as _, Sha256};

pub use interrupt::{Interrupt, Interrupted};

use crate::blockmap;
use crate::console::{Console, Hint, Progress};
use crate::inspect::Opened;
use crate::running::{is_in_use, is_locked};
use crate::stamp::{self, Texts};

/// A first range that is longer is not looked at before anything is written.
const MAX_START: u64 = 16 << 20;

/// What is written, and where.
#[derive(Debug)]
pub struct Request<'a> {
    /// The image.
    pub image: &'a Path,
    /// Its block map; none: what stands beside it, or else one is made.
    pub map: Option<&'a Path>,
    /// The device, or a plain file.
    pub to: &'a Path,
    /// Role metadata that goes onto it.
    pub texts: Option<Texts<'a>>,
    /// Refusals that do not count.
    pub overrides: &'a [Override],
    /// Seconds since 1970, for the files of the metadata.
    pub time: i64,
}

/// How it went.
#[derive(Debug, Clone, Copy)]
pub struct Flashed {
    /// Bytes that were written.
    pub bytes: u64,
    /// How long it took.
    pub took: Took,
}

/// An image that was looked at and found to fit.
#[derive(Debug)]
pub struct Prepared<'a> {
    request: &'a Request<'a>,
    disk: Opened,
    map: BlockMap,
    kernel: Kernel,
    /// What is overwritten.
    pub victim: Victim,
}

/// Looks at everything, and touches nothing.
///
/// # Errors
/// An image, a map or metadata that is not right; every reason not to write to the device.
pub fn prepare<'a>(request: &'a Request<'a>, kernel: &Kernel, console: &Console) -> Result<Prepared<'a>> {
    let disk = Opened::alone(request.image)?;
    if let Some(texts) = &request.texts {
        stamp::check_for(&disk, texts)
            .with_context(|| format!("putting metadata on a copy of {}", request.image.display()))?;
    }
    let map = map(request, &disk, console)?;
    let victim = victim(request.to, kernel)?;
    let mut refusals = refusals(&victim, &Needs::of(&disk, disk.disk_len()), request.overrides);
    refusals.extend(is_the_image(request.image, &victim).then_some(Refusal::Itself));
    match refusals.as_slice() {
        [] => Ok(Prepared { request, disk, map, kernel: kernel.clone(), victim }),
        refusals => Err(refused(request.to, refusals)),
    }
}

/// Whether the image would be written over itself: it is the very file or device, or the file behind a loop device.
fn is_the_image(image: &Path, victim: &Victim) -> bool {
    let (Ok(own), Ok(to)) = (fs::metadata(image), fs::metadata(&victim.path)) else { return false };
    let both_devices = own.file_type().is_block_device() && to.file_type().is_block_device();
    let same = if both_devices { own.rdev() == to.rdev() } else { (own.dev(), own.ino()) == (to.dev(), to.ino()) };
    // Of a loop device, its model is its file.
    let behind =
        victim.device.as_ref().filter(|device| device.kind == Kind::Loop).and_then(|device| device.model.as_ref());
    same || behind.is_some_and(|file| fs::canonicalize(image).is_ok_and(|image| image == Path::new(file)))
}

fn refused(to: &Path, refusals: &[Refusal]) -> anyhow::Error {
    let reasons = refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let ways = refusals.iter().filter_map(Refusal::way).collect::<Vec<_>>().join("; ");
    let error = anyhow!("{reasons}").context(format!("{} is not written to", to.display()));
    if ways.is_empty() { error } else { error.context(Hint(ways)) }
}

/// What stands at a path: a device with all that the kernel tells of it, or a plain file.
pub(crate) fn victim(to: &Path, kernel: &Kernel) -> Result<Victim> {
    let device = BlockDevice::at(to, kernel)?;
    if device.is_none() && to.starts_with(&kernel.dev) {
        let way = "`kscratch-image devices` lists what there is";
        return Err(anyhow!("there is no block device {}", to.display()).context(Hint(way.to_owned())));
    }
    Ok(Victim::of(to, device, is_in_use(to)))
}

/// The block map: that which is named, that which stands beside the image, or one that is made by reading all of it.
fn map(request: &Request<'_>, disk: &Opened, console: &Console) -> Result<BlockMap> {
    let beside = blockmap::place(request.image);
    let file = request.map.map(Path::to_owned).or_else(|| beside.exists().then_some(beside));
    let Some(file) = file else {
        console
            .say(format_args!("{} has no block map beside it: reading all of it to make one", request.image.display()));
        let mut progress = console.bytes("reading the image", disk.disk_len());
        return blockmap::read(disk, disk.disk_len(), &mut |bytes| progress.add(bytes))
            .with_context(|| format!("reading {}", request.image.display()));
    };
    let action = || format!("reading the block map {}", file.display());
    let len = fs::metadata(&file).with_context(action)?.len();
    if len > bmap::MAX_LEN as u64 {
        return Err(anyhow!("it is {len} bytes long").context(action()));
    }
    let map = BlockMap::parse(&fs::read_to_string(&file).with_context(action)?).with_context(action)?;
    if map.image != disk.disk_len() {
        let (own, others) = (disk.disk_len(), map.image);
        let why = anyhow!("it is of a disk of {others} bytes, and {} is one of {own}", request.image.display())
            .context(action());
        return Err(why.context(Hint(format!("build the image again, or remove {} to have one made", file.display()))));
    }
    // The table's GUIDs come from all that the disk holds: another image has another start.
    let first = map.ranges.first().filter(|range| range.bytes.start == 0 && range.bytes.end <= MAX_START);
    if let Some(first) = first {
        let mut bytes = vec![0; usize::try_from(first.bytes.end)?];
        disk.read_at(0, &mut bytes).with_context(|| format!("reading {}", request.image.display()))?;
        if Sha256::digest(&bytes)[..] != first.sha256 {
            let why = anyhow!("{} is not the image that it was made of", request.image.display()).context(action());
            return Err(
                why.context(Hint(format!("build the image again, or remove {} to have one made", file.display())))
            );
        }
    }
    Ok(map)
}

/// Writes. What the device held is lost from here on; what is on it boots only if this says so.
///
/// # Errors
/// The device fails, or goes away; a signal came; the image is not what its map says; what is read back is not what was written.
pub fn write(prepared: &Prepared<'_>, interrupt: &Interrupt, console: &Console) -> Result<Flashed> {
    let Prepared { request, disk, map, kernel, victim } = prepared;
    let to = request.to;
    let in_use = request.overrides.iter().any(|one| matches!(one, Override::Mounted(_) | Override::Held(_)));
    let target = Target::open(to, map.image, (victim.device.as_ref(), kernel), !in_use).map_err(with_way)?;
    // A machine may have been started on it since it was looked at; of what the kernel does with a device, opening it told.
    ensure!(!is_locked(target.file()), "{} is in use by now: nothing was written", to.display());
    interrupt.begin();
    write_all(request, disk, map, &target, interrupt, console).map_err(|Failure { left, error }| {
        // A file that is there is refused, and this one is now.
        let to_file = format!("run the same again with --override exists:{}", to.display());
        let what = if left == Left::Untouched {
            "look at the image, and run the same again"
        } else if victim.device.is_none() {
            &to_file
        } else if target.is_gone() {
            "the device is not there any more (was it pulled out?): put it in again and run the same"
        } else if Interrupted::of(&error).is_some() {
            "run the same again to have it whole"
        } else {
            "run the same again, onto another device if this one fails"
        };
        let now = match left {
            Left::Untouched => "nothing was written to it",
            Left::WithoutTable => "it has no partition table now, so nothing boots from it by half",
            Left::Unknown => "its partition table may be there, whole or not: nothing is to boot from it",
        };
        let to = to.display();
        error.context(format!("flashing {to}")).context(Hint(format!("{to}: {now}; the image is as it was: {what}")))
    })
}

/// Says what helps where it is not allowed.
pub(crate) fn with_way(error: anyhow::Error) -> anyhow::Error {
    let denied = error
        .root_cause()
        .downcast_ref()
        .is_some_and(|error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied);
    if denied {
        error.context(Hint("writing to a disk needs its owner's rights: run it as root".to_owned()))
    } else {
        error
    }
}

fn write_all(
    request: &Request<'_>,
    disk: &Opened,
    map: &BlockMap,
    target: &Target,
    interrupt: &Interrupt,
    console: &Console,
) -> Result<Flashed, Failure> {
    let watch = Watching { interrupt, console, progress: Mutex::new(None) };
    let metadata = |target: &Target| -> Result<()> {
        let Some(texts) = &request.texts else { return Ok(()) };
        stamp::onto(target.file(), disk, texts, request.time)?;
        target.sync()?;
        stamp::is_on(target, disk, texts)
    };
    let took = kscratch_install::write(disk, map, target, &watch, metadata)?;
    Ok(Flashed { bytes: map.mapped(), took })
}

/// Shows a person how far it is, and hears whether it is to end.
struct Watching<'a> {
    interrupt: &'a Interrupt,
    console: &'a Console,
    progress: Mutex<Option<Progress>>,
}

impl Watch for Watching<'_> {
    fn begins(&self, step: Step, bytes: u64) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        // The one before ends first.
        *progress = None;
        *progress = Some(self.console.bytes(step.words(), bytes));
    }

    fn go_on(&self) -> Result<()> {
        Ok(self.interrupt.check()?)
    }

    fn done(&self, bytes: u64) {
        if let Some(progress) = self.progress.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            progress.add(bytes);
        }
    }
}
