//! Turns a service's definition into its process, through a second start of our own program that prepares it.
//!
//! What has to happen between fork and exec (cgroup, oom score, limits, session, signal mask, rights) is done by `kscratch-init exec-service …`,
//! which then executes the service in its place: the pid stays. A `pre_exec` closure could do the same, but it is `unsafe`, may call
//! async-signal-safe functions only and has no way to say what went wrong; the second start is ordinary code whose words land in
//! the service's log.
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal};

use super::cgroup;
use super::confine::confine;
use crate::plan::{Rights, Service};

/// The first argument that makes our program prepare and execute a service.
pub const EXEC_SERVICE: &str = "exec-service";
/// What stands in the place of [`Rights`] for a service that keeps all of root's.
const ROOT: &str = "root";
/// Exit status of a service that could not be executed, as in shells.
const NOT_EXECUTED: u8 = 127;

/// How processes are made here.
#[derive(Debug, Clone)]
pub struct Spawner {
    /// Our own program, which is given [`EXEC_SERVICE`].
    pub trampoline: PathBuf,
    /// The cgroup under which every service gets its own; none where there are no cgroups.
    pub cgroups: Option<PathBuf>,
}

/// A service's main process.
#[derive(Debug)]
pub struct Process {
    /// Its pid, ours to reap.
    pub pid: Pid,
    /// Readable when it ended.
    pub pidfd: OwnedFd,
}

/// What a start gave.
#[derive(Debug)]
pub struct Spawned {
    /// The process.
    pub process: Process,
    /// Its output and error output; non-blocking.
    pub output: PipeReader,
}

impl Spawner {
    /// Starts a service. It reads what it is given, if anything, writes to the pipe, and knows no environment but its own.
    ///
    /// # Errors
    /// Its cgroup cannot be made, what it reads cannot be opened, or the kernel has no process or descriptor left.
    pub fn spawn(&self, service: &Service) -> Result<Spawned> {
        let procs = match &self.cgroups {
            Some(folder) => cgroup::create(folder, service)?,
            None => PathBuf::new(),
        };
        let stdin: Stdio = match service.reads {
            Some(input) => File::open(input.path()).with_context(|| format!("opening {} for it", input.path()))?.into(),
            None => Stdio::null(),
        };
        let (output, input) = io::pipe().context("making a pipe for its output")?;
        let also_input = input.try_clone().context("making a pipe for its output")?;
        rustix::io::ioctl_fionbio(&output, true).context("making the pipe of its output non-blocking")?;
        let child = Command::new(&self.trampoline)
            .arg0("kscratch-init")
            .arg(EXEC_SERVICE)
            .arg(procs)
            .arg(service.oom_score_adj.to_string())
            .arg(service.open_files.to_string())
            .arg(service.rights.map_or_else(|| ROOT.to_owned(), |rights| rights.to_string()))
            .arg(&service.program)
            .args(&service.args)
            .env_clear()
            .envs(service.env.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .stdin(stdin)
            .stdout(input)
            .stderr(also_input)
            .spawn()
            .with_context(|| format!("executing {}", self.trampoline.display()))?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("reading its pid")?;
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                // Nobody could watch it; it must not run beside the next attempt.
                let _ = rustix::process::kill_process(pid, Signal::KILL);
                return Err(error).context("opening its pidfd");
            }
        };
        Ok(Spawned { process: Process { pid, pidfd }, output })
    }
}

/// What `kscratch-init exec-service CGROUP.PROCS OOM-SCORE OPEN-FILES RIGHTS PROGRAM ARGS…` does: prepares this process and becomes PROGRAM. Returns
/// only where that failed. `args` are those after `exec-service`.
pub fn exec_service(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let error = match prepare(args.into_iter()) {
        Ok(mut command) => {
            let error = command.exec();
            anyhow::Error::new(error).context(format!("executing {}", command.get_program().display()))
        }
        Err(error) => error,
    };
    say(&error);
    ExitCode::from(NOT_EXECUTED)
}

fn prepare(mut args: impl Iterator<Item = OsString>) -> Result<Command> {
    let mut next = |what: &str| args.next().with_context(|| format!("{EXEC_SERVICE} without {what}"));
    let procs = PathBuf::from(next("the file of a cgroup")?);
    let oom_score = next("an oom score")?;
    let open_files: u64 = next("a number of open files")?
        .to_str()
        .and_then(|text| text.parse().ok())
        .context("reading the number of open files")?;
    let rights = rights(&next("its rights")?)?;
    let program = next("a program")?;
    if program.is_empty() {
        bail!("{EXEC_SERVICE} without a program");
    }
    // None of these keeps a service from running, so none keeps it from being started; its log says what it lacks.
    let attempts = [
        join_cgroup(&procs),
        std::fs::write("/proc/self/oom_score_adj", oom_score.as_encoded_bytes()).context("setting its oom score"),
        limit_open_files(open_files),
        rustix::process::setsid().map(drop).context("making its session"),
        // Blocked signals are inherited by exec, and init blocks those that it reads from its signalfd.
        nix::sys::signal::SigSet::all().thread_unblock().context("unblocking its signals"),
    ];
    for error in attempts.into_iter().filter_map(Result::err) {
        say(&error);
    }
    // This one does: a service that has more rights than it should must not run.
    if let Some(rights) = rights {
        confine(rights).context("giving up rights; the service is not started with more than it should have")?;
    }
    let mut command = Command::new(program);
    command.args(args);
    Ok(command)
}

fn rights(word: &OsStr) -> Result<Option<Rights>> {
    if word == ROOT {
        return Ok(None);
    }
    let text = word.to_str().context("reading its rights: they are no text")?;
    text.parse().map(Some).context("reading its rights")
}

fn join_cgroup(procs: &Path) -> Result<()> {
    if procs.as_os_str().is_empty() {
        return Ok(());
    }
    std::fs::write(procs, "0").with_context(|| format!("joining the cgroup of {}", procs.display()))
}

fn limit_open_files(count: u64) -> Result<()> {
    let limit = Rlimit { current: Some(count), maximum: Some(count) };
    rustix::process::setrlimit(Resource::Nofile, limit)
        .with_context(|| format!("setting its limit of open files to {count}"))
}

fn say(error: &anyhow::Error) {
    use std::io::Write as _;
    // Standard error is the service's log; where even that is broken there is nobody to tell.
    let _ = writeln!(io::stderr(), "kscratch-init: {error:#}");
}
