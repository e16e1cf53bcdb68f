//! Turns contents (ranges of store files, literal bytes) into bytes, with every store file opened once.
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::tree::Content;

/// The opened store files.
#[derive(Debug)]
pub struct Contents {
    files: BTreeMap<String, File>,
}

impl Contents {
    /// Opens the files that `contents` refer to; `store` is the store's folder.
    pub fn open<'a>(contents: impl IntoIterator<Item = &'a Content>, store: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        for content in contents {
            if let Content::Stored(range) = content
                && !files.contains_key(&range.file)
            {
                let path = store.join(&range.file);
                let file = File::open(&path).with_context(|| format!("opening {} in the store", path.display()))?;
                files.insert(range.file.clone(), file);
            }
        }
        Ok(Contents { files })
    }

    /// Fills `buf` from byte `offset` of the content.
    pub fn read(&self, content: &Content, offset: u64, buf: &mut [u8]) -> Result<()> {
        match content {
            Content::Stored(range) => {
                let file = self.files.get(&range.file).with_context(|| format!("{} was not opened", range.file))?;
                file.read_exact_at(buf, range.offset + offset)
                    .with_context(|| format!("reading {} in the store", range.file))
            }
            Content::Literal(bytes) => {
                let start = usize::try_from(offset)?;
                let from = bytes.get(start..start + buf.len()).context("reading behind the end of literal bytes")?;
                buf.copy_from_slice(from);
                Ok(())
            }
        }
    }
}
