//! A [`Tree`] becomes a tar archive of it: POSIX.1-2001 (pax), numeric owners, attributes as `SCHILY.xattr.` records, no clock.
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use crate::store::{Digest, Store};
use crate::tree::{Content, Contents, Kind, Node, Tree};
use crate::write::{self, Readers};

/// Longest name and link target that stand in a header itself.
const NAME: usize = 100;

/// An archive that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Archive {
    /// SHA-256 of the file.
    pub sha256: Digest,
    /// The file's length in bytes.
    pub len: u64,
}

/// Writes the tree to `out`, which is replaced only when the archive is complete. `time` is the time of every file, in seconds since
/// 1970; `progress` is told the bytes of files that are done.
///
/// # Errors
/// What reading the store or writing says.
pub fn write(tree: &Tree, store: &Store, time: i64, out: &Path, progress: &mut dyn FnMut(u64)) -> Result<Archive> {
    let time = u64::try_from(time).context("stamping the archive with its time")?;
    let put = |file: &File| -> Result<Archive> {
        let mut hashed = Hashed { file: BufWriter::with_capacity(1 << 20, file), hash: Sha256::new(), len: 0 };
        let mut builder = Builder::new(&mut hashed);
        for (path, node) in &tree.nodes {
            member(&mut builder, path, node, time, store).with_context(|| format!("packing {path}"))?;
            if let Kind::File(content) = &node.kind {
                progress(content.len());
            }
        }
        builder.into_inner().context("ending the archive")?;
        hashed.file.flush().context("writing the archive")?;
        Ok(Archive { sha256: Digest(hashed.hash.finalize().into()), len: hashed.len })
    };
    let (archive, _) = write::whole(out, Readers::All, put).with_context(|| format!("writing {}", out.display()))?;
    Ok(archive)
}

/// Bytes of all files: what is told as progress.
pub fn work(tree: &Tree) -> u64 {
    let files = tree.nodes.values().filter_map(|node| match &node.kind {
        Kind::File(content) => Some(content.len()),
        _ => None,
    });
    files.sum()
}

fn member(builder: &mut Builder<impl Write>, path: &str, node: &Node, time: u64, store: &Store) -> Result<()> {
    let mut header = Header::new_ustar();
    header.set_mode(u32::from(node.mode));
    header.set_uid(u64::from(node.uid));
    header.set_gid(u64::from(node.gid));
    header.set_mtime(time);
    header.set_size(0);
    let (kind, target, content) = match &node.kind {
        Kind::Directory => (EntryType::Directory, None, None),
        Kind::File(content) => (EntryType::Regular, None, Some(content)),
        Kind::Symlink(target) => (EntryType::Symlink, Some(target), None),
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
            header.set_device_major(*major)?;
            header.set_device_minor(*minor)?;
            let character = matches!(node.kind, Kind::CharDevice { .. });
            (if character { EntryType::Char } else { EntryType::Block }, None, None)
        }
    };
    header.set_entry_type(kind);
    // What a header cannot hold stands in records before it, and readers that know none of these see its beginning.
    let mut records: Vec<(String, Vec<u8>)> = Vec::new();
    let slash = if kind == EntryType::Directory { "/" } else { "" };
    let name = format!(".{}{slash}", if path == "/" { "" } else { path });
    put_name(&mut header.as_ustar_mut().context("making a header")?.name, "path", &name, &mut records);
    if let Some(target) = target {
        put_name(&mut header.as_ustar_mut().context("making a header")?.linkname, "linkpath", target, &mut records);
    }
    for (name, value) in &node.xattrs {
        records.push((format!("SCHILY.xattr.{name}"), value.clone()));
    }
    if let Some(content) = content {
        header.set_size(content.len());
    }
    header.set_cksum();
    if !records.is_empty() {
        builder.append_pax_extensions(records.iter().map(|(key, value)| (key.as_str(), value.as_slice())))?;
    }
    match content {
        Some(content) => builder.append(&header, reader(content, store)?)?,
        None => builder.append(&header, io::empty())?,
    }
    Ok(())
}

fn put_name(field: &mut [u8; NAME], key: &str, name: &str, records: &mut Vec<(String, Vec<u8>)>) {
    let bytes = name.as_bytes();
    let len = bytes.len().min(NAME);
    field[..len].copy_from_slice(&bytes[..len]);
    if bytes.len() > NAME {
        records.push((key.to_owned(), bytes.to_vec()));
    }
}

fn reader<'a>(content: &'a Content, store: &'a Store) -> Result<Box<dyn Read + 'a>> {
    Ok(Box::new(Contents::open(store, content)?))
}

/// Hashes and counts what goes by.
struct Hashed<W> {
    file: W,
    hash: Sha256,
    len: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.len += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests;
