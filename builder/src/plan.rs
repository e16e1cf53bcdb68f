//! Turns filesystems into a [`DiskPlan`]: partitions, their places and GUIDs, and every byte of the disk.
use anyhow::{Context, Result, ensure};
use kscratch_formats::gpt::{self, Partition};
use kscratch_formats::guid::Guid;
use kscratch_formats::image::{Extent, Image};
pub use kscratch_install::esp::TYPE as TYPE_ESP;

use crate::digest;
use crate::filesystem::Filesystem;
use crate::store::Digest;
use crate::tree::Content;

/// Where the first partition begins, in bytes.
pub const FIRST_PARTITION: u64 = gpt::ALIGNMENT;
/// Type of a root partition, x86-64 (UAPI group, Discoverable Partitions Specification).
pub const TYPE_ROOT: Guid = Guid(*b"\x4F\x68\xBC\xE3\xE8\xCD\x4D\xB1\x96\xE7\xFB\xCA\xF9\x84\xB7\x09");
/// Type of a partition for `/var` (the same specification).
pub const TYPE_VAR: Guid = Guid(*b"\x4D\x21\xB0\x16\xB5\x34\x45\xC2\xA9\xFB\x5C\x16\xE0\x91\xFD\x2D");

/// Type of the flight recorder's partition: ours, none that others know.
pub const TYPE_RECORDER: Guid = Guid(kscratch_recorder::PARTITION_TYPE);
/// Bytes of the flight recorder's partition: some hundred boots.
pub const RECORDER: u64 = 8 << 20;

/// A disk, ready to be written.
#[derive(Debug, Clone)]
pub struct DiskPlan {
    /// `DiskGUID`.
    pub disk: Guid,
    /// Partitions by number from 1: `esp`, `root-a`, `root-b`, `recorder`, and `state`, unless that is elsewhere.
    pub partitions: Vec<Partition>,
    /// Every byte.
    pub image: Image<Content>,
}

/// The GUID of the partition that holds the root filesystem with this digest: the kernel command line names it, so it is known
/// before the ESP is.
pub fn root_guid(root: &Digest) -> Guid {
    digest::guid("partition root-a", root)
}

/// Lays out the disk. Root slot B is as large as slot A and empty, so is the flight recorder; the state partition, where there is one, is last, so that it
/// can grow. `sector` is the length of the disk's sectors in bytes.
pub fn disk(esp: Filesystem, root: Filesystem, state: Option<Filesystem>, sector: u64) -> Result<DiskPlan> {
    let whole = {
        let digests = [&esp, &root].into_iter().chain(&state).map(|filesystem| filesystem.digest.0);
        Digest::of(&digests.collect::<Vec<_>>().concat())
    };
    let empty = Image { len: root.image.len, extents: Vec::new() };
    let recorder = Image { len: RECORDER, extents: Vec::new() };
    let mut parts = vec![
        ("esp", TYPE_ESP, digest::guid("partition esp", &esp.digest), esp.image),
        ("root-a", TYPE_ROOT, root_guid(&root.digest), root.image),
        ("root-b", TYPE_ROOT, digest::guid("partition root-b", &root.digest), empty),
        ("recorder", TYPE_RECORDER, digest::guid("partition recorder", &root.digest), recorder),
    ];
    parts.extend(state.map(|state| ("state", TYPE_VAR, digest::guid("partition state", &state.digest), state.image)));
    let mut start = FIRST_PARTITION;
    let mut partitions = Vec::new();
    let mut extents = Vec::new();
    for (name, kind, guid, image) in parts {
        ensure!(
            image.len % gpt::ALIGNMENT == 0,
            "the partition {name} is {} bytes long, which is not a whole number of MiB",
            image.len
        );
        extents.extend(image.extents.into_iter().map(|extent| Extent { offset: start + extent.offset, ..extent }));
        partitions.push(Partition { name: name.to_owned(), kind, guid, start, len: image.len, attributes: 0 });
        start += image.len;
    }
    let len = (start + gpt::backup(sector)).next_multiple_of(gpt::ALIGNMENT);
    let disk = digest::guid("disk", &whole);
    let mut tables = gpt::tables(disk, len, sector, &partitions).context("planning the partition table")?;
    let backup = tables.pop();
    tables.append(&mut extents);
    tables.extend(backup);
    Ok(DiskPlan { disk, partitions, image: Image { len, extents: tables } })
}
