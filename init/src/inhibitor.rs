//! Stands in for systemd-logind before the kubelet: told to end, it has the kubelet end its pods, and ends when that is done.
//!
//! The kubelet ends pods by priority, each with its own grace period, and says so of pods and Node, where logind tells it that the machine is about
//! to stop; until then it holds a lock of logind's ("inhibitor lock", mode `delay`), which is the writing end of a pipe. So this is a socket that
//! speaks as much D-Bus as that takes, and a service that is stopped before all others: SIGTERM begins the kubelet's time, and the process ends
//! when no lock is left or the time is over. A kubelet that is not there has no lock, and nothing is waited for.
mod client;
mod logind;
pub mod wire;

use std::io::{self, PipeReader};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec};

use client::Client;

/// The first argument that makes our program this service.
pub const VERB: &str = "inhibitor";
/// How much longer than it may take the kubelet is waited for: its own bound is the same, and begins a little later.
const MARGIN: Duration = Duration::from_secs(2);
/// One kubelet has one connection, and one more while it starts anew.
const MOST_CLIENTS: usize = 16;

/// Runs `kscratch-init inhibitor SOCKET SECONDS LINGER`: SECONDS are the kubelet's, LINGER is how many more it has for its last words to the API server.
pub fn main(args: &[String]) -> ExitCode {
    let done = match args {
        [socket, seconds, linger] => {
            seconds.parse().context("reading the seconds that the kubelet has").and_then(|seconds| {
                let linger = linger.parse().context("reading the seconds after that")?;
                run(Path::new(socket), Duration::from_secs(seconds), Duration::from_secs(linger))
            })
        }
        _ => Err(anyhow!("{VERB} takes SOCKET SECONDS LINGER")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Lines go to the service's log, and from there to the console.
fn say(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(io::stderr(), "{line}");
}

struct Inhibitor {
    listener: UnixListener,
    signals: SignalFd,
    clients: Vec<Client>,
    /// Ends of pipes whose other ends are locks.
    locks: Vec<PipeReader>,
    grace: Duration,
    /// Since when the machine is about to stop.
    stopping: Option<Instant>,
    /// Whether anybody held that up then.
    held: bool,
}

fn run(socket: &Path, grace: Duration, linger: Duration) -> Result<()> {
    let mask: SigSet = [Signal::SIGTERM].into_iter().collect();
    mask.thread_block().context("blocking SIGTERM")?;
    let signals =
        SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).context("opening a signalfd")?;
    let what = || format!("listening on {}", socket.display());
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).with_context(what),
        _ => {}
    }
    let listener = UnixListener::bind(socket).with_context(what)?;
    listener.set_nonblocking(true).with_context(what)?;
    let mut inhibitor =
        Inhibitor { listener, signals, clients: Vec::new(), locks: Vec::new(), grace, stopping: None, held: false };
    if let Some(took) = inhibitor.serve()? {
        std::thread::sleep(linger.min(grace.saturating_sub(took)));
    }
    Ok(())
}

impl Inhibitor {
    /// Serves until the machine is about to stop and nobody holds that up any more. Gives how long somebody did.
    fn serve(&mut self) -> Result<Option<Duration>> {
        loop {
            self.wait()?;
            while matches!(self.signals.read_signal(), Ok(Some(_))) {
                if self.stopping.is_none() {
                    self.begin();
                }
            }
            self.attend();
            let Some(begun) = self.stopping else { continue };
            let took = begun.elapsed();
            if self.locks.is_empty() {
                if self.held {
                    say(&format!("the kubelet is done with its pods ({:.1} s)", took.as_secs_f64()));
                }
                return Ok(self.held.then_some(took));
            }
            if took >= self.grace + MARGIN {
                say(&format!(
                    "the kubelet is not done with its pods after {:.0} s: they are ended without it",
                    took.as_secs_f64()
                ));
                return Ok(None);
            }
        }
    }

    fn wait(&self) -> Result<()> {
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN), PollFd::new(&self.listener, PollFlags::IN)];
        fds.extend(self.clients.iter().map(|client| PollFd::from_borrowed_fd(client.as_fd(), PollFlags::IN)));
        // Nothing is ever written to these: they hang up.
        fds.extend(self.locks.iter().map(|lock| PollFd::new(lock, PollFlags::IN)));
        let left = self.stopping.map(|begun| (self.grace + MARGIN).saturating_sub(begun.elapsed()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error).context("waiting for clients"),
        }
    }

    /// The machine is about to stop: whoever listens is told, those that still begin to listen when they do.
    fn begin(&mut self) {
        self.stopping = Some(Instant::now());
        self.locks.retain(is_held);
        self.held = !self.locks.is_empty();
        if self.held {
            say(&format!("the kubelet ends its pods, in {} s at most", self.grace.as_secs()));
        }
        self.clients.retain_mut(|client| client.tell().is_ok());
    }

    fn attend(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            match Client::new(stream) {
                Ok(client) if self.clients.len() < MOST_CLIENTS => self.clients.push(client),
                Ok(_) => say("there are too many clients: one more is turned away"),
                Err(error) => say(&format!("a client is turned away: {error:#}")),
            }
        }
        let (grace, stopping, locks) = (self.grace, self.stopping.is_some(), &mut self.locks);
        // One that has gone, or breaks the protocol, is let go; its locks are its own to keep.
        self.clients.retain_mut(|client| client.attend(grace, stopping, locks).is_ok());
        self.locks.retain(is_held);
    }
}

/// Whether somebody has the other end of the pipe.
fn is_held(lock: &PipeReader) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::new(lock, PollFlags::IN)];
    !matches!(rustix::event::poll(&mut fds, Some(&now)), Ok(1..))
}
