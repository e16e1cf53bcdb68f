//! secrets/tokens.toml: the tokens with which machines may join, each with its end.
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail};
use kscratch_metadata::{BootstrapToken, Secret};
use kscratch_pki::{Duration, OffsetDateTime, Token, moment};
use serde::{Deserialize, Serialize};
use time::format_description::well_known::Rfc3339;

use super::folder::{Folder, TOKENS, write_private};

/// How long a token is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lapse {
    /// To the end of time.
    Never,
    /// So long from when it was made.
    After(Duration),
}

impl FromStr for Lapse {
    type Err = String;

    /// `90m`, `24h`, `30d` or `never`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "never" {
            return Ok(Self::Never);
        }
        let wrong = || format!("`{text}` is no time such as `90m`, `24h` or `30d`, nor `never`");
        let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
        let number: i64 = number.parse::<u32>().map_err(|_| wrong())?.into();
        let (length, most) = match unit {
            "m" => (Duration::minutes(number), number <= 60 * 24 * 3650),
            "h" => (Duration::hours(number), number <= 24 * 3650),
            "d" => (Duration::days(number), number <= 3650),
            _ => return Err(wrong()),
        };
        match (number, most) {
            (0, _) => Err(format!("`{text}` is over at once")),
            (_, false) => Err(format!("`{text}` is longer than ten years; say `never`")),
            (_, true) => Ok(Self::After(length)),
        }
    }
}

/// A token as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The token.
    pub token: Token,
    /// When it was made.
    pub created: OffsetDateTime,
    /// Its last second; `None`: it has none.
    pub expires: Option<OffsetDateTime>,
}

impl Kept {
    /// A new one.
    ///
    /// # Errors
    /// There is no randomness, or its end is beyond the year 9999.
    pub fn new(lapse: Lapse, now: OffsetDateTime) -> Result<Kept> {
        let now = now.replace_nanosecond(0).context("taking this machine's clock as a time")?;
        let expires = match lapse {
            Lapse::Never => None,
            Lapse::After(length) => Some(now.checked_add(length).context("the token's end is beyond the year 9999")?),
        };
        Ok(Kept { token: Token::generate()?, created: now, expires })
    }

    /// Whether it is still good.
    pub fn good(&self, now: OffsetDateTime) -> bool {
        self.expires.is_none_or(|end| now < end)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    tokens: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    token: String,
    created: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
}

/// All tokens of a cluster, the good and the ended.
///
/// # Errors
/// The file cannot be read or is not sound. No token is shown.
pub fn read(folder: &Folder) -> Result<Vec<Kept>> {
    let path = folder.file(TOKENS);
    let action = || format!("reading {}", path.display());
    let text = folder.text(TOKENS)?;
    // The parser's own words would show the line, and so a token.
    let document: Document = toml::from_str(&text)
        .map_err(|error| {
            let line = error.span().map_or(0, |span| text[..span.start].matches('\n').count()) + 1;
            anyhow!("line {line}: {}", error.message())
        })
        .with_context(action)?;
    let mut tokens: Vec<Kept> = Vec::new();
    for entry in &document.tokens {
        let read = |text: &str| {
            OffsetDateTime::parse(text, &Rfc3339)
                .map_err(|_| anyhow!("`{text}` is no time such as 2027-01-31T00:00:00Z"))
        };
        let kept = Kept {
            token: entry.token.parse().with_context(action)?,
            created: read(&entry.created).with_context(action)?,
            expires: entry.expires.as_deref().map(read).transpose().with_context(action)?,
        };
        if tokens.iter().any(|other| other.token.id() == kept.token.id()) {
            bail!("reading {}: two tokens begin with {}", path.display(), kept.token.id());
        }
        tokens.push(kept);
    }
    Ok(tokens)
}

/// tokens.toml as it is written.
///
/// # Errors
/// None that is known: texts can be written.
pub fn write(tokens: &[Kept]) -> Result<String> {
    let entry = |kept: &Kept| {
        let token = kept.token.expose().to_owned();
        Entry { token, created: moment(kept.created), expires: kept.expires.map(moment) }
    };
    let document = Document { tokens: tokens.iter().map(entry).collect() };
    Ok(toml::to_string_pretty(&document)?)
}

/// Makes a token and keeps it beside the others.
///
/// # Errors
/// The folder cannot be read or written.
pub fn create(folder: &Folder, lapse: Lapse, now: OffsetDateTime) -> Result<Kept> {
    let _alone = folder.lock()?;
    let mut tokens = read(folder)?;
    let kept = loop {
        let kept = Kept::new(lapse, now)?;
        if tokens.iter().all(|other| other.token.id() != kept.token.id()) {
            break kept;
        }
    };
    tokens.push(kept.clone());
    write_private(&folder.file(TOKENS), &write(&tokens)?)?;
    Ok(kept)
}

/// The good token that lasts longest.
pub fn longest(tokens: &[Kept], now: OffsetDateTime) -> Option<&Kept> {
    tokens.iter().filter(|kept| kept.good(now)).max_by_key(|kept| (kept.expires.is_none(), kept.expires))
}

/// The table that `token list` prints.
pub fn table(tokens: &[Kept], now: OffsetDateTime) -> String {
    let mut text = format!("{:23}  {:20}  {:20}  STATE\n", "TOKEN", "CREATED", "EXPIRES");
    for kept in tokens {
        let expires = kept.expires.map_or("never".to_owned(), moment);
        let state = if kept.good(now) { "good" } else { "ended" };
        text += &format!("{:23}  {:20}  {expires:20}  {state}\n", kept.token.expose(), moment(kept.created));
    }
    text
}

/// The token as the Secret that an API server knows it by, JSON: for a running cluster, `kubectl apply -f -`.
///
/// # Errors
/// None that is known: texts can be written.
pub fn secret(kept: &Kept) -> Result<String> {
    let token = BootstrapToken { token: Secret::new(kept.token.expose()), expires: kept.expires.map(moment) };
    Ok(format!("{}\n", serde_json::to_string_pretty(&token.object())?))
}
