//! A [`Terminal`] is an open terminal that gives keys as they are pressed, echoes nothing, and is never waited for.
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, isatty, tcgetattr, tcgetwinsize,
    tcsetattr,
};

use super::screen::Size;

/// An open terminal.
#[derive(Debug)]
pub struct Terminal {
    file: File,
}

/// What reading gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// Bytes, or none yet.
    Bytes(Vec<u8>),
    /// The terminal is gone, or its line was hung up.
    Gone,
}

impl Terminal {
    /// Opens a terminal and sets it up.
    ///
    /// # Errors
    /// It is not there, is no terminal, or has no hardware behind it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = File::options().read(true).write(true).custom_flags(flags.bits().cast_signed()).open(path)?;
        if !isatty(&file) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let mut modes = tcgetattr(&file)?;
        raw(&mut modes);
        tcsetattr(&file, OptionalActions::Now, &modes)?;
        Ok(Self { file })
    }

    /// What was typed.
    pub fn read(&self) -> Heard {
        let mut buffer = [0; 256];
        match (&self.file).read(&mut buffer) {
            Ok(0) => Heard::Gone,
            Ok(count) => Heard::Bytes(buffer[..count].to_vec()),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Heard::Bytes(Vec::new())
            }
            Err(_) => Heard::Gone,
        }
    }

    /// Sends bytes, as far as the terminal takes them now; says whether it took all.
    pub fn send(&self, bytes: &[u8]) -> bool {
        (&self.file).write_all(bytes).is_ok()
    }

    /// Its rows and columns.
    #[must_use]
    pub fn size(&self) -> Size {
        tcgetwinsize(&self.file).map_or(Size::of(0, 0), |told| Size::of(told.ws_row, told.ws_col))
    }
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Keys one by one and as they are (termios(3)): no echo, no signals, and no byte that stops the output (IXON): a line's noise, or somebody's ctrl-S, would
/// keep everybody waiting who writes to it. A break is nothing. Output is left as it is: the line log counts on ends of lines being made whole.
fn raw(modes: &mut Termios) {
    modes.input_modes.remove(
        InputModes::IXON
            | InputModes::IXOFF
            | InputModes::IXANY
            | InputModes::ICRNL
            | InputModes::INLCR
            | InputModes::IGNCR
            | InputModes::ISTRIP
            | InputModes::BRKINT
            | InputModes::PARMRK
            | InputModes::INPCK,
    );
    modes.input_modes.insert(InputModes::IGNBRK | InputModes::IGNPAR);
    modes.local_modes.remove(
        LocalModes::ICANON
            | LocalModes::ECHO
            | LocalModes::ECHOE
            | LocalModes::ECHOK
            | LocalModes::ECHONL
            | LocalModes::ISIG
            | LocalModes::IEXTEN
            | LocalModes::TOSTOP,
    );
    // A cable without its carrier's wire is a cable.
    modes.control_modes.insert(ControlModes::CREAD | ControlModes::CLOCAL);
    modes.special_codes[SpecialCodeIndex::VMIN] = 1;
    modes.special_codes[SpecialCodeIndex::VTIME] = 0;
}
