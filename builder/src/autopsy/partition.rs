//! Reads the flight recorder's partition off a disk, all of it that can be read.
use std::io;

use anyhow::{Context, Result, anyhow};
use kscratch_formats::bytes::ReadAt;
use kscratch_formats::gpt;
use kscratch_recorder::{BLOCK, Ring};

use crate::console::Hint;
use crate::inspect::{Opened, partition};
use crate::plan::TYPE_RECORDER;

/// What is asked of the disk at once.
const PIECE: usize = 1 << 20;

/// What a recorder's partition holds.
#[derive(Debug)]
pub struct Kept {
    /// Its boots.
    pub ring: Ring,
    /// Blocks that the disk did not give.
    pub unreadable: u64,
}

/// Finds the partition, and reads it.
///
/// # Errors
/// There is none, or nothing of it can be read.
pub fn read(disk: &Opened) -> Result<Kept> {
    let whole = || Hint("FILE is the whole disk of a machine, or what `kscratch-image run --overlay` keeps".into());
    let table = gpt::read(disk, disk.disk_len()).with_context(whole)?;
    let window = partition(disk, &table, TYPE_RECORDER).ok_or_else(|| {
        anyhow!("there is no flight recorder's partition on it").context(Hint(
            "images of this version have one, those of earlier ones do not; `kscratch-image inspect FILE` lists the partitions"
                .into(),
        ))
    })?;
    let (bytes, unreadable) = bytes(&window, window.len).context("reading the flight recorder's partition")?;
    Ok(Kept { ring: Ring::read(&bytes), unreadable })
}

/// The bytes of a partition of `len` bytes, and how many blocks of it could not be read, which are zeros: what failed may be the disk.
fn bytes(partition: &impl ReadAt, len: u64) -> io::Result<(Vec<u8>, u64)> {
    let mut bytes = vec![0; len.min(kscratch_recorder::LONGEST) as usize];
    let (mut unreadable, mut first) = (0, None);
    for (piece, number) in bytes.chunks_mut(PIECE).zip(0_u64..) {
        let start = number * PIECE as u64;
        if partition.read_at(start, piece).is_ok() {
            continue;
        }
        for (block, number) in piece.chunks_mut(BLOCK).zip(0_u64..) {
            if let Err(error) = partition.read_at(start + number * BLOCK as u64, block) {
                block.fill(0);
                unreadable += 1;
                first.get_or_insert(error);
            }
        }
    }
    let all = bytes.len().div_ceil(BLOCK) as u64;
    match first {
        Some(error) if unreadable == all => Err(error),
        _ => Ok((bytes, unreadable)),
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::os::unix::fs::FileExt;
    use std::time::Duration;

    use kscratch_formats::bytes::ReadAt;
    use kscratch_formats::gpt::{self, Partition};
    use kscratch_formats::guid::Guid;
    use kscratch_formats::image::{Data, Extent};
    use kscratch_recorder::{BLOCK, BootId, Entry, Ring, What};

    use super::{bytes, read};
    use crate::console::error_lines;
    use crate::inspect::Opened;
    use crate::plan::{TYPE_RECORDER, TYPE_VAR};

    const MIB: u64 = 1 << 20;

    /// A partition of which some blocks cannot be read.
    struct Failing<'a> {
        bytes: &'a [u8],
        blocks: &'a [usize],
    }

    impl ReadAt for Failing<'_> {
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
            let (start, end) = (offset as usize / BLOCK, (offset as usize + buf.len()).div_ceil(BLOCK));
            if self.blocks.iter().any(|block| (start..end).contains(block)) {
                // Some of it may have come before it failed.
                buf[0] = 0xA5;
                return Err(io::Error::other("medium error"));
            }
            self.bytes.read_at(offset, buf)
        }
    }

    #[test]
    fn what_a_failing_disk_still_gives_is_read() {
        let whole: Vec<u8> = (0..(2 << 20) + 3 * BLOCK).map(|at| (at / BLOCK) as u8).collect();
        let failing = |blocks| bytes(&Failing { bytes: &whole, blocks }, whole.len() as u64);
        assert_eq!(failing(&[]).unwrap(), (whole.clone(), 0));
        let mut want = whole.clone();
        for block in [1, 300, 514] {
            want[block * BLOCK..(block + 1) * BLOCK].fill(0);
        }
        assert!(failing(&[1, 300, 514]).unwrap() == (want, 3));
        let all: Vec<usize> = (0..whole.len() / BLOCK).collect();
        assert_eq!(failing(&all).unwrap_err().to_string(), "medium error");
    }

    /// A disk with one partition of this type, with these bytes in it.
    fn disk(kind: Guid, partition: &[u8]) -> tempfile::NamedTempFile {
        let one = Partition { name: "recorder".into(), kind, guid: Guid([7; 16]), start: MIB, len: MIB, attributes: 0 };
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4 * MIB).unwrap();
        file.as_file().write_all_at(partition, MIB).unwrap();
        for Extent { offset, data } in gpt::tables::<()>(Guid([9; 16]), 4 * MIB, 512, &[one]).unwrap() {
            let Data::Bytes(bytes) = data else { panic!("a table is bytes") };
            file.as_file().write_all_at(&bytes, offset).unwrap();
        }
        file
    }

    #[test]
    fn a_disk_is_read_by_the_type_of_its_partition() {
        let mut writer = Ring::read(&[0; MIB as usize]).writer(BootId([1; 16])).unwrap();
        assert!(writer.push(&Entry { at: Duration::from_secs(2), what: What::End("power off".into()) }).is_none());
        let (place, block) = writer.flush().unwrap();
        let partition = [&vec![0; place as usize][..], &block[..], &vec![0; MIB as usize - BLOCK]].concat();
        let file = disk(TYPE_RECORDER, &partition);
        let kept = read(&Opened::open(file.path()).unwrap()).unwrap();
        assert_eq!((kept.ring, kept.unreadable), (Ring::read(&partition), 0));
        let file = disk(TYPE_VAR, &partition);
        let error = read(&Opened::open(file.path()).unwrap()).unwrap_err();
        let lines = error_lines(&error);
        assert_eq!(lines[0], "error: there is no flight recorder's partition on it");
        assert!(lines[1].starts_with("hint: images of this version have one"), "{lines:?}");
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4 * MIB).unwrap();
        let lines = error_lines(&read(&Opened::open(file.path()).unwrap()).unwrap_err());
        assert!(lines.last().unwrap().starts_with("hint: FILE is the whole disk"), "{lines:?}");
    }
}
