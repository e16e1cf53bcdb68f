//! Turns a URL into the text it names: `http://` with one plain request and bounds on time and size, `https://` by the agent, which speaks TLS.
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{LARGEST, Text, text};
use crate::apply::certificates::AGENT;
use crate::sys::Sys;

/// For connecting, and for each wait for bytes. A metadata server is near.
const PATIENCE: Duration = Duration::from_secs(5);
/// A switch may take this many attempts until it forwards on a new link.
const ATTEMPTS: u32 = 4;

/// Parts of a URL.
#[derive(Debug, PartialEq, Eq)]
struct Url<'a> {
    host: &'a str,
    port: u16,
    path: String,
}

/// Fetches the metadata text that the URL names.
///
/// # Errors
/// The URL is of another kind than http and https, the server does not prove itself or does not answer with 200, or the text is none.
pub fn fetch(sys: &dyn Sys, url: &str) -> Result<Text> {
    if url.starts_with("https://") {
        let ran = sys.run(Path::new(AGENT), &["fetch", url], b"").with_context(|| format!("fetching {url}"))?;
        if !ran.ok() {
            bail!("{}", ran.text.trim());
        }
        return Ok(Text { place: url.to_owned(), role: ran.text, secrets: None });
    }
    let parts = parse(url)?;
    let mut last = None;
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            std::thread::sleep(Duration::from_secs(1) * attempt);
        }
        match get(&parts) {
            Ok(Response { status: 200, body }) => {
                let role = text(body).with_context(|| format!("reading {url}"))?;
                return Ok(Text { place: url.to_owned(), role, secrets: None });
            }
            // The server has spoken: asking again brings the same, unless it says that it is busy.
            Ok(Response { status, .. }) if status < 500 => bail!("fetching {url}: the server answers {status}"),
            Ok(Response { status, .. }) => last = Some(anyhow::anyhow!("the server answers {status}")),
            Err(error) => last = Some(error),
        }
    }
    let error = last.unwrap_or_else(|| anyhow::anyhow!("there was no attempt"));
    Err(error.context(format!("fetching {url} ({ATTEMPTS} attempts)")))
}

fn parse(url: &str) -> Result<Url<'_>> {
    let Some(rest) = url.strip_prefix("http://") else {
        bail!("{url} is not a URL of the form http://HOST[:PORT]/PATH, or https://HOST[:PORT]/PATH")
    };
    let (authority, path) = rest.find(['/', '?']).map_or((rest, ""), |at| rest.split_at(at));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().with_context(|| format!("the port of {url}"))?),
        None => (authority, 80),
    };
    let forbidden = |text: &str| text.bytes().any(|byte| byte.is_ascii_control() || byte == b' ');
    if host.is_empty() || host.contains(['@', '[']) || forbidden(rest) {
        bail!("{url} is not a URL of the form http://HOST[:PORT]/PATH");
    }
    let slash = if path.starts_with('/') { "" } else { "/" };
    let path = path.split('#').next().unwrap_or_default();
    Ok(Url { host, port, path: format!("{slash}{path}") })
}

struct Response {
    status: u16,
    body: Vec<u8>,
}

/// HTTP/1.0 on purpose: the answer is then never chunked and ends with the connection (RFC 1945, 7.2.2).
fn get(url: &Url<'_>) -> Result<Response> {
    let mut stream = connect(url)?;
    let request = format!(
        "GET {} HTTP/1.0\r\nHost: {}\r\nUser-Agent: kscratch-init\r\nConnection: close\r\n\r\n",
        url.path, url.host
    );
    stream.write_all(request.as_bytes()).context("sending the request")?;
    let mut answer = Vec::new();
    // A megabyte of text and some headers.
    stream.take(LARGEST + 65536).read_to_end(&mut answer).context("reading the answer")?;
    parse_response(&answer)
}

fn connect(url: &Url<'_>) -> Result<TcpStream> {
    let addresses: Vec<SocketAddr> =
        (url.host, url.port).to_socket_addrs().with_context(|| format!("looking up {}", url.host))?.collect();
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

fn parse_response(answer: &[u8]) -> Result<Response> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").context("the answer is no HTTP")?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let mut lines = head.lines();
    let status =
        lines.next().filter(|line| line.starts_with("HTTP/1.")).and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let status = status.context("the answer is no HTTP")?;
    let body = answer[end + 4..].to_vec();
    let length =
        lines.filter_map(|line| line.split_once(':')).find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    // Without this, a connection that broke half-way would give half a text.
    if let Some(length) = length.and_then(|(_, value)| value.trim().parse::<usize>().ok())
        && length > body.len()
    {
        bail!("the answer broke off after {} of {length} bytes", body.len());
    }
    Ok(Response { status, body })
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    use proptest::prelude::proptest;

    use super::{Url, fetch, parse, parse_response};
    use crate::sys::recording::Recording;

    /// Answers each connection with the next text and gives the request lines it saw.
    fn server(answers: Vec<&'static str>) -> (u16, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = std::thread::spawn(move || {
            answers
                .into_iter()
                .map(|answer| {
                    let (mut stream, _) = listener.accept().unwrap();
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    let lines: Vec<String> = std::iter::from_fn(|| {
                        let mut line = String::new();
                        reader.read_line(&mut line).unwrap();
                        (line.trim() != "").then(|| line.trim().to_owned())
                    })
                    .collect();
                    stream.write_all(answer.as_bytes()).unwrap();
                    lines[0].clone()
                })
                .collect()
        });
        (port, seen)
    }

    #[test]
    fn a_text_is_fetched_and_a_busy_server_asked_again() {
        let (port, seen) =
            server(vec!["HTTP/1.0 503 Busy\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nversion = 1"]);
        let text = fetch(&Recording::new(), &format!("http://127.0.0.1:{port}/role?mac=1#x")).unwrap();
        assert_eq!(text.role, "version = 1");
        assert_eq!(seen.join().unwrap(), ["GET /role?mac=1 HTTP/1.0"; 2]);
    }

    #[test]
    fn a_refusal_is_told_at_once() {
        let (port, _seen) = server(vec!["HTTP/1.0 404 Not Found\r\n\r\n"]);
        let url = format!("http://127.0.0.1:{port}");
        assert_eq!(
            fetch(&Recording::new(), &url).unwrap_err().to_string(),
            format!("fetching {url}: the server answers 404")
        );
    }

    #[test]
    fn the_agent_speaks_tls() {
        let agent = "run /usr/lib/kscratch/agent fetch https://h/";
        let sys = Recording::new().answering(agent, 0, "version = 1\n");
        assert_eq!(fetch(&sys, "https://h/role.toml").unwrap().role, "version = 1\n");
        let sys =
            Recording::new().answering(agent, 1, "fetching https://h/role.toml: the server answers 404 Not Found\n");
        let error = fetch(&sys, "https://h/role.toml").unwrap_err().to_string();
        assert_eq!(error, "fetching https://h/role.toml: the server answers 404 Not Found");
    }

    #[test]
    fn urls() {
        let url = |host, port, path: &str| Url { host, port, path: path.into() };
        assert_eq!(parse("http://h").unwrap(), url("h", 80, "/"));
        assert_eq!(parse("http://h:8080/a/b?c").unwrap(), url("h", 8080, "/a/b?c"));
        assert_eq!(parse("http://h?c").unwrap(), url("h", 80, "/?c"));
        for (wrong, want) in [
            ("ftp://h/", "not a URL of the form"),
            ("http://", "not a URL of the form"),
            ("http://user@h/", "not a URL of the form"),
            ("http://h/\r\nX: y", "not a URL of the form"),
            ("http://h:x/", "the port of http://h:x/"),
        ] {
            let error = format!("{:#}", parse(wrong).unwrap_err());
            assert!(error.contains(want), "{wrong}: {error}");
        }
    }

    #[test]
    fn half_an_answer_is_no_answer() {
        let error = |text: &str| parse_response(text.as_bytes()).err().unwrap().to_string();
        assert_eq!(error("HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nabc"), "the answer broke off after 3 of 5 bytes");
        assert_eq!(error("SSH-2.0\r\n\r\n"), "the answer is no HTTP");
        assert_eq!(error("HTTP/1.0 200 OK\r\n"), "the answer is no HTTP");
    }

    proptest! {
        #[test]
        fn no_answer_breaks_it(answer: Vec<u8>, url in "http://.{0,20}") {
            let _ = parse_response(&answer);
            let _ = parse(&url);
        }
    }
}
