//! Has the disks that the metadata name mounted before anything is planned on them, and keeps a piece of each back.
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use kscratch_metadata::{Disk, Purpose, RoleMetadata};

use super::block::Devices;
use super::phases::Phases;
use crate::apply::disk::further::{self, Further};
use crate::apply::disk::reserve::{self, Place};
use crate::log;
use crate::sys::Sys;

const HINT: &str = "no service but containerd is started: images and etcd's data must not begin anew elsewhere; put the disks right and boot again, or take them out of [[disks]]. A disk is taken when it is blank (blkdiscard --zeroout)";

/// How often it is looked whether there is room for the reserves again.
const RESERVE_EVERY: Duration = Duration::from_secs(600);

/// The machine's further disks.
#[derive(Debug)]
pub struct FurtherDisks {
    devices: Devices,
    mounted: Vec<Further>,
}

impl FurtherDisks {
    /// None of them mounted yet.
    #[must_use]
    pub fn new(devices: Devices) -> Self {
        Self { devices, mounted: Vec::new() }
    }

    /// Mounts them, as a phase; there is none where the metadata name no disk. Gives whether all are there. With state in memory etcd is not
    /// started, and its disk is left alone.
    pub fn mount(
        &mut self,
        sys: &dyn Sys,
        root: &Path,
        phases: &mut Phases,
        metadata: &RoleMetadata,
        lasting: bool,
    ) -> bool {
        let wanted = |disk: &&Disk| lasting || disk.purpose != Purpose::Etcd;
        let disks: Vec<&Disk> = metadata.disks.iter().filter(wanted).collect();
        if disks.is_empty() {
            return true;
        }
        let work = || -> Result<()> {
            let (mounted, result) = further::mount_all(sys, root, &self.devices, &disks, further::WITHIN);
            self.mounted = mounted;
            result
        };
        phases.run("disks", HINT, work).is_some()
    }

    /// Grows each to the end of its disk.
    pub fn grow(&self, sys: &dyn Sys, root: &Path) {
        for one in &self.mounted {
            if let Err(error) = one.grow(sys, root) {
                log::line(format_args!("{error:#}; {} keeps its size", one.place.what));
            }
        }
    }

    /// What a piece is kept back of, besides state.
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        self.mounted.iter().map(|one| one.place).collect()
    }
}

/// Sees to it, for as long as the machine runs, that there is something to give away at the next boot.
pub fn keep_reserves(root: &Path, places: &[Place], stop: &AtomicBool) {
    let mut told = false;
    // A file that is open would keep state from being unmounted.
    while !places.is_empty() && !stop.load(Ordering::Relaxed) {
        for place in places {
            if let Err(error) = reserve::keep(root, place)
                && !std::mem::replace(&mut told, true)
            {
                let what = place.what;
                log::line(format_args!("{error:#}; should {what} be full at a boot, there is nothing to give away"));
            }
        }
        thread::sleep(RESERVE_EVERY);
    }
}
