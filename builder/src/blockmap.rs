//! Turns a written disk into its block map: the chunks that a copy of it cannot do without.
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kscratch_formats::bmap::{BlockMap, Mapped};
use kscratch_formats::bytes::{ReadAt, Window};
use kscratch_formats::ext4::Reader;
use kscratch_formats::fat32::Volume;
use kscratch_formats::gpt;
use sha2::{Digest as _, Sha256};

use crate::digest::CHUNK;
use crate::inspect::Opened;
use crate::manifest::write_text;
use crate::plan::TYPE_RECORDER;
use crate::write::Written;

/// Where the block map of an image stands: the first place where bmaptool looks for it. Its name has all of the image's: another form of the same disk may
/// have been stamped since.
pub fn place(image: &Path) -> PathBuf {
    let mut name = image.as_os_str().to_owned();
    name.push(".bmap");
    name.into()
}

/// Writes the block map of an image that was just written, and tells where.
///
/// # Errors
/// The image cannot be read, or the map not be written.
pub fn write(image: &Path, written: &Written) -> Result<PathBuf> {
    let disk = Opened::alone(image)?;
    let map = of(&disk, written.disk, &written.chunks).with_context(|| format!("mapping {}", image.display()))?;
    let file = place(image);
    write_text(&file, map.print().as_bytes())?;
    Ok(file)
}

/// Makes the block map beside an image anew, where there is one: the image was changed.
///
/// # Errors
/// As for [`write`].
pub fn renew(image: &Path) -> Result<()> {
    let file = place(image);
    if !file.exists() {
        return Ok(());
    }
    let disk = Opened::alone(image)?;
    let map = read(&disk, disk.disk_len(), &mut |_| {}).with_context(|| format!("mapping {}", image.display()))?;
    write_text(&file, map.print().as_bytes())
}

/// The map of a disk of `len` bytes, whose chunks that are not all zeros are known by offset and SHA-256. Chunks of zeros are in it where a
/// filesystem means them: a device holds something else there.
///
/// # Errors
/// The disk cannot be read.
pub fn of(disk: &impl ReadAt, len: u64, chunks: &[(u64, [u8; 32])]) -> Result<BlockMap> {
    let mut mapped: BTreeMap<u64, [u8; 32]> = chunks.iter().copied().collect();
    let zeros = vec![0; CHUNK as usize];
    let whole = Sha256::digest(&zeros).into();
    for range in used(disk, len)? {
        for start in (range.start / CHUNK * CHUNK..range.end).step_by(CHUNK as usize) {
            let length = (len - start).min(CHUNK);
            let zero = || if length == CHUNK { whole } else { Sha256::digest(&zeros[..length as usize]).into() };
            mapped.entry(start).or_insert_with(zero);
        }
    }
    Ok(map(&mapped, len))
}

/// The map of a disk of `len` bytes, all of which is read; told of every piece. A disk without a partition table is mapped as a whole.
///
/// # Errors
/// As for [`of`].
pub fn read(disk: &impl ReadAt, len: u64, read: &mut dyn FnMut(u64)) -> Result<BlockMap> {
    let known = gpt::read(disk, len).is_ok();
    let mut chunks = Vec::new();
    let mut bytes = vec![0; CHUNK as usize];
    for start in (0..len).step_by(CHUNK as usize) {
        let chunk = &mut bytes[..(len - start).min(CHUNK) as usize];
        disk.read_at(start, chunk).with_context(|| format!("reading at byte {start}"))?;
        read(chunk.len() as u64);
        if !known || chunk.iter().any(|byte| *byte != 0) {
            chunks.push((start, Sha256::digest(&*chunk).into()));
        }
    }
    if known { of(disk, len, &chunks) } else { Ok(map(&chunks.into_iter().collect(), len)) }
}

fn map(chunks: &BTreeMap<u64, [u8; 32]>, len: u64) -> BlockMap {
    let mapped =
        |(start, sha256): (&u64, &[u8; 32])| Mapped { bytes: *start..(start + CHUNK).min(len), sha256: *sha256 };
    BlockMap { image: len, ranges: chunks.iter().map(mapped).collect() }
}

/// The bytes of a disk that mean something: its tables, what filesystems say is in use, all of the flight recorder, each block of which would be
/// taken for this machine's, and both ends of another partition without a filesystem that is known here, where what was there before could be
/// taken for one.
fn used(disk: &impl ReadAt, len: u64) -> Result<Vec<Range<u64>>> {
    let table = gpt::read(disk, len)?;
    let first = table.partitions.iter().map(|(_, partition)| partition.start).min().unwrap_or(len);
    let mut used = vec![0..first, len.saturating_sub(gpt::backup(table.sector))..len];
    for (_, partition) in &table.partitions {
        let (start, end) = (partition.start, partition.start + partition.len);
        let window = || Window { inner: disk, start, len: partition.len };
        let inner = if let Ok(volume) = Volume::open(window()) {
            volume.used_ranges()
        } else if let Ok(reader) = Reader::open(window()) {
            let ranges = reader.used_ranges();
            ranges.with_context(|| format!("asking the filesystem of {} what it uses", partition.name))?
        } else {
            let beginning = if partition.kind == TYPE_RECORDER { partition.len - 1 } else { 1 };
            vec![0..beginning, partition.len - 1..partition.len]
        };
        used.extend(inner.into_iter().map(|range| start + range.start..(start + range.end).min(end)));
    }
    Ok(used)
}
