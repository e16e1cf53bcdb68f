//! Finds out whether KVM boots a machine here, by booting it: that `/dev/kvm` opens says little on a machine that is virtual itself.
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::console::Pattern;
use crate::machine::{Accelerator, Firmware, Machine, Serial};
use crate::toolset::Toolset;
use crate::vm::Vm;

/// How long a kernel may take to say its first line under KVM: real hardware needs below 3 s even through UEFI.
const BOUND: Duration = Duration::from_secs(8);

/// Answers so far, by program: the probe is made once per process, whatever the machine, since it asks about the host.
static ANSWERS: Mutex<BTreeMap<PathBuf, bool>> = Mutex::new(BTreeMap::new());

/// Whether KVM runs machines here. Boots `machine` for a moment if nobody asked before; its disks stay as they were.
pub fn kvm_works(tools: &Toolset, machine: &Machine) -> bool {
    // Held during the probe: two threads that ask at once make one probe.
    let mut answers = ANSWERS.lock().unwrap_or_else(PoisonError::into_inner);
    *answers.entry(tools.qemu.path.clone()).or_insert_with(|| opens() && boots(tools, machine))
}

fn opens() -> bool {
    OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok()
}

fn boots(tools: &Toolset, machine: &Machine) -> bool {
    let mut probe = machine.clone();
    probe.accelerator = Accelerator::Kvm;
    probe.serial = Serial::Watched;
    probe.forwards.clear();
    // The probe leaves no trace: a link would learn its addresses, a console's file keep its lines, and a TPM ends with the first machine that it had.
    probe.cards.clear();
    (probe.folder, probe.console_file, probe.tpm) = (None, None, None);
    for disk in &mut probe.disks {
        disk.throwaway = true;
    }
    if let Firmware::Direct { cmdline, .. } = &mut probe.firmware {
        // The kernel's first line is wanted even where the real boot is quiet or speaks elsewhere.
        *cmdline = "console=ttyS0 panic=-1".to_owned();
    }
    let Ok(vm) = Vm::start(tools, &probe) else {
        return false;
    };
    first_line().is_some_and(|pattern| vm.wait_for_line(pattern, BOUND).is_ok())
}

/// What a kernel's line begins with: its version's text, or a stamp as in `[    0.000000]`.
fn first_line() -> Option<Pattern> {
    regex::Regex::new(r"Linux version|^\[ *\d+\.\d+\] ").ok().map(Pattern::from)
}
