//! Turns the root tree and the boot file into the plans of the disk's filesystems.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context, Result};
use kscratch_formats::image::Image;
use kscratch_formats::{ext4, fat32, gpt};
pub use kscratch_install::esp::FOLDER as METADATA_FOLDER;

use crate::digest;
use crate::store::Digest;
use crate::tree::{Content, Kind, Tree};

/// Label of the ESP.
pub const ESP_LABEL: &str = "KSCRATCHESP";
/// Label of the ESP of an installer.
pub const INSTALLER_LABEL: &str = "KSCRATCHISO";
/// Label of the root filesystem.
pub const ROOT_LABEL: &str = "kscratch-root";
/// Label of the state filesystem.
pub const STATE_LABEL: &str = "kscratch-state";
/// Where firmware looks for what to boot.
pub const UKI_PATH: &str = "/EFI/BOOT/BOOTX64.EFI";
/// Bytes of an installer's ESP besides the boot file: tables, and metadata with their secrets, which are a MiB each at the most.
const INSTALLER_ROOM: u64 = 8 << 20;
/// With fewer bytes FAT32 is none: fewer than its 65525 clusters would be read as FAT16.
const SMALLEST_ESP: u64 = 40 << 20;
/// Journal of the state filesystem in blocks of 4 KiB: 64 MiB, enough for the full disk that it grows to.
const JOURNAL_BLOCKS: u32 = 16384;
/// A state partition is not made to grow further than this: what one block of pointers in the resize inode reaches.
const STATE_GROWS_TO: u64 = 8 << 40;

/// A planned filesystem.
#[derive(Debug, Clone)]
pub struct Filesystem {
    /// Where its bytes stand.
    pub image: Image<Content>,
    /// The digest of what it holds: its partition's GUID derives from it.
    pub digest: Digest,
}

impl Filesystem {
    fn new(image: Image<Content>) -> Self {
        let digest = digest::image(&image);
        Filesystem { image, digest }
    }
}

/// The root: ext4 of `size` bytes without a journal, as it is only read. `time` is in seconds since 1970.
pub fn root(tree: &Tree, size: u64, time: i64) -> Result<Filesystem> {
    let content = digest::tree(tree);
    let entries = tree.nodes.iter().map(|(path, node)| ext4::Entry {
        path: path.clone(),
        kind: match &node.kind {
            Kind::Directory => ext4::Kind::Directory,
            Kind::File(content) => ext4::Kind::File { id: content.clone(), offset: 0, len: content.len() },
            Kind::Symlink(target) => ext4::Kind::Symlink(target.clone()),
            Kind::CharDevice { major, minor } => ext4::Kind::CharDevice { major: *major, minor: *minor },
            Kind::BlockDevice { major, minor } => ext4::Kind::BlockDevice { major: *major, minor: *minor },
        },
        mode: node.mode,
        uid: node.uid,
        gid: node.gid,
        mtime: time,
        xattrs: node.xattrs.clone(),
    });
    // Ten reserved inodes, lost+found and the root, and nothing to spare: no file is ever made here.
    let inodes = u32::try_from(tree.nodes.len() + 16).context("counting the root's inodes")?;
    let options = ext4_options(ROOT_LABEL, size, time, &content, Some(inodes));
    let image = ext4::plan(entries, &options).context("planning the root filesystem")?;
    Ok(Filesystem::new(image))
}

/// State: empty ext4 with a journal, made to grow while mounted. `root` makes its UUID differ between images.
pub fn state(size: u64, time: i64, root: &Digest) -> Result<Filesystem> {
    let options = ext4::Options {
        journal_blocks: Some(JOURNAL_BLOCKS.min(u32::try_from(size / ext4::BLOCK / 8)?).max(1024)),
        grow_to: Some(STATE_GROWS_TO),
        ..ext4_options(STATE_LABEL, size, time, root, None)
    };
    let image = ext4::plan([], &options).context("planning the state filesystem")?;
    Ok(Filesystem::new(image))
}

fn ext4_options(label: &str, size: u64, time: i64, content: &Digest, inodes: Option<u32>) -> ext4::Options {
    ext4::Options {
        size,
        label: label.to_owned(),
        uuid: digest::guid(&format!("{label} filesystem"), content).0,
        hash_seed: digest::guid(&format!("{label} directory hashes"), content).0,
        inodes,
        journal_blocks: None,
        time,
        grow_to: None,
    }
}

/// The ESP: FAT32 with the boot file and `files` (absolute paths, their folders are made), such as role metadata; `sector` is the length of
/// the disk's sectors in bytes.
pub fn esp(uki: Arc<[u8]>, files: &BTreeMap<String, Vec<u8>>, size: u64, sector: u64, time: i64) -> Result<Filesystem> {
    let place = Place { label: ESP_LABEL, start: crate::plan::FIRST_PARTITION, size, sector };
    boot_volume(uki, files, &place, time)
}

/// The ESP of an installer that begins at byte `start`: as large as it has to be, with room for metadata that come later.
pub fn installer_esp(uki: Arc<[u8]>, files: &BTreeMap<String, Vec<u8>>, start: u64, time: i64) -> Result<Filesystem> {
    let files_bytes: u64 = files.values().map(|bytes| bytes.len() as u64).sum();
    let size = (uki.len() as u64 + files_bytes + INSTALLER_ROOM).next_multiple_of(gpt::ALIGNMENT).max(SMALLEST_ESP);
    boot_volume(uki, files, &Place { label: INSTALLER_LABEL, start, size, sector: gpt::SECTORS[0] }, time)
}

/// Where an ESP is, and what it is called.
struct Place {
    label: &'static str,
    start: u64,
    size: u64,
    sector: u64,
}

fn boot_volume(uki: Arc<[u8]>, files: &BTreeMap<String, Vec<u8>>, place: &Place, time: i64) -> Result<Filesystem> {
    let uki = Content::Literal(uki);
    let mut folders = BTreeSet::from([METADATA_FOLDER]);
    for path in files.keys().map(String::as_str).chain([UKI_PATH]) {
        folders.extend(path.match_indices('/').skip(1).map(|(at, _)| &path[..at]));
    }
    let folders = folders.into_iter().map(|path| fat32::Entry { path: path.to_owned(), kind: fat32::Kind::Directory });
    let len = uki.len();
    let boot = fat32::Entry { path: UKI_PATH.to_owned(), kind: fat32::Kind::File { id: uki.clone(), offset: 0, len } };
    let files =
        files.iter().map(|(path, bytes)| fat32::Entry { path: path.clone(), kind: fat32::Kind::Bytes(bytes.clone()) });
    let content = digest::image(&Image {
        len,
        extents: vec![kscratch_formats::image::Extent {
            offset: 0,
            data: kscratch_formats::image::Data::Content { id: uki, offset: 0, len },
        }],
    });
    let serial = digest::guid("ESP volume", &content).0;
    let options = fat32::Options {
        size: place.size,
        sector: place.sector,
        label: place.label.to_owned(),
        serial: u32::from_be_bytes([serial[0], serial[1], serial[2], serial[3]]),
        time,
        hidden_sectors: u32::try_from(place.start / place.sector)?,
    };
    let image = fat32::plan(folders.chain([boot]).chain(files), &options).context("planning the ESP")?;
    Ok(Filesystem::new(image))
}
