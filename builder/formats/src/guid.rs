//! A [`Guid`] is 16 bytes, written in hex as people read it and stored as UEFI wants it.
use std::fmt;
use std::str::FromStr;

/// A GUID in the order of its text form: the first byte is the first pair of hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid(pub [u8; 16]);

/// A text that is not a GUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a GUID of the form 01234567-89ab-cdef-0123-456789abcdef")]
pub struct ParseError(String);

impl Guid {
    /// A version 8 UUID (RFC 9562, section 5.8) of 16 bytes that were made by whoever calls, such as the first half of a digest.
    pub fn version8(mut bytes: [u8; 16]) -> Self {
        bytes[6] = bytes[6] & 0x0F | 0x80;
        bytes[8] = bytes[8] & 0x3F | 0x80;
        Guid(bytes)
    }

    /// Whether all bytes are zero: an unused partition entry's type.
    pub fn is_zero(&self) -> bool {
        self.0 == [0; 16]
    }

    /// The bytes as UEFI stores them: the first three fields little-endian.
    pub fn to_disk(self) -> [u8; 16] {
        let b = self.0;
        [b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]
    }

    /// The GUID that is stored in these bytes; the swap is its own inverse.
    pub fn from_disk(bytes: [u8; 16]) -> Self {
        Guid(Guid(bytes).to_disk())
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let dash = if matches!(index, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Guid {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = || ParseError(text.to_owned());
        let dashes = |index: usize| matches!(index, 8 | 13 | 18 | 23);
        if text.len() != 36 || text.bytes().enumerate().any(|(index, byte)| (byte == b'-') != dashes(index)) {
            return Err(wrong());
        }
        let digits: Option<Vec<u8>> =
            text.chars().filter(|c| *c != '-').map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.ok_or_else(wrong)?.chunks_exact(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        Ok(Guid(bytes))
    }
}
