//! Prints a node beside the same programs on a plain Debian with systemd: time to a healthy kubelet, memory, bytes, executables.
//!
//! An image is built, packages are fetched once and a Debian is made of them, ten minutes at the most for each of its three steps; then there
//! are four boots, one machine at a time: a few minutes each on a free machine, and none longer than 40.
#![allow(clippy::print_stdout)]
use anyhow::{Context, Result};
use kscratch_image::console::{Console, Verbosity};
use kscratch_image::run::tools;
use kscratch_image::store::Store;

use crate::boots::{Boot, twice};
use crate::contents::Contents;
use crate::debian::Debian;
use crate::kscratch::Kscratch;
use crate::measure::debian::Tools;
use crate::measure::node::Node;

mod boots;
mod contents;
mod debian;
mod images;
mod kscratch;
#[path = "../measure/mod.rs"]
mod measure;

/// The line of a healthy kubelet with the kernel's seconds, as init says it and as `debian/usr/lib/bench/tell-healthy` does.
const HEALTHY: [&str; 2] = [r"^\[ *(\d+\.\d+)\] service kubelet: ready", r"bench: kubelet is healthy, (\d+\.\d+) s"];

fn main() -> Result<()> {
    // A tool that is missing is told at once, not after minutes.
    let of_debian = Tools::find()?;
    measure::title(
        "systemd: a node beside Debian, software emulation, 2 processors, 2 GiB, a disk of 8 GiB; one round",
    );
    let node = Node::built()?;
    let qemu = tools::find_or_unpack(None, &Store::open(&node.cache)?, &Console::stderr(Verbosity::Normal, None))
        .context("this benchmark needs QEMU: apt-get install qemu-system-x86 qemu-utils ovmf")?;
    let kscratch = Kscratch::open(&node.image)?;
    let folder = of_debian.folder(&node.folder)?;
    let debian = Debian::made(&node, &kscratch, &of_debian, folder.path())?;
    println!(
        "both: the same kernel, docker, containerd, runc, kubelet, cri-dockerd and CNI plugins, the same kubelet and docker settings, one static pod; QEMU loads the kernel"
    );
    println!(
        "kscratch: the image of the defaults, without metadata; images stand in docker's store, which is made at the first boot, and state grows then"
    );
    println!(
        "Debian: {} packages of {} by mmdebstrap (minbase, none recommended) with systemd, udev, dbus, networkd, initramfs-tools; containerd is set up as its package does it; docker-cli loads the images at the first boot, before kubelet; nothing grows",
        debian.packages, debian.suite
    );
    sizes(&kscratch, &debian)?;
    let [ours, theirs] = [
        twice(&node.image, &kscratch.kernel, HEALTHY[0], &qemu).context("booting kscratch")?,
        twice(&debian.image, &debian.kernel, HEALTHY[1], &qemu).context("booting Debian")?,
    ];
    for (which, (ours, theirs)) in
        ["first boot", "second boot, of the same disk"].iter().zip(ours.into_iter().zip(theirs))
    {
        times(which, ours, theirs);
    }
    Ok(())
}

fn sizes(kscratch: &Kscratch, debian: &Debian) -> Result<()> {
    let [ours, theirs] = [Contents::of(&kscratch.root, |_| false)?, Contents::of(&debian.root, debian::is_booted)?];
    head("on the disk");
    row("files of the root, MB", megabytes(ours.bytes), megabytes(theirs.bytes));
    row("kernel and initramfs, MB", megabytes(kscratch.kernel.bytes()), megabytes(debian.kernel.bytes()));
    count("files", ours.files, theirs.files);
    count("executables, without libraries", ours.programs, theirs.programs);
    count("  of them set-uid or set-gid", ours.set_id, theirs.set_id);
    Ok(())
}

fn times(which: &str, ours: Boot, theirs: Boot) {
    head(which);
    row("from the kernel's start to kubelet healthy, s", ours.healthy, theirs.healthy);
    row("from the kernel's start to the pod's answer, s", ours.answers, theirs.answers);
    row("memory in use after 60 s of calm, MB", megabytes(ours.memory), megabytes(theirs.memory));
    row("from the power button to the end, s", ours.shutdown, theirs.shutdown);
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn head(what: &str) {
    println!("{what:<48} {:>10} {:>10} {:>9}", "kscratch", "Debian", "times");
}

fn row(what: &str, ours: f64, theirs: f64) {
    println!("  {what:<46} {ours:>10.2} {theirs:>10.2} {:>8.2}x", theirs / ours);
}

fn count(what: &str, ours: u64, theirs: u64) {
    // How many times nothing is something nobody knows.
    let times = if ours == 0 { String::new() } else { format!("{:.2}x", theirs as f64 / ours as f64) };
    println!("  {what:<46} {ours:>10} {theirs:>10} {times:>9}");
}
