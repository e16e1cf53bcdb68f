//! Keeps a piece of state back, and gives it away when state was full at the boot: etcd must write before the API server serves, and a kubelet throws
//! nothing out before it has heard which pods are its own.
use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::apply::files;
use crate::log;

/// A filesystem of which a piece is kept back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// What it is called on the console.
    pub what: &'static str,
    /// Where it is mounted.
    pub mount: &'static str,
    /// The file that nobody reads.
    pub file: &'static str,
}

/// The state partition.
pub const STATE: Place = Place { what: "state", mount: "/var", file: "/var/lib/kscratch/reserve" };
/// What the services of a whole machine need until the kubelet can make room: etcd alone writes its log in pieces of 64 MB.
const MOST: u64 = 256 << 20;
/// No larger part of state than this is kept back.
const PART: u64 = 32;
/// With less than this to write to, state counts as full.
const FULL: u64 = 64 << 20;
/// What part of state stays free besides it: the kubelet throws pods and images out where less than 15 % are free.
const FREE_PART: u64 = 5;

/// State as it is.
#[derive(Debug, Clone, Copy)]
struct Space {
    total: u64,
    available: u64,
    /// Length of the reserve that there is; a power cut may have left a part of one, or nothing of it.
    kept: u64,
}

/// Whether it is full, at the boot, before anything writes: the reserve is to be given away, if there is one.
fn is_full(space: Space) -> bool {
    space.available < FULL.min(space.total / FREE_PART)
}

/// How large a reserve is to be made, or made of the one that there is, while the machine runs.
fn wanted(space: Space) -> Option<u64> {
    let size = (space.total / PART).min(MOST);
    let free = space.available.saturating_add(space.kept).saturating_sub(size);
    // Less would help nobody.
    (size >= FULL / 2 && space.kept < size && free >= space.total / FREE_PART).then_some(size)
}

/// Says so if the filesystem is full, and gives the reserve away. To be called before anything else is written to it.
///
/// # Errors
/// What the kernel says.
pub fn give_away_if_full(root: &Path, place: &Place) -> Result<()> {
    let Place { what, file, .. } = place;
    let space = space(root, place)?;
    if is_full(space) && space.kept == 0 {
        log::line(format_args!(
            "{what} is full ({} MiB left), and nothing is kept back for this; make room, or give the machine a larger disk",
            space.available >> 20
        ));
    } else if is_full(space) {
        fs::remove_file(files::below(root, file)).with_context(|| format!("removing {file}"))?;
        let (left, size) = (space.available >> 20, space.kept >> 20);
        log::line(format_args!(
            "{what} is full ({left} MiB left): the {size} MiB that were kept back for this are given away; make room, or give the machine a larger disk"
        ));
    }
    Ok(())
}

/// Makes the reserve if there is none of its size and there is room for it.
///
/// # Errors
/// What the kernel says.
pub fn keep(root: &Path, place: &Place) -> Result<()> {
    let Some(size) = wanted(space(root, place)?) else { return Ok(()) };
    let path = files::below(root, place.file);
    let make = || {
        let file = File::options().write(true).create(true).truncate(false).open(&path)?;
        fallocate(&file, FallocateFlags::empty(), 0, size).map_err(std::io::Error::from)
    };
    make().with_context(|| format!("making {}", place.file)).inspect_err(|_| {
        let _ = fs::remove_file(&path);
    })
}

fn space(root: &Path, place: &Place) -> Result<Space> {
    let found =
        statvfs(files::below(root, place.mount)).with_context(|| format!("reading how full {} is", place.what))?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    let kept = fs::metadata(files::below(root, place.file)).map_or(0, |file| file.len());
    Ok(Space { total: bytes(found.f_blocks), available: bytes(found.f_bavail), kept })
}

#[cfg(test)]
mod tests {
    use super::{Space, is_full, wanted};

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    #[test]
    fn what_is_kept_of_which_state() {
        // (total, available, kept), then whether a boot gives it away, and how many MiB are made while the machine runs.
        for (total, available, kept, given_away, made) in [
            (10 * GIB, 8 * GIB, 0, false, Some(256)),
            (10 * GIB, 8 * GIB, 256 * MIB, false, None),
            (4 * GIB, 3 * GIB, 0, false, Some(128)),
            // State has grown, or the power went before all of it was made.
            (10 * GIB, 8 * GIB, 128 * MIB, false, Some(256)),
            // Nothing is kept of what the kubelet is about to make room on, or would be then.
            (10 * GIB, 2 * GIB, 0, false, None),
            (10 * GIB, 2 * GIB, 200 * MIB, false, None),
            (10 * GIB, 2 * GIB + 256 * MIB, 0, false, Some(256)),
            (100 * GIB, 19 * GIB, 0, false, None),
            (100 * GIB, 21 * GIB, 0, false, Some(256)),
            (512 * MIB, 500 * MIB, 0, false, None),
            (10 * GIB, 0, 256 * MIB, true, None),
            (10 * GIB, 63 * MIB, 256 * MIB, true, None),
            (10 * GIB, 64 * MIB, 256 * MIB, false, None),
            (10 * GIB, 0, 0, false, None),
        ] {
            let space = Space { total, available, kept };
            let given = is_full(space) && kept > 0;
            assert_eq!((given, wanted(space)), (given_away, made.map(|size| size * MIB)), "{space:?}");
        }
    }
}
