//! Prints how long whole builds of a node take, warm and cold, as ratios to the least that any builder must do and to mmdebstrap.
#![allow(clippy::print_stdout)]
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::measure::debian::Tools;
use crate::measure::node::{Node, kscratch_image};
use crate::measure::program::{self, BOUND, Ran};
use crate::measure::{Bar, settle, timed};

#[path = "../measure/mod.rs"]
mod measure;
mod mmdebstrap;
mod packages;

/// Rounds of what takes seconds; what takes a minute has one.
const ROUNDS: usize = 5;
/// Bar for the memory of a build, in MB.
const MEMORY: f64 = 200.0;

fn main() -> Result<()> {
    program::measure_if_asked()?;
    // A tool that is missing is told at once, not after minutes.
    let tools = Tools::find()?;
    let xz = program::tool("xz", "xz-utils")?;
    measure::title("build: whole runs of kscratch-image build --locked --offline");
    let node = Node::built()?;
    warm(&node)?;
    let cold = cold(&node, &xz)?;
    let (usual, what) = mmdebstrap::build(&node, &tools)?;
    println!("{what}");
    measure::time("mmdebstrap and mke2fs -d, packages cached, one round", usual);
    let faster = usual.as_secs_f64() / cold.as_secs_f64();
    println!("{:<58} {:>12} {}", "a cold build is so many times faster", "", Bar::AtLeast(5.0).judge(faster, "x"));
    Ok(())
}

/// Nothing has changed since the build before.
fn warm(node: &Node) -> Result<()> {
    let (data, copy) = (node.folder.join("allocated"), node.folder.join("copy"));
    let bytes = measure::compact(&node.image, &data)?;
    println!("warm: nothing changed; the disk holds {} MB; least of {ROUNDS} rounds", bytes / 1_000_000);
    let args = node.build(&node.cache, &node.image, &["--locked", "--offline"]);
    let (mut floor, mut build, mut peak) = (Duration::MAX, Duration::MAX, 0);
    // In turns, so that both see the same disk.
    for _ in 0..ROUNDS {
        settle();
        floor = floor.min(timed(|| program::dd(&data, &copy))?);
        settle();
        let ran = program::measured(kscratch_image(), &args, BOUND)?;
        build = build.min(ran.wall);
        peak = peak.max(ran.peak);
    }
    measure::time("dd conv=fsync of as many bytes", floor);
    measure::ratio("warm build", build, floor, Bar::AtMost(3.0));
    memory("peak memory of a warm build, the most of all rounds", peak);
    fs::remove_file(copy)?;
    fs::remove_file(data)?;
    Ok(())
}

fn memory(what: &str, bytes: u64) {
    println!("{what:<58} {:>12} {}", "", Bar::AtMost(MEMORY).judge(bytes as f64 / 1e6, " MB"));
}

/// Packages are there as they were fetched, and Kubernetes' programs as compiled; nothing else is.
fn cold(node: &Node, xz: &Path) -> Result<Duration> {
    let members = packages::data_members(node)?;
    println!(
        "cold: {} packages of {} MB fetched and Kubernetes' programs there, nothing unpacked; all in the page cache; least of {ROUNDS} rounds",
        members.count,
        members.bytes / 1_000_000
    );
    let output = node.folder.join("cold.img");
    let (mut floor, mut least) = (Duration::MAX, Ran { wall: Duration::MAX, peak: 0 });
    for _ in 0..ROUNDS {
        settle();
        floor = floor.min(timed(|| program::run_together(members.commands(xz), BOUND))?);
        let cache = packages::cold_cache(node)?;
        let args = node.build(cache.path(), &output, &["--locked", "--offline"]);
        settle();
        let ran = program::measured(kscratch_image(), &args, BOUND)?;
        least = Ran { wall: least.wall.min(ran.wall), peak: least.peak.max(ran.peak) };
    }
    measure::time("xz -dc of the packages' data members, two processes", floor);
    measure::ratio("cold build", least.wall, floor, Bar::AtMost(1.5));
    memory("peak memory of a cold build, the most of all rounds", least.peak);
    fs::remove_file(output)?;
    Ok(least.wall)
}
