//! The watchdog's thread with files that stand for sysfs, devices and state.
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{Armed, Limits, Means, PULSE, guard, watchdogs};
use crate::run::inbox::{self, Inbox};
use crate::sys::Recording;

const TIMEOUT: Duration = Duration::from_millis(200);
/// The same multiples as a machine's, without its floors.
const LIMITS: Limits = Limits {
    turned: Duration::from_millis(400),
    writes: Duration::from_millis(1000),
    stopping: Duration::from_millis(1000),
};

fn watchdog(root: &Path, number: u32, identity: &str) {
    let folder = root.join(format!("sys/class/watchdog/watchdog{number}"));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("identity"), format!("{identity}\n")).unwrap();
    fs::create_dir_all(root.join("dev")).unwrap();
    fs::write(root.join(format!("dev/watchdog{number}")), "").unwrap();
}

#[track_caller]
fn wait(what: &str, mut until: impl FnMut() -> bool) {
    let start = Instant::now();
    while !until() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn machine(root: &Path, stop: &Arc<AtomicBool>) -> (Means, Inbox, &'static Recording) {
    let sys: &'static Recording = Box::leak(Box::new(Recording::new()));
    let (sender, inbox) = inbox::pair().unwrap();
    fs::create_dir_all(root.join(PULSE).parent().unwrap()).unwrap();
    let means = Means {
        sys,
        root: root.to_owned(),
        timeout: TIMEOUT,
        late: Duration::from_millis(50),
        sender,
        lasting: true,
        stop: Arc::clone(stop),
    };
    (means, inbox, sys)
}

#[test]
fn it_is_fed_while_the_loop_turns_and_ended_by_its_magic() {
    let root = tempfile::tempdir().unwrap();
    watchdog(root.path(), 0, "Software Watchdog");
    watchdog(root.path(), 1, "i6300ESB timer");
    let stop = Arc::new(AtomicBool::new(false));
    let (means, inbox, sys) = machine(root.path(), &stop);
    let armed: &'static Armed = Box::leak(Box::default());
    let thread = thread::spawn(move || guard(&means, LIMITS, armed, || panic!("there is hardware")));
    let fed = || fs::read(root.path().join("dev/watchdog1")).unwrap().len();
    let turning = Arc::new(AtomicBool::new(true));
    let turns = Arc::clone(&turning);
    let event_loop = thread::spawn(move || {
        while turns.load(Ordering::Relaxed) {
            inbox.take();
            thread::sleep(Duration::from_millis(5));
        }
        inbox
    });
    wait("it is fed", || fed() >= 12);
    assert!(fs::read(root.path().join(PULSE)).unwrap().len() > 10, "state was asked");
    assert_eq!(sys.calls(), ["watchdog 1 s"]);
    // The loop hangs: after twice the watchdog's time there is no food.
    turning.store(false, Ordering::Relaxed);
    let inbox = event_loop.join().unwrap();
    thread::sleep(TIMEOUT * 3);
    let hungry = fed();
    thread::sleep(TIMEOUT * 2);
    assert_eq!(fed(), hungry);
    // It turns again.
    inbox.take();
    wait("it is fed again", || fed() > hungry);
    // On the way down nobody turns, and it is fed for a while.
    stop.store(true, Ordering::Relaxed);
    let before = fed();
    wait("it is fed on the way down", || fed() > before + 4);
    armed.disarm().unwrap();
    thread.join().unwrap().unwrap();
    let all = fs::read(root.path().join("dev/watchdog1")).unwrap();
    assert_eq!(all.iter().position(|byte| *byte == b'V'), Some(all.len() - 1));
    assert_eq!(fs::read(root.path().join("dev/watchdog0")).unwrap(), b"");
    armed.disarm().unwrap();
}

#[test]
fn a_way_down_that_does_not_end_is_ended() {
    let root = tempfile::tempdir().unwrap();
    watchdog(root.path(), 0, "iTCO_wdt");
    let stop = Arc::new(AtomicBool::new(false));
    let (means, _inbox, _) = machine(root.path(), &stop);
    let armed: &'static Armed = Box::leak(Box::default());
    thread::spawn(move || guard(&means, LIMITS, armed, || false));
    let fed = || fs::read(root.path().join("dev/watchdog0")).unwrap().len();
    wait("it is fed at first", || fed() > 0);
    stop.store(true, Ordering::Relaxed);
    wait("it is fed on the way down", || fed() > 4);
    thread::sleep(TIMEOUT * 6);
    let last = fed();
    thread::sleep(TIMEOUT * 2);
    assert_eq!(fed(), last);
    armed.disarm().unwrap();
}

#[test]
fn without_hardware_the_kernels_own_is_loaded() {
    let root = tempfile::tempdir().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (means, _inbox, _) = machine(root.path(), &stop);
    let armed: &'static Armed = Box::leak(Box::default());
    guard(&means, LIMITS, armed, || false).unwrap();
    assert!(watchdogs(root.path()).is_empty(), "and one without either has none");
    let folder = root.path().to_owned();
    let (means, _inbox, _) = machine(root.path(), &stop);
    thread::spawn(move || {
        guard(&means, LIMITS, armed, || {
            watchdog(&folder, 0, "Software Watchdog");
            true
        })
    });
    wait("it is fed", || fs::read(root.path().join("dev/watchdog0")).is_ok_and(|food| !food.is_empty()));
    armed.disarm().unwrap();
}

#[test]
fn a_machine_that_ends_arms_none() {
    let root = tempfile::tempdir().unwrap();
    watchdog(root.path(), 0, "iTCO_wdt");
    let armed: &'static Armed = Box::leak(Box::default());
    let stop = Arc::new(AtomicBool::new(true));
    let (means, _inbox, sys) = machine(root.path(), &stop);
    guard(&means, LIMITS, armed, || panic!("nothing is loaded")).unwrap();
    // The boot has failed: nobody has set `stop`.
    stop.store(false, Ordering::Relaxed);
    armed.disarm().unwrap();
    guard(&means, LIMITS, armed, || false).unwrap();
    assert!(sys.calls().is_empty());
    assert_eq!(fs::read(root.path().join("dev/watchdog0")).unwrap(), b"");
}
