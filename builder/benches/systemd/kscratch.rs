//! A node image taken apart: its root, and what firmware would boot.
use std::path::Path;

use anyhow::{Context, Result};
use kscratch_formats::bytes::Window;
use kscratch_formats::ext4::Reader;
use kscratch_formats::{fat32, gpt, uki};
use kscratch_image::filesystem::UKI_PATH;
use kscratch_image::inspect::Opened;
use kscratch_image::plan::{TYPE_ESP, TYPE_ROOT};

use crate::boots::Kernel;

/// A boot file of more bytes is not read.
const MAX_UKI: u64 = 1 << 30;

/// What is in an image.
#[derive(Debug)]
pub struct Kscratch {
    /// The root that is booted.
    pub root: Reader<Window<Opened>>,
    /// The boot file's parts.
    pub kernel: Kernel,
}

impl Kscratch {
    /// Opens it.
    ///
    /// # Errors
    /// It has no root or no boot file, or cannot be read.
    pub fn open(image: &Path) -> Result<Kscratch> {
        let disk = Opened::open(image)?;
        let table = gpt::read(&disk, disk.disk_len())?;
        let partition = |kind| {
            // Of two root slots the first one is filled.
            let found = table.partitions.iter().find(|(_, partition)| partition.kind == kind);
            found.map(|(_, partition)| (partition.start, partition.len)).context("the image lacks a partition")
        };
        let (start, len) = partition(TYPE_ESP)?;
        let volume = fat32::Volume::open(Window { inner: &disk, start, len })?;
        let found = volume.find(UKI_PATH)?.context("the image has no boot file")?;
        let file = volume.read(&found, MAX_UKI)?;
        let sections = uki::sections(&file).context("reading the boot file")?;
        let section = |name: &str| sections.get(name).map(|bytes| bytes.to_vec()).unwrap_or_default();
        let cmdline = String::from_utf8(section(".cmdline"))?.trim_end_matches(['\0', '\n']).to_owned();
        let kernel = Kernel { kernel: section(".linux"), initramfs: section(".initrd"), cmdline };
        let (start, len) = partition(TYPE_ROOT)?;
        let root = Reader::open(Window { inner: disk, start, len }).context("opening the image's root")?;
        Ok(Kscratch { root, kernel })
    }
}
