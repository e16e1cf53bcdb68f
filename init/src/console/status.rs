//! A [`Status`] is all that the console tells of a machine, as data.
use std::time::Duration;

use super::keys::Allowed;
use super::told::Told;
use crate::supervise::Standing;

/// The machine as it is now, from four sources: its lines, its metadata, its event loop, and samples of what changes by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Since the kernel's start.
    pub now: Duration,
    /// What init and kernel said.
    pub told: Told,
    /// What the metadata say.
    pub known: Known,
    /// Services, as the event loop has them.
    pub services: Services,
    /// What was looked up last.
    pub sample: Sample,
}

/// What is known once the metadata are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// What the machine is.
    pub role: Option<&'static str>,
    /// The cluster that it belongs to, and the address of its API server.
    pub cluster: Option<(String, Option<String>)>,
    /// When the cluster's CA ends, in seconds since 1970.
    pub ca_until: Option<i64>,
    /// What keys may do.
    pub allowed: Allowed,
}

/// The services, and what the machine is at with them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Services {
    /// One each.
    pub standings: Vec<Standing>,
    /// Whether all phases are over, and no further service comes.
    pub booted: bool,
    /// Why the machine stops, if it does.
    pub stopping: Option<String>,
}

/// What was looked up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sample {
    /// The machine's name.
    pub name: Option<String>,
    /// Versions: of Kubernetes, and of the kernel.
    pub kubernetes: Option<String>,
    /// The kernel's release.
    pub kernel: String,
    /// Links with hardware behind them, and their addresses.
    pub links: Vec<(String, Vec<String>)>,
    /// The clock, in seconds since 1970.
    pub clock: i64,
    /// Whether the kernel's clock is held to another one's time, where that is known.
    pub synchronised: Option<bool>,
    /// Whether the kubelet has a certificate of the cluster's.
    pub joined: bool,
    /// Certificates of this machine: a name, and the last second in seconds since 1970.
    pub certificates: Vec<(String, i64)>,
    /// The state partition.
    pub disk: Option<Disk>,
    /// Memory.
    pub memory: Option<Memory>,
}

/// What is used of the filesystem that has state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Bytes.
    pub total: u64,
    /// Bytes that can still be written.
    pub free: u64,
    /// Files that it can have at most.
    pub inodes: u64,
    /// Files that can still be made.
    pub inodes_free: u64,
    /// Whether it is in memory, and gone at the next boot.
    pub in_memory: bool,
}

/// What is used of the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Bytes.
    pub total: u64,
    /// Bytes that programs can still have, as the kernel guesses (`MemAvailable`).
    pub available: u64,
    /// How much of the last ten seconds something waited for memory, in hundredths of a percent (`/proc/pressure/memory`, some avg10).
    pub pressure: Option<u32>,
}
