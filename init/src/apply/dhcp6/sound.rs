//! Turns a DHCPv6 packet into what we read of it, in the lengths that RFC 8415 gives.
//!
//! dhcproto subtracts from lengths that it has not looked at, passes over an option's own length for its kind's, goes down into relayed messages
//! as deep as they go, and ends at the first option that it cannot read, such as a status whose text is no UTF-8. PID 1 must not fall to a
//! packet, nor miss what stands behind such an option, so only what a client asks for gets to it.

/// Bytes before the options: the message's kind and the exchange's number (RFC 8415, 8).
pub(super) const HEAD: usize = 4;

/// What options stand in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    Message,
    /// IA_NA: the addresses of a link.
    Association,
    /// One of those addresses.
    Address,
}

/// Keeps of a packet what we read of it. `None` where an option is longer than what it stands in.
pub(super) fn sound(bytes: &[u8]) -> Option<Vec<u8>> {
    let (head, options) = bytes.split_at_checked(HEAD)?;
    Some([head, &kept(options, Within::Message)?].concat())
}

fn kept(mut options: &[u8], within: Within) -> Option<Vec<u8>> {
    let mut kept = Vec::new();
    while !options.is_empty() {
        let (&[code @ .., high, low], rest) = options.split_first_chunk::<4>()?;
        let length = u16::from_be_bytes([high, low]);
        let (value, rest) = rest.split_at_checked(usize::from(length))?;
        options = rest;
        let Some(value) = value_of(u16::from_be_bytes(code), value, within)? else { continue };
        kept.extend(code);
        // No longer than it was.
        kept.extend(u16::try_from(value.len()).ok()?.to_be_bytes());
        kept.extend(value);
    }
    Some(kept)
}

/// What is kept of an option (the numbers are those of RFC 8415, 21, RFC 3646 and RFC 5908); nothing of one that is of no use here, or of another length than
/// it can have. The outer `None` is a fault further inside.
fn value_of(code: u16, value: &[u8], within: Within) -> Option<Option<Vec<u8>>> {
    let length = value.len();
    let whole = match (within, code) {
        // A DUID is of 130 bytes at the most (RFC 8415, 11.1).
        (Within::Message, 1 | 2) => (3..=130).contains(&length),
        (Within::Message, 3) => return nested(value, 12, Within::Association),
        (Within::Association, 5) => return nested(value, 24, Within::Address),
        (Within::Message, 7) => length == 1,
        // Of a status its number, without the words.
        (_, 13) => return Some(value.first_chunk::<2>().map(|number| number.to_vec())),
        (Within::Message, 14) => length == 0,
        (Within::Message, 23) => length > 0 && length.is_multiple_of(16),
        (Within::Message, 24) => return Some(names(value)),
        (Within::Message, 56) => return Some(time_servers(value)),
        (Within::Message, 82) => length == 4,
        _ => false,
    };
    Some(whole.then(|| value.to_vec()))
}

/// Of the time servers' addresses and names (RFC 5908, 4) those that are in order.
fn time_servers(mut options: &[u8]) -> Option<Vec<u8>> {
    let mut kept = Vec::new();
    while !options.is_empty() {
        let (&[code @ .., high, low], rest) = options.split_first_chunk::<4>()?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
        let whole = match u16::from_be_bytes(code) {
            1 => value.len() == 16,
            3 => is_name(value),
            _ => false,
        };
        if whole {
            kept.extend(&options[..4 + value.len()]);
        }
        options = rest;
    }
    (!kept.is_empty()).then_some(kept)
}

/// Of a list of names (RFC 3646, 4) those before one that is out of order: where the next begins, nobody knows then.
fn names(list: &[u8]) -> Option<Vec<u8>> {
    let mut length = 0;
    while let Some(next) = list.get(length..).and_then(name_length) {
        length += next;
    }
    (length > 0).then(|| list.get(..length).map(<[u8]>::to_vec)).flatten()
}

fn is_name(value: &[u8]) -> bool {
    name_length(value) == Some(value.len())
}

/// How many bytes the labels of a name take up to the root (RFC 1035, 3.1), where none of them is somewhere else.
fn name_length(bytes: &[u8]) -> Option<usize> {
    let mut length = 0;
    loop {
        let label = usize::from(*bytes.get(length)?);
        length += 1 + label;
        match label {
            0 => return (length <= 255).then_some(length),
            // In the two bits above, other numbers have another meaning.
            1..=63 => {}
            _ => return None,
        }
    }
}

/// An option of fixed fields with options behind them.
fn nested(value: &[u8], fields: usize, within: Within) -> Option<Option<Vec<u8>>> {
    let Some((fixed, options)) = value.split_at_checked(fields) else { return Some(None) };
    Some(Some([fixed, &kept(options, within)?].concat()))
}
