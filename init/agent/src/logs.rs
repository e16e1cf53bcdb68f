//! Turns what services, the kernel and init say into lines of JSON, for the servers that the metadata name.
//!
//! Nobody waits for it: it reads what stands on the disk and in the kernel's log anyway. What a server does not take waits in a [`queue`] of its own.
mod files;
mod kernel;
pub mod pieces;
mod places;
mod queue;
pub mod records;
mod said;
mod sending;
mod tls;
pub mod wanted;

use std::cell::RefCell;
use std::convert::Infallible;
use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result};
use futures_util::future::join_all;
use kscratch_pki::OffsetDateTime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use self::files::Folder;
use self::kernel::Kernel;
use self::places::{Kept, Places};
use self::queue::Queue;
use self::said::{Recipients, Said};
use self::sending::{Line, Sender};
use self::wanted::Logs;
use crate::{place, say};

/// This boot (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Names that a kernel has before it is given one.
const NAMELESS: [&str; 3] = ["", "(none)", "localhost"];
/// How often it is looked whether there is more.
const LOOK: Duration = Duration::from_millis(500);
/// How often whoever reads looks whether a full queue has room.
const ROOM: Duration = Duration::from_millis(20);
/// How often it is written down what was sent.
const KEEP: Duration = Duration::from_secs(10);
/// How long the last lines may take when this is to end.
const LAST: Duration = Duration::from_secs(2);

/// Sends logs until it is told to end.
///
/// # Errors
/// It lacks something of its own, such as its folder. Servers, and logs that cannot be read, are no reason to end.
pub async fn run(wanted: Logs) -> Result<()> {
    // Whoever waits for this has nothing to wait for.
    place::file(&wanted.ready, b"", 0o644, rustix::process::getuid().as_raw())?;
    let host = host(Duration::from_secs(wanted.name_within_seconds)).await;
    let boot = std::fs::read_to_string(BOOT_ID).with_context(|| format!("reading {BOOT_ID}"))?;
    let boot: Rc<str> = boot.trim().into();
    let kept = Kept::read(&wanted.places, &boot).unwrap_or_else(|error| {
        say::line(format_args!("{error:#}; the logs of this boot are sent again"));
        Kept::default()
    });
    let names: Vec<String> = wanted.servers.iter().map(ToString::to_string).collect();
    let sent: Vec<Option<Places>> = names.iter().map(|name| kept.servers.get(name).cloned()).collect();
    let line = |sent: &Option<Places>| Line {
        queue: RefCell::new(Queue::new(wanted.room, sent.clone().unwrap_or_default())),
        more: Notify::new(),
    };
    let lines: Vec<Line> = sent.iter().map(line).collect();
    let mut reader = Reader {
        kernel: Kernel::on_standard_input(boot.clone(), &sent)?,
        folder: Folder::new(&wanted.folder, wanted.except.clone(), boot.clone(), sent),
        host: &host,
        lines: &lines,
        start: Instant::now(),
    };
    say::line(format_args!("sending logs to {}", names.join(", ")));
    let left_out = |count| left_out(count, &boot).line(&host);
    let (authorities, identity) = (wanted.authorities.as_path(), wanted.identity.as_ref());
    let sender = |(server, line)| Sender { server, authorities, identity, line, left_out: &left_out };
    let seed = |name: &String| RandomState::new().hash_one(name) as u32;
    let senders = wanted.servers.iter().zip(&lines).map(sender).zip(names.iter().map(seed));
    let mut sending = pin!(join_all(senders.map(|(sender, seed)| sender.run(seed))));
    let keeper = Keeper { file: &wanted.places, boot: &boot, names: &names, lines: &lines };
    let mut terminated = signal(SignalKind::terminate()).context("hearing of the end")?;
    tokio::select! {
        _ = terminated.recv() => {}
        _ = &mut sending => {}
        never = reader.read() => match never {},
        never = keeper.keep() => match never {},
    }
    tokio::select! {
        _ = &mut sending => {}
        _ = tokio::time::timeout(LAST, reader.last()) => {}
    }
    keeper.kept().write(&wanted.places, true)
}

/// The machine's name. It gets one once its network is up; what it says before waits, where it stands.
async fn host(within: Duration) -> String {
    let end = Instant::now() + within;
    loop {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        if !NAMELESS.contains(&name.as_str()) || Instant::now() >= end {
            return name;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Says how many lines a server was not sent.
fn left_out(count: u64, boot: &Rc<str>) -> Said {
    Said {
        time: OffsetDateTime::from(SystemTime::now()),
        boot: Some(boot.clone()),
        source: "logs".into(),
        severity: None,
        message: format!("{count} lines are left out here: this server did not take them in time"),
        place: None,
        to: Recipients::default(),
        passed: Recipients::default(),
    }
}

/// Who reads everything there is.
struct Reader<'a> {
    kernel: Kernel,
    folder: Folder,
    host: &'a str,
    lines: &'a [Line],
    start: Instant,
}

impl Reader<'_> {
    async fn read(&mut self) -> Infallible {
        loop {
            if !self.step().await {
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    /// Reads all that is there, and waits until it is sent. What no queue has room for stays where it is, for the next start.
    async fn last(&mut self) {
        while self.step().await {}
        while self.lines.iter().any(|line| !line.queue.borrow().is_empty()) {
            tokio::time::sleep(ROOM).await;
        }
    }

    /// Reads on if that is not to wait for a server, and says whether there may be more.
    async fn step(&mut self) -> bool {
        let now = self.start.elapsed();
        if self.lines.iter().any(|line| line.queue.borrow().is_waited_for(now)) {
            tokio::time::sleep(ROOM).await;
            return true;
        }
        let more = self.turn();
        // Those who send get their turn.
        tokio::task::yield_now().await;
        more
    }

    /// Reads a bounded piece of each log into the queues, and says whether there may be more.
    fn turn(&mut self) -> bool {
        let mut said = Vec::new();
        let kernel = self.kernel.turn(&mut said).unwrap_or_else(|error| {
            say::line(format_args!("{error:#}; it is not sent any more"));
            false
        });
        let news = self.folder.turn(&mut said);
        for fault in &news.faults {
            say::line(fault);
        }
        for said in said {
            self.put(&said);
        }
        kernel || news.more
    }

    fn put(&self, said: &Said) {
        let mut text: Option<Rc<str>> = None;
        let now = self.start.elapsed();
        for (number, line) in self.lines.iter().enumerate() {
            if let Some(place) = said.place.as_ref().filter(|_| said.passed.has(number)) {
                line.queue.borrow_mut().pass(place);
            }
            if !said.to.has(number) {
                continue;
            }
            let text = text.get_or_insert_with(|| said.line(self.host).into());
            line.queue.borrow_mut().push(text, said.place.as_ref(), now);
            line.more.notify_one();
        }
    }
}

/// Who writes down what was sent.
struct Keeper<'a> {
    file: &'a Path,
    boot: &'a str,
    names: &'a [String],
    lines: &'a [Line],
}

impl Keeper<'_> {
    async fn keep(&self) -> Infallible {
        let (mut last, mut well) = (Kept::default(), true);
        loop {
            let kept = self.kept();
            if kept != last {
                let written = kept.write(self.file, false);
                if let (Err(error), true) = (&written, well) {
                    say::line(format_args!("{error:#}; what is sent until the next start may be sent again"));
                }
                well = written.is_ok();
                last = kept;
            }
            tokio::time::sleep(KEEP).await;
        }
    }

    fn kept(&self) -> Kept {
        let places = self.lines.iter().map(|line| line.queue.borrow().places().clone());
        // Who was sent nothing yet stays as new as he is.
        let known = self.names.iter().cloned().zip(places).filter(|(_, places)| *places != Places::default());
        Kept { boot: self.boot.to_owned(), servers: known.collect() }
    }
}
