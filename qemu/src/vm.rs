//! A [`Vm`] is a machine that was started: it is watched, steered and, at the latest when dropped, ended.
use std::fs;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::accelerator;
use crate::arguments::{self, RunFiles};
use crate::child::Child;
use crate::console::{Console, Line, Pattern, Waited};
use crate::error::Error;
use crate::machine::{Accelerator, Firmware, Forward, Machine, Serial};
use crate::qmp::{Event, Qmp};
use crate::toolset::Toolset;

/// How long QEMU may take to serve QMP after its start, and to answer a command.
const QMP_BOUND: Duration = Duration::from_secs(20);
/// How long QEMU may take to end after it was told to.
const QUIT_BOUND: Duration = Duration::from_secs(5);

/// A running or ended machine.
#[derive(Debug)]
pub struct Vm {
    name: String,
    serial: Serial,
    accelerated: bool,
    forwards: Vec<Forward>,
    started: Instant,
    console: Console,
    stdin: Option<ChildStdin>,
    qmp: Qmp,
    child: Child,
    // Holds the QMP socket and the firmware's variables; declared last, so that it goes after the process that uses it.
    _folder: tempfile::TempDir,
}

impl Vm {
    /// Starts a machine and returns once QEMU answers; the guest boots meanwhile.
    ///
    /// # Errors
    /// Firmware is missing, QEMU cannot be started, or it refuses the machine ([`Error::Ended`] with its words).
    pub fn start(tools: &Toolset, machine: &Machine) -> Result<Vm, Error> {
        let accelerated = match machine.accelerator {
            Accelerator::Auto => accelerator::kvm_works(tools, machine),
            Accelerator::Kvm => true,
            Accelerator::Emulation => false,
        };
        let folder = tempfile::Builder::new().prefix("kscratch-vm-").tempdir().map_err(|source| Error::File {
            doing: "making a folder for the machine in",
            path: std::env::temp_dir(),
            source,
        })?;
        let files = run_files(tools, machine, folder.path())?;
        let command = command(tools, machine, &files, accelerated);
        let started = Instant::now();
        let program = tools.qemu.path.display().to_string();
        let (child, stdin, stdout) = Child::start(command).map_err(|source| Error::Spawn { program, source })?;
        let console = Console::new();
        if let Some(stdout) = stdout {
            let console = console.clone();
            // Ends by itself when QEMU's end of the pipe closes.
            thread::Builder::new()
                .name("console".to_owned())
                .spawn(move || console.read_from(stdout, started))
                .map_err(|source| Error::Spawn { program: "the console's reader".to_owned(), source })?;
        }
        let (qmp, forwards) = talk(machine, &files.qmp, &child, started)?;
        let (name, serial) = (machine.name.clone(), machine.serial);
        Ok(Vm { name, serial, accelerated, forwards, started, console, stdin, qmp, child, _folder: folder })
    }

    /// Waits for a line of the console, of before or of later.
    ///
    /// # Errors
    /// It does not come within `bound`, the machine ends, or its kernel panics; each with the console's tail.
    pub fn wait_for_line(&self, pattern: impl Into<Pattern>, bound: Duration) -> Result<Line, Error> {
        self.wait_from(0, &pattern.into(), bound)
    }

    /// Waits for a line below `after`: for what is said again, after a restart for one.
    ///
    /// # Errors
    /// As for [`Vm::wait_for_line`].
    pub fn wait_for_line_after(
        &self,
        after: &Line,
        pattern: impl Into<Pattern>,
        bound: Duration,
    ) -> Result<Line, Error> {
        self.wait_from(after.number + 1, &pattern.into(), bound)
    }

    fn wait_from(&self, from: usize, pattern: &Pattern, bound: Duration) -> Result<Line, Error> {
        if self.serial == Serial::Terminal {
            return Err(Error::NotWatched { machine: self.name.clone(), what: "waiting for a line" });
        }
        match self.console.wait(pattern, from, bound) {
            Waited::Found(line) => Ok(line),
            Waited::Panicked(line) => Err(Error::Panicked {
                machine: self.name.clone(),
                what: pattern.to_string(),
                line: line.text,
                tail: self.console.tail(),
            }),
            Waited::Closed => Err(self.ended(&pattern.to_string())),
            Waited::Timeout => Err(self.timeout(&pattern.to_string(), bound)),
        }
    }

    /// Every line of the console so far.
    pub fn lines(&self) -> Vec<Line> {
        self.console.lines()
    }

    /// Types on the serial line.
    ///
    /// # Errors
    /// The machine has ended, or its serial line is on the terminal.
    pub fn type_line(&mut self, text: &str) -> Result<(), Error> {
        let Some(stdin) = &mut self.stdin else {
            return Err(Error::NotWatched { machine: self.name.clone(), what: "typing" });
        };
        if stdin.write_all(format!("{text}\n").as_bytes()).and_then(|()| stdin.flush()).is_err() {
            return Err(self.ended("typing on the serial line"));
        }
        Ok(())
    }

    /// Presses keys of the keyboard at once, by QEMU's names (`["ctrl", "alt", "delete"]`).
    ///
    /// # Errors
    /// QEMU knows no such key, or the machine has ended.
    pub fn press(&mut self, keys: &[&str]) -> Result<(), Error> {
        let keys: Vec<Value> = keys.iter().map(|key| json!({ "type": "qcode", "data": key })).collect();
        self.execute("send-key", json!({ "keys": keys })).map(drop)
    }

    /// Presses the ACPI power button.
    ///
    /// # Errors
    /// The machine has ended.
    pub fn power_button(&mut self) -> Result<(), Error> {
        self.execute("system_powerdown", json!({})).map(drop)
    }

    /// Presses the reset button.
    ///
    /// # Errors
    /// The machine has ended.
    pub fn reset(&mut self) -> Result<(), Error> {
        self.execute("system_reset", json!({})).map(drop)
    }

    /// Stops the processors.
    ///
    /// # Errors
    /// The machine has ended.
    pub fn pause(&mut self) -> Result<(), Error> {
        self.execute("stop", json!({})).map(drop)
    }

    /// Lets the processors go on.
    ///
    /// # Errors
    /// The machine has ended.
    pub fn resume(&mut self) -> Result<(), Error> {
        self.execute("cont", json!({})).map(drop)
    }

    /// Cuts the power: what the guest did not flush is lost.
    pub fn cut_power(&mut self) -> Option<ExitStatus> {
        self.child.kill()
    }

    /// Has QEMU close its files and end, without telling the guest; kills it if that takes longer than a few seconds.
    pub fn quit(&mut self) -> Option<ExitStatus> {
        // Refused or unanswered: it is killed below.
        let _ = self.qmp.execute("quit", json!({}), QUIT_BOUND);
        match self.child.wait(QUIT_BOUND) {
            Some(status) => Some(status),
            None => self.child.kill(),
        }
    }

    /// Executes any QMP command.
    ///
    /// # Errors
    /// [`Error::Refused`] with QEMU's words, [`Error::Ended`] where there is no QEMU any more.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, Error> {
        match self.qmp.execute(command, arguments, QMP_BOUND) {
            Err(Error::Qmp { .. }) if self.child.wait(QUIT_BOUND).is_some() => {
                Err(self.ended(&format!("an answer to `{command}`")))
            }
            answer => answer,
        }
    }

    /// Waits for a QMP event, of before or of later, e.g. `RESET`.
    ///
    /// # Errors
    /// It does not come within `bound`.
    pub fn wait_for_event(&self, name: &str, bound: Duration) -> Result<Event, Error> {
        self.qmp.wait_for_event(name, bound).ok_or_else(|| {
            let what = format!("the event {name}");
            if self.child.status().is_some() { self.ended(&what) } else { self.timeout(&what, bound) }
        })
    }

    /// Every QMP event so far.
    pub fn events(&self) -> Vec<Event> {
        self.qmp.events()
    }

    /// Waits for the end of QEMU: the guest switched the machine off, or reset it where resets end it.
    ///
    /// # Errors
    /// It still runs after `bound`.
    pub fn wait_for_exit(&self, bound: Duration) -> Result<ExitStatus, Error> {
        let status = self.child.wait(bound).ok_or_else(|| self.timeout("the end", bound))?;
        // QEMU's last lines are in the pipe when it ends; the reader closes the console after the last of them.
        if self.serial == Serial::Watched {
            self.console.wait_for_end(QUIT_BOUND);
        }
        Ok(status)
    }

    /// QEMU's status, if it has ended.
    pub fn status(&self) -> Option<ExitStatus> {
        self.child.status()
    }

    /// What QEMU itself complained about.
    pub fn stderr(&self) -> String {
        self.child.stderr()
    }

    /// The port of 127.0.0.1 that leads to this port of the guest.
    pub fn forwarded(&self, guest: u16) -> Option<u16> {
        self.forwards.iter().find(|forward| forward.guest == guest).map(|forward| forward.host)
    }

    /// Every forward with the host ports that are really taken.
    pub fn forwards(&self) -> &[Forward] {
        &self.forwards
    }

    /// Time since QEMU's start.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether KVM executes the guest.
    pub fn accelerated(&self) -> bool {
        self.accelerated
    }

    /// QEMU's process number.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    fn ended(&self, what: &str) -> Error {
        let status = self.child.wait(QUIT_BOUND);
        ended(&self.name, what, status, &self.child, self.console.tail())
    }

    fn timeout(&self, what: &str, bound: Duration) -> Error {
        let tail = if self.serial == Serial::Watched { self.console.tail() } else { String::new() };
        Error::Timeout { machine: self.name.clone(), what: what.to_owned(), bound, tail }
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // A killed QEMU would leave the terminal in raw mode; a watched one has nothing to tidy up, and `child` kills it.
        if self.serial == Serial::Terminal && self.child.status().is_none() {
            self.quit();
        }
    }
}

fn ended(name: &str, what: &str, status: Option<ExitStatus>, child: &Child, tail: String) -> Error {
    let stderr = child.stderr();
    Error::Ended {
        machine: name.to_owned(),
        what: what.to_owned(),
        how: status.map_or_else(|| "its console closed".to_owned(), |status| status.to_string()),
        stderr: if stderr.is_empty() { stderr } else { format!("; QEMU said: {stderr}") },
        tail,
    }
}

fn run_files(tools: &Toolset, machine: &Machine, folder: &Path) -> Result<RunFiles, Error> {
    let uefi = match machine.firmware {
        Firmware::Direct { .. } => None,
        Firmware::Uefi => {
            let (code, pristine) = tools.firmware()?;
            let variables = folder.join("variables.fd");
            let doing = "copying the firmware's variables to";
            let failed = |source| Error::File { doing, path: variables.clone(), source };
            // Not fs::copy, which would copy the mode too: packages' files may be read-only.
            let bytes = fs::read(pristine).map_err(failed)?;
            fs::write(&variables, bytes).map_err(failed)?;
            Some((code.clone(), variables))
        }
    };
    Ok(RunFiles { qmp: folder.join("qmp"), uefi, data: tools.data.clone() })
}

fn command(tools: &Toolset, machine: &Machine, files: &RunFiles, kvm: bool) -> Command {
    let watched = machine.serial == Serial::Watched;
    let mut command = match &tools.setpriv {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            // At a terminal QEMU must get the chance to leave raw mode.
            command.args(["--pdeathsig", if watched { "KILL" } else { "TERM" }]).args(tools.qemu.command_line());
            command
        }
        None => tools.qemu.command(),
    };
    command.args(arguments::qemu(machine, files, kvm));
    if watched {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
    }
    command
}

/// Opens the conversation. QEMU serves QMP before it looks at disks and ports: what it refuses is told by its end, after the
/// connection.
fn talk(machine: &Machine, socket: &Path, child: &Child, started: Instant) -> Result<(Qmp, Vec<Forward>), Error> {
    let greeted = connect(machine, socket, child).and_then(|stream| Qmp::greet(stream, started, QMP_BOUND));
    let talk = greeted.and_then(|mut qmp| {
        let none = machine.forwards.is_empty();
        let forwards = if none { Vec::new() } else { forwards(&mut qmp)? };
        Ok((qmp, forwards))
    });
    talk.map_err(|error| match &error {
        Error::Qmp { .. } => match child.wait(QUIT_BOUND) {
            Some(status) => {
                let what = "QEMU to take the machine";
                ended(&machine.name, what, Some(status), child, String::new())
            }
            None => error,
        },
        _ => error,
    })
}

/// QEMU makes its socket some milliseconds after its start, and there is nothing to be told by before: asked again until then.
fn connect(machine: &Machine, socket: &Path, child: &Child) -> Result<UnixStream, Error> {
    let deadline = Instant::now() + QMP_BOUND;
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return Ok(stream),
            Err(source) if Instant::now() > deadline => {
                return Err(Error::Qmp { what: "connecting".to_owned(), source });
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {}
            Err(source) => {
                return Err(Error::Qmp { what: "connecting".to_owned(), source });
            }
        }
        if let Some(status) = child.wait(Duration::from_millis(5)) {
            return Err(ended(&machine.name, "QEMU to take the machine", Some(status), child, String::new()));
        }
    }
}

/// With host port 0 the kernel chose the port when QEMU bound it, so that no other program can come in between; only the human
/// monitor tells which it was.
fn forwards(qmp: &mut Qmp) -> Result<Vec<Forward>, Error> {
    let answer = qmp.execute("human-monitor-command", json!({ "command-line": "info usernet" }), QMP_BOUND)?;
    Ok(answer.as_str().unwrap_or_default().lines().filter_map(forward).collect())
}

/// `TCP[HOST_FORWARD]  8  127.0.0.1 44755  10.0.2.15  8080  0  0`
fn forward(line: &str) -> Option<Forward> {
    let mut words = line.split_whitespace();
    (words.next()? == "TCP[HOST_FORWARD]").then_some(())?;
    let host = words.nth(2)?.parse().ok()?;
    let guest = words.nth(1)?.parse().ok()?;
    Some(Forward { host, guest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, want: Option<Forward>) {
        assert_eq!(forward(line), want);
    }

    #[test]
    fn forwards_are_read_from_the_monitors_table() {
        check("Hub -1 (n0):", None);
        check("  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ", None);
        let line = "  TCP[HOST_FORWARD]   8       127.0.0.1 44755       10.0.2.15  8080     0     0";
        check(line, Some(Forward { host: 44755, guest: 8080 }));
        check("  TCP[HOST_FORWARD]   8       127.0.0.1", None);
        check("  TCP[ESTABLISHED]   9       127.0.0.1 44755       10.0.2.15  8080     0     0", None);
    }
}
