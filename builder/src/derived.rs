//! What was made out of artifacts is remembered: a key over everything that decides the result leads to a small JSON [`Record`](get).
//!
//! `CACHE/store/derived/<64 hex of the key>.json`; big results stand in the store itself, and the record names their digests.
use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use crate::store::{Digest, Store};

/// A key over the kind of result and everything that decides it. Each part is counted, so that no two lists of parts run together.
pub fn key<'a>(kind: &'a str, parts: impl IntoIterator<Item = &'a [u8]>) -> Digest {
    let mut hash = Sha256::new();
    for part in [kind.as_bytes()].into_iter().chain(parts) {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    Digest(hash.finalize().into())
}

fn path(store: &Store, key: &Digest) -> PathBuf {
    store.root().join("derived").join(format!("{key}.json"))
}

/// The record, if there is one that can be read: one that cannot is made again, as a cache's loss is no error.
pub fn get<T: DeserializeOwned>(store: &Store, key: &Digest) -> Option<T> {
    serde_json::from_slice(&fs::read(path(store, key)).ok()?).ok()
}

/// Keeps a record.
///
/// # Errors
/// What writing says.
pub fn put<T: Serialize>(store: &Store, key: &Digest, record: &T) -> Result<()> {
    let path = path(store, key);
    let folder = store.root().join("derived");
    let write = || -> Result<()> {
        fs::create_dir_all(&folder)?;
        let mut file = NamedTempFile::new_in(&folder)?;
        // In one piece: printed into a file, every word would be a system call.
        file.write_all(&serde_json::to_vec(record)?)?;
        file.persist(&path)?;
        Ok(())
    };
    write().with_context(|| format!("remembering a result as {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_damaged_ones_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let one = key("test", [b"a".as_slice(), b"bc"]);
        assert_ne!(one, key("test", [b"ab".as_slice(), b"c"]));
        assert_eq!(get::<Vec<u32>>(&store, &one), None);
        put(&store, &one, &vec![1u32, 2]).unwrap();
        assert_eq!(get::<Vec<u32>>(&store, &one), Some(vec![1, 2]));
        fs::write(path(&store, &one), b"[1,").unwrap();
        assert_eq!(get::<Vec<u32>>(&store, &one), None);
    }
}
