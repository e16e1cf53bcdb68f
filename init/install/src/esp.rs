//! A disk's EFI system partition, and the role metadata on it: found, read, and replaced so that a cut leaves the old text or the new one.
use anyhow::{Context, Result};
use kscratch_formats::bytes::{ReadAt, Window};
use kscratch_formats::fat32::Volume;
use kscratch_formats::gpt;
use kscratch_formats::guid::Guid;
use kscratch_formats::patch::Patch;

/// Type of an EFI system partition (UEFI specification 2.10, table 5.7).
pub const TYPE: Guid = Guid(*b"\xC1\x2A\x73\x28\xF8\x1F\x11\xD2\xBA\x4B\x00\xA0\xC9\x3E\xC9\x3B");
/// The folder of role metadata.
pub const FOLDER: &str = "/kscratch";
/// Metadata texts are a few KiB.
const MAX_TEXT: u64 = 1 << 20;

/// Bytes and where they go.
pub type Writes = Vec<(u64, Vec<u8>)>;

/// Where a metadata file stands: `role.toml`, `secrets.toml`.
#[must_use]
pub fn path_of(name: &str) -> String {
    format!("{FOLDER}/{name}")
}

/// Where the ESP is: first byte and length.
///
/// # Errors
/// The disk has no partition table, or no such partition.
pub fn place(disk: &impl ReadAt, len: u64) -> Result<(u64, u64)> {
    let table = gpt::read(disk, len)?;
    let esp = table.partitions.iter().find(|(_, partition)| partition.kind == TYPE);
    let (_, esp) = esp.context("there is no EFI system partition on it")?;
    Ok((esp.start, esp.len))
}

/// The ESP that is there.
///
/// # Errors
/// It is no FAT32 volume, or a damaged one.
pub fn open<D: ReadAt>(disk: D, (start, len): (u64, u64)) -> Result<Volume<Window<D>>> {
    Ok(Volume::open(Window { inner: disk, start, len })?)
}

/// A text file of an ESP; none where it is not there.
///
/// # Errors
/// The volume is damaged, or the file is too long or no text.
pub fn text(volume: &Volume<impl ReadAt>, path: &str) -> Result<Option<String>> {
    let Some(found) = volume.find(path)? else { return Ok(None) };
    let bytes = volume.read(&found, MAX_TEXT)?;
    Ok(Some(String::from_utf8(bytes).with_context(|| format!("reading {path} on the ESP"))?))
}

/// Replaces a file of an ESP by steps, each of which `write` has on the disk before the next begins. Places are those on the disk; `time` is in
/// seconds since 1970.
///
/// # Errors
/// There is no folder or no room for it; what `write` says.
pub fn put(
    disk: impl ReadAt,
    esp: (u64, u64),
    path: &str,
    text: &str,
    time: i64,
    write: &mut dyn FnMut(Writes) -> Result<()>,
) -> Result<()> {
    let patches = open(disk, esp)?.replace(path, text.as_bytes(), time)?;
    for Patch(writes) in patches {
        write(writes.into_iter().map(|(offset, bytes)| (esp.0 + offset, bytes)).collect())?;
    }
    Ok(())
}
