//! Turns the operating system's randomness into bootstrap tokens and encryption keys.
use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::Error;

/// A bootstrap token, `[a-z0-9]{6}.[a-z0-9]{16}`: a public id and a secret. `Debug` shows the id alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// Length of a token's id.
const ID: usize = 6;
/// Length of a token's secret.
const SECRET: usize = 16;
const SYMBOLS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

impl Token {
    /// A new token.
    ///
    /// # Errors
    /// The operating system gives no randomness.
    pub fn generate() -> Result<Self, Error> {
        let mut text = symbols(ID)?;
        text.push('.');
        text.push_str(&symbols(SECRET)?);
        Ok(Self(text))
    }

    /// The public part, by which the token's Secret is named (`bootstrap-token-ID`).
    pub fn id(&self) -> &str {
        &self.0[..ID]
    }

    /// The secret part, without the id.
    pub fn secret(&self) -> &str {
        &self.0[ID + 1..]
    }

    /// The whole token, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Token {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let part = |part: &str, length| part.len() == length && part.bytes().all(|byte| SYMBOLS.contains(&byte));
        match text.split_once('.') {
            Some((id, secret)) if part(id, ID) && part(secret, SECRET) => Ok(Self(text.to_owned())),
            _ => Err(Error::Token),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}.…)", self.id())
    }
}

fn fill(bytes: &mut [u8]) -> Result<(), Error> {
    getrandom::fill(bytes).map_err(|error| Error::Random { why: error.to_string() })
}

/// Symbols, each as likely as every other: bytes past the last whole multiple of 36 are thrown away.
fn symbols(count: usize) -> Result<String, Error> {
    let fair = u8::MAX - u8::MAX % 36;
    let mut text = String::new();
    while text.len() < count {
        let mut bytes = [0; 32];
        fill(&mut bytes)?;
        let drawn = bytes.iter().filter(|byte| **byte < fair);
        text.extend(drawn.map(|byte| char::from(SYMBOLS[usize::from(byte % 36)])).take(count - text.len()));
    }
    Ok(text)
}

/// A key with which an API server encrypts what it stores: 32 random bytes, base64.
///
/// # Errors
/// The operating system gives no randomness.
pub fn encryption_key() -> Result<String, Error> {
    let mut bytes = [0; 32];
    fill(&mut bytes)?;
    Ok(STANDARD.encode(bytes))
}
