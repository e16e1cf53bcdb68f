//! An [`Error`] says which step with a virtual machine failed, and carries the tail of what the machine said.
use std::path::PathBuf;
use std::time::Duration;

/// How many of the console's last lines an error carries.
pub const TAIL: usize = 30;

/// What can go wrong with a virtual machine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program or a firmware file is on none of the places looked at.
    #[error("finding {what}: it is in none of {places} (Debian has it in the package {package})")]
    Missing {
        /// Its name.
        what: String,
        /// Where it was looked for.
        places: String,
        /// The Debian package that brings it.
        package: &'static str,
    },
    /// A file could not be read, written or copied.
    #[error("{doing} {path}")]
    File {
        /// What was being done, e.g. `copying firmware variables to`.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A program could not be started.
    #[error("starting {program}")]
    Spawn {
        /// The program.
        program: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// `swtpm` gives no TPM.
    #[error("starting a TPM: swtpm said: {stderr}")]
    Tpm {
        /// Its standard error.
        stderr: String,
    },
    /// `qemu-img` said no.
    #[error("{doing}: qemu-img said: {stderr}")]
    Image {
        /// What was being done to which image.
        doing: String,
        /// Its standard error.
        stderr: String,
    },
    /// The machine ended while something was still expected of it.
    #[error("waiting for {what}: the machine `{machine}` ended ({how}){stderr}{tail}")]
    Ended {
        /// The machine's name.
        machine: String,
        /// What was expected.
        what: String,
        /// Exit status of QEMU.
        how: String,
        /// What QEMU itself complained about.
        stderr: String,
        /// The console's last lines.
        tail: String,
    },
    /// The guest's kernel gave up while something was still expected of it.
    #[error("waiting for {what}: the kernel of `{machine}` panicked: {line}{tail}")]
    Panicked {
        /// The machine's name.
        machine: String,
        /// What was expected.
        what: String,
        /// The panic's line.
        line: String,
        /// The console's last lines.
        tail: String,
    },
    /// Nothing came within the bound.
    #[error("waiting for {what} of the machine `{machine}`: nothing within {bound:?}{tail}")]
    Timeout {
        /// The machine's name.
        machine: String,
        /// What was expected.
        what: String,
        /// How long it was waited for.
        bound: Duration,
        /// The console's last lines.
        tail: String,
    },
    /// The conversation over QMP broke.
    #[error("speaking QMP ({what})")]
    Qmp {
        /// The command, or the step of the greeting.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// QEMU refused a command.
    #[error("QEMU refused `{command}`: {class}: {description}")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's error class.
        class: String,
        /// QEMU's words.
        description: String,
    },
    /// Something is asked of the console that this machine's serial line cannot do.
    #[error("{what}: the serial line of `{machine}` is on the terminal")]
    NotWatched {
        /// The machine's name.
        machine: String,
        /// What was asked.
        what: &'static str,
    },
}
