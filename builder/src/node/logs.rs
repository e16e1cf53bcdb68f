//! Turns a machine's log files, which its kubelet serves, into a list, or into their last lines.
use anyhow::{Result, anyhow, bail};

use super::refusal;
use crate::console::Hint;
use crate::vmcluster::api::{Api, Part};

/// Folder of the services' logs below `/var/log`, which is what the kubelet serves.
const FOLDER: &str = "kscratch";
/// A line of a log has some 200 bytes.
const PER_LINE: u64 = 512;
/// So much is fetched where nothing is said, and at the least: a log of long lines has few in less.
const LATEST: u64 = 64 << 10;
/// More than this is not fetched: what PID 1 lets a log grow to.
const MOST: u64 = 8 << 20;

/// Where the API server has a file below `/var/log`. A word is the log of that service.
///
/// # Errors
/// It leads out of there.
pub(super) fn place(node: &str, file: &str) -> Result<String> {
    let plain = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    if !file.split('/').all(plain) {
        bail!("{file:?} is no log: give a service's name, or a path below /var/log");
    }
    let path = match file {
        _ if file.contains('/') => file.to_owned(),
        _ if file.contains(".log") => format!("{FOLDER}/{file}"),
        _ => format!("{FOLDER}/{file}.log"),
    };
    Ok(format!("/api/v1/nodes/{node}/proxy/logs/{path}"))
}

/// Names of the logs that there are.
///
/// # Errors
/// The machine does not answer, or the API server refuses.
pub fn list(api: &Api, node: &str) -> Result<Vec<String>> {
    let (status, body) = api.get(&format!("/api/v1/nodes/{node}/proxy/logs/{FOLDER}/"))?;
    if status != 200 {
        return Err(refusal(status, &body).context(format!("asking {node} which logs it has")));
    }
    Ok(names(&String::from_utf8_lossy(&body)))
}

/// Go's listing of a folder (net/http, `dirList`): a link a line.
pub(super) fn names(page: &str) -> Vec<String> {
    let links = page.split("<a href=\"").skip(1);
    let names = links.filter_map(|rest| rest.split_once('"')).map(|(name, _)| name.to_owned());
    names.filter(|name| !name.ends_with('/')).collect()
}

/// The end of a log: its last lines, as far as they stand in its last 8 MiB, or what was written lately. Also how long the log is now.
///
/// # Errors
/// There is no such log, the machine does not answer, or the API server refuses.
pub fn tail(api: &Api, node: &str, file: &str, lines: Option<u64>) -> Result<(String, u64)> {
    let mut wanted = lines.map_or(LATEST, |lines| lines.saturating_mul(PER_LINE).clamp(LATEST, MOST));
    loop {
        let (bytes, length) = match read(api, node, file, Part::Last(wanted))? {
            Seen::Bytes(bytes, length) => (bytes, length),
            Seen::None => return Ok((String::new(), 0)),
            Seen::Away(error) => return Err(error),
        };
        let text = String::from_utf8_lossy(&bytes);
        let is_cut = length > bytes.len() as u64;
        let whole = if is_cut { text.split_once('\n').map_or("", |(_, rest)| rest) } else { &*text };
        if is_cut && (whole.lines().count() as u64) < lines.unwrap_or(1) && wanted < MOST {
            wanted = wanted.saturating_mul(4).min(MOST);
            continue;
        }
        return Ok((last(whole, lines).to_owned(), length));
    }
}

/// The last lines of a text.
pub(super) fn last(text: &str, lines: Option<u64>) -> &str {
    let Some(lines) = lines.and_then(|lines| usize::try_from(lines).ok()) else { return text };
    let body = text.strip_suffix('\n').unwrap_or(text);
    if lines == 0 {
        return "";
    }
    let start = body.rmatch_indices('\n').nth(lines - 1).map_or(0, |(at, _)| at + 1);
    text.get(start..).unwrap_or_default()
}

/// What came of asking for bytes of a log.
pub(super) enum Seen {
    /// These, and how long the log is.
    Bytes(Vec<u8>, u64),
    /// It has none there.
    None,
    /// The machine does not answer at the moment.
    Away(anyhow::Error),
}

/// Bytes of a log.
///
/// # Errors
/// There is no such log, or the API server refuses. A machine that does not answer may do so later.
pub(super) fn read(api: &Api, node: &str, file: &str, part: Part) -> Result<Seen> {
    let piece = match api.part(&place(node, file)?, part) {
        Ok(piece) => piece,
        Err(error) => return Ok(Seen::Away(error)),
    };
    let refused = || refusal(piece.status, &piece.bytes).context(format!("asking {node} for the log {file}"));
    match piece.status {
        200 | 206 => Ok(Seen::Bytes(piece.bytes, piece.length)),
        416 => Ok(Seen::None),
        404 => {
            let hint = Hint(format!("kscratch-image node logs {node} lists them"));
            Err(anyhow!("{node} has no log {file}").context(hint))
        }
        500.. => Ok(Seen::Away(refused())),
        _ => Err(refused()),
    }
}
