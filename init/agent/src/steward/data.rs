//! Tells of etcd's data on this machine whether there are any, and which member they make it.
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result};

/// How much of the log is read: what is looked for is among its first bytes.
const START: u64 = 4096;

/// What is looked for in the log, by etcd's numbers (`MetadataType` in server/storage/wal/wal.go, `Metadata` in api/etcdserverpb).
const METADATA: u64 = 1;
const NODE_ID: u64 = 1;

/// Whether there are any: etcd's log of writes is there, which comes whole.
///
/// # Errors
/// It cannot be told. Who cannot be read has not lost anything.
pub fn exist(log: &Path) -> Result<bool> {
    log.try_exists().with_context(|| format!("looking for etcd's data in {}", log.display()))
}

/// The id of the member whose data these are, as etcd's lists have it; nothing where they do not say so.
pub fn member(log: &Path) -> Option<String> {
    let mut files: Vec<_> = std::fs::read_dir(log).ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "wal"));
    // Each of them begins with it.
    let first = files.into_iter().min()?;
    let mut start = Vec::new();
    File::open(first).ok()?.take(START).read_to_end(&mut start).ok()?;
    number(metadata(&start)?, NODE_ID).map(|id| id.to_string())
}

/// The metadata of a log. Before each record stands its length, in eight bytes of which the uppermost tells how many more fill it up
/// (`decodeFrameSize` in server/storage/wal/decoder.go); a record has a type, a checksum and data (walpb/record.proto).
fn metadata(log: &[u8]) -> Option<&[u8]> {
    let mut rest = log;
    loop {
        let (frame, behind) = rest.split_first_chunk::<8>()?;
        let frame = u64::from_le_bytes(*frame);
        let length = usize::try_from(frame & (u64::MAX >> 8)).ok()?;
        let filling = if frame >> 63 == 1 { usize::try_from((frame >> 56) & 7).ok()? } else { 0 };
        let (record, behind) = behind.split_at_checked(length)?;
        if number(record, 1)? == METADATA {
            return fields(record).find(|(field, ..)| *field == 3).map(|(_, _, data)| data);
        }
        rest = behind.get(filling..)?;
    }
}

fn number(message: &[u8], wanted: u64) -> Option<u64> {
    fields(message).find(|(field, ..)| *field == wanted).map(|(_, value, _)| value)
}

/// The fields of a message (protobuf, of the wire types 0 and 2): each with its number, its value, and the bytes of that length, should it be one.
fn fields(mut message: &[u8]) -> impl Iterator<Item = (u64, u64, &[u8])> {
    std::iter::from_fn(move || {
        let (key, rest) = varint(message)?;
        let (value, rest) = varint(rest)?;
        let length = match key & 7 {
            0 => 0,
            2 => usize::try_from(value).ok()?,
            _ => return None,
        };
        let (bytes, rest) = rest.split_at_checked(length)?;
        message = rest;
        Some((key >> 3, value, bytes))
    })
}

/// Seven bits a byte, the lowest first; the last byte has no uppermost bit.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let last = bytes.iter().take(10).position(|byte| byte & 0x80 == 0)?;
    let (number, rest) = bytes.split_at_checked(last + 1)?;
    Some((number.iter().rev().fold(0, |sum, byte| (sum << 7) | u64::from(byte & 0x7f)), rest))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{exist, member};

    /// The beginning of a log that etcd 3.7.3 made for this member, as far as it is needed.
    const LOG: &[u8] = include_bytes!("../../tests/etcd.wal");
    const MEMBER: &str = "9372538179322589801";

    #[test]
    fn a_log_says_whose_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("member/wal");
        assert!(!exist(&log).unwrap());
        assert_eq!(member(&log), None);
        fs::create_dir_all(&log).unwrap();
        assert!(exist(&log).unwrap());
        let check = |files: &[(&str, &[u8])], want: Option<&str>| {
            fs::remove_dir_all(&log).unwrap();
            fs::create_dir(&log).unwrap();
            files.iter().for_each(|(name, bytes)| fs::write(log.join(name), bytes).unwrap());
            assert_eq!(member(&log).as_deref(), want, "{files:?}");
        };
        let (first, next) = ("0000000000000000-0000000000000000.wal", "0000000000000001-0000000000000a2f.wal");
        check(&[("0.tmp", LOG)], None);
        check(&[(first, LOG), (next, b""), ("0.tmp", b"")], Some(MEMBER));
        check(&[(next, LOG)], Some(MEMBER));
        // As it is made: as long as it will be, and empty.
        check(&[(first, &[0; 8192])], None);
        for length in 0..LOG.len() {
            check(&[(first, &LOG[..length])], None);
        }
        let mut other = LOG.to_vec();
        other[7] = 0xff;
        check(&[(first, &other)], None);
    }

    #[test]
    fn what_cannot_be_read_is_not_gone() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = exist(&file.path().join("member/wal")).unwrap_err();
        assert!(error.to_string().starts_with("looking for etcd's data in "), "{error:#}");
    }
}
