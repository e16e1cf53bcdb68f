//! One thing that was said: when, and what. In a block: kind (1 byte), microseconds since the kernel started (8), length (2), text.
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What is kept of one text, in bytes: a quarter of a block, so that no block is left half empty for it.
const LONGEST: usize = 1000;

/// Something that was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Since the kernel started.
    pub at: Duration,
    /// What.
    pub what: What,
}

/// What was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A boot begins.
    Begin(Begin),
    /// A line of init's.
    Said(String),
    /// A line of the kernel's, with its level: 0 (emergency) to 7 (debug).
    Kernel(u8, String),
    /// What the kernel left behind, before this boot, of its last words (pstore).
    Left(String),
    /// Why the machine was reset, before this boot, as its hardware says.
    Reset(String),
    /// The machine still runs.
    Alive,
    /// The machine ends its run in order; how.
    End(String),
}

/// What is known at the begin of a boot.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Begin {
    /// What the clock said when the entry was made, in seconds since 1970.
    pub clock: i64,
    /// kscratch's version.
    pub kscratch: String,
    /// The kernel's version.
    pub kernel: String,
}

impl What {
    fn kind(&self) -> u8 {
        match self {
            What::Begin(_) => 1,
            What::Said(_) => 2,
            What::Left(_) => 3,
            What::Reset(_) => 4,
            What::Alive => 5,
            What::End(_) => 6,
            What::Kernel(level, _) => 16 + (level & 7),
        }
    }

    fn text(&self) -> String {
        match self {
            What::Begin(begin) => serde_json::to_string(begin).unwrap_or_default(),
            What::Said(text) | What::Left(text) | What::Reset(text) | What::End(text) | What::Kernel(_, text) => {
                text.clone()
            }
            What::Alive => String::new(),
        }
    }

    fn of(kind: u8, text: String) -> Option<What> {
        Some(match kind {
            1 => What::Begin(serde_json::from_str(&text).unwrap_or_default()),
            2 => What::Said(text),
            3 => What::Left(text),
            4 => What::Reset(text),
            5 => What::Alive,
            6 => What::End(text),
            16..=23 => What::Kernel(kind - 16, text),
            _ => return None,
        })
    }
}

pub(crate) fn encode(entry: &Entry, to: &mut Vec<u8>) {
    let text = entry.what.text();
    let end = (0..=text.len().min(LONGEST)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    let text = &text.as_bytes()[..end];
    to.push(entry.what.kind());
    to.extend(u64::try_from(entry.at.as_micros()).unwrap_or(u64::MAX).to_le_bytes());
    to.extend(u16::try_from(text.len()).unwrap_or_default().to_le_bytes());
    to.extend(text);
}

/// Reads entries; those of kinds that are not known here (a later version wrote them) are passed over.
pub(crate) fn decode(mut bytes: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<11>() {
        let [kind, time @ .., low, high] = *head;
        let Some((text, rest)) = rest.split_at_checked(usize::from(u16::from_le_bytes([low, high]))) else { break };
        let at = Duration::from_micros(u64::from_le_bytes(time));
        if let Some(what) = What::of(kind, String::from_utf8_lossy(text).into_owned()) {
            entries.push(Entry { at, what });
        }
        bytes = rest;
    }
    entries
}
