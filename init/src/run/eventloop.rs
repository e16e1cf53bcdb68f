//! Turns the kernel's readable descriptors into supervisor events and the supervisor's actions into calls: the one loop of PID 1.
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, PipeReader, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{SigSet, Signal as UnixSignal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{WaitId, WaitIdOptions};
use rustix::time::Timespec;

use super::buttons::Buttons;
use super::cgroup;
use super::inbox::Inbox;
use super::logs::{Log, Rotation};
use super::ready::{ATTEMPT_WITHIN, Attempt, Outcome};
use super::spawn::{Process, Spawner};
use crate::apply::lease::{Change, Keeper};
use crate::console::board;
use crate::console::status::Services;
use crate::log::monotonic;
use crate::plan::Service;
use crate::stage::mounts::SERVICES;
use crate::supervise::{Ended, Ending, Event, Reason, Share, Supervisor};
use crate::sys::linux::ended_child;
use kscratch_netlink::LinkNews;

mod act;
mod handed;

/// How much of one service's output is read before the others get their turn, in bytes.
const TURN: usize = 64 << 10;

/// Told the link and what became of its lease.
pub type LeaseChanged = Box<dyn FnMut(&str, &Change) + Send>;

/// What the loop needs besides the services.
pub struct Options {
    /// How processes are made.
    pub spawner: Spawner,
    /// Folder of the services' logs.
    pub logs: PathBuf,
    /// When a log is put aside.
    pub rotation: Rotation,
    /// The boot's name in those logs; none where they are not to tell.
    pub boot: Option<String>,
    /// cgroups that hold the containers, ended at shutdown between their users and the runtime.
    pub containers: Vec<PathBuf>,
    /// Folder of the input devices; none where there is no power button.
    pub input: Option<PathBuf>,
    /// Whether every child is ours to reap: true for PID 1.
    pub reap_orphans: bool,
    /// Where services and leases come from while the boot goes on; none where there is no more to come.
    pub inbox: Option<Inbox>,
    /// When init got the machine from the kernel: its share of the boot is told once all services are ready.
    pub begun: Option<Duration>,
    /// Where lines for people go.
    pub say: Box<dyn FnMut(&str)>,
    /// Who is shown how the services stand, each time that it changed.
    pub show: Box<dyn FnMut(&Services)>,
}

impl Options {
    /// Those of a machine, whose PID 1 we are.
    #[must_use]
    pub fn machine() -> Self {
        Self {
            spawner: Spawner {
                trampoline: PathBuf::from("/proc/self/exe"),
                cgroups: Some(Path::new("/").join(SERVICES)),
            },
            logs: PathBuf::from("/var/log/kscratch"),
            rotation: Rotation::default(),
            // Without it they say less, and that is all.
            boot: fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|boot| boot.trim().to_owned()),
            containers: vec![PathBuf::from("/sys/fs/cgroup/kubepods"), PathBuf::from("/sys/fs/cgroup/docker")],
            input: Some(PathBuf::from("/dev/input")),
            reap_orphans: true,
            inbox: None,
            begun: None,
            say: Box::new(|line| crate::log::line(line)),
            show: Box::new(|services| board::change(|board| board.services = services.clone())),
        }
    }
}

/// Runs the services, and those that come through the inbox, until the machine is to stop, and stops them. Without services it waits
/// for the power button, ctrl-alt-del or a signal.
///
/// # Errors
/// The kernel refuses the means of waiting (a signalfd, `poll`). Nothing that a service does is an error here.
pub fn run(services: Vec<Service>, options: Options) -> Result<Ending> {
    let mut state = Loop::new(services, options)?;
    state.handle(Event::Timer);
    loop {
        if let Some(ending) = state.ending {
            return Ok(ending);
        }
        for source in state.wait()? {
            state.attend(source);
        }
        state.keep_deadlines();
    }
}

/// What got readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Signals,
    Process(&'static str),
    Output(u64),
    Attempt(&'static str),
    Buttons,
    Containers,
    Lease(usize),
    Links,
    Inbox,
}

struct Output {
    number: u64,
    name: &'static str,
    pipe: PipeReader,
}

struct Loop {
    supervisor: Supervisor,
    options: Options,
    signals: SignalFd,
    buttons: Option<Buttons>,
    links: Option<LinkNews>,
    leases: Vec<Keeper>,
    lease_changed: LeaseChanged,
    /// Who is told when a service gets ready.
    watchers: BTreeMap<&'static str, Box<dyn FnMut() + Send>>,
    /// Until the boot is over and told.
    share: Option<Share>,
    booted: bool,
    /// What was shown last.
    shown: Services,
    processes: BTreeMap<&'static str, Process>,
    /// Pipes outlive the process that wrote to them first: a service's children may hold on.
    outputs: Vec<Output>,
    opened: u64,
    logs: BTreeMap<&'static str, Log>,
    /// Logs that could not be written the last time; told once, not for every line.
    broken_logs: BTreeSet<&'static str>,
    attempts: BTreeMap<&'static str, (Attempt, Duration)>,
    /// Files that tell when the containers are gone; empty while nobody wants to know.
    watches: Vec<File>,
    ending: Option<Ending>,
}

impl Loop {
    fn new(services: Vec<Service>, mut options: Options) -> Result<Self> {
        let signals = open_signals()?;
        let say = &mut options.say;
        if let Some(folder) = &options.spawner.cgroups {
            match cgroup::prepare(folder) {
                Ok(missing) => missing.iter().for_each(|line| say(&format!("services run without {line}"))),
                Err(error) => {
                    say(&format!("services run without cgroups: {error:#}"));
                    options.spawner.cgroups = None;
                }
            }
        }
        let buttons = options
            .input
            .as_deref()
            .and_then(|folder| Buttons::open(folder).inspect_err(|error| say(&format!("{error:#}"))).ok());
        Ok(Self {
            supervisor: Supervisor::new(services),
            share: options.begun.map(Share::new),
            booted: options.inbox.is_none(),
            shown: Services::default(),
            options,
            signals,
            buttons,
            links: None,
            leases: Vec::new(),
            lease_changed: Box::new(|_, _| {}),
            watchers: BTreeMap::new(),
            processes: BTreeMap::new(),
            outputs: Vec::new(),
            opened: 0,
            logs: BTreeMap::new(),
            broken_logs: BTreeSet::new(),
            attempts: BTreeMap::new(),
            watches: Vec::new(),
            ending: None,
        })
    }

    /// Waits for the next thing to happen, or the next deadline.
    fn wait(&self) -> Result<Vec<Source>> {
        let (sources, mut fds): (Vec<Source>, Vec<PollFd<'_>>) = self.interests().into_iter().unzip();
        let left = self.next_deadline().map(|deadline| deadline.saturating_sub(monotonic()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for something to happen"),
        }
        Ok(sources.into_iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty()).map(|(source, _)| source).collect())
    }

    /// In the order in which they are attended to: what a service said before it died comes first.
    fn interests(&self) -> Vec<(Source, PollFd<'_>)> {
        let mut found = Vec::new();
        found.extend(
            self.outputs.iter().map(|output| (Source::Output(output.number), PollFd::new(&output.pipe, PollFlags::IN))),
        );
        found.extend(
            self.processes
                .iter()
                .map(|(name, process)| (Source::Process(name), PollFd::new(&process.pidfd, PollFlags::IN))),
        );
        found.extend(
            self.attempts
                .iter()
                .map(|(name, (attempt, _))| (Source::Attempt(name), PollFd::new(attempt, attempt.interest()))),
        );
        found.extend(self.watches.iter().map(|file| (Source::Containers, PollFd::new(file, PollFlags::PRI))));
        found.extend(
            self.leases
                .iter()
                .enumerate()
                .map(|(index, lease)| (Source::Lease(index), PollFd::new(lease, PollFlags::IN))),
        );
        found.extend(self.links.iter().map(|links| (Source::Links, PollFd::new(links, PollFlags::IN))));
        let buttons = self.buttons.iter().flat_map(Buttons::descriptors);
        found.extend(buttons.map(|fd| (Source::Buttons, PollFd::from_borrowed_fd(fd, PollFlags::IN))));
        found.extend(self.options.inbox.iter().map(|inbox| (Source::Inbox, PollFd::new(inbox, PollFlags::IN))));
        found.push((Source::Signals, PollFd::new(&self.signals, PollFlags::IN)));
        found
    }

    fn next_deadline(&self) -> Option<Duration> {
        let attempts = self.attempts.values().map(|(_, until)| *until);
        let leases = self.leases.iter().filter_map(Keeper::next_deadline);
        self.supervisor.next_deadline().into_iter().chain(attempts).chain(leases).min()
    }

    /// Everything that the passing of time alone brings.
    fn keep_deadlines(&mut self) {
        let now = monotonic();
        let late: Vec<&'static str> =
            self.attempts.iter().filter(|(_, (_, until))| *until <= now).map(|(name, _)| *name).collect();
        for name in late {
            self.attempts.remove(name);
            self.handle(Event::ProbeFailed { name, reason: format!("no answer in {} s", ATTEMPT_WITHIN.as_secs()) });
        }
        for index in 0..self.leases.len() {
            let lease = &mut self.leases[index];
            if lease.next_deadline().is_some_and(|deadline| deadline <= now) {
                let changes = lease.timer(now);
                self.tell_lease(index, &changes);
            }
        }
        if self.supervisor.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.handle(Event::Timer);
        }
    }

    fn attend(&mut self, source: Source) {
        match source {
            Source::Signals => self.read_signals(),
            Source::Process(name) => self.reap(name),
            Source::Output(number) => self.read_output(number, TURN),
            Source::Attempt(name) => self.advance_attempt(name),
            Source::Containers => self.look_at_containers(),
            Source::Links => self.read_links(),
            Source::Inbox => self.read_inbox(),
            Source::Buttons => {
                if self.buttons.as_mut().is_some_and(Buttons::pressed) {
                    self.handle(Event::StopAll(Reason::PowerButton));
                }
            }
            Source::Lease(index) => {
                let changes = self.leases[index].readable(monotonic());
                self.tell_lease(index, &changes);
            }
        }
    }

    fn read_signals(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            match i32::try_from(signal.ssi_signo).map(UnixSignal::try_from) {
                Ok(Ok(UnixSignal::SIGCHLD)) if self.options.reap_orphans => self.reap_orphans(),
                Ok(Ok(UnixSignal::SIGTERM)) => self.handle(Event::StopAll(Reason::Terminate)),
                Ok(Ok(UnixSignal::SIGINT)) if board::keys_end() => self.handle(Event::StopAll(Reason::CtrlAltDel)),
                Ok(Ok(UnixSignal::SIGINT)) => self.say("ctrl-alt-del is turned off in the metadata ([console] keys)"),
                Ok(Ok(UnixSignal::SIGPWR)) => self.handle(Event::StopAll(Reason::PowerFailure)),
                _ => {}
            }
        }
    }

    /// Reaps every child that is no service. Looked at before it is reaped: a service's end has to be told as its own. What another
    /// thread started (`nft`) is that thread's to wait for; orphans become children of this one, the first (`__WNOTHREAD`, wait(2)).
    fn reap_orphans(&mut self) {
        while let Some(pid) = ended_child() {
            let service = self.processes.iter().find(|(_, process)| process.pid == pid).map(|(name, _)| *name);
            match service {
                Some(name) => self.reap(name),
                None => {
                    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
                    let _ = rustix::process::waitid(WaitId::Pid(pid), options);
                }
            }
        }
    }

    fn reap(&mut self, name: &'static str) {
        let Some(process) = self.processes.get(name) else { return };
        let ended = match rustix::process::waitid(
            WaitId::PidFd(process.pidfd.as_fd()),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
        ) {
            Ok(None) | Err(rustix::io::Errno::INTR) => return,
            Ok(Some(status)) => match status.exit_status() {
                Some(status) => Ended::Status(status),
                None => Ended::Signal(status.terminating_signal().unwrap_or(0)),
            },
            // Somebody else reaped it; that it is gone is certain, how it went is not.
            Err(_) => Ended::Status(-1),
        };
        self.processes.remove(name);
        self.attempts.remove(name);
        let numbers: Vec<u64> =
            self.outputs.iter().filter(|output| output.name == name).map(|output| output.number).collect();
        for number in numbers {
            self.read_output(number, 16 * TURN);
        }
        self.handle(Event::Exited { name, ended });
    }

    /// Reads what is there, `most` bytes at most: one service that prints without end must not keep the others waiting.
    fn read_output(&mut self, number: u64, most: usize) {
        let Some(index) = self.outputs.iter().position(|output| output.number == number) else { return };
        let name = self.outputs[index].name;
        let mut buffer = vec![0; 16 << 10];
        let mut total = 0;
        while total < most {
            match self.outputs[index].pipe.read(&mut buffer) {
                Ok(0) => {
                    self.outputs.remove(index);
                    return;
                }
                Ok(count) => {
                    total += count;
                    self.write_log(name, &buffer[..count]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        self.outputs.remove(index);
                    }
                    return;
                }
            }
        }
    }

    fn write_log(&mut self, name: &'static str, bytes: &[u8]) {
        let options = &self.options;
        let new = || Log::new(&options.logs, name, options.rotation).of_boot(options.boot.as_deref());
        let log = self.logs.entry(name).or_insert_with(new);
        let written = log.write(bytes);
        // Whoever tells writes whole lines.
        let told = match self.supervisor.service(name) {
            Some(service) if service.tells => log.take_tail(),
            _ => Vec::new(),
        };
        let path = log.path().display().to_string();
        told.iter().for_each(|line| self.say(&format!("{name}: {line}")));
        match written {
            Ok(()) => _ = self.broken_logs.remove(name),
            Err(error) => {
                if self.broken_logs.insert(name) {
                    self.say(&format!("writing {path}: {error}"));
                }
            }
        }
    }

    fn advance_attempt(&mut self, name: &'static str) {
        let Some((attempt, _)) = self.attempts.get_mut(name) else { return };
        let outcome = attempt.advance();
        if !matches!(outcome, Ok(Outcome::Pending)) {
            self.attempts.remove(name);
        }
        match outcome {
            Ok(Outcome::Pending) => {}
            Ok(Outcome::Ready) => self.handle(Event::Ready { name }),
            Err(error) => self.handle(Event::ProbeFailed { name, reason: format!("{error:#}") }),
        }
    }

    fn look_at_containers(&mut self) {
        // POLLPRI stays up until the file is read again.
        for watch in &mut self.watches {
            let _ = watch.seek(SeekFrom::Start(0)).and_then(|_| watch.read(&mut [0; 256]));
        }
        if !self.options.containers.iter().any(|folder| cgroup::populated(folder)) {
            self.watches.clear();
            self.handle(Event::ContainersGone);
        }
    }

    fn say(&mut self, line: &str) {
        (self.options.say)(line);
    }
}

/// Blocks the signals that the loop reads, and opens the descriptor that gives them.
fn open_signals() -> Result<SignalFd> {
    let mask: SigSet =
        [UnixSignal::SIGCHLD, UnixSignal::SIGTERM, UnixSignal::SIGINT, UnixSignal::SIGPWR].into_iter().collect();
    mask.thread_block().context("blocking the signals that the loop reads")?;
    SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).context("opening a signalfd")
}
