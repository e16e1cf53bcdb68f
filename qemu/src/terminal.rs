//! Remembers how standard input and output are set, and sets them so again: a QEMU that has them leaves them otherwise where it is killed.
use std::io::{self, Stdin, Stdout};
use std::os::fd::AsFd;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// Standard input and output as they were, which they are again once this is dropped.
#[derive(Debug)]
pub(crate) struct Terminal<I: AsFd = Stdin, O: AsFd = Stdout> {
    input: I,
    output: O,
    /// How input is read, raw or by lines; `None` where it is no terminal.
    mode: Option<Termios>,
    /// Whether reading and writing wait. It belongs to the open files, which the shell that started this program has too.
    flags: (Option<OFlags>, Option<OFlags>),
}

impl Terminal {
    /// That of this program.
    pub(crate) fn of_this_program() -> Terminal {
        Terminal::of(io::stdin(), io::stdout())
    }
}

impl<I: AsFd, O: AsFd> Terminal<I, O> {
    fn of(input: I, output: O) -> Terminal<I, O> {
        let mode = tcgetattr(&input).ok();
        let flags = (fcntl_getfl(&input).ok(), fcntl_getfl(&output).ok());
        Terminal { input, output, mode, flags }
    }
}

impl<I: AsFd, O: AsFd> Drop for Terminal<I, O> {
    fn drop(&mut self) {
        // What fails here is a terminal that was closed, which nobody reads from any more.
        if let Some(flags) = self.flags.0 {
            let _ = fcntl_setfl(&self.input, flags);
        }
        if let Some(flags) = self.flags.1 {
            let _ = fcntl_setfl(&self.output, flags);
        }
        if let Some(mode) = &self.mode {
            let _ = tcsetattr(&self.input, OptionalActions::Now, mode);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn what_was_changed_is_as_it_was() {
        // To the kernel, the two ends of a pseudoterminal have the same mode (pty(7)).
        let input = File::options().read(true).write(true).open("/dev/ptmx").unwrap();
        let (_reader, output) = io::pipe().unwrap();
        let mode = || tcgetattr(&input).unwrap().local_modes;
        let waits =
            || [input.as_fd(), output.as_fd()].map(|file| !fcntl_getfl(file).unwrap().contains(OFlags::NONBLOCK));
        let before = mode();
        let terminal = Terminal::of(&input, &output);
        let mut raw = tcgetattr(&input).unwrap();
        raw.make_raw();
        tcsetattr(&input, OptionalActions::Now, &raw).unwrap();
        for file in [input.as_fd(), output.as_fd()] {
            fcntl_setfl(file, fcntl_getfl(file).unwrap() | OFlags::NONBLOCK).unwrap();
        }
        assert!(mode() != before && waits() == [false, false]);
        drop(terminal);
        assert!(mode() == before && waits() == [true, true]);
    }
}
