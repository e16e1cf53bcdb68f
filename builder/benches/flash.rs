//! Prints how long an image takes to be flashed onto a loop device, beside `dd` and bmaptool onto the same one, side by side in one run.
#![allow(clippy::print_stdout)]
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use kscratch_formats::bmap::BlockMap;
use kscratch_image::blockmap;
use rustix::fs::{FallocateFlags, fallocate};

use crate::measure::Bar;
use crate::measure::node::{Node, kscratch_image};
use crate::measure::program::{self, BOUND};

mod measure;

const ROUNDS: usize = 3;

/// A loop device over a file whose blocks are all there already, as a disk's are; it ends with the value.
struct Loop {
    losetup: PathBuf,
    device: PathBuf,
}

impl Loop {
    fn of(file: &Path, bytes: u64) -> Result<Loop> {
        let losetup = program::tool("losetup", "mount")?;
        let opened = File::create(file).with_context(|| format!("making {}", file.display()))?;
        fallocate(&opened, FallocateFlags::empty(), 0, bytes).context("giving the device's file its blocks")?;
        let mut command = Command::new(&losetup);
        let output = command.args(["--find", "--show"]).arg(file).output().context("starting losetup")?;
        anyhow::ensure!(output.status.success(), "losetup: {}", String::from_utf8_lossy(&output.stderr));
        let device = PathBuf::from(String::from_utf8(output.stdout)?.trim());
        Ok(Loop { losetup, device })
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        drop(Command::new(&self.losetup).arg("--detach").arg(&self.device).status());
    }
}

fn main() -> Result<()> {
    let bmaptool = program::tool("bmaptool", "bmap-tools")?;
    measure::title("flash: the node image of the defaults onto a loop device, until it is on the disk below");
    let node = Node::built()?;
    let map = blockmap::place(&node.image);
    let blocks = BlockMap::parse(&fs::read_to_string(&map)?)?;
    let device = Loop::of(&node.folder.join("flash-device"), blocks.image)?;
    let megabytes = |bytes: u64| bytes / 1_000_000;
    println!(
        "a disk of {} MB, of which {} MB are mapped; least of {ROUNDS} rounds",
        megabytes(blocks.image),
        megabytes(blocks.mapped())
    );
    let dd = || {
        let operand = |name: &str, path: &Path| format!("{name}={}", path.display());
        let mut command = Command::new("dd");
        command.args([operand("if", &node.image), operand("of", &device.device)]);
        command.args(["bs=1M", "conv=fsync,notrunc", "status=none"]);
        program::run(command, BOUND)
    };
    let bmaptool = || {
        let mut command = Command::new(&bmaptool);
        command.args(["--quiet", "copy", "--bmap"]).arg(&map).arg(&node.image).arg(&device.device);
        program::run(command, BOUND)
    };
    let flash = || {
        let mut command = Command::new(kscratch_image());
        command.args(["--quiet", "flash"]).arg(&node.image).arg("--to").arg(&device.device);
        command.arg("--serial").arg(&device.device);
        program::run(command, BOUND)
    };
    let [dd, bmaptool, flash] = measure::least(ROUNDS, [&dd, &bmaptool, &flash])?;
    measure::time("dd bs=1M conv=fsync, holes written as zeros", dd);
    measure::ratio("bmaptool copy, which reads nothing back", bmaptool, dd, Bar::Open);
    measure::ratio("kscratch-image flash, which reads all of it back", flash, dd, Bar::Open);
    measure::ratio("  the same", flash, bmaptool, Bar::AtMost(2.0));
    Ok(())
}
