//! [`Recording`] turns the calls of [`Sys`] into lines of text that a test compares, and fails where the test says so.
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::sntp::keeper::Adjust;

use super::{Everyone, Mount, Power, Ran, Sys};

/// A kernel that only writes down what it was asked.
#[derive(Debug, Default)]
pub struct Recording {
    calls: Mutex<Vec<String>>,
    failures: Vec<(String, io::ErrorKind)>,
    answers: Vec<(String, Ran)>,
}

impl Recording {
    /// One that lets everything succeed; programs exit with 0 and say nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes every call fail whose line starts with `prefix`, e.g. `mount /dev/vda4`.
    #[must_use]
    pub fn failing(mut self, prefix: &str, kind: io::ErrorKind) -> Self {
        self.failures.push((prefix.to_owned(), kind));
        self
    }

    /// Makes a program whose line starts with `prefix` (e.g. `run /usr/sbin/e2fsck`) end like this.
    #[must_use]
    pub fn answering(mut self, prefix: &str, status: i32, text: &str) -> Self {
        self.answers.push((prefix.to_owned(), Ran { status: Some(status), text: text.to_owned() }));
        self
    }

    /// The lines so far.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn record(&self, line: String) -> io::Result<()> {
        let failure = self.failures.iter().find(|(prefix, _)| line.starts_with(prefix.as_str())).map(|(_, kind)| *kind);
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        failure.map_or(Ok(()), |kind| Err(kind.into()))
    }
}

impl Sys for Recording {
    fn mount(&self, mount: &Mount<'_>) -> io::Result<()> {
        let flags: Vec<String> = mount.flags.iter().map(|flag| format!("{flag:?}").to_lowercase()).collect();
        let mut line = format!("mount {} {} {}", mount.source, mount.target.display(), mount.kind);
        for options in [flags.join(","), mount.data.to_owned()] {
            if !options.is_empty() {
                line.push(' ');
                line.push_str(&options);
            }
        }
        self.record(line)
    }

    fn share(&self, target: &Path) -> io::Result<()> {
        self.record(format!("share {}", target.display()))
    }

    fn move_mount(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.record(format!("move {} {}", from.display(), to.display()))
    }

    fn remount_read_only(&self, target: &Path) -> io::Result<()> {
        self.record(format!("remount-ro {}", target.display()))
    }

    fn unmount(&self, target: &Path, lazily: bool) -> io::Result<()> {
        self.record(format!("unmount {}{}", target.display(), if lazily { " lazily" } else { "" }))
    }

    fn load_module(&self, file: &Path, parameters: &str) -> io::Result<()> {
        self.record(format!("load {} {parameters}", file.display()).trim_end().to_owned())
    }

    fn enter_root(&self, new_root: &Path) -> io::Result<()> {
        self.record(format!("enter-root {}", new_root.display()))
    }

    fn set_host_name(&self, name: &str) -> io::Result<()> {
        self.record(format!("hostname {name}"))
    }

    fn set_clock(&self, seconds: i64) -> io::Result<()> {
        self.record(format!("clock {seconds}"))
    }

    fn adjust_clock(&self, adjust: &Adjust) -> io::Result<()> {
        let how = if adjust.at_once { "set" } else { "lead" };
        self.record(format!("clock {how} by {} ms", adjust.offset / 1_000_000))
    }

    fn set_watchdog(&self, _device: &File, seconds: u32) -> io::Result<u32> {
        self.record(format!("watchdog {seconds} s")).map(|()| seconds)
    }

    fn resize_partition(&self, disk: &Path, number: u32, start: u64, length: u64) -> io::Result<()> {
        self.record(format!("resize-partition {} {number} {start} {length}", disk.display()))
    }

    fn add_partition(&self, disk: &Path, number: u32, start: u64, length: u64) -> io::Result<()> {
        self.record(format!("add-partition {} {number} {start} {length}", disk.display()))
    }

    fn resize_ext4(&self, mountpoint: &Path, blocks: u64) -> io::Result<()> {
        self.record(format!("resize-ext4 {} {blocks}", mountpoint.display()))
    }

    fn loop_device(&self, file: &File) -> io::Result<(PathBuf, File)> {
        self.record("loop device".to_owned())?;
        Ok(("/dev/loop0".into(), file.try_clone()?))
    }

    fn run(&self, program: &Path, args: &[&str], stdin: &[u8]) -> io::Result<Ran> {
        let mut line = format!("run {} {}", program.display(), args.join(" ")).trim_end().to_owned();
        if !stdin.is_empty() {
            line.push_str(&format!(" <<{}", String::from_utf8_lossy(stdin)));
        }
        let answer =
            self.answers.iter().find(|(prefix, _)| line.starts_with(prefix.as_str())).map(|(_, ran)| ran.clone());
        self.record(line)?;
        Ok(answer.unwrap_or(Ran { status: Some(0), text: String::new() }))
    }

    fn set_timer_slack(&self, slack: Duration) -> io::Result<()> {
        self.record(format!("timers late by {slack:?}"))
    }

    fn catch_ctrl_alt_del(&self) -> io::Result<()> {
        self.record("catch ctrl-alt-del".to_owned())
    }

    fn signal_everyone(&self, signal: Everyone) -> io::Result<()> {
        self.record(format!("signal everyone {}", format!("{signal:?}").to_lowercase()))
    }

    fn sync(&self) {
        // Infallible by its type: a failure set for it has no one to tell.
        let _ = self.record("sync".to_owned());
    }

    fn power(&self, how: Power) -> io::Result<()> {
        self.record(format!("power {}", format!("{how:?}").to_lowercase()))
    }
}
