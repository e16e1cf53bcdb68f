//! Turns an `http://` URL into what its server answers: one strict GET, bounded in time and in the answer's head, whose body is read as it comes.
use std::io::{self, Chain, Cursor, ErrorKind, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

mod head;

pub use head::Head;

/// For connecting, and for each wait for bytes. A server of metadata or of roots is near.
const PATIENCE: Duration = Duration::from_secs(5);
/// For the head of an answer, which comes in one piece.
const HEAD_WITHIN: Duration = Duration::from_secs(30);
/// The longest head of an answer in bytes.
const HEAD: usize = 16 << 10;
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// Parts of a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// A name or an address; an IPv6 one without its brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// What is asked for, with the query: it begins with a slash.
    pub path: String,
}

impl Url {
    /// Reads `http://HOST[:PORT][/PATH]` (RFC 3986; no user, and the fragment is the asker's own business).
    ///
    /// # Errors
    /// It is of another form.
    pub fn parse(url: &str) -> Result<Self> {
        let form = || format!("{url} is not a URL of the form http://HOST[:PORT]/PATH");
        let rest = url.strip_prefix("http://").with_context(form)?;
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, path) = rest.find(['/', '?']).map_or((rest, ""), |at| rest.split_at(at));
        let (host, port) = match authority.strip_prefix('[').and_then(|inside| inside.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, after)) => (host, Some(after.strip_prefix(':').with_context(form)?)),
            None => authority.rsplit_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(Ok(80), str::parse).with_context(|| format!("the port of {url}"))?;
        let forbidden = |text: &str| text.bytes().any(|byte| byte.is_ascii_control() || byte == b' ');
        let bracketed = authority.starts_with('[');
        let odd = if bracketed { host.parse::<Ipv6Addr>().is_err() } else { host.contains(['@', '[', ']', ':']) };
        ensure!(!host.is_empty() && !odd && !forbidden(rest), form());
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Self { host: host.to_owned(), port, path: format!("{slash}{path}") })
    }

    /// The value of the header `Host` (RFC 9110, 7.2).
    fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == 80 { host } else { format!("{host}:{}", self.port) }
    }
}

/// An answer; reading it gives the body.
#[derive(Debug)]
pub struct Answer {
    /// What its head says.
    pub head: Head,
    body: Chain<Cursor<Vec<u8>>, TcpStream>,
    /// When the body has to be here.
    until: Instant,
}

impl Read for Answer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // A byte now and then is within every wait for bytes, and never ends.
        if Instant::now() >= self.until {
            return Err(ErrorKind::TimedOut.into());
        }
        match self.body.read(buffer) {
            // What the kernel calls a time limit that is over (socket(7), SO_RCVTIMEO).
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(ErrorKind::TimedOut.into()),
            other => other,
        }
    }
}

/// Whether a status may be another one soon: the server is busy, or has a fault of its own (RFC 9110, 15.5.9 and 15.6; RFC 6585, 4).
#[must_use]
pub fn may_pass(status: u16) -> bool {
    matches!(status, 408 | 429 | 500..)
}

/// Asks for what the URL names, whose answer has to be here `within` that time. HTTP/1.0 on purpose: the answer is then never chunked and ends with the connection (RFC 1945, 7.2.2).
///
/// # Errors
/// The host has no address, nobody answers in time, or the answer is no HTTP. What the server answers is no error.
pub fn get(url: &Url, within: Duration) -> Result<Answer> {
    let begun = Instant::now();
    let mut stream = connect(url)?;
    let request = format!(
        "GET {} HTTP/1.0\r\nHost: {}\r\nUser-Agent: kscratch-init\r\nConnection: close\r\n\r\n",
        url.path,
        url.authority()
    );
    stream.write_all(request.as_bytes()).context("sending the request")?;
    let mut start = Vec::new();
    let end = loop {
        if let Some(end) = start.windows(END_OF_HEAD.len()).position(|window| window == END_OF_HEAD) {
            break end;
        }
        ensure!(start.len() < HEAD, "the answer's head is longer than {} KiB", HEAD >> 10);
        ensure!(
            begun.elapsed() < HEAD_WITHIN.min(within),
            "the answer's head is not whole after {} s",
            begun.elapsed().as_secs()
        );
        let mut buffer = [0; 2048];
        match stream.read(&mut buffer) {
            Ok(0) => bail!("the answer is no HTTP"),
            Ok(count) => start.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => bail!("no answer in {} s", PATIENCE.as_secs()),
            Err(error) => return Err(error).context("reading the answer"),
        }
    };
    let body = start.split_off(end + END_OF_HEAD.len());
    Ok(Answer { head: Head::parse(&start)?, body: Cursor::new(body).chain(stream), until: begun + within })
}

fn connect(url: &Url) -> Result<TcpStream> {
    let addresses: Vec<SocketAddr> =
        (url.host.as_str(), url.port).to_socket_addrs().with_context(|| format!("looking up {}", url.host))?.collect();
    let mut last = None;
    for address in &addresses {
        match TcpStream::connect_timeout(address, PATIENCE) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE)).context("setting a time limit")?;
                stream.set_write_timeout(Some(PATIENCE)).context("setting a time limit")?;
                return Ok(stream);
            }
            Err(error) => last = Some((address, error)),
        }
    }
    match last {
        Some((address, error)) => Err(error).with_context(|| format!("connecting to {address}")),
        None => bail!("{} has no address", url.host),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;
    use std::thread::JoinHandle;
    use std::time::{Duration, Instant};

    use proptest::prelude::{prop_assert, proptest};

    use super::{Url, get};

    /// Answers each connection with the next bytes, and gives the requests that it saw, line by line.
    pub(crate) fn server(answers: Vec<Vec<u8>>) -> (u16, JoinHandle<Vec<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = std::thread::spawn(move || {
            let answer = |answer: Vec<u8>| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let lines = std::iter::from_fn(|| {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    (line.trim() != "").then(|| line.trim().to_owned())
                });
                let lines = lines.collect();
                // Who has heard enough may be gone.
                let _ = stream.write_all(&answer);
                lines
            };
            answers.into_iter().map(answer).collect()
        });
        (port, seen)
    }

    const SOON: Duration = Duration::from_secs(10);

    fn url(port: u16, path: &str) -> Url {
        Url { host: "127.0.0.1".to_owned(), port, path: path.to_owned() }
    }

    #[test]
    fn urls() {
        let url = |host: &str, port, path: &str| Url { host: host.into(), port, path: path.into() };
        for (text, want) in [
            ("http://h", url("h", 80, "/")),
            ("http://h:8080/a/b?c", url("h", 8080, "/a/b?c")),
            ("http://h?c#d", url("h", 80, "/?c")),
            ("http://h#d", url("h", 80, "/")),
            ("http://[2001:db8::1]/a", url("2001:db8::1", 80, "/a")),
            ("http://[2001:db8::1]:81", url("2001:db8::1", 81, "/")),
        ] {
            assert_eq!(Url::parse(text).unwrap(), want, "{text}");
        }
        for (wrong, want) in [
            ("ftp://h/", "not a URL of the form"),
            ("http://", "not a URL of the form"),
            ("http://user@h/", "not a URL of the form"),
            ("http://h/\r\nX: y", "not a URL of the form"),
            ("http://2001:db8::1/", "not a URL of the form"),
            ("http://[h]/", "not a URL of the form"),
            ("http://[::1]80/", "not a URL of the form"),
            ("http://[::1/", "not a URL of the form"),
            ("http://h:x/", "the port of http://h:x/"),
        ] {
            let error = format!("{:#}", Url::parse(wrong).unwrap_err());
            assert!(error.contains(want), "{wrong}: {error}");
        }
    }

    #[test]
    fn an_answer_is_read_as_it_comes() {
        let (port, seen) = server(vec![b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabcdef".to_vec()]);
        let mut answer = get(&url(port, "/a?b"), SOON).unwrap();
        assert_eq!((answer.head.status, answer.head.length), (200, Some(6)));
        let mut body = String::new();
        answer.read_to_string(&mut body).unwrap();
        assert_eq!(body, "abcdef");
        let host = format!("Host: 127.0.0.1:{port}");
        assert_eq!(seen.join().unwrap()[0][..2], ["GET /a?b HTTP/1.0".to_owned(), host]);
    }

    #[test]
    fn what_is_no_answer_is_told() {
        let error = |answer: &[u8]| {
            let (port, _seen) = server(vec![answer.to_vec()]);
            format!("{:#}", get(&url(port, "/"), SOON).unwrap_err())
        };
        assert_eq!(error(b"SSH-2.0-x\r\n"), "the answer is no HTTP");
        assert_eq!(error(b"HTTP/1.0 200 OK\r\nX"), "the answer is no HTTP");
        let endless = [b"HTTP/1.0 200 OK\r\nX: ".as_slice(), &vec![b'x'; 40 << 10]].concat();
        assert_eq!(error(&endless), "the answer's head is longer than 16 KiB");
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = format!("{:#}", get(&url(nobody.port(), "/"), SOON).unwrap_err());
        assert!(error.starts_with(&format!("connecting to {nobody}: ")), "{error}");
    }

    /// A server that sends a byte now and then.
    fn dripping(before: &'static [u8]) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut sent = stream.write_all(before);
            while sent.is_ok() {
                std::thread::sleep(Duration::from_millis(20));
                sent = stream.write_all(b"x");
            }
        });
        port
    }

    #[test]
    fn a_server_that_sends_a_byte_now_and_then_holds_nobody() {
        let within = Duration::from_millis(300);
        let begun = Instant::now();
        let error = get(&url(dripping(b"HTTP/1.0 200 OK\r\nX: "), "/"), within).unwrap_err();
        assert_eq!(error.to_string(), "the answer's head is not whole after 0 s");
        let mut answer = get(&url(dripping(b"HTTP/1.0 200 OK\r\n\r\n"), "/"), within).unwrap();
        let error = answer.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
        assert!(begun.elapsed() < SOON);
    }

    proptest! {
        #[test]
        fn no_url_breaks_it(url in "(http://)?.{0,30}") {
            if let Ok(read) = Url::parse(&url) {
                prop_assert!(read.path.starts_with('/') && !read.path.contains(['\r', '\n', ' ']));
                prop_assert!(!read.host.is_empty() && !read.host.contains(['\r', '\n', ' ', '/']));
            }
        }
    }
}
