//! Speaks to a cluster's keeper, and starts one.
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use clap::ValueEnum;

use super::place::{self, LOG, Place, SOCKET};
use super::protocol::{self, Answer, Request, Status};
use crate::console::Hint;
use crate::run::tools::Qemu;

/// How long an answer may take: the machine that it is about is started or killed meanwhile.
const ANSWER: Duration = Duration::from_secs(60);
/// How long a keeper may take to answer at first: it looks whether KVM works.
const START: Duration = Duration::from_secs(60);
/// How long a keeper may take to end: it kills what it has.
const END: Duration = Duration::from_secs(20);

/// Asks the keeper of a cluster and gives its answer, unless it refuses.
///
/// # Errors
/// There is no keeper, it does not answer, or it refuses.
pub fn ask(place: &Place, request: &Request) -> Result<Answer> {
    let stream = connect(place).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => down(place),
        _ => anyhow!(error).context(format!("speaking to the keeper of {}", place.name)),
    })?;
    let action = || format!("speaking to the keeper of {}", place.name);
    stream.set_read_timeout(Some(ANSWER)).and_then(|()| protocol::write(&stream, request)).with_context(action)?;
    match protocol::read(&stream).with_context(action)? {
        Answer::Refused { because } => {
            let mut causes = because.into_iter().rev();
            let first = anyhow!(causes.next().unwrap_or_else(|| "the keeper refuses".to_owned()));
            Err(causes.fold(first, anyhow::Error::context))
        }
        answer => Ok(answer),
    }
}

/// How everything is.
///
/// # Errors
/// As for [`ask`].
pub fn status(place: &Place) -> Result<Status> {
    match ask(place, &Request::Status)? {
        Answer::Status(status) => Ok(status),
        _ => bail!("the keeper of {} answers something else than was asked", place.name),
    }
}

/// Whether the cluster has a keeper that answers.
pub fn answers(place: &Place) -> bool {
    connect(place).is_ok()
}

/// The error where there is no keeper.
pub fn down(place: &Place) -> anyhow::Error {
    let hint = format!("kscratch-image cluster up {}", place.argument());
    anyhow!("the machines of {} are not up", place.name).context(Hint(hint))
}

/// By the folder's descriptor: the path of a unix socket has at most 107 bytes (unix(7)), the folder's may have more.
fn connect(place: &Place) -> io::Result<UnixStream> {
    let folder = File::options()
        .read(true)
        .custom_flags(rustix::fs::OFlags::DIRECTORY.bits().cast_signed())
        .open(place.path())?;
    UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()))
}

/// A keeper that was just started. Dropped, it ends with its machines, unless it was told to go on by itself.
#[derive(Debug)]
pub struct Started(Child);

/// Starts a keeper, and returns once it answers.
///
/// # Errors
/// It ends with an error, or does not answer in time.
pub fn start(place: &Place, cache: Option<&Path>, qemu: Option<Qemu>) -> Result<Started> {
    ended(place)?;
    let log = place.file(LOG);
    let mut open = File::options();
    let output = open.create(true).truncate(true).write(true).mode(0o600).open(&log);
    let output = output.with_context(|| format!("making {}", log.display()))?;
    let program = std::env::current_exe().context("finding this program's own file")?;
    let folder = place.path().canonicalize().with_context(|| format!("looking for {}", place.path().display()))?;
    let mut command = Command::new(program);
    command.args(["--color", "never", "cluster", "keep"]).arg(&folder);
    if let Some(cache) = cache {
        command.arg("--cache").arg(std::path::absolute(cache)?);
    }
    if let Some(qemu) = qemu.and_then(|qemu| qemu.to_possible_value()) {
        command.arg("--qemu").arg(qemu.get_name());
    }
    let both = output.try_clone().context("starting the keeper")?;
    command.stdin(Stdio::piped()).stdout(both).stderr(output);
    let mut started = Started(command.spawn().context("starting the keeper")?);
    let deadline = Instant::now() + START;
    // The socket appears when there is something to connect to; there is nothing to be told by before.
    while !answers(place) {
        let ended = started.0.try_wait().context("waiting for the keeper")?;
        if ended.is_some() || Instant::now() > deadline {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            let how = ended.map_or_else(|| format!("it does not answer within {START:?}"), |status| status.to_string());
            return Err(told(said.trim(), &how).context(format!("starting the keeper of {}", place.name)));
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(started)
}

/// What the keeper said at its end, as the error that it was.
fn told(said: &str, how: &str) -> anyhow::Error {
    let mut hint = None;
    let mut causes = Vec::new();
    for line in said.lines() {
        let line = line.trim_start();
        match (line.strip_prefix("hint: "), line.strip_prefix("error: ").or(line.strip_prefix("because: "))) {
            (Some(words), _) => hint = Some(Hint(words.to_owned())),
            (None, Some(words)) => causes.push(words.to_owned()),
            (None, None) => causes.push(line.to_owned()),
        }
    }
    let mut causes = causes.into_iter().rev();
    let error = anyhow!(causes.next().unwrap_or_else(|| how.to_owned()));
    let error = causes.fold(error, anyhow::Error::context);
    match hint {
        Some(hint) => error.context(hint),
        None => error,
    }
}

impl Started {
    /// Lets it go on when this program ends.
    ///
    /// # Errors
    /// As for [`ask`].
    pub fn detach(self, place: &Place) -> Result<()> {
        ask(place, &Request::Detach).map(drop)
    }
}

/// Ends the keeper with all machines, and returns when nothing of them is left.
///
/// # Errors
/// As for [`ask`], or it does not end.
pub fn end(place: &Place) -> Result<()> {
    ask(place, &Request::End)?;
    ended(place)
}

/// Waits until there is no keeper any more: the lock goes with the process.
fn ended(place: &Place) -> Result<()> {
    let deadline = Instant::now() + END;
    while place::keep(place.path())?.is_none() {
        if Instant::now() > deadline {
            bail!("the keeper of {} does not end", place.name);
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
