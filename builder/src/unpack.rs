//! Archives in the store (`.deb`, tarballs) become [`Unpacked`] folders: contents back to back in one file, and an index of paths.
//!
//! One file with everything costs one `open` and no directory entries, and image filesystems are written from its ranges by the kernel.
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};

use crate::console::Console;
use crate::debian::deb;
use crate::lock::{Artifact, Lock, Origin};
use crate::store::{Digest, Store, Stored, sync_folder};

mod index;
mod tarball;

/// What an archive holds, by path. The contents stand in `unpacked/<artifact>/data` of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// Digest of the archive.
    pub artifact: Digest,
    /// Entries by absolute path (`/usr/bin/mount`; no trailing slash), in the order of their bytes.
    pub entries: BTreeMap<String, Entry>,
}

/// One entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits, 0o7777 at most.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Extended attributes by full name.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// What stands at a path of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file (a hard link is the file it names: the same range).
    File(Stored),
    /// A regular file whose contents were not kept: documentation and translations.
    Skipped {
        /// Length in bytes.
        len: u64,
    },
    /// A symbolic link and its target, as written.
    Symlink(String),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

impl Unpacked {
    /// Reads the index of an archive that was unpacked before; `None` if it was not, or by another version of this program.
    pub fn load(store: &Store, artifact: &Digest) -> Result<Option<Unpacked>> {
        let path = store.root().join(format!("unpacked/{artifact}/index.json"));
        match fs::read(&path) {
            Ok(bytes) => index::parse(&bytes, artifact).with_context(|| format!("reading {}", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// The entry at a path.
    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.entries.get(path)
    }
}

/// The index of one archive of the store, unpacking it if that has not been done.
pub fn one(store: &Store, artifact: &Digest) -> Result<Unpacked> {
    if let Some(unpacked) = Unpacked::load(store, artifact)? {
        return Ok(unpacked);
    }
    let folder = store.scratch()?;
    let data = folder.path().join("data");
    let mut contents = Contents {
        file: BufWriter::with_capacity(
            1 << 20,
            File::create(&data).with_context(|| format!("making {}", data.display()))?,
        ),
        name: format!("unpacked/{artifact}/data"),
        len: 0,
    };
    let entries = deb::with_tar(store.get(artifact)?, |tar| tarball::read(tar, &mut contents))
        .with_context(|| format!("unpacking {}", store.path(artifact).display()))?;
    contents
        .file
        .into_inner()
        .context("writing unpacked contents")?
        .sync_data()
        .context("writing unpacked contents to disk")?;
    let unpacked = Unpacked { artifact: *artifact, entries };
    let index = folder.path().join("index.json");
    let mut file = File::create(&index).with_context(|| format!("making {}", index.display()))?;
    file.write_all(&index::print(&unpacked)?)
        .and_then(|()| file.sync_all())
        .with_context(|| format!("writing {}", index.display()))?;
    publish(store, artifact, folder)?;
    Ok(unpacked)
}

/// Gives a finished folder its name; one of another version of this program makes way.
fn publish(store: &Store, artifact: &Digest, folder: tempfile::TempDir) -> Result<()> {
    let place = store.root().join(format!("unpacked/{artifact}"));
    if place.exists() {
        fs::remove_dir_all(&place).with_context(|| format!("removing {}", place.display()))?;
    }
    // `TempDir` makes folders that only their owner may enter.
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .with_context(|| format!("opening {} to others", folder.path().display()))?;
    fs::rename(folder.path(), &place).with_context(|| format!("naming {}", place.display()))?;
    drop(folder.keep());
    sync_folder(&place)
}

/// Unpacks every Debian package of a lock, two at a time, the largest first; by package name.
pub fn all(store: &Store, lock: &Lock, console: &Console) -> Result<BTreeMap<String, Unpacked>> {
    let mut packages: Vec<(&Artifact, Digest)> = Vec::new();
    for artifact in &lock.artifacts {
        if let Origin::DebianPackage { .. } = artifact.origin {
            let digest = artifact.sha256.with_context(|| format!("the lock has no digest of {}", artifact.name))?;
            packages.push((artifact, digest));
        }
    }
    packages.sort_by_key(|(artifact, _)| std::cmp::Reverse(artifact.size));
    let cold =
        packages.iter().filter(|(_, digest)| !store.root().join(format!("unpacked/{digest}/index.json")).exists());
    let progress = Mutex::new(console.bytes("unpacking", cold.map(|(artifact, _)| artifact.size.unwrap_or(0)).sum()));
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    let work = || -> Result<()> {
        while let Some((artifact, digest)) = packages.get(next.fetch_add(1, Ordering::Relaxed)) {
            let unpacked =
                one(store, digest).with_context(|| format!("unpacking {} {}", artifact.name, artifact.version));
            if unpacked.is_err() {
                // The other thread shall not begin anything more.
                next.store(packages.len(), Ordering::Relaxed);
            }
            // A lock is poisoned only by a panic, which ends the build anyway.
            done.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(artifact.name.clone(), unpacked?);
            progress.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).add(artifact.size.unwrap_or(0));
        }
        Ok(())
    };
    crate::fetch::in_parallel(2, work)?;
    Ok(done.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()))
}

/// The file with all contents, as it grows.
struct Contents {
    file: BufWriter<File>,
    /// Its name relative to the store's root.
    name: String,
    len: u64,
}

impl Contents {
    /// Appends what a reader gives, which must be `len` bytes.
    fn append(&mut self, reader: &mut dyn std::io::Read, len: u64) -> Result<Stored> {
        let mut hash = Sha256::new();
        let mut copied = 0;
        let mut buffer = [0; 64 << 10];
        loop {
            let read = reader.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            hash.update(&buffer[..read]);
            self.file.write_all(&buffer[..read]).context("writing unpacked contents")?;
            copied += read as u64;
        }
        anyhow::ensure!(copied == len, "it has {copied} bytes, its header says {len}");
        let stored = Stored { file: self.name.clone(), offset: self.len, len, sha256: Digest(hash.finalize().into()) };
        self.len += len;
        Ok(stored)
    }
}

/// Whether contents at this path are of no use to a machine: they are listed in the index, and not kept.
fn is_documentation(path: &str) -> bool {
    const FOLDERS: [&str; 8] = [
        "/usr/share/man/",
        "/usr/share/info/",
        "/usr/share/locale/",
        "/usr/share/doc/",
        "/usr/share/doc-base/",
        "/usr/share/lintian/",
        "/usr/share/bash-completion/",
        "/usr/share/zsh/",
    ];
    // Licences are kept: the SBOM and whoever passes an image on need them.
    FOLDERS.iter().any(|folder| path.starts_with(folder))
        && Path::new(path).file_name().is_none_or(|name| name != "copyright")
}

#[cfg(test)]
mod tests;
