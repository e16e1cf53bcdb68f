//! Spares processors that are emulated in software (QEMU's TCG) what they do worst: switching between processes.
//!
//! A switch costs some 0.4 ms there, for all that was translated is looked up anew; a real processor needs microseconds. And two habits make many of
//! them on a machine that is hardly at rest: each Go program wakes every 20 µs to look after its threads for as long as one of them runs, and the
//! kernel takes the processor from a busy process after 1.4 ms. Both are put off here, for all processes and for pods: what is slower by a factor of
//! ten anyhow has no use for exact timers. Real processors and virtual ones are left as they are.
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use raw_cpuid::{CpuId, Hypervisor};

use crate::log;
use crate::sys::{Flag, Mount, Sys};

/// How late a timer may be (`PR_SET_TIMERSLACK`; 50 µs elsewhere), well below what etcd's members and leases count in.
const TIMERS: Duration = Duration::from_millis(20);
/// How long a process keeps a processor that others wait for.
const SLICE: Duration = Duration::from_millis(40);

/// Where the kernel has the knobs of its scheduler. It is a filesystem that looks into the kernel: it is mounted for one write.
const DEBUG: &str = "sys/kernel/debug";
const SLICE_FILE: &str = "sched/base_slice_ns";

/// Whether a software plays this processor (CPUID, leaf 4000_0000h: `TCGTCGTCGTCG`).
#[must_use]
pub fn is_emulated() -> bool {
    let hypervisor = CpuId::new().get_hypervisor_info();
    hypervisor.is_some_and(|info| info.identify() == Hypervisor::QEMU)
}

/// Has every process that comes from this thread switch rarely. What cannot be had is told, and the machine is only slower.
pub fn suit(sys: &dyn Sys, root: &Path) {
    log::line(format_args!(
        "the processors are emulated in software: timers may be {} ms late, and processes keep a processor for {} ms",
        TIMERS.as_millis(),
        SLICE.as_millis()
    ));
    for (what, done) in [
        ("letting timers be late", sys.set_timer_slack(TIMERS).map_err(Into::into)),
        ("setting how long a process keeps a processor", slice(sys, root)),
    ] {
        if let Err(error) = done {
            log::line(format_args!("{what} failed, and this machine is slower for it: {error:#}"));
        }
    }
}

fn slice(sys: &dyn Sys, root: &Path) -> Result<()> {
    let folder = root.join(DEBUG);
    let flags = &[Flag::NoSuid, Flag::NoDev, Flag::NoExec];
    sys.mount(&Mount { source: "debugfs", target: &folder, kind: "debugfs", flags, data: "" })
        .with_context(|| format!("mounting debugfs on /{DEBUG}"))?;
    let file = folder.join(SLICE_FILE);
    let written =
        std::fs::write(&file, SLICE.as_nanos().to_string()).with_context(|| format!("writing {}", file.display()));
    sys.unmount(&folder, false).with_context(|| format!("unmounting /{DEBUG}"))?;
    written
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::ErrorKind;

    use super::{is_emulated, slice, suit};
    use crate::sys::Recording;

    /// A root with the kernel's knob, and what was called on it.
    fn calls(sys: &Recording, act: impl FnOnce(&Recording, &std::path::Path)) -> (Vec<String>, String) {
        let root = tempfile::tempdir().unwrap();
        let knob = root.path().join("sys/kernel/debug/sched/base_slice_ns");
        fs::create_dir_all(knob.parent().unwrap()).unwrap();
        fs::write(&knob, "1400000\n").unwrap();
        act(sys, root.path());
        let lines = sys.calls().iter().map(|line| line.replace(root.path().to_str().unwrap(), "R")).collect();
        (lines, fs::read_to_string(knob).unwrap())
    }

    #[test]
    fn timers_may_be_late_and_slices_are_long() {
        let (calls, slice) = calls(&Recording::new(), |sys, root| suit(sys, root));
        assert_eq!(
            calls,
            [
                "timers late by 20ms",
                "mount debugfs R/sys/kernel/debug debugfs nosuid,nodev,noexec",
                "unmount R/sys/kernel/debug",
            ]
        );
        assert_eq!(slice, "40000000");
    }

    #[test]
    fn a_kernel_without_the_one_gets_the_other() {
        let sys = Recording::new().failing("timers", ErrorKind::Unsupported);
        let (_, slice) = calls(&sys, |sys, root| suit(sys, root));
        assert_eq!(slice, "40000000");
    }

    /// It shows the kernel's inside: it must not stay mounted because its knob has another name.
    #[test]
    fn debugfs_is_unmounted_where_the_knob_is_missing() {
        let (sys, root) = (Recording::new(), tempfile::tempdir().unwrap());
        let error = slice(&sys, root.path()).unwrap_err();
        assert!(format!("{error:#}").starts_with("writing "), "{error:#}");
        assert!(sys.calls().last().unwrap().starts_with("unmount "), "{:?}", sys.calls());
    }

    /// Of the two answers the one that holds where tests run, in words of the kernel's; the boot test has the other. (QEMU's named models, unlike `max`, do not
    /// say in their name that they are emulated.)
    #[test]
    fn the_processor_is_asked() {
        let emulated = fs::read_to_string("/proc/cpuinfo").unwrap().contains("QEMU TCG CPU");
        assert_eq!(is_emulated(), emulated);
    }
}
