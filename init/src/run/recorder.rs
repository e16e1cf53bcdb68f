//! The flight recorder: takes what kernel and init say out of the kernel's log, and keeps it on the recorder's partition (`kscratch-recorder`).
//!
//! It is a thread that nobody waits for, but for the last entry. What it cannot do is told once, and keeps the machine from nothing.
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use kscratch_recorder::{Begin, Boot, BootId, Entry, Ring, What, Writer, story};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{Advice, OFlags, fadvise};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::log;
use crate::stage::beside;
use kmsg::Share;
use waiting::Waiting;

mod kmsg;
pub mod pstore;
mod waiting;

/// How often it is written down that the machine still runs: the end of one that ends without a word is known to that.
const ALIVE: Duration = Duration::from_secs(600);
/// How long anybody waits for an entry to be on the disk.
const END: Duration = Duration::from_secs(2);
/// What of the boot before is told on the console.
const TROUBLES: usize = 4;

/// How the thread is told of the end.
struct Handle {
    wake: OwnedFd,
    told: Sender<Told>,
}

/// What the thread is told, and whom it tells once that is on the disk.
struct Told {
    what: Vec<What>,
    last: bool,
    done: Sender<()>,
}

static HANDLE: Mutex<Option<Handle>> = Mutex::new(None);

/// Begins to record onto a partition, and tells there what is known of the boot before this one.
pub fn start(device: &Path) {
    let started =
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(anyhow::Error::from).and_then(|wake| {
            let (told, news) = mpsc::channel();
            let (device, woken) = (device.to_owned(), wake.try_clone()?);
            beside::start("recorder", move || {
                if let Err(error) = record(&device, &woken, &news) {
                    log::line(format_args!("flight recorder: {error:#}; this boot leaves no record from here on"));
                }
            })?;
            *HANDLE.lock().unwrap_or_else(PoisonError::into_inner) = Some(Handle { wake, told });
            Ok(())
        });
    if let Err(error) = started {
        log::line(format_args!("flight recorder: {error:#}; this boot leaves no record"));
    }
}

/// Writes down how the machine's run ends, after all that was said before, and waits until that is on the disk.
pub fn end(how: &str) {
    write(vec![What::End(how.to_owned())], true);
}

/// Writes down what was found of earlier boots; says whether it is on the disk.
#[must_use]
pub fn keep(what: Vec<What>) -> bool {
    write(what, false)
}

fn write(what: Vec<What>, last: bool) -> bool {
    let (done, written) = mpsc::channel();
    {
        let handle = HANDLE.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(handle) = handle.as_ref() else { return false };
        // A thread that has ended has told why.
        if handle.told.send(Told { what, last, done }).is_err()
            || rustix::io::write(&handle.wake, &1_u64.to_ne_bytes()).is_err()
        {
            return false;
        }
    }
    written.recv_timeout(END).is_ok()
}

fn record(device: &Path, wake: &OwnedFd, news: &mpsc::Receiver<Told>) -> Result<()> {
    let place = || format!("the recorder's partition {}", device.display());
    let file = File::options().read(true).write(true).open(device).with_context(|| format!("opening {}", place()))?;
    let len = (&file).seek(SeekFrom::End(0)).with_context(|| format!("measuring {}", place()))?;
    // In one go: the boot goes on beside it.
    let mut bytes = vec![0; usize::try_from(len.min(kscratch_recorder::LONGEST)).unwrap_or_default()];
    file.read_exact_at(&mut bytes, 0).with_context(|| format!("reading {}", place()))?;
    // It is not read again.
    let _ = fadvise(&file, 0, None, Advice::DontNeed);
    let ring = Ring::read(&bytes);
    drop(bytes);
    let writer = ring.writer(boot_id()?).with_context(|| format!("{} is too small", place()))?;
    tell_last(ring.boots.last());
    let log = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open("/dev/kmsg");
    let log = log.context("opening the kernel's log")?;
    let mut recording = Recording { file, writer, waiting: Waiting::default() };
    recording.take(&Entry { at: log::monotonic(), what: What::Begin(begin()) }, false)?;
    let mut share = Share::default();
    let mut alive = Instant::now() + ALIVE;
    loop {
        while let Some(entry) = next(&log)? {
            let Some(entry) = share.of(entry) else { continue };
            recording.take(&entry, kmsg::is_urgent(&entry.what))?;
        }
        let _ = rustix::io::read(wake, &mut [0; 8]);
        if let Ok(Told { what, last, done }) = news.try_recv() {
            for what in what {
                recording.take(&Entry { at: log::monotonic(), what }, false)?;
            }
            recording.flush()?;
            // Nobody waits any longer where this took too long.
            let _ = done.send(());
            if last {
                return Ok(());
            }
            continue;
        }
        let now = Instant::now();
        if now >= alive {
            recording.take(&Entry { at: log::monotonic(), what: What::Alive }, false)?;
            alive = now + ALIVE;
        }
        if recording.waiting.due().is_some_and(|due| due <= now) {
            recording.flush()?;
        }
        let next = recording.waiting.due().map_or(alive, |due| due.min(alive));
        let timeout = next.saturating_duration_since(now).max(Duration::from_millis(10));
        let timeout = Timespec::try_from(timeout).context("waiting for the kernel's log")?;
        let mut sources = [PollFd::new(&log, PollFlags::IN), PollFd::new(wake, PollFlags::IN)];
        match poll(&mut sources, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for the kernel's log"),
        }
    }
}

/// The next record of the kernel's log, if there is one yet.
///
/// # Errors
/// The kernel does not give it.
pub(crate) fn next(log: &File) -> Result<Option<Entry>> {
    // The kernel gives a record whole, or refuses (printk.c, `devkmsg_read`: 2048 bytes hold the longest).
    let mut bytes = [0; 4096];
    loop {
        match { log }.read(&mut bytes) {
            Ok(len) => {
                if let Some(entry) = kmsg::entry(&bytes[..len]) {
                    return Ok(Some(entry));
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            // Records were overwritten before they were read: the next read gives the oldest that is there.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::PIPE.raw_os_error()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("reading the kernel's log"),
        }
    }
}

/// Entries on their way to the disk.
struct Recording {
    file: File,
    writer: Writer,
    waiting: Waiting,
}

impl Recording {
    /// An urgent one must be on the disk before the next cut.
    fn take(&mut self, entry: &Entry, urgent: bool) -> Result<()> {
        self.waiting.add(urgent, Instant::now());
        match self.writer.push(entry) {
            Some(placed) => self.write(placed),
            None => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<()> {
        self.waiting.flushed();
        match self.writer.flush() {
            Some(placed) => self.write(placed),
            None => Ok(()),
        }
    }

    fn write(&mut self, (place, block): kscratch_recorder::Placed) -> Result<()> {
        self.waiting.wrote(Instant::now());
        let write = || -> io::Result<()> {
            self.file.write_all_at(&block[..], place)?;
            self.file.sync_data()
        };
        write().with_context(|| format!("writing to the recorder's partition at byte {place}"))
    }
}

fn boot_id() -> Result<BootId> {
    let text =
        fs::read_to_string("/proc/sys/kernel/random/boot_id").context("asking the kernel for the boot's name")?;
    let mut id = [0; 16];
    let digits: Vec<u8> = text.bytes().filter_map(|byte| char::from(byte).to_digit(16)?.try_into().ok()).collect();
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    Ok(BootId(id))
}

fn begin() -> Begin {
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec;
    Begin { clock, kscratch: env!("CARGO_PKG_VERSION").to_owned(), kernel }
}

/// What the boot before this one left: nothing is said of one that went well and ended in order.
fn tell_last(boot: Option<&Boot>) {
    for line in last_words(boot) {
        log::line(line);
    }
}

fn last_words(boot: Option<&Boot>) -> Vec<String> {
    let Some(boot) = boot else { return Vec::new() };
    let told = story::tell(boot);
    let mut lines = Vec::new();
    if told.end.is_none() {
        let begun = told.begin.as_ref().and_then(|begin| OffsetDateTime::from_unix_timestamp(begin.clock).ok());
        let begun = begun.and_then(|time| time.format(&Rfc3339).ok()).map(|time| format!(", begun {time},"));
        let last =
            told.last.as_ref().map(|(at, text)| format!("; its last words, at {:.3} s: {text}", at.as_secs_f64()));
        lines.push(format!(
            "the boot before this one{} ended without a word, {:.0} s or more after its start: its power was cut, or it hung{}",
            begun.unwrap_or_default(),
            told.until.as_secs_f64(),
            last.unwrap_or_default()
        ));
    }
    let troubles = told.troubles();
    lines.extend(troubles.iter().take(TROUBLES).map(|trouble| format!("the boot before this one: {trouble}")));
    if troubles.len() > TROUBLES {
        lines.push(format!("the boot before this one: and {} more", troubles.len() - TROUBLES));
    }
    if !lines.is_empty() {
        lines.push("hint: `kscratch-image autopsy DISK` tells all that it said".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kscratch_recorder::{Begin, Boot, BootId, Entry, What};

    use super::last_words;

    #[track_caller]
    fn check(entries: &[(u64, What)], want: &[&str]) {
        let entries = entries.iter().map(|(at, what)| Entry { at: Duration::from_millis(*at), what: what.clone() });
        let boot = Boot { id: BootId([1; 16]), entries: entries.collect(), cut: false, lost: 0, lost_after: 0 };
        assert_eq!(last_words(Some(&boot)), want);
    }

    fn said(text: &str) -> What {
        What::Said(text.into())
    }

    #[test]
    fn a_boot_that_went_well_is_no_news() {
        check(
            &[
                (1, said("phase 01 mounts: start")),
                (2, said("phase 01 mounts: ok (0.001 s)")),
                (3, What::End("reboot".into())),
            ],
            &[],
        );
        assert!(last_words(None).is_empty());
    }

    #[test]
    fn one_that_ended_without_a_word_is_told_with_its_last_words() {
        let begin = What::Begin(Begin { clock: 1_795_000_000, ..Begin::default() });
        check(
            &[(1000, begin), (2500, said("phase 07 network: start")), (602_500, What::Alive)],
            &[
                "the boot before this one, begun 2026-11-18T11:06:40Z, ended without a word, 602 s or more after its start: its power was cut, or it hung; its last words, at 2.500 s: phase 07 network: start",
                "the boot before this one: phase 07 network began and did not end",
                "hint: `kscratch-image autopsy DISK` tells all that it said",
            ],
        );
    }

    #[test]
    fn what_failed_is_told_of_one_that_ended_in_order_too() {
        let failed = |number: u64| {
            [
                (number * 10, said(&format!("phase {number:02} x: start"))),
                (number * 10 + 1, said(&format!("phase {number:02} x: failed: no"))),
            ]
        };
        let mut entries: Vec<(u64, What)> = (1..=6).flat_map(failed).collect();
        entries.push((100, What::End("power off".into())));
        check(
            &entries,
            &[
                "the boot before this one: phase 01 x failed: no",
                "the boot before this one: phase 02 x failed: no",
                "the boot before this one: phase 03 x failed: no",
                "the boot before this one: phase 04 x failed: no",
                "the boot before this one: and 2 more",
                "hint: `kscratch-image autopsy DISK` tells all that it said",
            ],
        );
    }
}
