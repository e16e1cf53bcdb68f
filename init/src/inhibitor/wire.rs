//! Turns bytes of D-Bus into method calls, and answers into bytes (D-Bus Specification 0.43, "Message Protocol").
//!
//! Only what a client of logind's inhibitor locks sends and wants to hear: strings in, four kinds of values out, little-endian, which the
//! client of a little-endian machine writes.
use std::io::{Error, ErrorKind, Result};

/// A message begins with so many bytes that say how long it is.
pub const FIXED: usize = 16;
/// Longer ones than this have no place here; the protocol's own limit is 128 MiB.
const LONGEST: usize = 64 << 10;

/// Types of messages.
const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// Flag `NO_REPLY_EXPECTED`.
const NO_REPLY: u8 = 1;

/// A method call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Call {
    /// Its number, which the answer bears.
    pub serial: u32,
    /// Whether an answer is wanted.
    pub answered: bool,
    /// The interface; empty where none is named.
    pub interface: String,
    /// The method.
    pub member: String,
    /// Its arguments, up to the first that is no string.
    pub words: Vec<String>,
}

/// What a message carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body<'a> {
    /// Nothing.
    Empty,
    /// A string.
    Text(&'a str),
    /// A number in a variant, as properties are told.
    Property(u64),
    /// The descriptor that is sent beside the message.
    Descriptor,
    /// A truth value.
    Truth(bool),
}

impl Body<'_> {
    fn signature(self) -> &'static str {
        match self {
            Self::Empty => "",
            Self::Text(_) => "s",
            Self::Property(_) => "v",
            Self::Descriptor => "h",
            Self::Truth(_) => "b",
        }
    }
}

fn wrong(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

/// How long the message is that begins so; `None` where not enough of it is there.
///
/// # Errors
/// It is no message, or too long a one.
pub fn length(start: &[u8]) -> Result<Option<usize>> {
    if start.len() < FIXED {
        return Ok(None);
    }
    let mut reader = Reader { bytes: start, at: 0 };
    if reader.byte()? != b'l' {
        return Err(wrong("a message that is not little-endian"));
    }
    reader.at = 3;
    if reader.byte()? != 1 {
        return Err(wrong("a message of another version of the protocol"));
    }
    let body = reader.number()? as usize;
    reader.at = 12;
    let fields = reader.number()? as usize;
    if body > LONGEST || fields > LONGEST {
        return Err(wrong("a message that is too long"));
    }
    Ok(Some((FIXED + fields).next_multiple_of(8) + body))
}

/// Reads a whole message; `None` where it is no call.
///
/// # Errors
/// It breaks the protocol, or has header fields of unknown types.
pub fn call(message: &[u8]) -> Result<Option<Call>> {
    let mut reader = Reader { bytes: message, at: 1 };
    let kind = reader.byte()?;
    let answered = reader.byte()? & NO_REPLY == 0;
    reader.at = 8;
    let serial = reader.number()?;
    let end = FIXED + reader.number()? as usize;
    let mut call = Call { serial, answered, ..Call::default() };
    let mut signature = String::new();
    while reader.at < end {
        reader.align(8);
        let code = reader.byte()?;
        let value = match reader.signature()?.as_str() {
            "s" | "o" => reader.text()?,
            "g" => reader.signature()?,
            "u" => reader.number()?.to_string(),
            _ => return Err(wrong("a header field of an unknown type")),
        };
        match code {
            2 => call.interface = value,
            3 => call.member = value,
            8 => signature = value,
            _ => {}
        }
    }
    reader.align(8);
    for _ in signature.chars().take_while(|kind| *kind == 's') {
        call.words.push(reader.text()?);
    }
    Ok((kind == CALL).then_some(call))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Result<&[u8]> {
        let end = self.at.checked_add(count);
        let found = end.and_then(|end| self.bytes.get(self.at..end)).ok_or_else(|| wrong("a message that ends early"));
        self.at = self.at.saturating_add(count);
        found
    }

    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?.first().copied().unwrap_or_default())
    }

    fn number(&mut self) -> Result<u32> {
        self.align(4);
        let bytes = self.take(4)?;
        bytes.try_into().map(u32::from_le_bytes).map_err(|_| wrong("a message that ends early"))
    }

    fn text(&mut self) -> Result<String> {
        let length = self.number()? as usize;
        self.terminated(length)
    }

    fn signature(&mut self) -> Result<String> {
        let length = self.byte()?.into();
        self.terminated(length)
    }

    fn terminated(&mut self, length: usize) -> Result<String> {
        let text = self.take(length)?.to_owned();
        if self.byte()? != 0 {
            return Err(wrong("a text without its end"));
        }
        String::from_utf8(text).map_err(|_| wrong("a text that is no UTF-8"))
    }
}

/// An answer to a call.
pub fn reply(serial: u32, to: &Call, sender: &str, body: Body<'_>) -> Vec<u8> {
    let mut fields = Writer::default();
    fields.field(5, "u", |writer| writer.number(to.serial));
    fields.field(7, "s", |writer| writer.text(sender));
    message(RETURN, serial, fields, body)
}

/// A refusal of a call.
pub fn error(serial: u32, to: &Call, name: &str, why: &str) -> Vec<u8> {
    let mut fields = Writer::default();
    fields.field(4, "s", |writer| writer.text(name));
    fields.field(5, "u", |writer| writer.number(to.serial));
    message(ERROR, serial, fields, Body::Text(why))
}

/// A signal.
pub fn signal(serial: u32, path: &str, interface: &str, member: &str, sender: &str, body: Body<'_>) -> Vec<u8> {
    let mut fields = Writer::default();
    fields.field(1, "o", |writer| writer.text(path));
    fields.field(2, "s", |writer| writer.text(interface));
    fields.field(3, "s", |writer| writer.text(member));
    fields.field(7, "s", |writer| writer.text(sender));
    message(SIGNAL, serial, fields, body)
}

/// `fields` begin where the header's array does, which is aligned to 8 like the message itself.
fn message(kind: u8, serial: u32, mut fields: Writer, body: Body<'_>) -> Vec<u8> {
    if body != Body::Empty {
        fields.field(8, "g", |writer| writer.signature(body.signature()));
    }
    if body == Body::Descriptor {
        fields.field(9, "u", |writer| writer.number(1));
    }
    let mut content = Writer::default();
    match body {
        Body::Empty => {}
        Body::Text(text) => content.text(text),
        Body::Property(number) => {
            content.signature("t");
            content.align(8);
            content.0.extend(number.to_le_bytes());
        }
        // Its place among the descriptors that are sent with the message.
        Body::Descriptor => content.number(0),
        Body::Truth(truth) => content.number(truth.into()),
    }
    let mut whole = Writer(vec![b'l', kind, 0, 1]);
    whole.number(length_of(&content.0));
    whole.number(serial);
    whole.number(length_of(&fields.0));
    whole.0.extend(fields.0);
    whole.align(8);
    whole.0.extend(content.0);
    whole.0
}

/// What is written here is far shorter than the protocol's limit.
fn length_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn number(&mut self, number: u32) {
        self.align(4);
        self.0.extend(number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(length_of(text.as_bytes()));
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    /// At most 255 bytes; ours have one.
    fn signature(&mut self, text: &str) {
        self.0.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn field(&mut self, code: u8, signature: &str, value: impl FnOnce(&mut Self)) {
        self.align(8);
        self.0.push(code);
        self.signature(signature);
        value(self);
    }
}

#[cfg(test)]
mod tests;
