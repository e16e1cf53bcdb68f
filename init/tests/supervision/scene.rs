//! A [`Scene`] around the process under test: it writes down the services, starts the loop, reads its console and leaves nothing behind.
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::PATIENCE;

pub struct Scene {
    pub folder: tempfile::TempDir,
    /// cgroup folder of this case, where it has one.
    pub cgroup: Option<PathBuf>,
    pub child: Option<Child>,
    lines: Receiver<String>,
    seen: Vec<String>,
}

/// A service as JSON. `script` is for `sh -c`.
pub fn shell(name: &str, script: &str) -> serde_json::Value {
    serde_json::json!({"name": name, "args": ["-c", script]})
}

pub fn with(mut service: serde_json::Value, more: serde_json::Value) -> serde_json::Value {
    for (key, value) in more.as_object().unwrap() {
        service[key] = value.clone();
    }
    service
}

pub fn own_program() -> String {
    std::env::current_exe().unwrap().to_str().unwrap().to_owned()
}

impl Scene {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), cgroup: None, child: None, lines: channel().1, seen: Vec::new() }
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    pub fn start(&mut self, services: Vec<serde_json::Value>) {
        self.start_by(Command::new(own_program()), services);
    }

    pub fn start_by(&mut self, command: Command, services: Vec<serde_json::Value>) {
        self.start_with_late(command, services, Vec::new());
    }

    /// `late` are services that come while the loop runs.
    pub fn start_with_late(
        &mut self,
        mut command: Command,
        services: Vec<serde_json::Value>,
        late: Vec<serde_json::Value>,
    ) {
        let part = |name: &str| self.cgroup.as_ref().map(|folder| folder.join(name));
        let scene = serde_json::json!({"services": services, "late": late, "cgroups": part("services"), "containers": part("containers")});
        fs::write(self.folder.path().join("scene.json"), scene.to_string()).unwrap();
        let mut child = command.arg("loop").arg(self.folder.path()).stdout(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        self.child = Some(child);
        self.lines = lines;
    }

    /// Waits for a line of the console that begins so, and gives it.
    #[track_caller]
    pub fn line(&mut self, start: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.starts_with(start) {
                        return line;
                    }
                }
                Err(error) => {
                    let why = if error == RecvTimeoutError::Timeout { "did not come in time" } else { "never came" };
                    panic!("the line {start:?} {why}; there were:\n{}", self.seen.join("\n"));
                }
            }
        }
    }

    #[track_caller]
    pub fn started(&mut self, name: &str) -> i32 {
        let line = self.line(&format!("service {name}: started pid "));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        kill(self.child.as_ref().unwrap().id() as i32, signal);
    }

    /// Waits for the loop's end and gives its exit status and the lines that were left.
    #[track_caller]
    pub fn end(&mut self) -> (i32, Vec<String>) {
        let end = Instant::now() + PATIENCE;
        let mut left = Vec::new();
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => left.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("the loop does not end:\n{}\n{}", self.seen.join("\n"), left.join("\n"))
                }
            }
        }
        (self.child.take().unwrap().wait().unwrap().code().unwrap_or(-1), left)
    }

    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join("logs").join(name)).unwrap_or_default()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // In order, so that no service outlives its case.
            kill(child.id() as i32, rustix::process::Signal::TERM);
            wait_until_or(PATIENCE, || !matches!(child.try_wait(), Ok(None)));
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(folder) = &self.cgroup {
            let _ = fs::write(folder.join("cgroup.kill"), "1");
            for part in [
                "services/a",
                "services/b",
                "services/runtime",
                "services",
                "containers/pod/box",
                "containers/pod",
                "containers/odd/threads",
                "containers/odd",
                "containers",
                "",
            ] {
                let part = folder.join(part);
                wait_until_or(PATIENCE, || !part.exists() || fs::remove_dir(&part).is_ok());
            }
        }
    }
}

pub fn kill(pid: i32, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
}

pub fn alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn wait_until_or(within: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + within;
    while !done() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

#[track_caller]
pub fn wait_until(what: &str, done: impl FnMut() -> bool) {
    assert!(wait_until_or(PATIENCE, done), "{what} did not come in time");
}
