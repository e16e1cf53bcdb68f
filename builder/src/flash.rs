//! An image becomes the contents of a device: nothing boots from it before every byte was written, read back and found right.
mod copy;
mod heldback;
mod interrupt;
mod refuse;
mod target;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use kscratch_formats::bmap::{self, BlockMap};
use kscratch_formats::bytes::ReadAt;
use kscratch_formats::gpt;
use sha2::{Digest as _, Sha256};

pub use interrupt::{Interrupt, Interrupted};
pub use refuse::{Needs, Override, Refusal, refusals};

use crate::blockdevice::{BlockDevice, Contents, Kernel};
use crate::blockmap;
use crate::console::{Console, Hint};
use crate::digest::CHUNK;
use crate::inspect::Opened;
use crate::running::is_in_use;
use crate::stamp::{self, Texts};
use heldback::HeldBack;
use target::Target;

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

/// What is going to be overwritten.
#[derive(Debug)]
pub struct Victim {
    /// The device; none for a plain file.
    pub device: Option<BlockDevice>,
    /// What is on it; none where nothing is there.
    pub contents: Option<Contents>,
    /// Where it is.
    pub path: PathBuf,
    /// Whether somebody writes to it, or has it for himself alone.
    pub busy: bool,
}

/// How it went.
#[derive(Debug, Clone, Copy)]
pub struct Flashed {
    /// Bytes that were written.
    pub bytes: u64,
    /// How long writing took, until they were on the device.
    pub writing: Duration,
    /// How long reading them back took.
    pub reading: Duration,
}

/// An image that was looked at and found to fit.
#[derive(Debug)]
pub struct Prepared<'a> {
    request: &'a Request<'a>,
    disk: Opened,
    map: BlockMap,
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
    let refusals = refusals(&victim, &Needs::of(&disk), request.overrides);
    match refusals.as_slice() {
        [] => Ok(Prepared { request, disk, map, victim }),
        refusals => Err(refused(request.to, refusals)),
    }
}

fn refused(to: &Path, refusals: &[Refusal]) -> anyhow::Error {
    let reasons = refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let ways = refusals.iter().filter_map(Refusal::way).collect::<Vec<_>>().join("; ");
    let error = anyhow!("{reasons}").context(format!("{} is not written to", to.display()));
    if ways.is_empty() { error } else { error.context(Hint(ways)) }
}

fn victim(to: &Path, kernel: &Kernel) -> Result<Victim> {
    let device = BlockDevice::at(to, kernel)?;
    if device.is_none() && to.starts_with(&kernel.dev) {
        let way = "`kscratch-image devices` lists what there is";
        return Err(anyhow!("there is no block device {}", to.display()).context(Hint(way.to_owned())));
    }
    Ok(Victim::of(to, device))
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
    let Prepared { request, disk, map, .. } = prepared;
    let to = request.to;
    let in_use = request.overrides.iter().any(|one| matches!(one, Override::Mounted(_) | Override::Held(_)));
    let target = Target::open(to, map.image, !in_use)?;
    interrupt.begin();
    write_all(request, disk, map, &target, interrupt, console).map_err(|error| {
        let what = if target.is_gone() {
            "the device is not there any more (was it pulled out?): put it in again and run the same"
        } else if Interrupted::of(&error).is_some() {
            "run the same again to have it whole"
        } else {
            "run the same again, onto another device if this one fails"
        };
        error.context(format!("flashing {}", to.display())).context(Hint(format!(
            "{} has no partition table now, so nothing boots from it by half; the image is as it was: {what}",
            to.display()
        )))
    })
}

fn write_all(
    request: &Request<'_>,
    disk: &Opened,
    map: &BlockMap,
    target: &Target,
    interrupt: &Interrupt,
    console: &Console,
) -> Result<Flashed> {
    let backup = map.image.saturating_sub(gpt::backup(Needs::of(disk).sector.unwrap_or(gpt::SECTORS[0])));
    let tables = HeldBack::of(disk, &[0..CHUNK.min(map.image), backup..map.image])?;
    target.without_tables(map.image)?;
    let begun = Instant::now();
    copy::write(disk, target, map, &tables, interrupt, console)?;
    target.sync()?;
    let writing = begun.elapsed();
    let begun = Instant::now();
    copy::read_back(target, map, &tables, interrupt, console)?;
    let reading = begun.elapsed();
    if let Some(texts) = &request.texts {
        stamp::onto(target.file(), disk, texts, request.time)?;
        target.sync()?;
        stamp::is_on(target, disk, texts)?;
    }
    // What was cut before this is no disk at all; from here on it takes less than a second.
    interrupt.check()?;
    tables.write(target)?;
    Ok(Flashed { bytes: map.mapped(), writing, reading })
}

impl Victim {
    /// What stands at `path`, where `device` is, or a plain file.
    pub fn of(path: &Path, device: Option<BlockDevice>) -> Victim {
        let contents = path.exists().then(|| match Opened::raw(path) {
            Ok(disk) => Contents::of(&disk, disk.disk_len()),
            Err(error) => Contents::Unreadable { reason: error.root_cause().to_string() },
        });
        Victim { device, contents, path: path.to_owned(), busy: is_in_use(path) }
    }

    /// Its serial number, or what a person types instead to say that this one is meant.
    pub fn name_to_type(&self) -> String {
        let device = self.device.as_ref();
        device.and_then(|device| device.serial.clone()).unwrap_or_else(|| self.path.display().to_string())
    }
}
