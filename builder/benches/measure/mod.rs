//! Turns runs into times, and times into lines that say how they stand to a floor and to a bar.
#![allow(dead_code, clippy::print_stdout)] // Every benchmark takes what it needs of this, and prints what it finds.
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

pub mod answer;
pub mod archive;
pub mod debian;
pub mod node;
pub mod program;
pub mod timeline;

/// What a figure is held against. A benchmark tells whether a bar is met and fails for none: times are the machine's as well.
#[derive(Debug, Clone, Copy)]
pub enum Bar {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
    /// Told for comparison only.
    Open,
}

impl Bar {
    /// `value` with what it is held against: `1.38x (bar 1.50x, met)`.
    pub fn judge(self, value: f64, unit: &str) -> String {
        let (bar, met) = match self {
            Bar::AtMost(bar) => (format!("bar {bar:.2}{unit}"), value <= bar),
            Bar::AtLeast(bar) => (format!("bar at least {bar:.2}{unit}"), value >= bar),
            Bar::Open => return format!("{value:.2}{unit}"),
        };
        format!("{value:.2}{unit} ({bar}, {})", if met { "met" } else { "MISSED" })
    }
}

/// Begins a benchmark's output with what the machine was doing besides.
pub fn title(text: &str) {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').take(2).collect::<Vec<_>>().join(" and ");
    println!("\n=== {text} (load of the last 1 and 5 minutes: {load})");
}

/// Tells a time.
pub fn time(what: &str, took: Duration) {
    println!("{what:<58} {:>8.3} s", took.as_secs_f64());
}

/// Tells a time and how many times the floor it is.
pub fn ratio(what: &str, took: Duration, floor: Duration, bar: Bar) {
    let times = took.as_secs_f64() / floor.as_secs_f64();
    println!("{what:<58} {:>8.3} s   {}", took.as_secs_f64(), bar.judge(times, "x"));
}

/// How long some work takes.
///
/// # Errors
/// The work's.
pub fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

/// The least time of each work in `rounds` rounds: what it costs where nothing comes in between. They take turns, so that a machine
/// that is busy for a while is so for all of them.
///
/// # Errors
/// A work's.
pub fn least<const N: usize>(rounds: usize, works: [&dyn Fn() -> Result<()>; N]) -> Result<[Duration; N]> {
    let mut least = [Duration::MAX; N];
    for _ in 0..rounds {
        for (least, work) in least.iter_mut().zip(works) {
            settle();
            *least = timed(work)?.min(*least);
        }
    }
    Ok(least)
}

/// Whether a file is a shared library by its name; some may be executed, and are no programs for that.
pub fn is_library(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|name| name.ends_with(".so") || name.contains(".so."))
}

/// Lets the disk finish what was written before, so that nobody waits for another's bytes.
pub fn settle() {
    rustix::fs::sync();
}

/// A folder for what benchmarks make, kept between runs: beside the build's own output, as it must be on a disk and not on a tmpfs.
///
/// # Errors
/// It cannot be made.
pub fn folder() -> Result<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("making the folder {}", folder.display()))?;
    Ok(folder)
}

/// The bytes that a sparse file really has, one after the other in a file of their own; tells how many they are.
///
/// # Errors
/// What reading or writing says.
pub fn compact(sparse: &std::path::Path, to: &std::path::Path) -> Result<u64> {
    use rustix::fs::{SeekFrom, seek};
    use std::io::{Read, Seek};

    let copy = || -> Result<u64> {
        let (mut from, mut to) = (File::open(sparse)?, File::create(to)?);
        let (mut done, mut at) = (0, 0);
        loop {
            let start = match seek(&from, SeekFrom::Data(at)) {
                Ok(start) => start,
                // There is nothing but a hole to the end (lseek(2)).
                Err(rustix::io::Errno::NXIO) => return Ok(done),
                Err(error) => return Err(error.into()),
            };
            at = seek(&from, SeekFrom::Hole(start))?;
            from.seek(std::io::SeekFrom::Start(start))?;
            done += std::io::copy(&mut Read::by_ref(&mut from).take(at - start), &mut to)?;
        }
    };
    copy().with_context(|| format!("copying what {} holds", sparse.display()))
}
