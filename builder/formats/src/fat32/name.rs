//! Turns a name into the slots of a directory entry (long name and short one), and slots back into a name.
use std::collections::BTreeSet;

use super::{ATTR_LONG_NAME, SLOT};
use crate::bytes::{put, put_u16, u16_at};

/// UTF-16 code units of a long-name slot, by offset.
const UNITS: [usize; 13] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];

/// A short name: eight and three bytes, padded with spaces.
pub(super) type Short = [u8; 11];

/// Says in words why a name cannot stand on a FAT volume.
pub(super) fn check(name: &str) -> Result<(), String> {
    let forbidden = |c: char| c < ' ' || "\"*/:<>?\\|".contains(c);
    if name.is_empty() || name == "." || name == ".." || name.ends_with(['.', ' ']) || name.chars().any(forbidden) {
        return Err("its name is not one that a FAT volume can hold".to_owned());
    }
    if name.encode_utf16().count() > 255 {
        return Err("its name is longer than 255 characters".to_owned());
    }
    Ok(())
}

/// The form in which names are compared: case does not count.
pub(super) fn folded(name: &str) -> String {
    name.to_uppercase()
}

/// The short name where the name is one already, such as `BOOTX64.EFI`.
fn as_short(name: &str) -> Option<Short> {
    let (base, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let plain = |part: &str| {
        part.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"_-".contains(&byte))
    };
    if base.is_empty()
        || base.len() > 8
        || extension.len() > 3
        || !plain(base)
        || !plain(extension)
        || name.ends_with('.')
    {
        return None;
    }
    let mut short = [b' '; 11];
    put(&mut short, 0, base.as_bytes());
    put(&mut short, 8, extension.as_bytes());
    Some(short)
}

/// Slots of the long name, first to last, and the short name to go with them; the name joins `taken`.
pub(super) fn encode(name: &str, taken: &mut BTreeSet<Short>) -> Result<(Vec<[u8; SLOT]>, Short), String> {
    check(name)?;
    if let Some(short) = as_short(name).filter(|short| !taken.contains(short)) {
        taken.insert(short);
        return Ok((Vec::new(), short));
    }
    let short = numbered(name, taken).ok_or("too many names of its directory begin alike")?;
    taken.insert(short);
    let sum = checksum(&short);
    let mut units: Vec<u16> = name.encode_utf16().collect();
    if !units.len().is_multiple_of(UNITS.len()) {
        units.push(0);
    }
    units.resize(units.len().next_multiple_of(UNITS.len()), 0xFFFF);
    let parts = units.chunks_exact(UNITS.len()).enumerate();
    let mut slots: Vec<[u8; SLOT]> = parts
        .map(|(index, part)| {
            let mut slot = [0; SLOT];
            slot[0] = index as u8 + 1;
            slot[11] = ATTR_LONG_NAME;
            slot[13] = sum;
            for (offset, unit) in UNITS.iter().zip(part) {
                put_u16(&mut slot, *offset, *unit);
            }
            slot
        })
        .collect();
    // They stand last part first, and the last part is marked.
    slots.reverse();
    slots[0][0] |= 0x40;
    Ok((slots, short))
}

/// A short name with a numeric tail, `ROLE~1.TOM`, the lowest that is free.
fn numbered(name: &str, taken: &BTreeSet<Short>) -> Option<Short> {
    let (base, extension) = name.rsplit_once('.').filter(|(base, _)| !base.is_empty()).unwrap_or((name, ""));
    let cleaned = |part: &str, len: usize| -> Vec<u8> {
        let letters = part.chars().filter(|c| !matches!(c, '.' | ' '));
        letters.map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() as u8 } else { b'_' }).take(len).collect()
    };
    let (base, extension) = (cleaned(base, 6), cleaned(extension, 3));
    (1..1_000_000u32).find_map(|number| {
        let tail = format!("~{number}");
        let mut short = [b' '; 11];
        let kept = base.len().min(8 - tail.len());
        put(&mut short, 0, &base[..kept]);
        put(&mut short, kept, tail.as_bytes());
        put(&mut short, 8, &extension);
        (!taken.contains(&short)).then_some(short)
    })
}

/// `ChkSum` of the short name, which ties long-name slots to it.
fn checksum(short: &Short) -> u8 {
    short.iter().fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte))
}

/// The long name in `slots` (as they stand, last part first), if they belong to `short` and are complete.
pub(super) fn decode_long(slots: &[[u8; SLOT]], short: &Short) -> Option<String> {
    let first = slots.first()?;
    let mut units = Vec::new();
    for (index, slot) in slots.iter().rev().enumerate() {
        if usize::from(slot[0] & 0x3F) != index + 1 || slot[13] != checksum(short) {
            return None;
        }
        units.extend(UNITS.iter().map(|offset| u16_at(slot, *offset)));
    }
    let end = units.iter().position(|unit| *unit == 0).unwrap_or(units.len());
    (first[0] & 0x40 != 0).then(|| String::from_utf16_lossy(&units[..end]))
}

/// The short name as text; `cases` is byte 12 of the entry, in which Windows marks lower-case base (8) and extension (16).
pub(super) fn decode_short(short: &Short, cases: u8) -> String {
    let part = |bytes: &[u8], lower: bool| {
        let text: String = bytes.iter().map(|byte| if byte.is_ascii() { *byte as char } else { '\u{FFFD}' }).collect();
        let text = text.trim_end_matches(' ').to_owned();
        if lower { text.to_ascii_lowercase() } else { text }
    };
    let (base, extension) = (part(&short[..8], cases & 8 != 0), part(&short[8..], cases & 16 != 0));
    if extension.is_empty() { base } else { format!("{base}.{extension}") }
}
