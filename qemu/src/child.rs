//! A [`Child`] is a process that ends with this one: at the latest when it is dropped, and when this process is killed too.
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::process::{ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// How much of the end of its standard error is kept.
const STDERR: usize = 16 << 10;

/// A running or ended process.
#[derive(Debug)]
pub struct Child {
    // A pidfd names this process and never another one that got its number later.
    pidfd: OwnedFd,
    pid: u32,
    ended: Arc<(Mutex<Ended>, Condvar)>,
    keeper: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Ended {
    status: Option<ExitStatus>,
    stderr: Vec<u8>,
}

/// What a start gives: the process and, where they were piped, its standard input and output.
pub type Started = (Child, Option<ChildStdin>, Option<ChildStdout>);

impl Child {
    /// Starts a command. Its standard error is kept.
    ///
    /// A thread starts it and lives until it has ended: the kernel counts the *thread* that forked as the parent whose death sends the
    /// signal that `setpriv --pdeathsig` asks for (prctl(2), PR_SET_PDEATHSIG), and a test's thread may end before its machine.
    ///
    /// # Errors
    /// The program cannot be executed, or the kernel has no pidfds.
    pub fn start(command: Command) -> io::Result<Started> {
        Child::start_with(command, Stdio::piped(), 0)
    }

    /// As [`Child::start`]; the process stands back behind others by `nice`, as nice(1) counts.
    ///
    /// # Errors
    /// As for [`Child::start`].
    pub fn start_nice(command: Command, nice: u8) -> io::Result<Started> {
        Child::start_with(command, Stdio::piped(), nice)
    }

    /// As [`Child::start`], with standard error going somewhere else.
    ///
    /// # Errors
    /// As for [`Child::start`].
    pub fn start_with_stderr(command: Command, stderr: Stdio) -> io::Result<Started> {
        Child::start_with(command, stderr, 0)
    }

    fn start_with(mut command: Command, stderr: Stdio, nice: u8) -> io::Result<Started> {
        command.stderr(stderr);
        let ended = Arc::<(Mutex<Ended>, Condvar)>::default();
        let (tell, told) = mpsc::sync_channel(1);
        let keeper = thread::Builder::new().name("qemu".to_owned()).spawn({
            let ended = Arc::clone(&ended);
            move || match stand_back(nice).and_then(|()| spawn(&mut command)) {
                Ok((mut child, pidfd)) => {
                    let stderr = child.stderr.take();
                    let pipes = (child.stdin.take(), child.stdout.take());
                    // Nobody receives only if the starting thread has died, and then the child is killed below.
                    let orphaned = tell.send(Ok((pidfd, child.id(), pipes))).is_err();
                    if orphaned {
                        let _ = child.kill();
                    }
                    keep(child, stderr, &ended);
                }
                Err(error) => {
                    let _ = tell.send(Err(error));
                }
            }
        })?;
        let (pidfd, pid, (stdin, stdout)) =
            told.recv().map_err(|_| io::Error::other("the thread that starts QEMU ended"))??;
        Ok((Child { pidfd, pid, ended, keeper: Some(keeper) }, stdin, stdout))
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its status, if it has ended.
    pub fn status(&self) -> Option<ExitStatus> {
        self.ended().status
    }

    /// Waits for its end; `None` if it still runs after `bound`.
    pub fn wait(&self, bound: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + bound;
        let mut ended = self.ended();
        while ended.status.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            ended = self.ended.1.wait_timeout(ended, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        ended.status
    }

    /// Kills it, as if its power were cut, and reaps it.
    pub fn kill(&mut self) -> Option<ExitStatus> {
        // It may have ended by itself already, which is what is wanted.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
        self.status()
    }

    /// The end of what it said on standard error.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.ended().stderr).trim().to_owned()
    }

    fn ended(&self) -> MutexGuard<'_, Ended> {
        self.ended.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// For this thread and what it starts: to the kernel, each thread has a niceness of its own (nice(2)).
fn stand_back(nice: u8) -> io::Result<()> {
    if nice > 0 {
        rustix::process::nice(nice.into())?;
    }
    Ok(())
}

fn spawn(command: &mut Command) -> io::Result<(std::process::Child, OwnedFd)> {
    let mut child = command.spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    // The child is not reaped yet: its number is still its own.
    let pidfd = pid
        .ok_or_else(|| io::Error::other("the kernel gave no process number"))
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from));
    match pidfd {
        Ok(pidfd) => Ok((child, pidfd)),
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}

fn keep(mut child: std::process::Child, stderr: Option<impl Read>, ended: &(Mutex<Ended>, Condvar)) {
    let lock = || ended.0.lock().unwrap_or_else(PoisonError::into_inner);
    let mut buffer = [0; 1024];
    let mut stderr = stderr;
    while let Some(Ok(length @ 1..)) = stderr.as_mut().map(|pipe| pipe.read(&mut buffer)) {
        let kept = &mut lock().stderr;
        kept.extend_from_slice(&buffer[..length]);
        let surplus = kept.len().saturating_sub(STDERR);
        kept.drain(..surplus);
    }
    // Its standard error is closed: it has ended or is about to.
    let status = child.wait();
    lock().status = Some(status.unwrap_or_default());
    ended.1.notify_all();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_end_and_the_last_words_are_kept() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo gone >&2; exit 3"]);
        let (child, _, _) = Child::start(command).unwrap();
        assert_eq!(child.wait(Duration::from_secs(5)).unwrap().code(), Some(3));
        assert_eq!(child.stderr(), "gone");
    }

    #[test]
    fn a_dropped_child_is_dead_and_reaped() {
        let mut command = Command::new("sleep");
        command.arg("60");
        let (child, _, _) = Child::start(command).unwrap();
        let process = format!("/proc/{}", child.pid());
        assert!(child.wait(Duration::from_millis(20)).is_none() && Path::new(&process).exists());
        drop(child);
        assert!(!Path::new(&process).exists());
    }

    #[test]
    fn it_stands_back_and_its_parent_does_not() {
        let niceness = |started: io::Result<Started>| -> i32 {
            let (child, _, stdout) = started.unwrap();
            let mut text = String::new();
            stdout.unwrap().read_to_string(&mut text).unwrap();
            child.wait(Duration::from_secs(5)).unwrap();
            text.trim().parse().unwrap()
        };
        let command = || {
            let mut command = Command::new("nice");
            command.stdout(Stdio::piped());
            command
        };
        let own = niceness(Child::start(command()));
        assert_eq!(niceness(Child::start_nice(command(), 7)), own + 7);
        assert_eq!(niceness(Child::start(command())), own);
    }

    #[test]
    fn a_missing_program_is_an_error() {
        assert_eq!(Child::start(Command::new("/nowhere/qemu")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
