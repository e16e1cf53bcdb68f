//! Turns a URL into the text it names: `http://` with one plain request and bounds on time and size, `https://` by the agent, which speaks TLS.
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{LARGEST, Text, text};
use crate::apply::certificates::AGENT;
use crate::http::{self, Url};
use crate::sys::Sys;

/// For one attempt: a text is small, and its server near.
const WITHIN: Duration = Duration::from_secs(30);
/// A switch may take this many attempts until it forwards on a new link.
const ATTEMPTS: u32 = 4;

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
    if !url.starts_with("http://") {
        bail!("{url} is not a URL of the form http://HOST[:PORT]/PATH, or https://HOST[:PORT]/PATH")
    }
    let parts = Url::parse(url)?;
    let mut last = None;
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            std::thread::sleep(Duration::from_secs(1) * attempt);
        }
        match get(&parts) {
            Ok((200, body)) => {
                let role = text(body).with_context(|| format!("reading {url}"))?;
                return Ok(Text { place: url.to_owned(), role, secrets: None });
            }
            // The server has spoken: asking again brings the same, unless it says that it is busy.
            Ok((status, _)) if !http::may_pass(status) => bail!("fetching {url}: the server answers {status}"),
            Ok((status, _)) => last = Some(anyhow::anyhow!("the server answers {status}")),
            Err(error) => last = Some(error),
        }
    }
    let error = last.unwrap_or_else(|| anyhow::anyhow!("there was no attempt"));
    Err(error.context(format!("fetching {url} ({ATTEMPTS} attempts)")))
}

/// The answer's status and body.
fn get(url: &Url) -> Result<(u16, Vec<u8>)> {
    let answer = http::get(url, WITHIN)?;
    let (status, length) = (answer.head.status, answer.head.length);
    let mut body = Vec::new();
    answer.take(LARGEST + 1).read_to_end(&mut body).context("reading the answer")?;
    let got = body.len() as u64;
    // Without this, a connection that broke half-way would give half a text.
    if let Some(length) = length.filter(|length| *length > got && got <= LARGEST) {
        bail!("the answer broke off after {got} of {length} bytes");
    }
    Ok((status, body))
}

#[cfg(test)]
mod tests {
    use super::{fetch, get};
    use crate::http::Url;
    use crate::http::tests::server;
    use crate::sys::recording::Recording;

    fn answers(texts: &[&str]) -> Vec<Vec<u8>> {
        texts.iter().map(|text| text.as_bytes().to_vec()).collect()
    }

    #[test]
    fn a_text_is_fetched_and_a_busy_server_asked_again() {
        let (port, seen) =
            server(answers(&["HTTP/1.0 503 Busy\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nversion = 1"]));
        let text = fetch(&Recording::new(), &format!("http://127.0.0.1:{port}/role?mac=1#x")).unwrap();
        assert_eq!(text.role, "version = 1");
        let lines: Vec<String> = seen.join().unwrap().into_iter().map(|lines| lines[0].clone()).collect();
        assert_eq!(lines, ["GET /role?mac=1 HTTP/1.0"; 2]);
    }

    #[test]
    fn a_refusal_is_told_at_once() {
        let (port, _seen) = server(answers(&["HTTP/1.0 404 Not Found\r\n\r\n"]));
        let url = format!("http://127.0.0.1:{port}");
        let error = |url: &str| fetch(&Recording::new(), url).unwrap_err().to_string();
        assert_eq!(error(&url), format!("fetching {url}: the server answers 404"));
        let form = "ftp://h/ is not a URL of the form http://HOST[:PORT]/PATH, or https://HOST[:PORT]/PATH";
        assert_eq!(error("ftp://h/"), form);
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
    fn half_an_answer_is_no_answer() {
        let (port, _seen) = server(answers(&["HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nabc"]));
        let url = Url::parse(&format!("http://127.0.0.1:{port}/")).unwrap();
        assert_eq!(get(&url).unwrap_err().to_string(), "the answer broke off after 3 of 5 bytes");
    }
}
