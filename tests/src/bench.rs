//! A [`Bench`] is the place where machines are tested, one at a time: two emulated machines at once slow each other threefold.
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use kscratch_image::commands;
use kscratch_image::console::Console;
use kscratch_image::run::tools::{Qemu, find_or_unpack};
use kscratch_image::store::Store;
use kscratch_qemu::{Disk, Firmware, Forward, Line, Machine, Overlay, Toolset, Vm};
use regex::Regex;

use crate::{node_image, probe};

/// From power-on to a pod that answers: under emulation about a minute on a free machine, several on a busy one.
pub const BOOT: Duration = Duration::from_secs(8 * 60);
/// From the power button to the end.
pub const SHUTDOWN: Duration = Duration::from_secs(3 * 60);
/// Port of the guest on which the image's own pod answers.
pub const HELLO: u16 = 8080;

/// The turn to run machines, and the tools for it.
#[derive(Debug)]
pub struct Bench {
    /// QEMU and its firmware.
    pub tools: Toolset,
    _turn: File,
}

impl Bench {
    /// Waits for the turn.
    #[track_caller]
    pub fn take() -> Bench {
        let turn = node_image::turn("machine");
        Bench { tools: tools(), _turn: turn }
    }

    /// A disk over an image, grown to 8 GiB.
    #[track_caller]
    pub fn overlay(&self, image: &Path) -> Overlay {
        Overlay::create(&self.tools, image, Some(8 << 30)).unwrap_or_else(|error| panic!("{error}"))
    }

    /// A node with UEFI, 2 GiB, and the ports of its own pod and of the probe.
    pub fn node(&self, overlay: &Overlay) -> Machine {
        let mut machine = Machine::new(Firmware::Uefi)
            .named("node")
            .disk(Disk::from(overlay))
            .forward(Forward::to(HELLO))
            .forward(Forward::to(probe::PORT));
        machine.memory = 2048;
        machine
    }

    /// A master with UEFI and 4 GiB, and a way to its API server.
    pub fn master(&self, overlay: &Overlay, api: Forward) -> Machine {
        let mut machine = Machine::new(Firmware::Uefi).named("master").disk(Disk::from(overlay)).forward(api);
        machine.memory = 4096;
        machine
    }

    /// Starts a machine.
    #[track_caller]
    pub fn start(&self, machine: &Machine) -> Vm {
        Vm::start(&self.tools, machine).unwrap_or_else(|error| panic!("{error}"))
    }
}

/// Debian 13's QEMU out of the builder's cache, whatever is installed here: an older one loses a kernel now and then.
#[track_caller]
fn tools() -> Toolset {
    let tools = commands::default_cache()
        .and_then(|cache| Store::open(&cache))
        .and_then(|store| find_or_unpack(Some(Qemu::Unpacked), &store, &Console::silent()));
    tools.unwrap_or_else(|error| panic!("this test needs QEMU: {error:#}"))
}

/// Waits for a line, or ends the test with the console's tail.
#[track_caller]
pub fn wait(vm: &Vm, pattern: &str, bound: Duration) -> Line {
    let pattern = Regex::new(pattern).unwrap_or_else(|error| panic!("{error}"));
    vm.wait_for_line(pattern, bound).unwrap_or_else(|error| panic!("{error}"))
}

/// Presses the power button and waits for the end.
#[track_caller]
pub fn switch_off(vm: &mut Vm) {
    vm.power_button().unwrap_or_else(|error| panic!("{error}"));
    let status = vm.wait_for_exit(SHUTDOWN).unwrap_or_else(|error| panic!("{error}"));
    assert!(status.success(), "QEMU ended with {status}: {}", vm.stderr());
}

/// One phase as the console tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phase {
    /// Its number.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// `start`, `ok` or `failed`.
    pub event: String,
}

/// The phases that a console tells of, in the order of its lines.
pub fn phases(lines: &[Line]) -> Vec<Phase> {
    let form = Regex::new(r"^\[ *\d+\.\d+\] phase (\d+) ([a-z0-9-]+): (start|ok|failed)")
        .unwrap_or_else(|error| panic!("{error}"));
    let phase = |line: &Line| {
        let found = form.captures(&line.text)?;
        Some(Phase { number: found[1].parse().ok()?, name: found[2].to_owned(), event: found[3].to_owned() })
    };
    lines.iter().filter_map(phase).collect()
}
