//! Keeps a piece of state back, and gives it away when state was full at the boot: etcd must write before the API server serves, and a kubelet throws
//! nothing out before it has heard which pods are its own.
use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::apply::files;
use crate::log;

/// The file that nobody reads.
const RESERVE: &str = "/var/lib/kscratch/reserve";
/// What the services of a whole machine need until the kubelet can make room: etcd alone writes its log in pieces of 64 MB.
const MOST: u64 = 256 << 20;
/// No larger part of state than this is kept back.
const PART: u64 = 32;
/// With less than this to write to, state counts as full.
const FULL: u64 = 64 << 20;
/// What must be free besides it before a reserve is made: the kubelet throws pods out below a tenth of the disk.
const BESIDES: u64 = 5;

/// State as it is.
#[derive(Debug, Clone, Copy)]
struct Space {
    total: u64,
    available: u64,
    kept: bool,
}

/// What is to be done about it.
#[derive(Debug, PartialEq, Eq)]
enum Act {
    Nothing,
    GiveAway,
    Make(u64),
}

/// At the boot, before anything writes.
fn at_boot(space: Space) -> Act {
    if space.kept && space.available < FULL { Act::GiveAway } else { Act::Nothing }
}

/// While the machine runs.
fn later(space: Space) -> Act {
    let size = (space.total / PART).min(MOST);
    // Less would help nobody.
    if space.kept || size < FULL / 2 || space.available < size * BESIDES { Act::Nothing } else { Act::Make(size) }
}

/// Gives the reserve away if state is full. To be called before anything else is written to it.
///
/// # Errors
/// What the kernel says.
pub fn give_away_if_full(root: &Path) -> Result<()> {
    let space = space(root)?;
    if at_boot(space) == Act::GiveAway {
        let reserve = files::below(root, RESERVE);
        let size = fs::metadata(&reserve).map_or(0, |file| file.len());
        fs::remove_file(&reserve).with_context(|| format!("removing {RESERVE}"))?;
        let (left, size) = (space.available >> 20, size >> 20);
        log::line(format_args!(
            "state is full ({left} MiB left): the {size} MiB that were kept back for this are given away; make room, or give the machine a larger disk"
        ));
    }
    Ok(())
}

/// Makes the reserve if there is none and there is room for it.
///
/// # Errors
/// What the kernel says.
pub fn keep(root: &Path) -> Result<()> {
    let Act::Make(size) = later(space(root)?) else { return Ok(()) };
    let path = files::below(root, RESERVE);
    let make = || {
        let file = File::create(&path)?;
        fallocate(&file, FallocateFlags::empty(), 0, size).map_err(std::io::Error::from)
    };
    make().with_context(|| format!("making {RESERVE}")).inspect_err(|_| {
        let _ = fs::remove_file(&path);
    })
}

fn space(root: &Path) -> Result<Space> {
    let state = statvfs(root.join("var")).context("reading how full state is")?;
    let bytes = |blocks: u64| blocks.saturating_mul(state.f_frsize);
    let kept = files::below(root, RESERVE).exists();
    Ok(Space { total: bytes(state.f_blocks), available: bytes(state.f_bavail), kept })
}

#[cfg(test)]
mod tests {
    use super::{Act, Space, at_boot, later};

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    #[test]
    fn what_is_kept_of_which_state() {
        // (total, available, kept), then what is done at boot and later.
        for (total, available, kept, boot, run) in [
            (10 * GIB, 8 * GIB, false, Act::Nothing, Act::Make(256 * MIB)),
            (10 * GIB, 8 * GIB, true, Act::Nothing, Act::Nothing),
            (4 * GIB, 3 * GIB, false, Act::Nothing, Act::Make(128 * MIB)),
            // Nothing is kept of what the kubelet is about to make room on.
            (10 * GIB, GIB, false, Act::Nothing, Act::Nothing),
            (512 * MIB, 500 * MIB, false, Act::Nothing, Act::Nothing),
            (10 * GIB, 0, true, Act::GiveAway, Act::Nothing),
            (10 * GIB, 63 * MIB, true, Act::GiveAway, Act::Nothing),
            (10 * GIB, 64 * MIB, true, Act::Nothing, Act::Nothing),
            (10 * GIB, 0, false, Act::Nothing, Act::Nothing),
        ] {
            let space = Space { total, available, kept };
            assert_eq!((at_boot(space), later(space)), (boot, run), "{space:?}");
        }
    }
}
