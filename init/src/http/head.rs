//! Turns the first bytes of a server's answer into its status and what is to be known of its body.
use anyhow::{Context, Result, bail, ensure};

/// What the head of an answer says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// The status code, 100 to 599.
    pub status: u16,
    /// Bytes of the body, where the server says so.
    pub length: Option<u64>,
    /// Where a redirection leads to.
    pub location: Option<String>,
}

impl Head {
    /// Reads status line and headers (RFC 9112, 4 and 5), without the body.
    ///
    /// # Errors
    /// They are none, contradict each other, or say that the body is chunked, which nobody asked for.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.trim_end_matches("\r\n").split("\r\n");
        let status = lines.next().and_then(status).context("the answer is no HTTP")?;
        let mut head = Self { status, ..Self::default() };
        for line in lines {
            // A bare line feed, or what moves a terminal, has no business there (RFC 9110, 5.5), and words of the head come to the console.
            let odd = line.chars().any(|one| one.is_control() && one != '\t');
            ensure!(!odd, "the answer's head has a control character");
            let (name, value) = line.split_once(':').context("the answer's head has a line without a colon")?;
            let token = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
            ensure!(token, "the answer's head has a line that is no header");
            let value = value.trim_matches([' ', '\t']);
            match name.to_ascii_lowercase().as_str() {
                "content-length" => {
                    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
                    let length = value.parse().ok().filter(|_| digits).context("the answer's length is no number")?;
                    // Who obeys the one and who obeys the other see two different bodies (RFC 9112, 6.3).
                    ensure!(head.length.is_none_or(|before| before == length), "the answer has two lengths");
                    head.length = Some(length);
                }
                "transfer-encoding" if !value.eq_ignore_ascii_case("identity") => {
                    bail!("the answer's body is encoded ({value}), though it was asked for in HTTP/1.0")
                }
                "location" => head.location = Some(value.to_owned()),
                _ => {}
            }
        }
        Ok(head)
    }
}

/// `HTTP/1.1 200 OK`
fn status(line: &str) -> Option<u16> {
    let rest = line.strip_prefix("HTTP/1.")?;
    let rest = rest.strip_prefix(|minor: char| minor.is_ascii_digit())?.strip_prefix(' ')?;
    let code = rest.split(' ').next().filter(|code| code.len() == 3)?;
    code.parse().ok().filter(|code| (100..600).contains(code))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::Head;

    #[test]
    fn heads() {
        let head = |text: &str| Head::parse(text.as_bytes()).unwrap();
        assert_eq!(head("HTTP/1.0 404 Not Found\r\n\r\n"), Head { status: 404, ..Head::default() });
        assert_eq!(head("HTTP/1.1 503\r\n\r\n").status, 503);
        let told = head("HTTP/1.1 200 OK\r\ncontent-LENGTH:  12 \r\nContent-Length: 12\r\nServer: x: y\r\n\r\n");
        assert_eq!(told, Head { status: 200, length: Some(12), location: None });
        let moved = head("HTTP/1.1 301 Moved\r\nLocation: http://h/b\r\n\r\n");
        assert_eq!(moved.location.as_deref(), Some("http://h/b"));
        for (wrong, want) in [
            ("SSH-2.0\r\n\r\n", "the answer is no HTTP"),
            ("HTTP/2 200\r\n\r\n", "the answer is no HTTP"),
            ("HTTP/1.1 20\r\n\r\n", "the answer is no HTTP"),
            ("HTTP/1.1 +20\r\n\r\n", "the answer is no HTTP"),
            ("HTTP/1.1 999 x\r\n\r\n", "the answer is no HTTP"),
            ("HTTP/1.1 200 OK\r\nnonsense\r\n\r\n", "the answer's head has a line without a colon"),
            ("HTTP/1.1 200 OK\r\nX: y\r\n folded: z\r\n\r\n", "the answer's head has a line that is no header"),
            ("HTTP/1.1 302 x\r\nLocation: a\nrole metadata: b\r\n\r\n", "the answer's head has a control character"),
            ("HTTP/1.1 302 x\r\nLocation: \x1b[2J\r\n\r\n", "the answer's head has a control character"),
            ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "the answer's length is no number"),
            ("HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n", "the answer's length is no number"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "the answer has two lengths"),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                "the answer's body is encoded (chunked), though it was asked for in HTTP/1.0",
            ),
        ] {
            assert_eq!(Head::parse(wrong.as_bytes()).unwrap_err().to_string(), want, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn no_head_breaks_it(bytes: Vec<u8>, line in "HTTP/1.[01] [0-9]{3} .{0,9}", length in any::<u64>(), more in "\\PC{0,40}") {
            let _ = Head::parse(&bytes);
            let told = format!("{line}\r\nContent-Length: {length}\r\n{more}\r\n\r\n");
            if let Ok(head) = Head::parse(told.as_bytes()) {
                assert!((100..600).contains(&head.status));
                assert_eq!(head.length, Some(length));
            }
        }
    }
}
