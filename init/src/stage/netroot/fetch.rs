//! One attempt to fetch a root: what a server sends goes into a file and through the digest, and is worth nothing before that is right.
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, Write};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::trouble::Trouble;
use crate::cmdline::Fetched;
use crate::http::{self, Url};
use crate::log;

/// How often the console is told how far it is.
const TOLD_EVERY: Duration = Duration::from_secs(5);
/// How long one attempt may take.
const WITHIN: Duration = Duration::from_secs(1800);

/// Fetches the file into `file`, whose content is lost, and gives its length. `most` is how long it may be.
///
/// # Errors
/// What is in `file` then is not to be used.
pub fn attempt(url: &Url, wanted: &Fetched, file: &mut File, most: u64) -> Result<u64, Trouble> {
    let kept = |error: std::io::Error| Trouble::Kept(error.to_string());
    file.set_len(0).and_then(|()| file.rewind()).map_err(kept)?;
    let mut answer = http::get(url, WITHIN).map_err(|error| Trouble::Silent(format!("{error:#}")))?;
    if answer.head.status != 200 {
        return Err(Trouble::Status(answer.head.status, answer.head.location));
    }
    let length = answer.head.length.ok_or(Trouble::NoLength)?;
    if length > most {
        return Err(Trouble::Kept(format!("the file has {} MiB, and {} are free", length >> 20, most >> 20)));
    }
    let mut told = Instant::now();
    let (mut hash, mut got, mut buffer) = (Sha256::new(), 0, vec![0; 256 << 10]);
    while got < length {
        let count = match answer.read(&mut buffer) {
            Ok(0) => return Err(Trouble::BrokeOff(got, length)),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => {
                log::debug(format_args!("reading {}: {error}", wanted.url));
                return Err(Trouble::BrokeOff(got, length));
            }
        };
        // What comes behind the end is nobody's.
        let count = count.min(usize::try_from(length - got).unwrap_or(usize::MAX));
        let bytes = buffer.get(..count).unwrap_or_default();
        hash.update(bytes);
        file.write_all(bytes).map_err(kept)?;
        got += bytes.len() as u64;
        if told.elapsed() > TOLD_EVERY {
            told = Instant::now();
            log::line(format_args!("root: {} of {} MiB are here", got >> 20, length >> 20));
        }
    }
    let found: [u8; 32] = hash.finalize().into();
    if found != wanted.sha256 {
        return Err(Trouble::Digest(found.iter().map(|byte| format!("{byte:02x}")).collect()));
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek};

    use sha2::{Digest as _, Sha256};

    use super::attempt;
    use crate::cmdline::Fetched;
    use crate::http::Url;
    use crate::http::tests::server;
    use crate::stage::netroot::trouble::Trouble;

    /// What comes of one answer, and what is in the file then.
    fn fetch(answer: &[u8], root: &[u8], most: u64) -> (Result<u64, Trouble>, Vec<u8>) {
        let (port, _seen) = server(vec![answer.to_vec()]);
        let url = format!("http://127.0.0.1:{port}/root");
        let wanted = Fetched { url: url.clone(), sha256: Sha256::digest(root).into(), bytes: None };
        let mut file: File = tempfile::tempfile().unwrap();
        let result = attempt(&Url::parse(&url).unwrap(), &wanted, &mut file, most);
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        (result, bytes)
    }

    #[test]
    fn only_what_has_the_digest_is_a_root() {
        let root = vec![0x5A_u8; 600_000];
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 600000\r\n\r\n".as_slice();
        let whole = [head, &root].concat();
        let (result, file) = fetch(&whole, &root, 600_000);
        assert_eq!((result, file == root), (Ok(600_000), true));
        // More than was told of is not looked at.
        let more = [&whole, b"more".as_slice()].concat();
        assert_eq!(fetch(&more, &root, u64::MAX).0, Ok(600_000));

        let mut other = whole.clone();
        other[100_000] ^= 1;
        let digest: String = Sha256::digest(&other[head.len()..]).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(fetch(&other, &root, u64::MAX).0, Err(Trouble::Digest(digest)));
        assert_eq!(
            fetch(&whole[..300_000], &root, u64::MAX).0,
            Err(Trouble::BrokeOff(300_000 - head.len() as u64, 600_000))
        );
        let (result, file) = fetch(&whole, &root, 599_999);
        assert!(matches!(result, Err(Trouble::Kept(_))) && file.is_empty());
    }

    #[test]
    fn what_a_server_says_instead_is_told() {
        for (answer, want) in [
            ("HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno\n", Trouble::Status(404, None)),
            ("HTTP/1.1 301 Moved\r\nLocation: /b\r\n\r\n", Trouble::Status(301, Some("/b".to_owned()))),
            ("HTTP/1.1 200 OK\r\n\r\nroot", Trouble::NoLength),
            ("220 ftp\r\n\r\n", Trouble::Silent("the answer is no HTTP".to_owned())),
        ] {
            assert_eq!(fetch(answer.as_bytes(), b"root", u64::MAX).0, Err(want), "{answer:?}");
        }
    }
}
