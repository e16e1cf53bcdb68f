//! Counts what is in a root: bytes, files, programs.
use std::collections::BTreeMap;

use anyhow::{Context, Result};
use kscratch_formats::bytes::ReadAt;
use kscratch_formats::ext4::{Found, FoundKind, Reader};

use crate::measure::is_library;

/// What was counted.
#[derive(Debug, Default, Clone, Copy)]
pub struct Contents {
    /// Bytes of regular files.
    pub bytes: u64,
    /// Regular files; one with several names counts once.
    pub files: u64,
    /// Of them those that may be executed, without shared libraries.
    pub programs: u64,
    /// Of these those that run as another user, whoever starts them.
    pub set_id: u64,
}

impl Contents {
    /// Counts everything but those of a path that `left_out` knows.
    ///
    /// # Errors
    /// The filesystem cannot be read.
    pub fn of<R: ReadAt>(root: &Reader<R>, left_out: impl Fn(&str) -> bool) -> Result<Contents> {
        let (mut contents, mut seen) = (Contents::default(), BTreeMap::<u64, Vec<Found>>::new());
        for (path, found) in root.walk().context("reading the root")? {
            if found.kind != FoundKind::File || left_out(&path) {
                continue;
            }
            // Equal inodes are one inode: its number is part of it.
            let alike = seen.entry(found.len).or_default();
            if alike.contains(&found) {
                continue;
            }
            let program = found.mode & 0o111 != 0 && !is_library(&path);
            contents.bytes += found.len;
            contents.files += 1;
            contents.programs += u64::from(program);
            contents.set_id += u64::from(program && found.mode & 0o6000 != 0);
            alike.push(found);
        }
        Ok(contents)
    }
}

/// A file of a root.
///
/// # Errors
/// It is not there, or cannot be read.
pub fn read<R: ReadAt>(root: &Reader<R>, path: &str) -> Result<Vec<u8>> {
    let found = root.find(path)?.with_context(|| format!("the root has no {path}"))?;
    root.read(&found, found.len).with_context(|| format!("reading {path} of the root"))
}
