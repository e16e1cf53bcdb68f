//! A master and a node in QEMU, and what they say from QEMU's start on: held by a `cluster up` that ends, and they with it, when this program does.
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use kscratch_image::vmcluster::place::{CONSOLE, KUBECONFIG, Place};
use kscratch_image::vmcluster::protocol::Request;
use kscratch_image::vmcluster::{client, logs, power};
use kscratch_qemu::Line;
use kscratch_qemu::child::Child;
use kscratch_qemu::console::Console;
use time::OffsetDateTime;

use crate::measure::node::kscratch_image;
use crate::measure::program;

/// The cluster's name.
const CLUSTER: &str = "bench";
/// The machines: the master, the node.
pub const NAMES: [&str; 2] = ["m1", "n1"];
/// From `cluster up` to two processes of QEMU: disks are made, and it is tried whether KVM works.
const START: Duration = Duration::from_secs(3 * 60);
/// From the power buttons to the end of both machines.
const SHUTDOWN: Duration = Duration::from_secs(4 * 60);
/// How often a console's file is looked at: what a line's time may be late by.
const EVERY: Duration = Duration::from_millis(50);
/// Between two questions whether the machines are on.
const PAUSE: Duration = Duration::from_millis(200);
/// How many of a console's last lines an error has.
const TAIL: usize = 12;

/// The machines.
#[derive(Debug)]
pub struct Machines {
    place: Place,
    begun: Instant,
    consoles: [Console; 2],
    ended: Arc<AtomicBool>,
    up: Child,
}

/// A machine that was switched on.
#[derive(Debug, Clone)]
pub struct Boot {
    /// Its name.
    pub name: &'static str,
    /// QEMU's start.
    pub start: Instant,
    /// The same by the wall clock, which is the guest's too: nothing else sets it.
    pub date: OffsetDateTime,
    /// The first line of its console that is of this boot.
    first: usize,
}

impl Machines {
    /// Makes the cluster in `folder` and switches both on; `within` is how long they may take to be Ready.
    ///
    /// # Errors
    /// Something that is needed is missing.
    pub fn up(folder: &Path, [master, node]: [&Path; 2], within: Duration) -> Result<Machines> {
        let place = Place::of(folder, CLUSTER);
        // The keeper ends its machines when `up` ends, and the kernel ends `up` when this program ends, however that comes.
        let mut command = Command::new(program::tool("setpriv", "util-linux")?);
        command.args(["--pdeathsig", "KILL"]).arg(kscratch_image());
        command.args([
            "cluster",
            "up",
            CLUSTER,
            "--foreground",
            "--quiet",
            "--masters",
            "1",
            "--nodes",
            "1",
            "--at-once",
            "--host-time",
            "--cpus",
            "2",
        ]);
        command.arg("--timeout").arg(within.as_secs().to_string());
        command.arg("--image-master").arg(master).arg("--image-node").arg(node);
        command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null());
        let (begun, ended) = (Instant::now(), Arc::<AtomicBool>::default());
        let (up, _, _) = Child::start(command).context("starting `kscratch-image cluster up`")?;
        let consoles = NAMES.map(|name| {
            let follow = Follow { path: place.machine_file(name, CONSOLE), file: None, ended: Arc::clone(&ended) };
            let console = Console::new();
            let filled = console.clone();
            thread::spawn(move || filled.read_from(follow, begun));
            console
        });
        Ok(Machines { place, begun, consoles, ended, up })
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.place.file(KUBECONFIG)
    }

    /// Waits until both are on for the first time, and tells whether KVM executes them.
    ///
    /// # Errors
    /// They are not.
    pub fn started(&self) -> Result<([Boot; 2], bool)> {
        Ok((self.boots([0; 2])?, client::status(&self.place)?.accelerated))
    }

    /// Switches both on, which are off.
    ///
    /// # Errors
    /// The keeper refuses.
    pub fn on(&self) -> Result<[Boot; 2]> {
        let first = self.consoles.each_ref().map(|console| console.lines().len());
        for name in NAMES {
            client::ask(&self.place, &Request::On { machine: name.to_owned(), clock: None })?;
        }
        self.boots(first)
    }

    /// Presses both power buttons; tells how long it took until both were off.
    ///
    /// # Errors
    /// One does not end in time.
    pub fn off(&self) -> Result<Duration> {
        let pressed = Instant::now();
        power::off(&self.place, &NAMES.map(str::to_owned), SHUTDOWN)?;
        let took = pressed.elapsed();
        // Whatever the consoles' files have is in then.
        thread::sleep(2 * EVERY);
        Ok(took)
    }

    fn boots(&self, first: [usize; 2]) -> Result<[Boot; 2]> {
        let deadline = Instant::now() + START;
        let pids = loop {
            // There is no keeper to be asked at first.
            let status = client::status(&self.place);
            let pid = |name: &str| {
                status
                    .as_ref()
                    .ok()?
                    .machines
                    .iter()
                    .find(|machine| machine.name == name)
                    .and_then(|machine| machine.pid)
            };
            if let [Some(master), Some(node)] = NAMES.map(pid) {
                break [master, node];
            }
            self.up_goes_on()?;
            ensure!(Instant::now() < deadline, "the machines are not on after {} s", START.as_secs());
            thread::sleep(PAUSE);
        };
        let boot = |index: usize| -> Result<Boot> {
            let start = since(pids[index])?;
            let date = OffsetDateTime::now_utc() - start.elapsed();
            Ok(Boot { name: NAMES[index], start, date, first: first[index] })
        };
        Ok([boot(0)?, boot(1)?])
    }

    /// Fails where nothing is to be waited for any more.
    ///
    /// # Errors
    /// `cluster up` has ended, or a machine went off.
    pub fn go_on(&self) -> Result<()> {
        self.up_goes_on()?;
        for machine in client::status(&self.place)?.machines {
            if machine.pid.is_none() {
                bail!("{} went off: {}{}", machine.name, machine.phase, self.tail(&machine.name));
            }
        }
        Ok(())
    }

    fn up_goes_on(&self) -> Result<()> {
        match self.up.status() {
            None => Ok(()),
            Some(status) => bail!("`cluster up` ended with {status}: {}", self.up.stderr()),
        }
    }

    /// The last lines of a console, for an error.
    pub fn tail(&self, name: &str) -> String {
        let lines = logs::tail(&self.place, name, TAIL).unwrap_or_default();
        lines.iter().map(|line| format!("\n    {line}")).collect()
    }

    /// What a machine said in this boot; times are since QEMU's start.
    pub fn lines(&self, boot: &Boot) -> Vec<Line> {
        let before = boot.start.saturating_duration_since(self.begun);
        let consoles = NAMES.iter().zip(&self.consoles).filter(|(name, _)| **name == boot.name);
        let lines = consoles.flat_map(|(_, console)| console.lines());
        lines.skip(boot.first).map(|line| Line { at: line.at.saturating_sub(before), ..line }).collect()
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        // Where no keeper answers, it has ended with its machines, or does so when `up` is killed after this.
        drop(client::end(&self.place));
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// When a process was started (proc_pid_stat(5), `starttime`).
fn since(pid: u32) -> Result<Instant> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    // Behind the name, which may hold anything, the third field is the first.
    let ticks = stat.rsplit_once(')').and_then(|(_, fields)| fields.split_whitespace().nth(19)?.parse::<u64>().ok());
    // Hundredths of a second since this machine's start, whatever the kernel counts in itself (USER_HZ).
    let start = Duration::from_millis(ticks.with_context(|| format!("{path} has no time of its start"))? * 10);
    let now = Duration::try_from(rustix::time::clock_gettime(rustix::time::ClockId::Boottime))?;
    Instant::now()
        .checked_sub(now.saturating_sub(start))
        .with_context(|| format!("{path} has an odd time of its start"))
}

/// A file that another process writes, from its beginning, even before it is there.
struct Follow {
    path: PathBuf,
    file: Option<File>,
    ended: Arc<AtomicBool>,
}

impl Read for Follow {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.file.is_none() {
                self.file = File::open(&self.path).ok();
            }
            match self.file.as_mut().map(|file| file.read(buffer)).transpose()? {
                None | Some(0) if self.ended.load(Ordering::Relaxed) => return Ok(0),
                None | Some(0) => thread::sleep(EVERY),
                Some(length) => return Ok(length),
            }
        }
    }
}
