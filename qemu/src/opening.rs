//! Opens the conversation with a QEMU that was started a moment ago, and asks which ports it took.
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::child::Child;
use crate::error::Error;
use crate::qmp::Qmp;

/// How long QEMU may take to serve QMP after its start, and to answer a command.
pub const QMP_BOUND: Duration = Duration::from_secs(20);
/// How long QEMU may take to end after it was told to.
pub const QUIT_BOUND: Duration = Duration::from_secs(5);

/// A port of 127.0.0.1 that QEMU took for a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// The port.
    pub host: u16,
    /// The guest's address.
    pub address: Ipv4Addr,
    /// The guest's port.
    pub port: u16,
}

/// Opens the conversation. QEMU serves QMP before it looks at disks and ports: what it refuses is told by its end, after the
/// connection.
pub fn talk(name: &str, socket: &Path, child: &Child, started: Instant) -> Result<Qmp, Error> {
    let greeted = connect(name, socket, child).and_then(|stream| Qmp::greet(stream, started, QMP_BOUND));
    greeted.map_err(|error| refusal(name, child, error))
}

/// With host port 0 the kernel chose the port when QEMU bound it, so that no other program can come in between; only the human
/// monitor tells which it was.
pub fn forwards(qmp: &mut Qmp) -> Result<Vec<Taken>, Error> {
    let answer = qmp.execute("human-monitor-command", json!({ "command-line": "info usernet" }), QMP_BOUND)?;
    Ok(answer.as_str().unwrap_or_default().lines().filter_map(forward).collect())
}

/// The error of a conversation that broke, or that QEMU ended, if it did.
pub fn refusal(name: &str, child: &Child, error: Error) -> Error {
    match &error {
        Error::Qmp { .. } => match child.wait(QUIT_BOUND) {
            Some(status) => ended(name, "QEMU to take the machine", Some(status), child, String::new()),
            None => error,
        },
        _ => error,
    }
}

/// The error that tells how a machine ended.
pub fn ended(name: &str, what: &str, status: Option<ExitStatus>, child: &Child, tail: String) -> Error {
    let stderr = child.stderr();
    Error::Ended {
        machine: name.to_owned(),
        what: what.to_owned(),
        how: status.map_or_else(|| "its console closed".to_owned(), |status| status.to_string()),
        stderr: if stderr.is_empty() { stderr } else { format!("; QEMU said: {stderr}") },
        tail,
    }
}

/// QEMU makes its socket some milliseconds after its start, and there is nothing to be told by before: asked again until then.
fn connect(name: &str, socket: &Path, child: &Child) -> Result<UnixStream, Error> {
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
            return Err(ended(name, "QEMU to take the machine", Some(status), child, String::new()));
        }
    }
}

/// `TCP[HOST_FORWARD]  8  127.0.0.1 44755  10.0.2.15  8080  0  0`
fn forward(line: &str) -> Option<Taken> {
    let mut words = line.split_whitespace();
    (words.next()? == "TCP[HOST_FORWARD]").then_some(())?;
    let host = words.nth(2)?.parse().ok()?;
    let address = words.next()?.parse().ok()?;
    let port = words.next()?.parse().ok()?;
    Some(Taken { host, address, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, want: Option<Taken>) {
        assert_eq!(forward(line), want);
    }

    #[test]
    fn forwards_are_read_from_the_monitors_table() {
        check("Hub -1 (n0):", None);
        check("  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ", None);
        let line = "  TCP[HOST_FORWARD]   8       127.0.0.1 44755       10.0.2.15  8080     0     0";
        check(line, Some(Taken { host: 44755, address: Ipv4Addr::new(10, 0, 2, 15), port: 8080 }));
        check("  TCP[HOST_FORWARD]   8       127.0.0.1", None);
        check("  TCP[ESTABLISHED]   9       127.0.0.1 44755       10.0.2.15  8080     0     0", None);
    }
}
