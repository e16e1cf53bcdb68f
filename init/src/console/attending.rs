//! The console's thread: reads keys and the kernel's log, shows the page, and hands the serial line what it did not take at once.
//!
//! Nobody waits for it, and it waits for no terminal: what one does not take now is sent later, or drawn anew.
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::OFlags;

use super::answers;
use super::board::{self, Board};
use super::keys::Keys;
use super::sampling;
use super::screen::Screen;
use super::terminal::{Heard, Terminal};
use super::told::Told;
use crate::log::{self, monotonic};
use crate::run::recorder;
use crate::stage::beside;
use kscratch_recorder::What;

mod acting;

/// The terminal behind the last `console=` of the kernel's command line.
const CONSOLE: &str = "/dev/console";
/// The screen that the page is on ...
const SCREEN: &str = "/dev/tty1";
/// ... and the one that the line log goes to where the console is the screen.
const SECOND: &str = "/dev/tty2";
/// Between two pages; a key's answer may come sooner.
const PAGE_EVERY: Duration = Duration::from_secs(1);
const KEY_EVERY: Duration = Duration::from_millis(100);
/// Between two looks at what nobody rings for: a terminal that has come, what the kernel prints on its consoles, how old things are.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How often it is tried again where a console that is held up cannot be polled.
const TRY_EVERY: Duration = Duration::from_millis(200);
/// Records of the kernel's log that are read before keys get their turn.
const TURN: usize = 500;

/// Begins to attend to the console of the machine that runs.
pub fn start(root: &'static Path) {
    // A break and one more byte on a serial line would have the kernel reboot at once: a peer that is switched on sends just that. Whoever wants these keys says
    // `sysrq_always_enabled` on the kernel's command line; /proc/sysrq-trigger is as it was (Documentation/admin-guide/sysrq.rst).
    let _ = fs::write("/proc/sys/kernel/sysrq", "0");
    let begun =
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(anyhow::Error::from).and_then(|bell| {
            let bell = Arc::new(bell);
            let rung = Arc::clone(&bell);
            beside::start("console", move || {
                if let Err(error) = Attending::new(rung).run() {
                    log::line(format_args!("console: {error:#}; there is no page and no key from here on"));
                }
            })?;
            log::ring(Arc::clone(&bell));
            board::ring(bell);
            beside::start("console-samples", move || sampling::run(root))
        });
    if let Err(error) = begun {
        log::line(format_args!("console: {error:#}; there is no page and no key"));
    }
}

/// A terminal with what is typed at it.
struct Side {
    terminal: Terminal,
    keys: Keys,
}

impl Side {
    fn open(path: &str) -> Option<Self> {
        let opened = Terminal::open(Path::new(path));
        let terminal = opened.inspect_err(|error| log::debug(format_args!("console: {path}: {error}"))).ok()?;
        Some(Self { terminal, keys: Keys::default() })
    }
}

/// Which terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Serial,
    Screen,
}

/// What the screen shows above the log.
enum View {
    Status,
    Help,
    Log(String, Vec<String>),
}

struct Attending {
    bell: Arc<OwnedFd>,
    kernel_log: Option<File>,
    /// Levels below it are printed by the kernel on its consoles.
    printed: u8,
    told: Told,
    board: Board,
    has_serial: bool,
    serial: Option<Side>,
    screen: Option<Side>,
    shown: Screen,
    view: View,
    question: Option<String>,
    /// Who asked for a service's log.
    asked: Option<Which>,
    changed: bool,
    pressed: bool,
    drawn: Duration,
    looked: Duration,
}

impl Attending {
    fn new(bell: Arc<OwnedFd>) -> Self {
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let kernel_log = File::options().read(true).custom_flags(flags).open("/dev/kmsg");
        let has_serial = !is_screen(&fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default());
        let mut attending = Self {
            bell,
            kernel_log: kernel_log.inspect_err(|error| log::debug(format_args!("console: /dev/kmsg: {error}"))).ok(),
            printed: 0,
            told: Told::default(),
            board: Board::default(),
            has_serial,
            serial: None,
            screen: None,
            shown: Screen::default(),
            view: View::Status,
            question: None,
            asked: None,
            changed: true,
            pressed: false,
            drawn: monotonic(),
            looked: Duration::ZERO,
        };
        attending.look(monotonic());
        if !has_serial && attending.screen.is_some() {
            // The page has the screen, with the last lines on it; all of them are on the next one.
            log::move_to(Path::new(SECOND));
        }
        attending
    }

    fn run(mut self) -> Result<()> {
        loop {
            let _ = rustix::io::read(&*self.bell, &mut [0; 8]);
            let more = self.read_kernel_log();
            self.read_board();
            self.read_keys(Which::Serial);
            self.read_keys(Which::Screen);
            log::drain();
            let now = monotonic();
            self.pass(now);
            if now.saturating_sub(self.looked) >= LOOK_EVERY {
                self.look(now);
            }
            if self.is_due(now) {
                self.draw(now);
            }
            if !more {
                self.wait(now)?;
            }
        }
    }

    fn wait(&self, now: Duration) -> Result<()> {
        let waiting = log::is_waiting();
        let out = if waiting { PollFlags::OUT } else { PollFlags::empty() };
        let mut sources = vec![PollFd::new(&*self.bell, PollFlags::IN)];
        sources.extend(self.kernel_log.iter().map(|log| PollFd::new(log, PollFlags::IN)));
        sources.extend(self.serial.iter().map(|side| PollFd::new(&side.terminal, PollFlags::IN | out)));
        sources.extend(self.screen.iter().map(|side| PollFd::new(&side.terminal, PollFlags::IN)));
        let answers = [&self.serial, &self.screen].into_iter().flatten().filter_map(|side| side.keys.deadline());
        let retry = (waiting && self.serial.is_none()).then(|| now + TRY_EVERY);
        let draw = self.screen.as_ref().filter(|_| self.changed || self.pressed).map(|_| self.drawn + self.pace());
        let next = answers.chain(retry).chain(draw).chain([self.looked + LOOK_EVERY]).min().unwrap_or(now);
        let timeout = Timespec::try_from(next.saturating_sub(now)).context("waiting for keys")?;
        match poll(&mut sources, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error).context("waiting for keys"),
        }
    }

    /// What nobody rings for.
    fn look(&mut self, now: Duration) {
        self.looked = now;
        self.changed = true;
        // Whatever was said there has been read.
        if self.screen.as_ref().is_none_or(|side| side.keys.typed().is_none()) {
            self.question = None;
        }
        let printk = fs::read_to_string("/proc/sys/kernel/printk").unwrap_or_default();
        self.printed = printk.split_whitespace().next().and_then(|level| level.parse().ok()).unwrap_or(u8::MAX);
        if self.serial.is_none() && self.has_serial {
            self.serial = Side::open(CONSOLE);
        }
        if self.screen.is_none() {
            self.screen = Side::open(SCREEN);
            self.shown.torn();
        }
    }

    /// Whether there is more.
    fn read_kernel_log(&mut self) -> bool {
        let Some(log) = &self.kernel_log else { return false };
        for _ in 0..TURN {
            match recorder::next(log) {
                Ok(Some(entry)) => {
                    if let What::Kernel(level, _) = &entry.what
                        && *level < self.printed
                    {
                        self.shown.torn();
                    }
                    self.told.take(&entry);
                    self.changed = true;
                }
                Ok(None) => return false,
                Err(error) => {
                    log::line(format_args!("console: {error:#}; the page has no lines from here on"));
                    self.kernel_log = None;
                    return false;
                }
            }
        }
        true
    }

    fn read_board(&mut self) {
        let board = board::read();
        self.changed |= board.services != self.board.services || board.sample != self.board.sample;
        self.changed |= board.known != self.board.known;
        self.board = board;
        let Some((name, lines)) = self.board.log.take() else { return };
        match self.asked.take() {
            Some(Which::Serial) => log::show(&answers::log(&name, &lines, answers::COLUMNS)),
            Some(Which::Screen) => {
                self.view = View::Log(name, lines);
                self.pressed = true;
            }
            None => {}
        }
    }

    fn side(&mut self, which: Which) -> &mut Option<Side> {
        match which {
            Which::Serial => &mut self.serial,
            Which::Screen => &mut self.screen,
        }
    }

    fn read_keys(&mut self, which: Which) {
        let allowed = self.board.known.allowed;
        let Some(side) = self.side(which) else { return };
        let bytes = match side.terminal.read() {
            Heard::Bytes(bytes) => bytes,
            Heard::Gone => {
                // Looked for again later: a line that is hung up would be read for ever.
                *self.side(which) = None;
                return;
            }
        };
        for byte in bytes {
            let Some(side) = self.side(which) else { return };
            let (keys, action) = std::mem::take(&mut side.keys).press(byte, monotonic(), allowed);
            side.keys = keys;
            self.pressed |= which == Which::Screen;
            self.act(which, action);
        }
    }

    fn pass(&mut self, now: Duration) {
        for which in [Which::Serial, Which::Screen] {
            let Some(side) = self.side(which) else { continue };
            let (keys, action) = std::mem::take(&mut side.keys).pass(now);
            side.keys = keys;
            self.act(which, action);
        }
    }
}

/// Whether the kernel's console is a screen, by the list of consoles (`/sys/class/tty/console/active`, the one of `/dev/console` last).
fn is_screen(active: &str) -> bool {
    let last = active.split_whitespace().last().unwrap_or_default();
    last.strip_prefix("tty").is_some_and(|number| number.starts_with(|first: char| first.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::is_screen;

    #[test]
    fn the_last_console_counts() {
        for (active, want) in [
            ("tty0 ttyS0\n", false),
            ("ttyS0 tty0\n", true),
            ("tty1", true),
            ("hvc0", false),
            ("ttyUSB0", false),
            ("", false),
        ] {
            assert_eq!(is_screen(active), want, "{active}");
        }
    }
}
