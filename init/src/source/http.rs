//! Turns a URL into the text it names: `http://` with one plain request and bounds on time and size, `https://` by the agent, which speaks TLS.
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, bail};

use super::{LARGEST, Text, text};
use crate::apply::certificates::AGENT;
use crate::http::{self, Url};
use crate::sys::Sys;

/// For one attempt: a text is small, and its server near.
const WITHIN: Duration = Duration::from_secs(30);

/// Why there is no text.
#[derive(Debug)]
pub enum Trouble {
    /// The server cannot be reached, answers nonsense or is busy: another attempt may bring it.
    Passes(Error),
    /// Another one would bring the same.
    Lasts(Error),
}

/// Fetches the metadata text that the URL names. One attempt for http; the agent makes a few, a second apart.
///
/// # Errors
/// The URL is of another kind than http and https, the server does not prove itself or does not answer with 200, or the text is none.
pub fn fetch(sys: &dyn Sys, url: &str) -> Result<Text, Trouble> {
    let whole = |role: String| Text { place: url.to_owned(), role, secrets: None };
    let fetching = || format!("fetching {url}");
    if url.starts_with("https://") {
        let ran = sys.run(Path::new(AGENT), &["fetch", url], b"").with_context(fetching).map_err(Trouble::Lasts)?;
        let said = ran.text.trim();
        return match ran.ok() {
            true => Ok(whole(ran.text)),
            false if agent_was_unheard(said) => Err(Trouble::Passes(anyhow!("{said}"))),
            false => Err(Trouble::Lasts(anyhow!("{said}"))),
        };
    }
    if !url.starts_with("http://") {
        let form = anyhow!("{url} is not a URL of the form http://HOST[:PORT]/PATH, or https://HOST[:PORT]/PATH");
        return Err(Trouble::Lasts(form));
    }
    let parts = Url::parse(url).map_err(Trouble::Lasts)?;
    match get(&parts) {
        Ok((200, body)) => text(body).with_context(|| format!("reading {url}")).map(whole).map_err(Trouble::Lasts),
        // The server has spoken: asking again brings the same, unless it says that it is busy.
        Ok((status, _)) => {
            let answers = anyhow!("fetching {url}: the server answers {status}");
            Err(if http::may_pass(status) { Trouble::Passes(answers) } else { Trouble::Lasts(answers) })
        }
        Err(error) => Err(Trouble::Passes(error.context(fetching()))),
    }
}

/// Whether the agent's words (`agent/src/fetch.rs`) are of attempts that may fare better later: it counts none where the server has spoken. One that does
/// not prove itself is there, and is as much a stranger the next time; and a text that is too long stays so.
fn agent_was_unheard(said: &str) -> bool {
    let lasts = ["invalid peer certificate", "length limit exceeded"];
    said.contains(" attempts): ") && !lasts.iter().any(|words| said.contains(words))
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
    use super::{Trouble, agent_was_unheard, fetch, get};
    use crate::http::Url;
    use crate::http::tests::server;
    use crate::sys::recording::Recording;

    fn answers(texts: &[&str]) -> Vec<Vec<u8>> {
        texts.iter().map(|text| text.as_bytes().to_vec()).collect()
    }

    /// What keeps a text away, and whether it may pass.
    fn trouble(sys: &Recording, url: &str) -> (bool, String) {
        match fetch(sys, url).unwrap_err() {
            Trouble::Passes(error) => (true, format!("{error:#}")),
            Trouble::Lasts(error) => (false, format!("{error:#}")),
        }
    }

    #[test]
    fn a_text_is_fetched() {
        let (port, seen) = server(answers(&["HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nversion = 1"]));
        let text = fetch(&Recording::new(), &format!("http://127.0.0.1:{port}/role?mac=1#x")).unwrap();
        assert_eq!(text.role, "version = 1");
        assert_eq!(seen.join().unwrap()[0][0], "GET /role?mac=1 HTTP/1.0");
    }

    #[test]
    fn what_may_pass_is_told_from_what_lasts() {
        for (answer, passes, want) in [
            ("HTTP/1.0 404 Not Found\r\n\r\n", false, "fetching U: the server answers 404"),
            ("HTTP/1.0 301 Moved\r\n\r\n", false, "fetching U: the server answers 301"),
            ("HTTP/1.0 503 Busy\r\n\r\n", true, "fetching U: the server answers 503"),
            ("HTTP/1.0 429 Slowly\r\n\r\n", true, "fetching U: the server answers 429"),
            ("220 ftp\r\n\r\n", true, "fetching U: the answer is no HTTP"),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nabc",
                true,
                "fetching U: the answer broke off after 3 of 5 bytes",
            ),
        ] {
            let (port, _seen) = server(answers(&[answer]));
            let url = format!("http://127.0.0.1:{port}/");
            assert_eq!(trouble(&Recording::new(), &url), (passes, want.replace('U', &url)), "{answer:?}");
        }
        let (port, _seen) = server(vec![b"HTTP/1.0 200 OK\r\n\r\n\xff".to_vec()]);
        let (passes, words) = trouble(&Recording::new(), &format!("http://127.0.0.1:{port}/"));
        assert!(
            !passes && words.ends_with("it is no UTF-8 text: invalid utf-8 sequence of 1 bytes from index 0"),
            "{words}"
        );
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (passes, words) = trouble(&Recording::new(), &format!("http://{nobody}/"));
        assert!(
            passes && words.starts_with(&format!("fetching http://{nobody}/: connecting to {nobody}: ")),
            "{words}"
        );
        let form = "ftp://h/ is not a URL of the form http://HOST[:PORT]/PATH, or https://HOST[:PORT]/PATH";
        assert_eq!(trouble(&Recording::new(), "ftp://h/"), (false, form.to_owned()));
    }

    #[test]
    fn the_agent_speaks_tls() {
        let agent = "run /usr/lib/kscratch/agent fetch https://h/";
        let sys = Recording::new().answering(agent, 0, "version = 1\n");
        assert_eq!(fetch(&sys, "https://h/role.toml").unwrap().role, "version = 1\n");
        let sys =
            Recording::new().answering(agent, 1, "fetching https://h/role.toml: the server answers 404 Not Found\n");
        let want = "fetching https://h/role.toml: the server answers 404 Not Found".to_owned();
        assert_eq!(trouble(&sys, "https://h/role.toml"), (false, want));
    }

    #[test]
    fn what_the_agent_says_may_pass_or_last() {
        for (said, passes) in [
            ("fetching https://h/ (4 attempts): there is no answer within 20 s", true),
            ("fetching https://h/ (4 attempts): the server answers 503 Service Unavailable", true),
            ("fetching https://h/ (4 attempts): client error (Connect): tcp connect error: Connection refused", true),
            (
                "fetching https://h/ (4 attempts): client error (Connect): invalid peer certificate: UnknownIssuer",
                false,
            ),
            ("fetching https://h/ (4 attempts): reading the answer: length limit exceeded", false),
            ("fetching https://h/: the server answers 301 Moved Permanently, and names https://g/", false),
            ("reading /etc/ssl/certs/ca-certificates.crt: No such file or directory (os error 2)", false),
            ("", false),
        ] {
            assert_eq!(agent_was_unheard(said), passes, "{said}");
        }
    }

    #[test]
    fn half_an_answer_is_no_answer() {
        let (port, _seen) = server(answers(&["HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nabc"]));
        let url = Url::parse(&format!("http://127.0.0.1:{port}/")).unwrap();
        assert_eq!(get(&url).unwrap_err().to_string(), "the answer broke off after 3 of 5 bytes");
    }
}
