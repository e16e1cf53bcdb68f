//! A written disk becomes the ISO image that installs it: the disk packed, and what boots to put it onto another.
//!
//! The same bytes are a CD, by ISO 9660 with an El Torito entry, and a disk with a partition table, for sticks. The disk is packed first: what boots is told
//! the identity of just these contents on its command line.
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use kscratch_formats::bmap::Mapped;
use kscratch_formats::bytes::ReadAt;
use kscratch_formats::gpt::{self, Partition};
use kscratch_formats::guid::Guid;
use kscratch_formats::image::{Data, Extent};
use kscratch_formats::iso9660;
use kscratch_install::packed::{self, Index, Range};
use kscratch_install::{PIECE, Plain};
use rayon::prelude::{IntoParallelRefIterator, ParallelIterator};
use sha2::{Digest as _, Sha256};

use crate::plan::TYPE_ESP;
use crate::store::Digest;
use crate::tree::Content;
use crate::write::{self, Contents, Readers, Written};
use crate::{blockmap, digest, filesystem};

/// `Volume Identifier` of the CD.
pub const VOLUME: &str = "KSCRATCH_INSTALL";
/// Name of the partition with the packed disk.
pub const PARTITION: &str = "install";
/// Where the packed disk begins.
const PACKED: u64 = gpt::ALIGNMENT;
/// Ranges that are packed at once: some for every core, few for the memory.
const AT_ONCE: usize = 64;
/// What a CD's or stick's reader finds who looks for files.
const README: &str = "This is an installer of kscratch. Boot from it (UEFI).\r\n\
It writes to no disk that the role metadata do not name: see [install].\r\n\
Put them onto it with: kscratch-image stamp FILE.iso --metadata role.toml\r\n";

/// What is installed.
#[derive(Debug)]
pub struct Source<'a> {
    /// The disk, raw.
    pub disk: &'a Path,
    /// What is known of it.
    pub written: &'a Written,
    /// Bytes of its sectors.
    pub sector: u64,
}

/// What boots.
pub struct Medium<'a> {
    /// Makes the boot file of an installer of the disk with this identity.
    pub boot: &'a dyn Fn(Guid) -> Result<Arc<[u8]>>,
    /// Files for its ESP, by absolute path: role metadata.
    pub files: &'a BTreeMap<String, Vec<u8>>,
    /// Seconds since 1970.
    pub time: i64,
}

/// An installer that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installer {
    /// The packed disk's identity, and the GUID of its partition.
    pub guid: Guid,
    /// The file's length in bytes.
    pub len: u64,
    /// Bytes that the file takes where it lies.
    pub allocated: u64,
}

/// Bytes that [`write`] will tell of as done, about.
pub fn work(written: &Written) -> u64 {
    written.chunks.len() as u64 * digest::CHUNK
}

/// Writes the installer to `out`; `store` is the store's folder. A file of that name is replaced only when the new one is complete.
///
/// # Errors
/// The disk cannot be read, or is not what was written; the boot file cannot be made; it is larger than the formats allow.
pub fn write(
    source: &Source<'_>,
    medium: &Medium<'_>,
    store: &Path,
    out: &Path,
    done: &mut dyn FnMut(u64),
) -> Result<Installer> {
    let put = |file: &File| -> Result<Guid> {
        let (guid, packed) = pack(source, file, done)?;
        let start = (PACKED + packed).next_multiple_of(gpt::ALIGNMENT);
        let esp = filesystem::installer_esp((medium.boot)(guid)?, medium.files, start, medium.time)?;
        let layout = Layout { guid, packed, start, esp: esp.image.len };
        let stored = esp.image.extents.iter().filter_map(|extent| match &extent.data {
            Data::Content { id, .. } => Some(id),
            Data::Bytes(_) => None,
        });
        let contents = Contents::open(stored, store)?;
        file.set_len(layout.len()).context("making the file as long as the image")?;
        for extent in layout.around(&esp.digest, medium.time)? {
            copy(&extent, 0, &contents, file)?;
        }
        esp.image.extents.iter().try_for_each(|extent| copy(extent, start, &contents, file))?;
        Ok(guid)
    };
    let (guid, metadata) =
        write::whole(out, Readers::of(medium.files), put).with_context(|| format!("writing {}", out.display()))?;
    Ok(Installer { guid, len: metadata.len(), allocated: metadata.blocks() * 512 })
}

/// Where everything stands.
struct Layout {
    guid: Guid,
    /// Bytes of the packed disk.
    packed: u64,
    /// First byte of the ESP.
    start: u64,
    /// Its bytes.
    esp: u64,
}

impl Layout {
    fn len(&self) -> u64 {
        (self.start + self.esp + gpt::backup(gpt::SECTORS[0])).next_multiple_of(gpt::ALIGNMENT)
    }

    /// What makes a CD and a disk of it. The ESP is the last file: firmware takes all up to the CD's end for it.
    fn around(&self, esp: &Digest, time: i64) -> Result<Vec<Extent<Content>>> {
        let partition = |name: &str, kind, guid, start, len| Partition {
            name: name.to_owned(),
            kind,
            guid,
            start,
            len,
            attributes: 0,
        };
        let partitions = [
            partition("esp", TYPE_ESP, digest::guid("partition esp of an installer", esp), self.start, self.esp),
            partition(PARTITION, packed::TYPE, self.guid, PACKED, self.start - PACKED),
        ];
        let disk = digest::guid("disk of an installer", &Digest::of(&self.guid.0));
        let mut extents =
            gpt::tables(disk, self.len(), gpt::SECTORS[0], &partitions).context("planning the partition table")?;
        let file = |name: &str, start, len| iso9660::File { name: name.to_owned(), start, len };
        let files = [
            file("README.TXT", iso9660::END, README.len() as u64),
            file("DISK.KSP", PACKED, self.packed),
            file("ESP.IMG", self.start, self.esp),
        ];
        let options = iso9660::Options { len: self.len(), volume: VOLUME.to_owned(), time, boot: "ESP.IMG".to_owned() };
        extents.push(iso9660::plan(&files, &options).context("planning the CD")?);
        extents.push(Extent { offset: iso9660::END, data: Data::Bytes(README.as_bytes().to_vec()) });
        Ok(extents)
    }
}

/// Writes the packed disk; gives its identity, and how long it is.
fn pack(source: &Source<'_>, file: &File, done: &mut dyn FnMut(u64)) -> Result<(Guid, u64)> {
    let disk = Plain::open(source.disk).with_context(|| format!("opening {}", source.disk.display()))?;
    let map = blockmap::of(&disk, source.written.disk, &source.written.chunks)?;
    ensure!(
        map.ranges.iter().all(|range| range.bytes.end - range.bytes.start <= PIECE),
        "a range is too long to be packed"
    );
    let mut index = Index { sector: Some(source.sector), disk: map.image, ranges: Vec::new() };
    let mut place = Index::end(map.ranges.len());
    for ranges in map.ranges.chunks(AT_ONCE) {
        let frames = ranges.par_iter().map(|range| frame(&disk, range)).collect::<Result<Vec<_>>>()?;
        for (mapped, frame) in ranges.iter().zip(frames) {
            file.write_all_at(&frame, PACKED + place).context("writing a part of the packed disk")?;
            let len = u32::try_from(frame.len()).context("counting a part's bytes")?;
            index.ranges.push(Range { mapped: mapped.clone(), place, len });
            place += frame.len() as u64;
            done(mapped.bytes.end - mapped.bytes.start);
        }
    }
    file.write_all_at(&index.print(), PACKED).context("writing the packed disk's index")?;
    Ok((index.identity(), place))
}

/// A range as it is packed. What is read must be what was written: the installer takes nothing else.
fn frame(disk: &Plain, range: &Mapped) -> Result<Vec<u8>> {
    let action = || format!("packing the disk at byte {}", range.bytes.start);
    let mut bytes = vec![0; usize::try_from(range.bytes.end - range.bytes.start)?];
    disk.read_at(range.bytes.start, &mut bytes).with_context(action)?;
    ensure!(
        Sha256::digest(&bytes)[..] == range.sha256,
        "the disk at byte {} is not what was written there",
        range.bytes.start
    );
    packed::pack(&bytes).with_context(action)
}

/// Writes an extent that stands behind byte `start`.
fn copy(extent: &Extent<Content>, start: u64, contents: &Contents, file: &File) -> Result<()> {
    let action = || format!("writing at byte {}", start + extent.offset);
    match &extent.data {
        Data::Bytes(bytes) => file.write_all_at(bytes, start + extent.offset).with_context(action),
        Data::Content { id, offset, len } => {
            let mut buffer = vec![0; PIECE as usize];
            for at in (0..*len).step_by(PIECE as usize) {
                let bytes = &mut buffer[..(len - at).min(PIECE) as usize];
                contents.read(id, offset + at, bytes)?;
                file.write_all_at(bytes, start + extent.offset + at).with_context(action)?;
            }
            Ok(())
        }
    }
}
