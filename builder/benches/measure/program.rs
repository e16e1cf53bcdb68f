//! Runs programs, bounded in time, and tells how long they took and how much memory they had.
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use kscratch_qemu::child::Child;
use nix::sys::resource::{UsageWho, getrusage};

/// No run of a benchmark takes longer, but for a first build, which may compile Kubernetes.
pub const BOUND: Duration = Duration::from_secs(10 * 60);

/// The word by which a benchmark, started by itself, knows that it is to measure a program: see [`measured`].
const MEASURE: &str = "--measure-program";

/// What a run took.
#[derive(Debug, Clone, Copy)]
pub struct Ran {
    /// From start to end.
    pub wall: Duration,
    /// The most memory that it had at a time, in bytes (`ru_maxrss`).
    pub peak: u64,
}

/// Finds a tool of the system.
///
/// # Errors
/// It is missing: with the Debian package that has it.
pub fn tool(name: &str, package: &str) -> Result<PathBuf> {
    // Tools for filesystems stand in sbin, which is not on every user's PATH.
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from));
    let found = folders.map(|folder| folder.join(name)).find(|file| file.is_file());
    found.ok_or_else(|| anyhow!("this benchmark needs `{name}`: apt-get install {package}"))
}

/// Runs a command to its end.
///
/// # Errors
/// It cannot be started, fails, or takes longer than `bound`; with the last that it said.
pub fn run(mut command: Command, bound: Duration) -> Result<()> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    finish(command, bound).map(drop)
}

/// Copies a file with `dd` onto the disk: what writing so many bytes costs at the least.
///
/// # Errors
/// As for [`run`].
pub fn dd(from: &Path, to: &Path) -> Result<()> {
    drop(std::fs::remove_file(to));
    let operand = |name: &str, path: &Path| {
        let mut operand = OsString::from(name);
        operand.push(path);
        operand
    };
    let mut command = Command::new("dd");
    command.args([operand("if=", from), operand("of=", to)]).args(["bs=1M", "conv=fsync", "status=none"]);
    run(command, BOUND)
}

/// Starts commands at once and waits for the last of them.
///
/// # Errors
/// As for [`run`].
pub fn run_together(commands: Vec<Command>, bound: Duration) -> Result<()> {
    std::thread::scope(|scope| {
        let running: Vec<_> = commands.into_iter().map(|command| scope.spawn(move || run(command, bound))).collect();
        let ended = running.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("a thread died"))));
        ended.collect()
    })
}

/// Runs a program and measures it. The kernel tells the memory of all children of a process together, so this program is started once
/// more, with [`MEASURE`], and has the one child.
///
/// # Errors
/// As for [`run`].
pub fn measured(program: &Path, args: &[OsString], bound: Duration) -> Result<Ran> {
    let mut command = Command::new(env::current_exe().context("finding this program's file")?);
    command.arg(MEASURE).arg(program).args(args).stdin(Stdio::null()).stdout(Stdio::piped());
    let told = finish(command, bound)?;
    let mut numbers = told.split_whitespace().map(str::parse::<u64>);
    let (Some(Ok(wall)), Some(Ok(peak))) = (numbers.next(), numbers.next()) else {
        bail!("the measuring program said `{told}`")
    };
    Ok(Ran { wall: Duration::from_nanos(wall), peak })
}

/// The other side of [`measured`]: does its work, where this process was started for it, and then ends the process.
///
/// # Errors
/// The program cannot be started.
#[allow(clippy::print_stdout)] // Read by the process that started this one.
pub fn measure_if_asked() -> Result<()> {
    let mut args = env::args_os().skip(1);
    if args.next().is_none_or(|word| word != MEASURE) {
        return Ok(());
    }
    let program = args.next().context("no program to measure was named")?;
    let start = Instant::now();
    let status = Command::new(&program).args(args).stdout(Stdio::null()).status();
    let status = status.with_context(|| format!("starting {}", Path::new(&program).display()))?;
    let wall = start.elapsed();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("asking for the memory of the program")?;
    // In kilobytes on Linux (getrusage(2)).
    println!("{} {}", wall.as_nanos(), usage.max_rss() * 1024);
    std::process::exit(status.code().unwrap_or(1));
}

/// Gives the standard output, where it is piped: a few words, or the program would wait for a reader.
fn finish(command: Command, bound: Duration) -> Result<String> {
    let line = format!("{command:?}");
    let (child, _, stdout) = Child::start(command).with_context(|| format!("starting {line}"))?;
    match child.wait(bound) {
        Some(status) if status.success() => {}
        Some(status) => bail!("{line} ended with {status}: {}", child.stderr()),
        None => bail!("{line} had not ended after {} s: {}", bound.as_secs(), child.stderr()),
    }
    let mut told = String::new();
    if let Some(mut stdout) = stdout {
        std::io::Read::read_to_string(&mut stdout, &mut told).with_context(|| format!("reading what {line} said"))?;
    }
    Ok(told)
}
