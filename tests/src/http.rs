//! Asks a web server on this machine for a page.
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// How long one answer may take; the guest is emulated.
const ANSWER: Duration = Duration::from_secs(20);

/// One GET: the status and the body.
///
/// # Errors
/// Nobody listens, the connection breaks, or the answer is not HTTP.
pub fn get(port: u16, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or(ErrorKind::InvalidData)?;
    Ok((status, body.to_owned()))
}

/// Asks until the answer is 200 and what `wanted` looks for; ends the test with the last answer after `bound`.
#[track_caller]
pub fn wait_for(port: u16, path: &str, bound: Duration, wanted: impl Fn(&str) -> bool) -> String {
    let deadline = Instant::now() + bound;
    loop {
        let answer = get(port, path);
        if let Ok((200, body)) = &answer
            && wanted(body)
        {
            return body.clone();
        }
        assert!(
            Instant::now() < deadline,
            "GET {path} on port {port}: not within {bound:?}; the last answer: {answer:?}"
        );
        // QEMU's user network accepts and then closes while nobody listens in the guest: there is nothing to wait on.
        thread::sleep(Duration::from_millis(250));
    }
}
