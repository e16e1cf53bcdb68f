//! Turns services and containers into cgroups: made, protected, emptied (cgroup v2, Documentation/admin-guide/cgroup-v2.rst).
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::io::Errno;
use rustix::process::{Pid, kill_process};

use crate::plan::Service;
use crate::supervise::Signal;

/// Memory that the kernel does not take from a service of the runtime, in bytes: reclaiming a daemon's working set while a pod eats the
/// machine would stop the one who could end that pod.
const PROTECTED: u64 = 64 << 20;
/// The parent has to promise what its children are promised (`memory.min` is cut down to the ancestors' shares).
const PROTECTED_IN_ALL: u64 = 4 * PROTECTED;

/// Makes the folder of all services and asks for the controllers in it. Controllers that this kernel lacks are told in the answer, one
/// line each: the services run without their limits.
///
/// # Errors
/// The folder cannot be made.
pub fn prepare(services: &Path) -> Result<Vec<String>> {
    fs::create_dir_all(services).with_context(|| format!("making the cgroup {}", services.display()))?;
    let mut missing = Vec::new();
    for controller in ["cpu", "memory", "pids"] {
        // One at a time: a single unknown name makes the kernel refuse the whole line.
        if let Err(error) = fs::write(services.join("cgroup.subtree_control"), format!("+{controller}")) {
            missing.push(format!("the {controller} controller for {}: {error}", services.display()));
        }
    }
    if missing.is_empty() {
        fs::write(services.join("memory.min"), PROTECTED_IN_ALL.to_string())
            .with_context(|| format!("protecting the memory of {}", services.display()))?;
    }
    Ok(missing)
}

/// Makes a service's own cgroup and gives the path of its `cgroup.procs`.
///
/// # Errors
/// The folder cannot be made, or its memory cannot be protected.
pub fn create(services: &Path, service: &Service) -> Result<PathBuf> {
    let folder = services.join(service.name);
    fs::create_dir_all(&folder).with_context(|| format!("making the cgroup {}", folder.display()))?;
    let minimum = folder.join("memory.min");
    if service.oom_score_adj < 0 && minimum.exists() {
        fs::write(&minimum, PROTECTED.to_string()).with_context(|| format!("writing {}", minimum.display()))?;
    }
    Ok(folder.join("cgroup.procs"))
}

/// Sends a signal to every process in a cgroup and below it. One that is not there has no processes.
///
/// # Errors
/// The kernel refuses.
pub fn signal(folder: &Path, signal: Signal) -> Result<()> {
    let done = match signal {
        // One write kills all, those included that are being forked (cgroup.kill, Linux 5.14).
        Signal::Kill => fs::write(folder.join("cgroup.kill"), "1"),
        Signal::Terminate => terminate(folder),
    };
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.with_context(|| format!("ending the processes in {}", folder.display())),
    }
}

/// Tells all of them that can be told, and then what kept it from the others.
fn terminate(folder: &Path) -> io::Result<()> {
    let mut done = Ok(());
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            done = done.and(unless_gone(terminate(&entry.path())));
        }
    }
    done.and(unless_gone(terminate_own(folder)))
}

fn terminate_own(folder: &Path) -> io::Result<()> {
    let list = match fs::read_to_string(folder.join("cgroup.procs")) {
        // A threaded cgroup's processes stand in the one above it whose threads it divides (cgroup-v2, "Threads").
        Err(error) if error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => return Ok(()),
        list => list?,
    };
    let mut done = Ok(());
    for pid in list.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::from_raw) {
        match kill_process(pid, rustix::process::Signal::TERM) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => done = done.and(Err(error.into())),
        }
    }
    done
}

/// A container that ended meanwhile took its folder along, or does so while its file is open.
fn unless_gone(done: io::Result<()>) -> io::Result<()> {
    done.or_else(|error| match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT | Errno::NODEV) => Ok(()),
        _ => Err(error),
    })
}

/// Opens the file that tells (by `POLLPRI`) when a cgroup gets empty. `None` where there is no such cgroup.
///
/// # Errors
/// It is there and cannot be opened.
pub fn watch(folder: &Path) -> Result<Option<File>> {
    match File::open(folder.join("cgroup.events")) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("watching {}", folder.display())),
    }
}

/// Whether a cgroup or one below it has processes.
#[must_use]
pub fn populated(folder: &Path) -> bool {
    fs::read_to_string(folder.join("cgroup.events")).is_ok_and(|text| text.lines().any(|line| line == "populated 1"))
}
