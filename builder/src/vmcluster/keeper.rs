//! The keeper: one process per cluster that owns its switch, gateway and machines and is spoken to over a socket.
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use kscratch_qemu::Toolset;

use super::fleet::Fleet;
use super::place::{self, PLAN, SOCKET};
use super::plan::Plan;
use super::protocol::{self, Answer, Request};

/// How long somebody who has connected may take to ask, or to read the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Keeps the machines in `folder` until it is told to end; until its standard input closes, unless told to go on by itself.
///
/// # Errors
/// There is a keeper already, there is no plan, or a port of this host is taken.
pub fn keep(folder: &Path, tools: Toolset) -> Result<()> {
    // A session of its own: Ctrl-C at the terminal that it was started from is not meant for it. Refused only to the leader of a group,
    // which has one already.
    let _ = rustix::process::setsid();
    std::env::set_current_dir(folder).with_context(|| format!("going to {}", folder.display()))?;
    let Some(_lock) = place::keep(Path::new(""))? else {
        bail!("the machines in {} have a keeper already", folder.display());
    };
    let plan = Plan::read(Path::new(PLAN))?.with_context(|| format!("there is no {PLAN} in {}", folder.display()))?;
    let fleet = Fleet::start(plan, tools)?;
    // Made last: who can connect finds a keeper that answers.
    remove_if_any(SOCKET)?;
    let listener = UnixListener::bind(SOCKET).with_context(|| format!("making {SOCKET}"))?;
    thread::Builder::new().name("abandoned".to_owned()).spawn(watch_input).context("starting a thread")?;
    serve(&listener, fleet)
}

/// Answers one after the other: every answer is made in milliseconds.
fn serve(listener: &UnixListener, mut fleet: Fleet) -> Result<()> {
    let mut detached = false;
    loop {
        let (stream, _) = listener.accept().context("waiting for questions")?;
        let request = match stream.set_read_timeout(Some(PATIENCE)).and_then(|()| protocol::read(&stream)) {
            Ok(request) => request,
            Err(error) => {
                reply(&stream, &refused(&anyhow!(error).context("reading the question")));
                continue;
            }
        };
        match request {
            Request::Abandoned if detached => reply(&stream, &Answer::Done),
            Request::End | Request::Abandoned => {
                // Whoever comes from now on finds no keeper, and waits for the lock before starting one.
                remove_if_any(SOCKET)?;
                drop(fleet);
                reply(&stream, &Answer::Done);
                return Ok(());
            }
            Request::Detach => {
                detached = true;
                reply(&stream, &Answer::Done);
            }
            other => reply(&stream, &fleet.answer(&other).unwrap_or_else(|error| refused(&error))),
        }
    }
}

fn refused(error: &anyhow::Error) -> Answer {
    Answer::Refused { because: error.chain().map(ToString::to_string).collect() }
}

fn reply(stream: &UnixStream, answer: &Answer) {
    // One that does not wait for its answer does not want it.
    let _ = stream.set_write_timeout(Some(PATIENCE)).and_then(|()| protocol::write(stream, answer));
}

/// Standard input is a pipe from the one that started the keeper; its end is that one's end, however it came.
fn watch_input() {
    let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
    // A keeper that does not answer any more has ended.
    if let Ok(stream) = UnixStream::connect(SOCKET) {
        let _ = protocol::write(&stream, &Request::Abandoned);
        let _ = protocol::read::<Answer>(&stream);
    }
}

fn remove_if_any(path: &str) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(anyhow!(error).context(format!("removing {path}")))
        }
        _ => Ok(()),
    }
}
