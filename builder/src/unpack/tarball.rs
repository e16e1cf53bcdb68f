//! A tar stream becomes entries by path, their contents appended to one file; what could lead out of a tree is refused.
use std::collections::BTreeMap;
use std::collections::btree_map;
use std::io::Read;

use anyhow::{Context, Result, bail};
use tar::EntryType;

use super::{Contents, Entry, EntryKind, is_documentation};

/// Unpacked sizes beyond this are no package, but a bomb.
const LIMIT: u64 = 16 << 30;

pub(super) fn read(stream: &mut dyn Read, contents: &mut Contents) -> Result<BTreeMap<String, Entry>> {
    let mut entries = BTreeMap::new();
    let mut archive = tar::Archive::new(stream);
    for found in archive.entries().context("reading the archive")? {
        let mut found = found.context("reading an entry of the archive")?;
        let raw = found.path_bytes().into_owned();
        let Some(path) = absolute(&raw)? else { continue };
        if found.header().entry_type() == EntryType::XGlobalHeader {
            continue;
        }
        let entry =
            entry(&mut found, &path, contents, &entries).with_context(|| format!("reading the entry {path}"))?;
        match entries.entry(path) {
            btree_map::Entry::Vacant(place) => drop(place.insert(entry)),
            // Tarballs repeat folders; anything else twice is a trick or a mistake.
            btree_map::Entry::Occupied(place)
                if place.get().kind == EntryKind::Directory && entry.kind == EntryKind::Directory => {}
            btree_map::Entry::Occupied(place) => bail!("the path {} is there twice", place.key()),
        }
    }
    Ok(entries)
}

fn entry<R: Read>(
    found: &mut tar::Entry<R>,
    path: &str,
    contents: &mut Contents,
    known: &BTreeMap<String, Entry>,
) -> Result<Entry> {
    let xattrs = xattrs(found)?;
    let header = found.header();
    let mode = u16::try_from(header.mode().context("its mode")? & 0o7777).context("its mode")?;
    let uid = u32::try_from(header.uid().context("its owner")?).context("its owner")?;
    let gid = u32::try_from(header.gid().context("its group")?).context("its group")?;
    let device = || -> Result<(u32, u32)> {
        Ok((
            header.device_major()?.context("it has no device number")?,
            header.device_minor()?.context("it has no device number")?,
        ))
    };
    let kind = match header.entry_type() {
        EntryType::Directory => EntryKind::Directory,
        EntryType::Regular | EntryType::Continuous => {
            let len = found.size();
            if contents.len.saturating_add(len) > LIMIT {
                bail!("the archive unpacks to more than {} GiB", LIMIT >> 30);
            }
            if is_documentation(path) {
                EntryKind::Skipped { len }
            } else {
                EntryKind::File(contents.append(found, len)?)
            }
        }
        EntryType::Symlink => EntryKind::Symlink(link(found)?),
        EntryType::Link => {
            let target = absolute(link(found)?.as_bytes())?.unwrap_or_default();
            match known.get(&target).map(|entry| &entry.kind) {
                Some(kind @ (EntryKind::File(_) | EntryKind::Skipped { .. })) => kind.clone(),
                _ => bail!("it is a hard link to `{target}`, which is no file before it in the archive"),
            }
        }
        EntryType::Char => {
            let (major, minor) = device()?;
            EntryKind::CharDevice { major, minor }
        }
        EntryType::Block => {
            let (major, minor) = device()?;
            EntryKind::BlockDevice { major, minor }
        }
        other => bail!("it is of a kind that no package should have ({other:?})"),
    };
    Ok(Entry { kind, mode, uid, gid, xattrs })
}

fn link<R: Read>(found: &tar::Entry<R>) -> Result<String> {
    let target = found.link_name_bytes().context("its link has no target")?.into_owned();
    if target.is_empty() || target.contains(&0) {
        bail!("its link has no target");
    }
    String::from_utf8(target).context("its target is not UTF-8")
}

/// Extended attributes as `SCHILY.xattr.NAME` records (pax(1), as GNU tar and star write them).
fn xattrs<R: Read>(found: &mut tar::Entry<R>) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut xattrs = BTreeMap::new();
    if let Some(records) = found.pax_extensions().context("reading its extended header")? {
        for record in records {
            let record = record.context("reading its extended header")?;
            if let Some(name) = record.key().ok().and_then(|key| key.strip_prefix("SCHILY.xattr.")) {
                xattrs.insert(name.to_owned(), record.value_bytes().to_vec());
            }
        }
    }
    Ok(xattrs)
}

/// `./usr/bin/x` as `/usr/bin/x`; nothing for the archive's own root.
fn absolute(raw: &[u8]) -> Result<Option<String>> {
    let shown = String::from_utf8_lossy(raw).into_owned();
    let Ok(text) = std::str::from_utf8(raw) else { bail!("the path `{shown}` is not UTF-8") };
    if text.starts_with('/') {
        bail!("the path `{shown}` is absolute, which no archive should have");
    }
    if text.contains('\0') {
        bail!("the path `{}` has a zero byte in it", shown.escape_debug());
    }
    let mut path = String::with_capacity(text.len() + 1);
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => bail!("the path `{shown}` leads out of the archive"),
            part => {
                path.push('/');
                path.push_str(part);
            }
        }
    }
    Ok((!path.is_empty()).then_some(path))
}
