//! Turns the question whether a service is ready into one attempt that never blocks: connect, ask, read the status line.
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::plan::Ready;

/// How long one attempt may take. A service that hangs is asked again, on a new connection.
pub const ATTEMPT_WITHIN: Duration = Duration::from_secs(5);
/// A status line is shorter than this many bytes.
const LONGEST_STATUS_LINE: usize = 512;

/// One attempt under way.
#[derive(Debug)]
pub struct Attempt {
    socket: OwnedFd,
    /// What is asked once the connection stands; none where the connection is the answer.
    request: Option<Vec<u8>>,
    stage: Stage,
    answer: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connecting,
    Reading,
}

/// What came of an attempt so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Wait for [`Attempt::interest`], then call [`Attempt::advance`].
    Pending,
    /// It is ready.
    Ready,
}

impl Attempt {
    /// Begins an attempt; none where a look is enough, and the service is ready.
    ///
    /// # Errors
    /// The service refuses the connection, or has made no socket or file yet.
    pub fn begin(ready: &Ready) -> Result<Option<Self>> {
        let (socket, request) = match ready {
            Ready::UnixSocket(path) => (connect_unix(path)?, None),
            Ready::UnixHttp { socket, path } => (connect_unix(socket)?, Some(request(path))),
            Ready::Http { port, path } => (connect_loopback(*port)?, Some(request(path))),
            Ready::File(path) if Path::new(path).exists() => return Ok(None),
            Ready::File(path) => bail!("there is no {path} yet"),
        };
        Ok(Some(Self { socket, request, stage: Stage::Connecting, answer: Vec::new() }))
    }

    /// What to wait for.
    #[must_use]
    pub fn interest(&self) -> PollFlags {
        match self.stage {
            Stage::Connecting => PollFlags::OUT,
            Stage::Reading => PollFlags::IN,
        }
    }

    /// Goes on as far as it can without waiting.
    ///
    /// # Errors
    /// It is not ready, and why.
    pub fn advance(&mut self) -> Result<Outcome> {
        if self.stage == Stage::Connecting {
            rustix::net::sockopt::socket_error(&self.socket)
                .context("asking for the connection's state")?
                .context("connecting")?;
            let Some(request) = self.request.take() else { return Ok(Outcome::Ready) };
            // A new connection's buffer has room for a request of a hundred bytes.
            let written = rustix::io::write(&self.socket, &request).context("asking")?;
            if written != request.len() {
                bail!("asking: the connection took a part only");
            }
            self.stage = Stage::Reading;
        }
        self.read()
    }

    fn read(&mut self) -> Result<Outcome> {
        let mut buffer = [0; 256];
        loop {
            let count = match rustix::io::read(&self.socket, &mut buffer) {
                Ok(count) => count,
                Err(Errno::AGAIN) => return Ok(Outcome::Pending),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error).context("reading the answer"),
            };
            self.answer.extend_from_slice(&buffer[..count]);
            if let Some(end) = self.answer.iter().position(|byte| *byte == b'\n') {
                return judge(&self.answer[..end]);
            }
            if count == 0 {
                bail!("the connection was closed without an answer");
            }
            if self.answer.len() > LONGEST_STATUS_LINE {
                bail!("the answer is not HTTP");
            }
        }
    }
}

impl AsFd for Attempt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Reads a status line (RFC 9112, section 4): `HTTP/1.1 200 OK`.
fn judge(line: &[u8]) -> Result<Outcome> {
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_ascii_whitespace();
    match (words.next(), words.next()) {
        (Some(version), Some("200")) if version.starts_with("HTTP/1.") => Ok(Outcome::Ready),
        (Some(version), Some(_)) if version.starts_with("HTTP/1.") => bail!("it answers {}", line.trim_end()),
        _ => bail!("the answer is not HTTP"),
    }
}

fn request(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: kscratch-init\r\nConnection: close\r\n\r\n")
        .into_bytes()
}

fn connect_unix(path: &str) -> Result<OwnedFd> {
    let what = || format!("connecting to {path}");
    let socket = socket(AddressFamily::UNIX).with_context(what)?;
    let address = SocketAddrUnix::new(path).with_context(what)?;
    rustix::net::connect(&socket, &address).with_context(what)?;
    Ok(socket)
}

fn connect_loopback(port: u16) -> Result<OwnedFd> {
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    let what = || format!("connecting to {address}");
    let socket = socket(AddressFamily::INET).with_context(what)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error).with_context(what),
    }
}

fn socket(family: AddressFamily) -> rustix::io::Result<OwnedFd> {
    rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;
    use std::thread;

    use rustix::event::{PollFd, Timespec, poll};

    use super::{Attempt, Outcome};
    use crate::plan::Ready;

    /// Makes an attempt as the loop does; gives "ready" or the words of the failure.
    fn ask(ready: &Ready) -> String {
        let mut attempt = match Attempt::begin(ready) {
            Ok(Some(attempt)) => attempt,
            Ok(None) => return String::from("ready"),
            Err(error) => return format!("{error:#}"),
        };
        loop {
            let flags = attempt.interest();
            let timeout = Timespec { tv_sec: 10, tv_nsec: 0 };
            assert_eq!(
                poll(&mut [PollFd::new(&attempt, flags)], Some(&timeout)).unwrap(),
                1,
                "nothing happened for ten seconds"
            );
            match attempt.advance() {
                Ok(Outcome::Ready) => return String::from("ready"),
                Ok(Outcome::Pending) => {}
                Err(error) => return format!("{error:#}"),
            }
        }
    }

    /// A server that answers one request in pieces.
    fn answer(mut stream: impl Read + Write, pieces: &[&str]) {
        let mut request = [0; 512];
        let count = stream.read(&mut request).unwrap();
        assert!(request[..count].starts_with(b"GET /healthz HTTP/1.1\r\nHost: "));
        for piece in pieces {
            stream.write_all(piece.as_bytes()).unwrap();
            stream.flush().unwrap();
            thread::yield_now();
        }
    }

    #[track_caller]
    fn check(pieces: &'static [&'static str], want: &str) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket").to_str().unwrap().to_owned();
        let unix = UnixListener::bind(&path).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        let servers = [
            thread::spawn(move || answer(unix.accept().unwrap().0, pieces)),
            thread::spawn(move || answer(tcp.accept().unwrap().0, pieces)),
        ];
        assert_eq!(ask(&Ready::UnixHttp { socket: path, path: "/healthz".into() }), want);
        assert_eq!(ask(&Ready::Http { port, path: "/healthz".into() }), want);
        for server in servers {
            server.join().unwrap();
        }
    }

    #[test]
    fn http_answers() {
        check(&["HTTP/1.1 200 OK\r\n\r\nok"], "ready");
        check(&["HTT", "P/1.0 20", "0 OK\r", "\n\r\n"], "ready");
        check(&["HTTP/1.1 500 Internal Server Error\r\n\r\n"], "it answers HTTP/1.1 500 Internal Server Error");
        check(&["SSH-2.0-x\r\n"], "the answer is not HTTP");
        check(&["HTTP/1.1 200"], "the connection was closed without an answer");
    }

    #[test]
    fn a_socket_that_accepts_is_ready() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket").to_str().unwrap().to_owned();
        let ready = Ready::UnixSocket(path.clone());
        assert!(ask(&ready).ends_with("No such file or directory (os error 2)"));
        let server = UnixListener::bind(&path).unwrap();
        assert_eq!(ask(&ready), "ready");
        drop(server);
        assert!(ask(&ready).ends_with("Connection refused (os error 111)"));
    }

    #[test]
    fn a_file_that_is_there_is_ready() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ready").to_str().unwrap().to_owned();
        let ready = Ready::File(path.clone());
        assert_eq!(ask(&ready), format!("there is no {path} yet"));
        std::fs::write(&path, "").unwrap();
        assert_eq!(ask(&ready), "ready");
    }

    #[test]
    fn a_closed_port_is_not_ready() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let words = ask(&Ready::Http { port, path: "/".into() });
        assert!(words.ends_with("Connection refused (os error 111)"), "{words}");
    }
}
