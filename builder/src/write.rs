//! Turns a planned disk or filesystem into a file: written on all cores beside its final name, hashed in the same pass, synced, then renamed.
mod contents;
mod early;
mod frames;
mod parallel;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use kscratch_formats::image::{Data, Image};
use kscratch_formats::{qcow2, vhd, vmdk};

pub use contents::Contents;
pub(crate) use frames::{SEEKABLE_MAGIC, SKIPPABLE_MAGIC};

use crate::digest::{self, DiskDigest};
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
    /// VMware's format in one sparse file; holes take no room.
    Vmdk,
    /// Microsoft's fixed format: the disk's bytes, holes sparse, and a footer.
    Vhd {
        /// The footer's time, in seconds since 1970.
        time: i64,
    },
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

/// Bytes of the disk that [`image`] will report as progress: those that are not holes.
pub fn work(image: &Image<Content>) -> u64 {
    image.extents.iter().map(|extent| extent.data.len()).sum()
}

/// Who may read a file that is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Everybody, as of any image.
    All,
    /// Its owner alone: it holds a machine's secrets.
    Owner,
}

impl Readers {
    /// Those of a disk that has this role metadata on it.
    pub(crate) fn of(files: &BTreeMap<String, Vec<u8>>) -> Readers {
        if files.is_empty() { Readers::All } else { Readers::Owner }
    }

    fn mode(self) -> u32 {
        match self {
            Readers::All => 0o644,
            Readers::Owner => 0o600,
        }
    }
}

/// Writes the disk to `out`; `store` is the store's folder. A file of that name is replaced only when the new one is complete.
pub fn image(
    image: &Image<Content>,
    store: &Path,
    format: Format,
    out: &Path,
    progress: Progress<'_>,
) -> Result<Written> {
    image_for(Readers::All, image, store, format, out, progress)
}

/// The same for these readers.
pub(crate) fn image_for(
    readers: Readers,
    image: &Image<Content>,
    store: &Path,
    format: Format,
    out: &Path,
    progress: Progress<'_>,
) -> Result<Written> {
    written(readers, image, store, format, out, progress).with_context(|| format!("writing {}", out.display()))
}

fn written(
    readers: Readers,
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
    let name = out.file_name().and_then(|name| name.to_str());
    let put = |file: &File| -> Result<(parallel::Chunks, Digest)> {
        let chunks = put(image, &contents, format, file, progress)?;
        let mut digest = DiskDigest::default();
        for (offset, chunk) in &chunks {
            digest.add(*offset, chunk);
        }
        let digest = digest.finish(image.len);
        identify(image, &digest, format, name, file)?;
        Ok((chunks, digest))
    };
    let ((chunks, digest), metadata) = whole(out, readers, put)?;
    Ok(Written { digest, disk: image.len, len: metadata.len(), allocated: metadata.blocks() * 512, chunks })
}

/// Makes a file whole: beside its name, synced, then renamed. Gives what `put` gives, and what the file is then.
pub(crate) fn whole<T>(
    out: &Path,
    readers: Readers,
    put: impl FnOnce(&File) -> Result<T>,
) -> Result<(T, fs::Metadata)> {
    let folder = match out.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder).with_context(|| format!("making the folder {}", folder.display()))?;
    let part = tempfile::Builder::new()
        .prefix(".kscratch-")
        .suffix(".part")
        .permissions(fs::Permissions::from_mode(readers.mode()))
        .tempfile_in(folder)
        .with_context(|| format!("making a file in {}", folder.display()))?;
    let done = put(part.as_file())?;
    part.as_file().sync_all().context("waiting until the file is on the disk")?;
    let metadata = part.as_file().metadata().context("looking at the written file")?;
    part.persist(out).context("giving the file its name")?;
    let named = File::open(folder).and_then(|folder| folder.sync_all());
    named.with_context(|| format!("waiting until the name is in {}", folder.display()))?;
    Ok((done, metadata))
}

/// Writes what tells one file from another, where its form has such: it derives from the disk's digest, which is known last.
fn identify(image: &Image<Content>, digest: &Digest, format: Format, name: Option<&str>, file: &File) -> Result<()> {
    match format {
        Format::Raw | Format::RawZst | Format::Qcow2 => Ok(()),
        Format::Vmdk => {
            let name = name.ok_or_else(|| anyhow!("the file's name is not UTF-8, which a VMDK's descriptor wants"))?;
            let layout = vmdk::layout(image).context("laying out the vmdk file")?;
            let text = layout.descriptor(name, digest::guid("VMDK content", digest).0)?;
            file.write_all_at(&text, vmdk::Layout::DESCRIPTOR).context("writing the descriptor of the vmdk file")
        }
        Format::Vhd { time } => {
            let footer = vhd::footer(image.len, time, digest::guid("VHD", digest).0);
            file.write_all_at(&footer, image.len).context("writing the footer of the vhd file")
        }
    }
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
        Format::Raw | Format::Vhd { .. } => {
            file.set_len(image.len).context("making the file as long as the disk")?;
            early::sync(file, progress, |progress| parallel::run(image, contents, &Raw(file), progress))
        }
        Format::Qcow2 => {
            let layout = qcow2::layout(image).context("laying out the qcow2 file")?;
            tables(file, layout.len, &layout.metadata).context("writing the tables of the qcow2 file")?;
            let sink = Placed { file, unit: qcow2::CLUSTER, place: |offset| layout.place(offset) };
            early::sync(file, progress, |progress| parallel::run(image, contents, &sink, progress))
        }
        Format::Vmdk => {
            let layout = vmdk::layout(image).context("laying out the vmdk file")?;
            tables(file, layout.len, &layout.metadata).context("writing the tables of the vmdk file")?;
            let sink = Placed { file, unit: vmdk::GRAIN, place: |offset| layout.place(offset) };
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

/// Makes the file `len` bytes long, and writes its tables.
fn tables(file: &File, len: u64, tables: &[(u64, Vec<u8>)]) -> std::io::Result<()> {
    file.set_len(len)?;
    tables.iter().try_for_each(|(offset, bytes)| file.write_all_at(bytes, *offset))
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

/// Writes the units that hold something where a layout puts them.
struct Placed<'a, F> {
    file: &'a File,
    /// Bytes of a cluster or grain: a part of a piece.
    unit: u64,
    place: F,
}

impl<F: Fn(u64) -> Option<u64> + Sync> Sink for Placed<'_, F> {
    fn piece_len(&self) -> u64 {
        parallel::CHUNK
    }

    fn put(&self, piece: &Piece<'_>) -> Result<()> {
        let units = piece.bytes.chunks(self.unit as usize);
        for (offset, bytes) in (piece.offset..).step_by(self.unit as usize).zip(units) {
            if let Some(at) = (self.place)(offset) {
                self.file.write_all_at(bytes, at).with_context(|| format!("writing at byte {at}"))?;
            }
        }
        Ok(())
    }
}
