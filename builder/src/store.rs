//! A [`Store`] is a folder of verified files: a file gets its name, its SHA-256, only after its digest is right.
//!
//! ```text
//! CACHE/store/sha256/<64 hex>          artifacts as fetched (packages, tarballs) and outputs of compiles
//! CACHE/store/unpacked/<64 hex>/       what an artifact holds: `data` (file contents back to back) and `index.json`
//! CACHE/store/programs/<64 hex>/NAME   a file of sha256/ that is started on this machine, under its name
//! CACHE/store/tmp/                     parts on their way in; never read
//! ```
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tempfile::{NamedTempFile, TempDir};

use crate::console::Console;

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut digest = [0; 32];
        hex::decode_to_slice(text, &mut digest).map_err(|_| format!("`{text}` is not a SHA-256 digest in hex"))?;
        Ok(Digest(digest))
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

/// A range of a file in the store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stored {
    /// Path of the file, relative to the store's root, e.g. `unpacked/<hex>/data`.
    pub file: String,
    /// First byte of the range.
    pub offset: u64,
    /// Length of the range in bytes.
    pub len: u64,
    /// SHA-256 of exactly this range.
    pub sha256: Digest,
}

/// The folder. Cheap to clone; several may be open at once, [`Store::lock`] tells builds apart.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// Held by the one build that may add to a store; released when dropped, and by the kernel when the process dies.
#[derive(Debug)]
pub struct StoreLock {
    _file: File,
}

impl Store {
    /// Opens the store of a cache folder, making it where it is missing.
    pub fn open(cache: &Path) -> Result<Store> {
        let root = cache.join("store");
        for folder in ["sha256", "unpacked", "tmp"] {
            let folder = root.join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("making the folder {}", folder.display()))?;
        }
        Ok(Store { root })
    }

    /// Takes the lock against a second build, and clears what a killed build left half done. Where another holds it, says so once and
    /// waits: the kernel gives the lock away when that one ends, however it ends.
    pub fn lock(&self, console: &Console) -> Result<StoreLock> {
        let cache = self.root.parent().unwrap_or(&self.root);
        self.lock_when_free(|| {
            console.say(format_args!(
                "waiting for another kscratch-image that works in {}; use --cache DIR for a folder of its own",
                cache.display()
            ));
        })
    }

    /// [`Store::lock`]; `waiting` is called before the wait, if there is one.
    fn lock_when_free(&self, waiting: impl FnOnce()) -> Result<StoreLock> {
        let path = self.root.join("lock");
        let file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))?;
        let locked = match file.try_lock() {
            Ok(()) => Ok(()),
            Err(fs::TryLockError::WouldBlock) => {
                waiting();
                file.lock()
            }
            Err(fs::TryLockError::Error(error)) => Err(error),
        };
        locked.with_context(|| format!("locking {}", path.display()))?;
        let tmp = self.root.join("tmp");
        for entry in fs::read_dir(&tmp).with_context(|| format!("reading {}", tmp.display()))? {
            let path = entry?.path();
            // Parts of downloads are kept: the next run resumes them.
            if path.extension().is_some_and(|extension| extension == "part") {
                continue;
            }
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.with_context(|| format!("clearing {}", path.display()))?;
        }
        Ok(StoreLock { _file: file })
    }

    /// The store's folder: what [`Stored::file`] is relative to.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a file with this digest is, if it is in the store.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join("sha256").join(digest.to_string())
    }

    /// Whether a file with this digest is in the store.
    pub fn has(&self, digest: &Digest) -> bool {
        self.path(digest).is_file()
    }

    /// Opens the file with this digest.
    pub fn get(&self, digest: &Digest) -> Result<File> {
        let path = self.path(digest);
        File::open(&path).with_context(|| format!("opening {} in the store", path.display()))
    }

    /// A file that is on its way into the store.
    pub fn incoming(&self) -> Result<Incoming> {
        let tmp = self.root.join("tmp");
        let file = NamedTempFile::new_in(&tmp).with_context(|| format!("making a file in {}", tmp.display()))?;
        Ok(Incoming { store: self.clone(), file: Verify::new(file) })
    }

    /// A folder for work that shall end up in the store; removed when dropped.
    pub fn scratch(&self) -> Result<TempDir> {
        let tmp = self.root.join("tmp");
        TempDir::new_in(&tmp).with_context(|| format!("making a folder in {}", tmp.display()))
    }

    /// Where the part of a download is kept between runs, so that it can be resumed.
    pub fn part(&self, digest: &Digest) -> PathBuf {
        self.root.join("tmp").join(format!("{digest}.part"))
    }

    /// Puts what a reader gives into the store and tells its digest and length.
    pub fn add(&self, reader: &mut dyn Read) -> Result<(Digest, u64)> {
        let mut incoming = self.incoming()?;
        let len = io::copy(reader, &mut incoming).context("copying into the store")?;
        Ok((incoming.finish(None)?, len))
    }

    /// Puts bytes into the store.
    pub fn add_bytes(&self, mut bytes: &[u8]) -> Result<Digest> {
        Ok(self.add(&mut bytes)?.0)
    }

    /// Gives a finished, verified file its name. It must be on the store's filesystem.
    pub fn publish(&self, file: &Path, digest: &Digest) -> Result<()> {
        let path = self.path(digest);
        fs::rename(file, &path).with_context(|| format!("naming {}", path.display()))?;
        sync_folder(&path)
    }

    /// Reads a range of a file in the store.
    pub fn read(&self, stored: &Stored) -> Result<Vec<u8>> {
        let path = self.root.join(&stored.file);
        let mut bytes = vec![0; usize::try_from(stored.len).context("reading a file that does not fit into memory")?];
        File::open(&path)
            .and_then(|file| file.read_exact_at(&mut bytes, stored.offset))
            .with_context(|| format!("reading {} bytes at {} of {}", stored.len, stored.offset, path.display()))?;
        Ok(bytes)
    }

    /// A program of the store under its own name, so that it can be started: `programs/<digest>/NAME`, another link to the file.
    pub fn executable(&self, digest: &Digest, name: &str) -> Result<PathBuf> {
        let folder = self.root.join("programs").join(digest.to_string());
        let path = folder.join(name);
        let make = || -> io::Result<()> {
            fs::set_permissions(self.path(digest), fs::Permissions::from_mode(0o755))?;
            fs::create_dir_all(&folder)?;
            match fs::hard_link(self.path(digest), &path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                linked => linked,
            }
        };
        make().with_context(|| format!("making the program {}", path.display()))?;
        Ok(path)
    }

    /// A whole file of the store as a range.
    pub fn whole(&self, digest: &Digest) -> Result<Stored> {
        let path = self.path(digest);
        let len = fs::metadata(&path).with_context(|| format!("looking for {} in the store", path.display()))?.len();
        Ok(Stored { file: format!("sha256/{digest}"), offset: 0, len, sha256: *digest })
    }
}

/// Makes a rename survive a power cut: the folder's entry is written too.
pub(crate) fn sync_folder(entry: &Path) -> Result<()> {
    let Some(folder) = entry.parent() else {
        return Ok(());
    };
    // A name alone is one in the folder that this program works in.
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Some folders that a virtual machine or a server shares cannot be asked to (fsync(2), EINVAL): what was written is there all the same.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        synced => synced.with_context(|| format!("writing {} to disk", folder.display())),
    }
}

/// Waits until a folder's whole filesystem is on the disk: one call for a tree of thousands of files that is about to get its name.
pub(crate) fn sync_filesystem(folder: &Path) -> Result<()> {
    File::open(folder)
        .and_then(|folder| rustix::fs::syncfs(&folder).map_err(io::Error::from))
        .with_context(|| format!("writing {} to disk", folder.display()))
}

/// A writer that knows the digest and the length of what went through it.
#[derive(Debug)]
pub struct Verify<W> {
    inner: W,
    hash: Sha256,
    len: u64,
}

impl<W: Write> Verify<W> {
    /// Watches what is written to `inner`.
    pub fn new(inner: W) -> Verify<W> {
        Verify { inner, hash: Sha256::new(), len: 0 }
    }

    /// Counts bytes that `inner` has already, without writing them (the part of a resumed download).
    pub fn resume(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
    }

    /// Bytes written so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Gives the inner writer back, with the digest and length.
    pub fn into_parts(self) -> (W, Digest, u64) {
        (self.inner, Digest(self.hash.finalize().into()), self.len)
    }
}

impl<W: Write> Write for Verify<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.len += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A file on its way into the store: written, then [finished](Incoming::finish); dropped, it is gone.
#[derive(Debug)]
pub struct Incoming {
    store: Store,
    file: Verify<NamedTempFile>,
}

impl Incoming {
    /// Gives the file its name. With `expected`, a file with another digest is refused and gone.
    pub fn finish(self, expected: Option<&Digest>) -> Result<Digest> {
        let (file, digest, len) = self.file.into_parts();
        if let Some(expected) = expected
            && *expected != digest
        {
            bail!("the digest of the {len} bytes is {digest}, expected {expected}");
        }
        let path = self.store.path(&digest);
        file.as_file().sync_all().context("writing a new file of the store to disk")?;
        file.persist(&path).with_context(|| format!("naming {}", path.display()))?;
        sync_folder(&path)?;
        Ok(digest)
    }
}

impl Write for Incoming {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::{Digest, Store, Stored, sync_filesystem, sync_folder};
    use crate::console::Console;
    use std::io::Write;
    use std::path::Path;

    fn names(store: &Store, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(store.root().join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_is_named_by_its_digest() {
        let cache = tempfile::tempdir().unwrap();
        let store = Store::open(cache.path()).unwrap();
        let digest = store.add_bytes(b"hello").unwrap();
        assert_eq!(digest.to_string(), "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
        assert!(store.has(&digest));
        assert_eq!(store.read(&store.whole(&digest).unwrap()).unwrap(), b"hello");
        let range = Stored { file: format!("sha256/{digest}"), offset: 1, len: 3, sha256: Digest::of(b"ell") };
        assert_eq!(store.read(&range).unwrap(), b"ell");
        assert!(store.read(&Stored { len: 9, ..range }).is_err(), "a range beyond the end");
    }

    #[test]
    fn a_wrong_digest_leaves_nothing() {
        let cache = tempfile::tempdir().unwrap();
        let store = Store::open(cache.path()).unwrap();
        let mut incoming = store.incoming().unwrap();
        incoming.write_all(b"tampered").unwrap();
        let error = incoming.finish(Some(&Digest::of(b"good"))).unwrap_err().to_string();
        assert!(error.starts_with("the digest of the 8 bytes is ") && error.contains("expected "), "{error}");
        assert!(names(&store, "sha256").is_empty() && names(&store, "tmp").is_empty());
    }

    #[test]
    fn folders_are_written_to_disk_or_named() {
        let folder = tempfile::tempdir().unwrap();
        sync_filesystem(folder.path()).unwrap();
        for entry in [folder.path().join("entry").as_path(), Path::new("entry"), Path::new("/")] {
            sync_folder(entry).unwrap();
        }
        let gone = folder.path().join("gone");
        for error in [sync_folder(&gone.join("entry")).unwrap_err(), sync_filesystem(&gone).unwrap_err()] {
            assert_eq!(error.to_string(), format!("writing {} to disk", gone.display()));
        }
    }

    #[test]
    fn a_second_build_waits_and_leftovers_are_cleared() {
        let cache = tempfile::tempdir().unwrap();
        let store = Store::open(cache.path()).unwrap();
        std::fs::write(store.root().join("tmp/.tmpleft"), "x").unwrap();
        std::fs::write(store.root().join("tmp/0123.part"), "x").unwrap();
        let held = store.lock(&Console::silent()).unwrap();
        assert_eq!(names(&store, "tmp"), ["0123.part"]);
        // Told that it waits, the other gives the lock away: a lock that did not wait would be an error, one that never came a hang.
        let mut held = Some(held);
        let second = Store::open(cache.path()).unwrap().lock_when_free(|| held = None).unwrap();
        assert!(held.is_none(), "it did not wait");
        drop(second);
        store.lock_when_free(|| panic!("it waits for nobody")).unwrap();
    }
}
