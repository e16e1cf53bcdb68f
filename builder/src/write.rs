//! Turns a [`DiskPlan`] into a file: written on all cores beside its final name, hashed in the same pass, synced, then renamed.
mod contents;
mod early;
mod frames;
mod parallel;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use kscratch_formats::image::{Data, Image};
use kscratch_formats::qcow2;

pub use contents::Contents;
pub(crate) use frames::{SEEKABLE_MAGIC, SKIPPABLE_MAGIC};

use crate::digest::DiskDigest;
use crate::plan::DiskPlan;
use crate::store::Digest;
use crate::tree::Content;
use parallel::{Piece, Sink};

/// Form of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The disk's bytes, holes sparse.
    Raw,
    /// The disk's bytes in zstd frames, with a table to seek by.
    RawZst,
    /// QEMU's copy-on-write format, version 3; holes take no room.
    Qcow2,
}

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The disk digest: of the disk, whatever the file's form.
    pub digest: Digest,
    /// The disk's length in bytes.
    pub disk: u64,
    /// The file's length in bytes.
    pub len: u64,
    /// Bytes that the file takes where it lies.
    pub allocated: u64,
    /// The chunks of the disk that are not all zeros: offset and SHA-256, in order.
    pub chunks: Vec<(u64, [u8; 32])>,
}

/// Told how many bytes of the disk are done since the last call; called from several threads.
pub type Progress<'a> = &'a (dyn Fn(u64) + Sync);

/// Bytes of the disk that [`disk`] will report as progress: those that are not holes.
pub fn work(image: &Image<Content>) -> u64 {
    image.extents.iter().map(|extent| extent.data.len()).sum()
}

/// Writes the disk to `out`; `store` is the store's folder. A file of that name is replaced only when the new one is complete.
pub fn disk(plan: &DiskPlan, store: &Path, format: Format, out: &Path, progress: Progress<'_>) -> Result<Written> {
    image(&plan.image, store, format, out, progress).with_context(|| format!("writing {}", out.display()))
}

/// Writes any image, see [`disk`].
pub fn image(
    image: &Image<Content>,
    store: &Path,
    format: Format,
    out: &Path,
    progress: Progress<'_>,
) -> Result<Written> {
    let stored = image.extents.iter().filter_map(|extent| match &extent.data {
        Data::Content { id, .. } => Some(id),
        Data::Bytes(_) => None,
    });
    let contents = Contents::open(stored, store)?;
    let folder = match out.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder).with_context(|| format!("making the folder {}", folder.display()))?;
    let part = tempfile::Builder::new()
        .prefix(".kscratch-")
        .suffix(".part")
        .permissions(fs::Permissions::from_mode(0o644))
        .tempfile_in(folder)
        .with_context(|| format!("making a file in {}", folder.display()))?;
    let chunks = put(image, &contents, format, part.as_file(), progress)?;
    let mut digest = DiskDigest::default();
    for (offset, chunk) in &chunks {
        digest.add(*offset, chunk);
    }
    part.as_file().sync_all().context("waiting until the file is on the disk")?;
    let metadata = part.as_file().metadata().context("looking at the written file")?;
    part.persist(out).context("giving the file its name")?;
    let named = File::open(folder).and_then(|folder| folder.sync_all());
    named.with_context(|| format!("waiting until the name is in {}", folder.display()))?;
    Ok(Written {
        digest: digest.finish(image.len),
        disk: image.len,
        len: metadata.len(),
        allocated: metadata.blocks() * 512,
        chunks,
    })
}

/// Fills the file with the disk in its form; gives the chunks for the disk digest.
fn put(
    image: &Image<Content>,
    contents: &Contents,
    format: Format,
    mut file: &File,
    progress: Progress<'_>,
) -> Result<parallel::Chunks> {
    match format {
        Format::Raw => {
            file.set_len(image.len).context("making the file as long as the disk")?;
            early::sync(file, progress, |progress| parallel::run(image, contents, &Raw(file), progress))
        }
        Format::Qcow2 => {
            let layout = qcow2::layout(image).context("laying out the qcow2 file")?;
            file.set_len(layout.len).context("making the file long enough")?;
            for (offset, bytes) in &layout.metadata {
                file.write_all_at(bytes, *offset).context("writing the tables of the qcow2 file")?;
            }
            let sink = Qcow2 { file, layout: &layout };
            early::sync(file, progress, |progress| parallel::run(image, contents, &sink, progress))
        }
        Format::RawZst => {
            let frames = frames::Frames::new(file);
            let chunks = early::sync(file, progress, |progress| parallel::run(image, contents, &frames, progress))?;
            let table = frames.finish()?;
            file.write_all(&table).context("writing the seek table")?;
            Ok(chunks)
        }
    }
}

/// Writes spans where they stand.
struct Raw<'a>(&'a File);

impl Sink for Raw<'_> {
    fn piece_len(&self) -> u64 {
        parallel::CHUNK
    }

    fn put(&self, piece: &Piece<'_>) -> Result<()> {
        for span in piece.spans {
            let at = piece.offset + span.start as u64;
            self.0.write_all_at(&piece.bytes[span.clone()], at).with_context(|| format!("writing at byte {at}"))?;
        }
        Ok(())
    }
}

/// Writes the clusters that hold something where the layout puts them.
struct Qcow2<'a> {
    file: &'a File,
    layout: &'a qcow2::Layout,
}

impl Sink for Qcow2<'_> {
    fn piece_len(&self) -> u64 {
        parallel::CHUNK
    }

    fn put(&self, piece: &Piece<'_>) -> Result<()> {
        let clusters = piece.bytes.chunks(qcow2::CLUSTER as usize);
        for (offset, bytes) in (piece.offset..).step_by(qcow2::CLUSTER as usize).zip(clusters) {
            if let Some(at) = self.layout.place(offset) {
                self.file.write_all_at(bytes, at).with_context(|| format!("writing at byte {at}"))?;
            }
        }
        Ok(())
    }
}
