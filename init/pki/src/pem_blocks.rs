//! Finds the blocks of one kind in a PEM text (RFC 7468).
use pem::{EncodeConfig, LineEnding, Pem};

use crate::Error;

/// The contents of all blocks with this label, at least one; other blocks beside them are passed over.
pub(crate) fn find(text: &str, what: &'static str, label: &'static str) -> Result<Vec<Vec<u8>>, Error> {
    let blocks = pem::parse_many(text).map_err(|_| Error::NotPem { what })?;
    let contents: Vec<_> =
        blocks.iter().filter(|block| block.tag() == label).map(|block| block.contents().to_vec()).collect();
    if contents.is_empty() {
        let found = blocks.iter().map(|block| format!("{:?}", block.tag())).collect();
        return Err(Error::NoBlock { what, wanted: label, found });
    }
    Ok(contents)
}

/// The contents of a text that is this one block and nothing else: what every reader of PEM, however lenient, finds the same in.
pub(crate) fn only(text: &str, what: &'static str, label: &'static str) -> Result<Vec<u8>, Error> {
    let alone = text.trim_ascii().starts_with(&format!("-----BEGIN {label}-----"))
        && text.trim_ascii().ends_with(&format!("-----END {label}-----"))
        && text.matches("-----BEGIN").count() == 1
        && text.matches("-----END").count() == 1
        // RFC 1421 headers.
        && !text.contains(':');
    let mut found = find(text, what, label)?;
    match found.pop() {
        Some(contents) if alone && found.is_empty() => Ok(contents),
        _ => Err(Error::NotAlone { what, wanted: label }),
    }
}

/// A block as text, lines of 64 characters.
pub(crate) fn write(label: &str, contents: &[u8]) -> String {
    pem::encode_config(&Pem::new(label, contents), EncodeConfig::new().set_line_ending(LineEnding::LF))
}
