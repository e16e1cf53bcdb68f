//! The tar of an image's layer becomes a [`Layer`]: its files as overlay2 keeps them, whiteouts included.
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::derived;
use crate::store::{Digest, Store, Stored, Verify};
use crate::tree::{Content, Contents, Kind, Node, Origin, link_target};

/// A layer, unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// SHA-256 of its uncompressed tar.
    pub diff_id: Digest,
    /// Its entries by absolute path; origins are empty.
    pub nodes: BTreeMap<String, Node>,
}

/// What is remembered of a layer's tar: digests of its files, by the offset of their contents.
#[derive(Debug, Serialize, Deserialize)]
struct Digests(BTreeMap<u64, Digest>);

impl Layer {
    /// Bytes of its files, as docker counts a layer's size.
    pub fn size(&self) -> u64 {
        let len = |node: &Node| if let Kind::File(content) = &node.kind { content.len() } else { 0 };
        self.nodes.values().map(len).sum()
    }

    /// A layer of one program of our own at `/NAME`.
    pub(super) fn of_bytes(name: &str, program: &'static [u8]) -> Result<Layer> {
        let path = format!("/{name}");
        let diff_id = packed(&path, 0o755, program.len() as u64, &mut &program[..])?;
        Ok(Layer::of_one(&path, 0o755, program.to_vec().into(), diff_id))
    }

    /// A layer of one file, wherever its bytes stand: they are read once in the life of a store, and never as a whole.
    pub(super) fn of_file(path: &str, mode: u16, content: &Content, store: &Store) -> Result<Layer> {
        let sha256 = content.sha256();
        let key = derived::key("composed layer 1", [path.as_bytes(), &mode.to_le_bytes(), &sha256.0]);
        let diff_id = match derived::get(store, &key) {
            Some(diff_id) => diff_id,
            None => {
                let mut reader = store.open(content).with_context(|| format!("opening {path} for a layer"))?;
                let diff_id = packed(path, mode, content.len(), &mut reader)?;
                derived::put(store, &key, &diff_id)?;
                diff_id
            }
        };
        Ok(Layer::of_one(path, mode, content.clone(), diff_id))
    }

    fn of_one(path: &str, mode: u16, content: Content, diff_id: Digest) -> Layer {
        let folders = folders(path).map(|folder| (folder.to_owned(), Node::directory(0o755, nowhere())));
        let file = (path.to_owned(), Node::file(content, mode, nowhere()));
        Layer { diff_id, nodes: folders.chain([file]).collect() }
    }

    /// Reads a layer whose uncompressed tar is in the store. Files are ranges of that tar: nothing is copied.
    pub(super) fn read(diff_id: Digest, store: &Store) -> Result<Layer> {
        let key = derived::key("layer digests 1", [diff_id.0.as_slice()]);
        let known: Option<Digests> = derived::get(store, &key);
        let mut found = Digests(BTreeMap::new());
        let file = store.get(&diff_id)?;
        let mut archive = tar::Archive::new(&file);
        let mut nodes = BTreeMap::new();
        for entry in archive.entries_with_seek().context("reading the layer's tar")? {
            let mut entry = entry.context("reading the layer's tar")?;
            let path = link_target(
                "/",
                &String::from_utf8(entry.path_bytes().into_owned()).context("a file name in the layer is not UTF-8")?,
            );
            let sha256 = |at: u64, len: u64| -> Result<Digest> {
                match known.as_ref().and_then(|known| known.0.get(&at)) {
                    Some(digest) => Ok(*digest),
                    None => digest_of(&file, at, len),
                }
            };
            add(&mut nodes, &mut entry, &path, &diff_id, sha256, &mut found)
                .with_context(|| format!("reading {path} of the layer"))?;
        }
        if known.is_none() {
            derived::put(store, &key, &found)?;
        }
        Ok(Layer { diff_id, nodes })
    }
}

/// The folders above a path, the root left out, the uppermost first.
fn folders(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').skip(1).map(|(at, _)| &path[..at])
}

/// Digest of the tar of one file and the folders above it: no clock, and no owner but root.
fn packed(path: &str, mode: u16, len: u64, contents: &mut dyn Read) -> Result<Digest> {
    let header = |path: &str, mode: u16, len: u64| -> Result<tar::Header> {
        let mut header = tar::Header::new_ustar();
        header.set_path(path.trim_start_matches('/'))?;
        header.set_mode(mode.into());
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(len);
        Ok(header)
    };
    let mut tar = tar::Builder::new(Verify::new(io::sink()));
    for folder in folders(path) {
        let mut header = header(&format!("{folder}/"), 0o755, 0)?;
        header.set_entry_type(tar::EntryType::Directory);
        header.set_cksum();
        tar.append(&header, io::empty())?;
    }
    // Its type stays the NUL of before POSIX, which is a regular file's too: the ids of our own images follow from it.
    let mut header = header(path, mode, len)?;
    header.set_cksum();
    tar.append(&header, contents)?;
    let (_, digest, _) = tar.into_inner()?.into_parts();
    Ok(digest)
}

fn nowhere() -> Origin {
    Origin { declaration: String::new(), artifact: String::new() }
}

/// Reads by offset, so that the archive's own reader keeps its place.
fn digest_of(file: &File, at: u64, len: u64) -> Result<Digest> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut done = 0;
    while done < len {
        let want = usize::try_from(len - done).unwrap_or(usize::MAX).min(buffer.len());
        let got = file.read_at(&mut buffer[..want], at + done)?;
        ensure!(got > 0, "the tar ends too early");
        hash.update(&buffer[..got]);
        done += got as u64;
    }
    Ok(Digest(hash.finalize().into()))
}

fn add<R: Read>(
    nodes: &mut BTreeMap<String, Node>,
    entry: &mut tar::Entry<'_, R>,
    path: &str,
    diff_id: &Digest,
    sha256: impl Fn(u64, u64) -> Result<Digest>,
    found: &mut Digests,
) -> Result<()> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    // OCI image-spec, layer.md, "Whiteouts"; overlayfs.rst, "whiteouts and opaque directories".
    if name == ".wh..wh..opq" {
        let folder = if folder.is_empty() { "/" } else { folder };
        let node = nodes.entry(folder.to_owned()).or_insert_with(|| Node::directory(0o755, nowhere()));
        node.xattrs.insert("trusted.overlay.opaque".into(), b"y".to_vec());
        return Ok(());
    }
    if name.starts_with(".wh..wh.") {
        return Ok(());
    }
    if let Some(gone) = name.strip_prefix(".wh.") {
        let mut node = Node::file(Vec::new(), 0, nowhere());
        node.kind = Kind::CharDevice { major: 0, minor: 0 };
        nodes.insert(format!("{folder}/{gone}"), node);
        return Ok(());
    }
    let header = entry.header();
    let target = || -> Result<String> {
        Ok(String::from_utf8(entry.link_name_bytes().context("the link has no target")?.into_owned())?)
    };
    let kind = match header.entry_type() {
        tar::EntryType::Directory => Kind::Directory,
        tar::EntryType::Symlink => Kind::Symlink(target()?),
        tar::EntryType::Link => {
            let first = link_target("/", &target()?);
            let node = nodes
                .get(&first)
                .with_context(|| format!("the hard link is to {first}, which is not before it"))?
                .clone();
            nodes.insert(path.to_owned(), node);
            return Ok(());
        }
        tar::EntryType::Regular | tar::EntryType::Continuous => {
            let (at, len) = (entry.raw_file_position(), entry.size());
            let sha256 = sha256(at, len)?;
            found.0.insert(at, sha256);
            Kind::File(Content::Stored(Stored { file: format!("sha256/{diff_id}"), offset: at, len, sha256 }))
        }
        kind @ (tar::EntryType::Char | tar::EntryType::Block) => {
            let major = header.device_major()?.unwrap_or(0);
            let minor = header.device_minor()?.unwrap_or(0);
            if kind == tar::EntryType::Char {
                Kind::CharDevice { major, minor }
            } else {
                Kind::BlockDevice { major, minor }
            }
        }
        other => bail!("its kind {other:?} has no place in an image's layer here"),
    };
    let id = |id: u64| u32::try_from(id).context("its owner is beyond 32 bits");
    let mode = u16::try_from(header.mode()? & 0o7777).unwrap_or(0o644);
    let mut node = Node {
        kind,
        mode,
        uid: id(header.uid()?)?,
        gid: id(header.gid()?)?,
        xattrs: BTreeMap::new(),
        origin: nowhere(),
    };
    if matches!(node.kind, Kind::Symlink(_)) {
        node.mode = 0o777;
    }
    for record in entry.pax_extensions()?.into_iter().flatten() {
        let record = record.context("reading its extended header")?;
        if let Some(name) = record.key().ok().and_then(|key| key.strip_prefix("SCHILY.xattr.")) {
            node.xattrs.insert(name.to_owned(), record.value_bytes().to_vec());
        }
    }
    // An opaque mark may come before its directory.
    if let Some(opaque) = nodes.get(path).and_then(|before| before.xattrs.get("trusted.overlay.opaque")) {
        node.xattrs.insert("trusted.overlay.opaque".into(), opaque.clone());
    }
    nodes.insert(path.to_owned(), node);
    Ok(())
}
