//! An InRelease file becomes a [`Release`]: digests of indices, once its signature, its dates and its name are right.
use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow, bail};
use deb822_fast::Deb822;

use super::keyring::Keyring;
use crate::console::Hint;
use crate::store::Digest;

/// What is believed of an InRelease file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Its `Date:`, seconds since 1970.
    pub date: u64,
    /// Digest of the whole InRelease file.
    pub sha256: Digest,
    /// Whether indices can be had by their digest, unharmed by an archive that changes meanwhile.
    pub by_hash: bool,
    /// Length and digest of indices, by path below `dists/SUITE/`.
    pub files: BTreeMap<String, (u64, Digest)>,
}

/// How far the archive's clock may be ahead of this machine's.
const CLOCK_SLACK: u64 = 24 * 3600;

impl Release {
    /// Verifies an InRelease file that was fetched as `dists/SUITE/InRelease`. `now` is in seconds since 1970.
    pub fn verify(bytes: &[u8], suite: &str, keyring: &Keyring, now: u64) -> Result<Release> {
        let text = keyring.verify(bytes, now)?;
        let document = text.parse::<Deb822>().map_err(|error| anyhow!("{error}")).context("reading its fields")?;
        let Some(stanza) = document.iter().next() else { bail!("it has no fields") };
        let field = |name: &str| stanza.get(name).map(str::trim);

        // Names as a user may write them; a mirror that serves another suite in this one's place is found out here.
        let names: Vec<&str> = ["Suite", "Codename"].into_iter().filter_map(field).collect();
        if !names.contains(&suite) {
            bail!("it is of {}, expected {suite}", names.join(" / "));
        }
        let moment = |name: &str| -> Result<Option<u64>> {
            let Some(text) = field(name) else { return Ok(None) };
            Ok(Some(parse_date(text).with_context(|| format!("its {name} `{text}` is not a date"))?))
        };
        let made = moment("Date")?.context("it has no Date")?;
        if made > now + CLOCK_SLACK {
            return Err(anyhow!("its Date is {}, and this machine's clock says {}", date(made), date(now))
                .context(Hint("set this machine's clock".into())));
        }
        if let Some(until) = moment("Valid-Until")?
            && until < now
        {
            return Err(anyhow!(
                "it was valid until {}, and it is {} now: the mirror is out of date",
                date(until),
                date(now)
            )
            .context(Hint("use another mirror with --debian-mirror URL, or look at this machine's clock".into())));
        }
        let files = stanza.get("SHA256").map(digests).transpose()?.context("it has no SHA256 digests")?;
        let by_hash = field("Acquire-By-Hash").is_some_and(|word| word.eq_ignore_ascii_case("yes"));
        Ok(Release { date: made, sha256: Digest::of(bytes), by_hash, files })
    }
}

/// `DIGEST LENGTH PATH`, one a line.
fn digests(field: &str) -> Result<BTreeMap<String, (u64, Digest)>> {
    let mut files = BTreeMap::new();
    for line in field.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut words = line.split_whitespace();
        let entry = (|| {
            let digest = words.next()?.parse().ok()?;
            let len = words.next()?.parse().ok()?;
            Some((words.next()?.to_owned(), (len, digest)))
        })();
        let (path, entry) = entry.with_context(|| format!("its line `{line}` is not a digest, a length and a path"))?;
        files.insert(path, entry);
    }
    Ok(files)
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// `Sat, 12 Sep 2026 07:55:41 UTC` in seconds since 1970. Debian writes no other zone (Debian's repository format, Date).
fn parse_date(text: &str) -> Option<u64> {
    let mut words = text.split_once(", ")?.1.split_whitespace();
    let day: i64 = words.next()?.parse().ok()?;
    let name = words.next()?;
    let month = MONTHS.iter().position(|month| *month == name)? as i64 + 1;
    let year: i64 = words.next()?.parse().ok()?;
    let mut clock = words.next()?.split(':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    if !matches!(words.next(), Some("UTC" | "GMT" | "+0000")) || words.next().is_some() {
        return None;
    }
    let plausible =
        (1970..10_000).contains(&year) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    if !plausible || hour < 0 || minute < 0 || second < 0 {
        return None;
    }
    // Days since 1970 with years that begin in March, so that the leap day is a year's last.
    let (shifted_year, shifted_month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * shifted_year + shifted_year / 4 - shifted_year / 100
        + shifted_year / 400
        + (153 * shifted_month + 2) / 5
        + day
        - 1
        - 719_468;
    u64::try_from(days * 86_400 + hour * 3_600 + minute * 60 + second).ok()
}

/// Seconds since 1970 as `2026-09-12 07:55 UTC`.
pub fn date(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    // The inverse of the above: 400 years have 146,097 days.
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02} UTC", seconds / 3_600 % 24, seconds / 60 % 60)
}

#[cfg(test)]
mod tests;
