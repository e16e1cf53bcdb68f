//! Starts a system twice on one disk and tells when its kubelet was healthy, when its pod answered, and what memory it took.
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kscratch_qemu::{Accelerator, Disk, Firmware, Forward, Machine, Overlay, Toolset, Vm};
use regex::Regex;

use crate::measure::answer::{answered, console};

/// Port of the guest on which the pod answers.
const HELLO: u16 = 8080;
/// Size of the disk, in bytes.
pub const DISK: u64 = 8 << 30;
/// From QEMU's start to a mark: three minutes at most on a free machine.
const BOOT: Duration = Duration::from_secs(15 * 60);
/// From the power button to the end: systemd gives a unit 90 s, and as long again to the containers that docker leaves behind.
const SHUTDOWN: Duration = Duration::from_secs(6 * 60);
/// How long the machine is left alone before its memory is looked at.
const CALM: Duration = Duration::from_secs(60);
/// How long the guest's kernel may take to tell of its memory.
const MEMORY: Duration = Duration::from_secs(30);

/// What QEMU puts into memory.
#[derive(Debug)]
pub struct Kernel {
    /// The kernel.
    pub kernel: Vec<u8>,
    /// Its initramfs.
    pub initramfs: Vec<u8>,
    /// Its command line.
    pub cmdline: String,
}

impl Kernel {
    /// Bytes of kernel and initramfs.
    pub fn bytes(&self) -> u64 {
        (self.kernel.len() + self.initramfs.len()) as u64
    }
}

/// A boot, in seconds since the kernel's start.
#[derive(Debug, Clone, Copy)]
pub struct Boot {
    /// When kubelet said for the first time that it is healthy.
    pub healthy: f64,
    /// When the pod answered.
    pub answers: f64,
    /// Bytes in use after a while.
    pub memory: u64,
    /// From the power button to QEMU's end.
    pub shutdown: f64,
}

/// Starts it on a new disk, and again on the same one. The line that tells of a healthy kubelet has the kernel's seconds as its first group.
///
/// # Errors
/// The machine does not get there, with its console.
pub fn twice(image: &Path, kernel: &Kernel, healthy: &str, tools: &Toolset) -> Result<[Boot; 2]> {
    let folder = tempfile::tempdir().context("making a folder for kernels")?;
    let [kernel_file, initramfs] = ["kernel", "initramfs"].map(|name| folder.path().join(name));
    fs::write(&kernel_file, &kernel.kernel).context("writing the kernel")?;
    fs::write(&initramfs, &kernel.initramfs).context("writing the initramfs")?;
    let overlay = Overlay::create(tools, image, Some(DISK))?;
    let cmdline = kernel.cmdline.clone();
    let firmware = Firmware::Direct { kernel: kernel_file, initramfs: Some(initramfs), cmdline };
    let mut machine = Machine::new(firmware).disk(Disk::from(&overlay)).forward(Forward::to(HELLO));
    machine.memory = 2048;
    machine.cpus = 2;
    machine.accelerator = Accelerator::Emulation;
    machine.tells_memory = true;
    let healthy = Regex::new(healthy)?;
    let once = || boot(&machine, &healthy, tools);
    Ok([once().context("the first boot")?, once().context("the second boot")?])
}

fn boot(machine: &Machine, healthy: &Regex, tools: &Toolset) -> Result<Boot> {
    let mut vm = Vm::start(tools, machine)?;
    let boot = marks(&mut vm, healthy).with_context(|| format!("the console:\n{}", console(&vm)))?;
    vm.power_button()?;
    let pressed = vm.age();
    let status = vm.wait_for_exit(SHUTDOWN)?;
    ensure!(status.success(), "QEMU ended with {status}; the console:\n{}", console(&vm));
    Ok(Boot { shutdown: vm.age().saturating_sub(pressed).as_secs_f64(), ..boot })
}

fn marks(vm: &mut Vm, healthy: &Regex) -> Result<Boot> {
    let line = vm.wait_for_line(healthy.clone(), BOOT)?;
    let told = healthy.captures(&line.text).and_then(|found| found.get(1)?.as_str().parse::<f64>().ok());
    let told = told.context("the line of a healthy kubelet has no time")?;
    // The host's clock at the kernel's start: the line is read as soon as it is written.
    let start = line.at.as_secs_f64() - told;
    let answers = answered(vm, HELLO, BOOT)?.as_secs_f64() - start;
    thread::sleep(CALM);
    Ok(Boot { healthy: told, answers, memory: vm.memory(MEMORY)?.used(), shutdown: 0.0 })
}
