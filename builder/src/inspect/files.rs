//! Turns the entries of a filesystem into a list with digests.
use std::collections::BTreeMap;

use anyhow::{Context, Result};
use kscratch_formats::bytes::ReadAt;
use kscratch_formats::ext4::{self, FoundKind};
use kscratch_formats::fat32;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// An entry of a filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileReport {
    /// Absolute path.
    pub path: String,
    /// `file`, `directory`, `symlink` or `other`.
    pub kind: &'static str,
    /// Permission bits in octal; none on FAT.
    pub mode: Option<String>,
    /// Length in bytes.
    pub len: u64,
    /// SHA-256 of a file's contents.
    pub sha256: Option<String>,
    /// Target of a symbolic link.
    pub target: Option<String>,
}

/// All entries of an ext4 filesystem, in the order of paths.
pub(super) fn of_ext4(
    reader: &ext4::Reader<impl ReadAt>,
    all: &BTreeMap<String, ext4::Found>,
) -> Result<Vec<FileReport>> {
    let mut entries = Vec::new();
    for (path, found) in all {
        let (mut sha256, mut target) = (None, None);
        match found.kind {
            FoundKind::File => {
                let mut hash = Sha256::new();
                reader.each_piece(found, |piece| hash.update(piece)).with_context(|| format!("reading {path}"))?;
                sha256 = Some(hex::encode(hash.finalize()));
            }
            FoundKind::Symlink => {
                let bytes = reader.read(found, 4096).with_context(|| format!("reading {path}"))?;
                target = Some(String::from_utf8_lossy(&bytes).into_owned());
            }
            FoundKind::Directory | FoundKind::Other => {}
        }
        let kind = match found.kind {
            FoundKind::File => "file",
            FoundKind::Directory => "directory",
            FoundKind::Symlink => "symlink",
            FoundKind::Other => "other",
        };
        let mode = Some(format!("{:04o}", found.mode));
        entries.push(FileReport { path: path.clone(), kind, mode, len: found.len, sha256, target });
    }
    Ok(entries)
}

/// All entries of a FAT32 volume, in the order of paths.
pub(super) fn of_fat(volume: &fat32::Volume<impl ReadAt>, all: &[(String, fat32::Found)]) -> Result<Vec<FileReport>> {
    let mut entries = Vec::new();
    for (path, found) in all {
        let sha256 = if found.directory {
            None
        } else {
            let mut hash = Sha256::new();
            let mut buffer = vec![0; 1 << 20];
            let mut done = 0;
            while done < found.len {
                let len = (found.len - done).min(buffer.len() as u64) as usize;
                volume.read_file(found, done, &mut buffer[..len]).with_context(|| format!("reading {path}"))?;
                hash.update(&buffer[..len]);
                done += len as u64;
            }
            Some(hex::encode(hash.finalize()))
        };
        let kind = if found.directory { "directory" } else { "file" };
        entries.push(FileReport { path: path.clone(), kind, mode: None, len: found.len, sha256, target: None });
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}
