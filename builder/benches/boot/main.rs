//! Prints when a node's boot gets how far, from QEMU's start to its pod's answer, on a new disk and on the same disk again.
#![allow(clippy::print_stdout)]
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use kscratch_image::console::{Console, Verbosity};
use kscratch_image::run::tools;
use kscratch_image::store::Store;
use kscratch_qemu::{Accelerator, Disk, Firmware, Forward, Machine, Overlay, Vm};

use crate::measure::node::Node;
use crate::timeline::Timeline;

#[path = "../measure/mod.rs"]
mod measure;
mod timeline;

/// Port of the guest on which the image's own pod answers.
const HELLO: u16 = 8080;
/// From QEMU's start to the pod: a minute on a free machine.
const BOOT: Duration = Duration::from_secs(5 * 60);
/// From the power button to the end.
const SHUTDOWN: Duration = Duration::from_secs(2 * 60);
/// Between two questions to the pod: short against what is measured, and next to no work for the guest.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(20);

fn main() -> Result<()> {
    measure::title("boot: UEFI, software emulation, 2 processors, 2 GiB, a disk of 8 GiB; one round");
    let node = Node::built()?;
    let tools = tools::find_or_unpack(&Store::open(&node.cache)?, &Console::stderr(Verbosity::Normal, None))
        .context("this benchmark needs QEMU: apt-get install qemu-system-x86 qemu-utils ovmf")?;
    let overlay = Overlay::create(&tools, &node.image, Some(8 << 30))?;
    let mut machine = Machine::new(Firmware::Uefi).disk(Disk::from(&overlay)).forward(Forward::to(HELLO));
    machine.memory = 2048;
    machine.cpus = 2;
    // The bars are those of emulation, and so they stay the same on a machine that could do better.
    machine.accelerator = Accelerator::Emulation;
    for what in ["first boot: state is made to fill the disk", "second boot, of the same disk"] {
        let mut vm = Vm::start(&tools, &machine)?;
        let pod =
            answered(&vm).with_context(|| format!("waiting for the pod, {what}; the console:\n{}", console(&vm)))?;
        println!("--- {what}");
        print!("{}", Timeline::of(&vm.lines(), pod));
        vm.power_button()?;
        let pressed = vm.age();
        let status = vm.wait_for_exit(SHUTDOWN)?;
        ensure!(status.success(), "QEMU ended with {status}; the console:\n{}", console(&vm));
        measure::time("from the power button to the end", vm.age().saturating_sub(pressed));
    }
    Ok(())
}

/// The end of what the machine said.
fn console(vm: &Vm) -> String {
    let lines = vm.lines();
    let tail = lines[lines.len().saturating_sub(30)..].iter().map(ToString::to_string);
    tail.collect::<Vec<_>>().join("\n")
}

/// When the pod answers, since QEMU's start.
fn answered(vm: &Vm) -> Result<Duration> {
    let port = vm.forwarded(HELLO).context("the pod's port is not forwarded")?;
    let deadline = Instant::now() + BOOT;
    let mut last = anyhow!("it was never asked");
    while Instant::now() < deadline {
        ensure!(vm.status().is_none(), "QEMU has ended: {}", vm.stderr());
        match ask(port) {
            Ok(()) => return Ok(vm.age()),
            Err(error) => last = error,
        }
        // QEMU's network accepts, and closes again while nobody listens in the guest: there is nothing to wait on.
        thread::sleep(PAUSE);
    }
    Err(last.context(format!("the pod did not answer within {} s", BOOT.as_secs())))
}

/// One GET that is answered with 200.
fn ask(port: u16) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    write!(stream, "GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    ensure!(status == "200", "it answered with the status `{status}`");
    Ok(())
}
