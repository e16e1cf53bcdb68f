//! The order in which a disk is written: whatever cuts it short, the device has no partition table then, and nothing boots from it by half.
use std::time::{Duration, Instant};

use anyhow::Result;
use kscratch_formats::bmap::BlockMap;
use kscratch_formats::bytes::ReadAt;
use kscratch_formats::gpt;

use crate::copy::{self, PIECE, Watch};
use crate::heldback::HeldBack;
use crate::refuse::Needs;
use crate::target::Target;

/// A part of the work that takes its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// All ranges are written.
    Writing,
    /// All ranges are read from the device again.
    ReadingBack,
}

impl Step {
    /// What it is called while it goes on.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Step::Writing => "writing",
            Step::ReadingBack => "reading back",
        }
    }
}

/// What a disk is on which writing has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// What it was: nothing was written yet.
    Untouched,
    /// Without a partition table, so that nothing boots from it by half.
    WithoutTable,
    /// Nobody knows: it fails where its table stands.
    Unknown,
}

/// Why a disk is not the image.
#[derive(Debug, thiserror::Error)]
#[error("{error:#}")]
pub struct Failure {
    /// What the disk is now.
    pub left: Left,
    /// What went wrong.
    pub error: anyhow::Error,
}

impl Left {
    /// Makes an error of it.
    fn of(self) -> impl Fn(anyhow::Error) -> Failure {
        move |error| Failure { left: self, error }
    }
}

/// How long it took.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    /// Writing, until all was on the device.
    pub writing: Duration,
    /// Reading it back.
    pub reading: Duration,
}

/// Writes what `map` names of `disk` to `target`, and reads it back. `metadata` is called when all but the partition tables is there, to put a
/// machine's own files onto it.
///
/// # Errors
/// The image or the device cannot be read or written; a range's digest is not what the map says, on the way or read back; the watch ends it. It says
/// what the disk is then.
pub fn write(
    disk: &(impl ReadAt + Sync),
    map: &BlockMap,
    target: &Target,
    watch: &impl Watch,
    metadata: impl FnOnce(&Target) -> Result<()>,
) -> Result<Took, Failure> {
    let sector = Needs::of(disk, map.image).sector.unwrap_or(gpt::SECTORS[0]);
    let backup = map.image.saturating_sub(gpt::backup(sector));
    let tables = HeldBack::of(disk, &[0..PIECE.min(map.image), backup..map.image]).map_err(Left::Untouched.of())?;
    target.without_tables(map.image).map_err(Left::Unknown.of())?;
    let took = write_ranges(disk, map, target, &tables, watch, metadata).map_err(Left::WithoutTable.of())?;
    tables.write(target).map_err(|error| {
        // What does not keep its table is to have none.
        let left = if target.without_tables(map.image).is_ok() { Left::WithoutTable } else { Left::Unknown };
        Failure { left, error }
    })?;
    Ok(took)
}

/// All but the tables.
fn write_ranges(
    disk: &(impl ReadAt + Sync),
    map: &BlockMap,
    target: &Target,
    tables: &HeldBack,
    watch: &impl Watch,
    metadata: impl FnOnce(&Target) -> Result<()>,
) -> Result<Took> {
    watch.begins(Step::Writing, map.mapped());
    let begun = Instant::now();
    copy::write(disk, target, map, tables, watch)?;
    target.sync()?;
    let writing = begun.elapsed();
    watch.begins(Step::ReadingBack, map.mapped());
    let begun = Instant::now();
    copy::read_back(target, map, tables, watch)?;
    let reading = begun.elapsed();
    metadata(target)?;
    // What was cut before this is no disk at all; from here on it takes less than a second.
    watch.go_on()?;
    Ok(Took { writing, reading })
}
