//! A [`Vm`] is a machine that was started: it is watched, steered and, at the latest when dropped, ended.
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::accelerator;
use crate::arguments::{self, BALLOON, RunFiles};
use crate::child::Child;
use crate::console::{Console, Line, Pattern, Waited};
use crate::error::Error;
use crate::machine::{Accelerator, Firmware, Forward, Machine, Serial};
use crate::memory::{self, Memory};
use crate::opening::{self, QMP_BOUND, QUIT_BOUND, ended};
use crate::qmp::{Event, Qmp};
use crate::terminal::Terminal;
use crate::toolset::Toolset;

/// Between two looks at what the guest has told of its memory, which it is asked for once a second.
const MEMORY_PAUSE: Duration = Duration::from_millis(200);

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
    // Behind the process that changes it. `None` where the serial line is not on it.
    _terminal: Option<Terminal>,
    // Holds the QMP socket and the firmware's variables, unless they have a place; declared last, so that it goes after the process that
    // uses it.
    _folder: Option<tempfile::TempDir>,
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
        let folder =
            match &machine.folder {
                Some(_) => None,
                None => Some(tempfile::Builder::new().prefix("kscratch-vm-").tempdir().map_err(|source| {
                    Error::File { doing: "making a folder for the machine in", path: std::env::temp_dir(), source }
                })?),
            };
        let place = machine.folder.as_deref().or(folder.as_ref().map(tempfile::TempDir::path)).unwrap_or(Path::new(""));
        let files = run_files(tools, machine, place)?;
        let command = command(tools, machine, &files, accelerated);
        let started = Instant::now();
        let program = tools.qemu.path.display().to_string();
        let nice = if accelerated { 0 } else { machine.nice };
        // Before the process, so that it is set right again behind it where the start fails.
        let terminal = (machine.serial == Serial::Terminal).then(Terminal::of_this_program);
        let (child, stdin, stdout) =
            Child::start_nice(command, nice).map_err(|source| Error::Spawn { program, source })?;
        let console = Console::new();
        if let Some(stdout) = stdout {
            let console = console.clone();
            // Ends by itself when QEMU's end of the pipe closes.
            thread::Builder::new()
                .name("console".to_owned())
                .spawn(move || console.read_from(stdout, started))
                .map_err(|source| Error::Spawn { program: "the console's reader".to_owned(), source })?;
        }
        let (mut qmp, forwards) = (opening::talk(&machine.name, &files.qmp, &child, started)?, &machine.forwards);
        let forwards = if forwards.is_empty() { Vec::new() } else { opening::forwards(&mut qmp)? };
        let forwards = forwards.iter().map(|forward| Forward { host: forward.host, guest: forward.port }).collect();
        let (name, serial) = (machine.name.clone(), machine.serial);
        Ok(Vm {
            name,
            serial,
            accelerated,
            forwards,
            started,
            console,
            stdin,
            qmp,
            child,
            _terminal: terminal,
            _folder: folder,
        })
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

    /// Writes what the screen shows into a file, as PNG; of a machine that [has one](Machine::screen).
    ///
    /// # Errors
    /// It has none, QEMU cannot write the file, or the machine has ended.
    pub fn screenshot(&mut self, file: &Path) -> Result<(), Error> {
        self.execute("screendump", json!({ "filename": file, "format": "png" })).map(drop)
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

    /// Gives the card on one of the machine's virtual links ([`Machine::cards`], counted from 0) a carrier, or takes it away.
    ///
    /// # Errors
    /// There is no such card, or the machine has ended.
    pub fn set_carrier(&mut self, card: usize, up: bool) -> Result<(), Error> {
        self.execute("set_link", json!({ "name": arguments::card_on_link(card), "up": up })).map(drop)
    }

    /// Gives the card on the user-mode network a carrier, or takes it away.
    ///
    /// # Errors
    /// There is no such card, or the machine has ended.
    pub fn set_user_carrier(&mut self, up: bool) -> Result<(), Error> {
        self.execute("set_link", json!({ "name": arguments::USER_CARD, "up": up })).map(drop)
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

    /// What the guest's kernel says of its memory, asked for now; of a machine that [tells it](Machine::tells_memory).
    ///
    /// # Errors
    /// The guest says nothing within `bound`: its driver is not there yet, for one. The machine has no balloon, or has ended.
    pub fn memory(&mut self, bound: Duration) -> Result<Memory, Error> {
        let balloon = format!("/machine/peripheral/{BALLOON}");
        let stats = json!({ "path": balloon, "property": "guest-stats" });
        let every =
            |seconds: u32| json!({ "path": balloon, "property": "guest-stats-polling-interval", "value": seconds });
        let last = memory::told_at(&self.execute("qom-get", stats.clone())?);
        let deadline = Instant::now() + bound;
        // The device asks the guest by itself, and is told here how often: until it has answered.
        self.execute("qom-set", every(1))?;
        let told = loop {
            let answer = self.execute("qom-get", stats.clone())?;
            match Memory::told(&answer) {
                Some(memory) if memory::told_at(&answer) != last => break Ok(memory),
                _ if Instant::now() >= deadline => break Err(self.timeout("the guest's word on its memory", bound)),
                // There is no event to wait for.
                _ => thread::sleep(MEMORY_PAUSE),
            }
        };
        self.execute("qom-set", every(0))?;
        told
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

    /// What `see` makes of the latest line of the console that it makes anything of.
    pub fn latest<T>(&self, see: impl FnMut(&Line) -> Option<T>) -> Option<T> {
        self.console.latest(see)
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
        // A person's machine ends with its files closed, however its program ends; a watched one has nothing to tidy up, and `child` kills it.
        if self.serial == Serial::Terminal && self.child.status().is_none() {
            self.quit();
        }
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
    let mut command = tools.qemu_that_ends_with_us();
    command.args(arguments::qemu(machine, files, kvm));
    if machine.serial == Serial::Watched {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
    }
    command
}
