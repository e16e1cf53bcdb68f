//! Arms the machine's watchdog, and feeds it as long as the [`rule`] says that the machine is well: one that hangs is reset by it.
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::inbox::Sender;
use crate::log::{self, monotonic};
use crate::stage::beside;
use crate::sys::Sys;
use rule::{Limits, Signs, choose, is_hardware, judge};

mod rule;

/// Where the kernel tells of watchdogs (Documentation/ABI/testing/sysfs-class-watchdog).
const CLASS: &str = "sys/class/watchdog";
/// What is written to state to see whether it answers.
const PULSE: &str = "var/lib/kscratch/pulse";
/// A watchdog is fed so often in its time.
const FEEDS: u32 = 4;
/// What ends it in order (Documentation/watchdog/watchdog-api.rst, "Magic Close feature").
const MAGIC: &[u8] = b"V";

/// No write to state is out.
const NONE: u64 = u64::MAX;

/// What becomes of the watchdog in the machine's run.
#[derive(Debug, Default)]
enum Held {
    /// It is not armed yet.
    #[default]
    Idle,
    /// It runs.
    Runs(File),
    /// The machine ends: it is not armed any more.
    Closed,
}

/// The watchdog, from its arming to its end.
#[derive(Debug, Default)]
struct Armed(Mutex<Held>);

static ARMED: Armed = Armed(Mutex::new(Held::Idle));

/// What the watchdog's thread needs of the machine.
pub struct Means {
    /// Sets the watchdog's time.
    pub sys: &'static dyn Sys,
    /// Below which `/sys`, `/dev` and `/var` are.
    pub root: PathBuf,
    /// How long the watchdog waits for its food.
    pub timeout: Duration,
    /// How long a piece of hardware is waited for before the kernel's own watchdog is taken.
    pub late: Duration,
    /// The event loop.
    pub sender: Sender,
    /// Whether state outlives the machine's run; nothing is asked of one in memory.
    pub lasting: bool,
    /// Set when the event loop has ended.
    pub stop: Arc<AtomicBool>,
}

/// Arms the watchdog that there is, in a thread. `load` loads the kernel's own where there is no other, and says whether the image has it.
pub fn start(means: Means, load: impl FnOnce() -> bool + Send + 'static) {
    let work = move || {
        if let Err(error) = guard(&means, Limits::of(means.timeout), &ARMED, load) {
            log::line(format_args!("{error:#}: no watchdog guards this machine"));
        }
    };
    if let Err(error) = beside::start("watchdog", work) {
        log::line(format_args!("{error:#}: no watchdog guards this machine"));
    }
}

/// Ends the watchdog's watch, as the last act before the kernel is asked for the machine's end. Up to here it was armed, so that a machine that hangs on
/// its way down is reset; a firmware that starts anew, or a machine that is to be off, must not be. One that is not armed by now never is.
pub fn disarm() {
    if let Err(error) = ARMED.disarm() {
        log::line(format_args!("the watchdog stays armed: {error}"));
    }
}

impl Armed {
    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Arms it by opening it; gives how many seconds it waits, or none where the machine ends. Nobody can close it in between.
    fn arm(&self, open: impl FnOnce() -> Result<(File, u32)>) -> Result<Option<u32>> {
        let mut held = self.lock();
        if matches!(*held, Held::Closed) {
            return Ok(None);
        }
        let (device, seconds) = open()?;
        *held = Held::Runs(device);
        Ok(Some(seconds))
    }

    /// Feeds it; `false` where it is not armed any more.
    fn feed(&self) -> io::Result<bool> {
        match &mut *self.lock() {
            // Any byte but the magic one.
            Held::Runs(device) => device.write_all(b"\n").map(|()| true),
            Held::Idle | Held::Closed => Ok(false),
        }
    }

    fn disarm(&self) -> io::Result<()> {
        match std::mem::replace(&mut *self.lock(), Held::Closed) {
            Held::Runs(mut device) => device.write_all(MAGIC),
            Held::Idle | Held::Closed => Ok(()),
        }
    }
}

/// All watchdogs, by number, with the names that they give themselves.
fn watchdogs(root: &Path) -> Vec<(u32, String)> {
    let entries = fs::read_dir(root.join(CLASS)).into_iter().flatten().flatten();
    let watchdog = |entry: fs::DirEntry| {
        let number = entry.file_name().to_str()?.strip_prefix("watchdog")?.parse().ok()?;
        let identity = fs::read_to_string(entry.path().join("identity")).unwrap_or_default();
        Some((number, identity.trim().to_owned()))
    };
    entries.filter_map(watchdog).collect()
}

fn guard(means: &Means, limits: Limits, armed: &Armed, load: impl FnOnce() -> bool) -> Result<()> {
    let mut found = watchdogs(&means.root);
    let has_hardware = |found: &[(u32, String)]| found.iter().any(|(_, identity)| is_hardware(identity));
    let stops = || means.stop.load(Ordering::Relaxed);
    // A chipset's stands behind another driver, which may be loaded only now.
    let begun = monotonic();
    while !has_hardware(&found) && !stops() && monotonic().saturating_sub(begun) < means.late {
        thread::sleep(means.late / 10);
        found = watchdogs(&means.root);
    }
    // On its way down a machine begins nothing new.
    if stops() {
        return Ok(());
    }
    if !has_hardware(&found) && load() {
        found = watchdogs(&means.root);
    }
    let Some((number, identity)) = choose(&found) else {
        log::debug("this machine has no watchdog");
        return Ok(());
    };
    let Some(seconds) = armed.arm(|| open(means, *number, identity))? else { return Ok(()) };
    log::line(format_args!("the watchdog ({identity}) resets this machine {seconds} s after it was fed last"));
    let pulse = means.lasting.then(|| Pulse::start(means)).transpose().unwrap_or_else(|error| {
        log::line(format_args!("{error:#}: the watchdog is fed whether state answers or not"));
        None
    });
    feed(means, limits, armed, Duration::from_secs(seconds.into()).min(means.timeout) / FEEDS, pulse.as_ref());
    Ok(())
}

/// Opens a watchdog, which runs from here on, and sets its time; gives how many seconds it waits.
fn open(means: &Means, number: u32, identity: &str) -> Result<(File, u32)> {
    let path = means.root.join(format!("dev/watchdog{number}"));
    let device = File::options().write(true).open(&path);
    let device = device.with_context(|| format!("opening the watchdog {} ({identity})", path.display()))?;
    let wanted = u32::try_from(means.timeout.as_secs()).unwrap_or(u32::MAX).max(1);
    let seconds = means.sys.set_watchdog(&device, wanted).unwrap_or_else(|error| {
        log::line(format_args!(
            "the watchdog does not say how long it waits ({error}); it is fed as if it waited {wanted} s"
        ));
        wanted
    });
    Ok((device, seconds))
}

/// Feeds until the watchdog is disarmed, and not while the machine is unwell.
fn feed(means: &Means, limits: Limits, armed: &Armed, every: Duration, pulse: Option<&Pulse>) {
    let mut stopping = None;
    let mut unwell = false;
    let mut refused = false;
    loop {
        // The loop answers while this thread sleeps.
        means.sender.knock();
        thread::sleep(every);
        let now = monotonic();
        if means.stop.load(Ordering::Relaxed) {
            stopping.get_or_insert(now);
        }
        let since = |then: Duration| now.saturating_sub(then);
        let signs = Signs {
            turned: since(means.sender.taken()),
            writes: pulse.and_then(Pulse::asked).map(since),
            stopping: stopping.map(since),
        };
        match judge(signs, limits) {
            Err(why) => {
                if !std::mem::replace(&mut unwell, true) {
                    log::line(format_args!(
                        "this machine is not well: {why}; its watchdog is not fed any more, and resets it"
                    ));
                }
            }
            Ok(()) => {
                if std::mem::take(&mut unwell) {
                    log::line("this machine is well again, and its watchdog is fed");
                }
                match armed.feed() {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(error) if !std::mem::replace(&mut refused, true) => {
                        log::line(format_args!("feeding the watchdog: {error}"));
                    }
                    Err(_) => {}
                }
            }
        }
    }
}

/// A thread that writes to state now and then: a disk that hangs keeps it, and nobody else.
struct Pulse(Arc<AtomicU64>);

impl Pulse {
    fn start(means: &Means) -> Result<Self> {
        let asked = Arc::new(AtomicU64::new(NONE));
        let (told, stop) = (Arc::clone(&asked), Arc::clone(&means.stop));
        let (file, every) = (means.root.join(PULSE), means.timeout / 2);
        let mut refused = false;
        beside::start("pulse", move || {
            // A file that is open would keep state from being unmounted.
            while !stop.load(Ordering::Relaxed) {
                told.store(millis(monotonic()), Ordering::Relaxed);
                match write(&file) {
                    Ok(()) => refused = false,
                    Err(error) if !std::mem::replace(&mut refused, true) => {
                        log::line(format_args!("state does not take a write: {error}"));
                    }
                    Err(_) => {}
                }
                told.store(NONE, Ordering::Relaxed);
                thread::sleep(every);
            }
        })?;
        Ok(Self(asked))
    }

    /// When state was asked for the write that it has not answered yet.
    fn asked(&self) -> Option<Duration> {
        Some(self.0.load(Ordering::Relaxed)).filter(|asked| *asked != NONE).map(Duration::from_millis)
    }
}

/// Writes one block in the place of the one before.
fn write(file: &Path) -> io::Result<()> {
    let mut file = File::options().write(true).create(true).truncate(false).open(file)?;
    file.write_all(format!("{:>20}\n", monotonic().as_millis()).as_bytes())?;
    file.sync_data()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
