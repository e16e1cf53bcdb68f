//! Prints when a node's boot gets how far, from QEMU's start to its pod's answer, on a new disk and on the same disk again, with the kernel for virtual
//! machines and with the one for all; and what the flight recorder writes in a boot.
//!
//! Two images are built; then there are four boots of about a minute each on a free machine, and of seven at the most.
#![allow(clippy::print_stdout)]
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kscratch_image::autopsy;
use kscratch_image::console::{Console, Verbosity};
use kscratch_image::inspect::Opened;
use kscratch_image::run::tools;
use kscratch_image::store::Store;
use kscratch_qemu::{Accelerator, Disk, Firmware, Forward, Machine, Overlay, Toolset, Vm};

use crate::measure::answer::{answered, console};
use crate::measure::node::Node;
use crate::measure::timeline::Timeline;

#[path = "../measure/mod.rs"]
mod measure;

/// Port of the guest on which the image's own pod answers.
const HELLO: u16 = 8080;
/// From QEMU's start to the pod: a minute on a free machine.
const BOOT: Duration = Duration::from_secs(5 * 60);
/// From the power button to the end.
const SHUTDOWN: Duration = Duration::from_secs(2 * 60);

fn main() -> Result<()> {
    measure::title("boot: UEFI, software emulation, 2 processors, 2 GiB, a disk of 8 GiB; one round");
    let nodes = [Node::built()?, Node::metal()?];
    let tools = tools::find_or_unpack(None, &Store::open(&nodes[0].cache)?, &Console::stderr(Verbosity::Normal, None))
        .context("this benchmark needs QEMU: apt-get install qemu-system-x86 qemu-utils ovmf")?;
    nodes.iter().try_for_each(|node| boots(&tools, node))
}

/// Boots it twice.
fn boots(tools: &Toolset, node: &Node) -> Result<()> {
    let overlay = Overlay::create(tools, &node.image, Some(8 << 30))?;
    let mut machine = Machine::new(Firmware::Uefi).disk(Disk::from(&overlay)).forward(Forward::to(HELLO));
    machine.memory = 2048;
    machine.cpus = 2;
    // The bars are those of emulation, and so they stay the same on a machine that could do better.
    machine.accelerator = Accelerator::Emulation;
    let mut recorded = 0;
    for what in ["first boot: state is made to fill the disk", "second boot, of the same disk"] {
        let mut vm = Vm::start(tools, &machine)?;
        let pod = answered(&vm, HELLO, BOOT)
            .with_context(|| format!("waiting for the pod, {what}; the console:\n{}", console(&vm)))?;
        println!("--- {}, {what}", node.flavour);
        let answers = "the pod answers on the forwarded port".to_owned();
        print!("{}", Timeline::of(&vm.lines(), vec![(pod, answers)]));
        vm.power_button()?;
        let pressed = vm.age();
        let status = vm.wait_for_exit(SHUTDOWN)?;
        ensure!(status.success(), "QEMU ended with {status}; the console:\n{}", console(&vm));
        measure::time("from the power button to the end", vm.age().saturating_sub(pressed));
        drop(vm);
        let written = autopsy::read(&Opened::open(overlay.path())?)?.ring.written();
        println!("{:<58} {:>8.1} KiB", "the flight recorder wrote", (written - recorded) as f64 / 1024.0);
        recorded = written;
    }
    Ok(())
}
