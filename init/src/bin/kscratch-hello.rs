//! Turns any HTTP request for `/` into one line that says who answers, so that a person or a test sees a pod run.
//!
//! `kscratch-hello [PORT]`; without the argument the environment's `PORT`, else 8080.
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

/// A client that says nothing for so long is left.
const PATIENCE: Duration = Duration::from_secs(10);
/// A request's head is shorter than this many bytes.
const LONGEST_HEAD: u64 = 16 << 10;
/// More clients than this at once are turned away.
const MOST_CLIENTS: usize = 64;

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "kscratch-hello: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until SIGTERM or SIGINT.
fn serve() -> io::Result<()> {
    let start = Instant::now();
    let port = port(std::env::args().nth(1).or_else(|| std::env::var("PORT").ok()))?;
    let listener = TcpListener::bind(("0.0.0.0", port))
        .map_err(|error| io::Error::new(error.kind(), format!("listening on port {port}: {error}")))?;
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    // Before the threads, which inherit the mask: the signals are to come to `wait` and nowhere else.
    signals.thread_block()?;
    thread::spawn(move || accept(&listener, start));
    signals.wait()?;
    Ok(())
}

fn port(text: Option<String>) -> io::Result<u16> {
    match text {
        None => Ok(8080),
        Some(text) => text
            .parse()
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("{text} is not a port number"))),
    }
}

fn accept(listener: &TcpListener, start: Instant) {
    let clients = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming().flatten() {
        if clients.fetch_add(1, Ordering::Relaxed) >= MOST_CLIENTS {
            clients.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let counted = Arc::clone(&clients);
        thread::spawn(move || {
            // The client went away: nobody is left to tell.
            let _ = answer(stream, start);
            counted.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// Answers one request and closes the connection (RFC 9112, section 9.6).
fn answer(stream: TcpStream, start: Instant) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let own = stream.local_addr()?;
    let mut reader = BufReader::new((&stream).take(LONGEST_HEAD));
    let mut request = String::new();
    reader.read_line(&mut request)?;
    // The rest of the head is read before the answer: closing with unread input would reset the connection under the answer.
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 && line != "\r\n" && line != "\n" {
        line.clear();
    }
    (&stream).write_all(respond(&request, &host_name(), own, start.elapsed()).as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)
}

fn respond(request: &str, host: &str, own: SocketAddr, up: Duration) -> String {
    let mut words = request.split_ascii_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    let (status, body) = match (method, path) {
        ("GET" | "HEAD", "/") => ("200 OK", format!("hello from {host} at {}, up {} s\n", own.ip(), up.as_secs())),
        ("GET" | "HEAD", "/healthz") => ("200 OK", String::from("ok\n")),
        ("GET" | "HEAD", _) => ("404 Not Found", format!("there is no {path} here\n")),
        ("", _) => ("400 Bad Request", String::from("this is not HTTP\n")),
        _ => ("405 Method Not Allowed", String::from("only GET and HEAD\n")),
    };
    let body_sent = if method == "HEAD" { "" } else { &body };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body_sent}",
        body.len()
    )
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{port, respond};

    #[track_caller]
    fn check(request: &str, status: &str, body: &str) {
        let answer = respond(request, "web-0", "10.244.1.7:8080".parse().unwrap(), Duration::from_millis(12_900));
        let (head, got) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{head}");
        assert_eq!(got, body);
    }

    #[test]
    fn answers() {
        check("GET / HTTP/1.1\r\n", "200 OK", "hello from web-0 at 10.244.1.7, up 12 s\n");
        check("GET /?x=1 HTTP/1.0\r\n", "200 OK", "hello from web-0 at 10.244.1.7, up 12 s\n");
        check("GET /healthz HTTP/1.1\r\n", "200 OK", "ok\n");
        check("HEAD / HTTP/1.1\r\n", "200 OK", "");
        check("GET /etc/passwd HTTP/1.1\r\n", "404 Not Found", "there is no /etc/passwd here\n");
        check("POST / HTTP/1.1\r\n", "405 Method Not Allowed", "only GET and HEAD\n");
        check("", "400 Bad Request", "this is not HTTP\n");
    }

    #[test]
    fn ports() {
        assert_eq!(port(None).unwrap(), 8080);
        assert_eq!(port(Some("80".into())).unwrap(), 80);
        assert_eq!(port(Some("http".into())).unwrap_err().to_string(), "http is not a port number");
    }
}
