//! A [`Tpm`] is a TPM 2.0 in software (swtpm) for one machine, with which it ends.
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::child::Child;
use crate::error::Error;
use crate::toolset::Program;

/// How long it may take to serve its socket.
const WITHIN: Duration = Duration::from_secs(20);
/// How long it may take to end by itself once its machine is gone: it has written all by then, and is killed.
const LAST: Duration = Duration::from_secs(1);

/// A running TPM. It ends when dropped, with its machine, and with this program however that ends.
#[derive(Debug)]
pub struct Tpm {
    socket: PathBuf,
    child: Child,
}

impl Tpm {
    /// Starts `swtpm` with what it remembers in the folder `state`, which is made where it is not there, and its socket in `folder`. A socket's path may
    /// have no more than 107 bytes (unix(7)).
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(swtpm: &Program, setpriv: Option<&Path>, state: &Path, folder: &Path) -> Result<Tpm, Error> {
        std::fs::create_dir_all(state).map_err(|source| Error::File {
            doing: "making the folder of a TPM,",
            path: state.to_owned(),
            source,
        })?;
        let socket = folder.join("tpm");
        let program = swtpm.path.display().to_string();
        let command = command(swtpm, setpriv, state, &socket);
        let (child, _, _) = Child::start(command).map_err(|source| Error::Spawn { program, source })?;
        let tpm = Tpm { socket, child };
        tpm.wait()?;
        Ok(tpm)
    }

    /// Its socket, for [`crate::Machine::tpm`].
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// QEMU connects once, at its start.
    fn wait(&self) -> Result<(), Error> {
        let end = Instant::now() + WITHIN;
        while !self.socket.exists() {
            let ended = self.child.wait(Duration::from_millis(5));
            if ended.is_some() || Instant::now() > end {
                return Err(Error::Tpm { stderr: self.child.stderr() });
            }
        }
        Ok(())
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        // Its machine is gone, or never came; what is left is killed with `child`.
        self.child.wait(LAST);
    }
}

/// Commas end a value in swtpm's options, and cannot be written otherwise: the state is where it is started.
fn command(swtpm: &Program, setpriv: Option<&Path>, state: &Path, socket: &Path) -> Command {
    let mut command = swtpm.command_that_ends_with_us(setpriv);
    command.args(["socket", "--tpm2", "--tpmstate", "dir=.", "--ctrl"]);
    command.arg(format!("type=unixio,path={}", socket.display()));
    // It ends when QEMU's connection does.
    command.arg("--terminate").current_dir(state).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_state_is_where_it_is_started_and_it_ends_with_who_connects() {
        let swtpm = Program { path: "/usr/bin/swtpm".into(), loader: None };
        let command = command(&swtpm, Some(Path::new("/usr/bin/setpriv")), Path::new("/a,b.tpm"), Path::new("/t/tpm"));
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        let want =
            "--pdeathsig KILL /usr/bin/swtpm socket --tpm2 --tpmstate dir=. --ctrl type=unixio,path=/t/tpm --terminate";
        assert_eq!(words.join(" "), want);
        assert_eq!(command.get_current_dir(), Some(Path::new("/a,b.tpm")));
    }

    #[test]
    fn one_that_ends_at_once_says_why() {
        let folder = tempfile::tempdir().unwrap();
        // A shell takes the first word for a script.
        let shell = Program { path: "/bin/sh".into(), loader: None };
        let error = Tpm::start(&shell, None, &folder.path().join("state"), folder.path()).unwrap_err().to_string();
        assert!(error.starts_with("starting a TPM: swtpm said: ") && error.contains("socket"), "{error}");
    }
}
