//! The index of an unpacked archive as JSON, one short row an entry: warm builds read all of them.
use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

use super::{Entry, EntryKind, Unpacked};
use crate::store::{Digest, Stored};

/// Counted up when rows change their meaning: an index of another format is made again.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Index<'a> {
    format: u32,
    #[serde(borrow)]
    entries: Vec<Row<'a>>,
}

#[derive(Serialize, Deserialize)]
struct Row<'a> {
    #[serde(rename = "p")]
    path: std::borrow::Cow<'a, str>,
    #[serde(rename = "k")]
    kind: RowKind,
    #[serde(rename = "m")]
    mode: u16,
    #[serde(rename = "u", default, skip_serializing_if = "is_zero")]
    uid: u32,
    #[serde(rename = "g", default, skip_serializing_if = "is_zero")]
    gid: u32,
    /// Values in hex.
    #[serde(rename = "x", default, skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<String, String>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[derive(Serialize, Deserialize)]
enum RowKind {
    #[serde(rename = "d")]
    Directory,
    /// Offset, length, digest.
    #[serde(rename = "f")]
    File(u64, u64, Digest),
    #[serde(rename = "n")]
    Skipped(u64),
    #[serde(rename = "l")]
    Symlink(String),
    #[serde(rename = "c")]
    CharDevice(u32, u32),
    #[serde(rename = "b")]
    BlockDevice(u32, u32),
}

pub(super) fn print(unpacked: &Unpacked) -> Result<Vec<u8>> {
    let row = |(path, entry): (&String, &Entry)| Row {
        path: std::borrow::Cow::Owned(path.clone()),
        kind: match &entry.kind {
            EntryKind::Directory => RowKind::Directory,
            EntryKind::File(stored) => RowKind::File(stored.offset, stored.len, stored.sha256),
            EntryKind::Skipped { len } => RowKind::Skipped(*len),
            EntryKind::Symlink(target) => RowKind::Symlink(target.clone()),
            EntryKind::CharDevice { major, minor } => RowKind::CharDevice(*major, *minor),
            EntryKind::BlockDevice { major, minor } => RowKind::BlockDevice(*major, *minor),
        },
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        xattrs: entry.xattrs.iter().map(|(name, value)| (name.clone(), hex::encode(value))).collect(),
    };
    let index = Index { format: FORMAT, entries: unpacked.entries.iter().map(row).collect() };
    serde_json::to_vec(&index).context("printing an index")
}

/// `None` for an index of another format.
pub(super) fn parse(bytes: &[u8], artifact: &Digest) -> Result<Option<Unpacked>> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let Ok(Version { format: FORMAT }) = serde_json::from_slice(bytes) else { return Ok(None) };
    let index: Index = serde_json::from_slice(bytes).context("reading an index")?;
    let file = format!("unpacked/{artifact}/data");
    let mut entries = BTreeMap::new();
    for row in index.entries {
        let kind = match row.kind {
            RowKind::Directory => EntryKind::Directory,
            RowKind::File(offset, len, sha256) => EntryKind::File(Stored { file: file.clone(), offset, len, sha256 }),
            RowKind::Skipped(len) => EntryKind::Skipped { len },
            RowKind::Symlink(target) => EntryKind::Symlink(target),
            RowKind::CharDevice(major, minor) => EntryKind::CharDevice { major, minor },
            RowKind::BlockDevice(major, minor) => EntryKind::BlockDevice { major, minor },
        };
        let mut xattrs = BTreeMap::new();
        for (name, value) in row.xattrs {
            let value = hex::decode(value).map_err(|error| anyhow!("the attribute {name} of {}: {error}", row.path))?;
            xattrs.insert(name, value);
        }
        entries.insert(row.path.into_owned(), Entry { kind, mode: row.mode, uid: row.uid, gid: row.gid, xattrs });
    }
    Ok(Some(Unpacked { artifact: *artifact, entries }))
}
