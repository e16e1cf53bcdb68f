//! Keeps the bytes of a disk that are written last: without its partition tables it is no disk yet.
use std::ops::Range;

use anyhow::{Context, Result, ensure};
use kscratch_formats::bytes::ReadAt;

use crate::target::{Buffer, Target};

/// Bytes and their places, in order.
#[derive(Debug)]
pub(crate) struct HeldBack {
    areas: Vec<(u64, Vec<u8>)>,
}

impl HeldBack {
    /// Reads them.
    pub(crate) fn of(disk: &impl ReadAt, areas: &[Range<u64>]) -> Result<HeldBack> {
        let read = |area: &Range<u64>| {
            let mut bytes = vec![0; usize::try_from(area.end - area.start)?];
            disk.read_at(area.start, &mut bytes)
                .with_context(|| format!("reading the image at byte {}", area.start))?;
            Ok((area.start, bytes))
        };
        Ok(HeldBack { areas: areas.iter().map(read).collect::<Result<_>>()? })
    }

    /// Makes zeros of what of it is in `bytes`, which stand at `offset`.
    pub(crate) fn take_out(&self, offset: u64, bytes: &mut [u8]) {
        self.each(offset, bytes.len(), |inside, _| bytes[inside].fill(0));
    }

    /// Puts what of it belongs into `bytes`, which stand at `offset`.
    pub(crate) fn put_in(&self, offset: u64, bytes: &mut [u8]) {
        self.each(offset, bytes.len(), |inside, held| bytes[inside].copy_from_slice(held));
    }

    fn each(&self, offset: u64, len: usize, mut take: impl FnMut(Range<usize>, &[u8])) {
        for (start, held) in &self.areas {
            let from = offset.max(*start);
            let to = (offset + len as u64).min(start + held.len() as u64);
            if from < to {
                let own = (from - start) as usize..(to - start) as usize;
                take((from - offset) as usize..(to - offset) as usize, &held[own]);
            }
        }
    }

    /// Writes them, the last first, and reads each back.
    pub(crate) fn write(&self, target: &Target) -> Result<()> {
        for (offset, bytes) in self.areas.iter().rev() {
            let mut buffer = Buffer::new(bytes.len());
            buffer.bytes().copy_from_slice(bytes);
            target.write(*offset, buffer.bytes())?;
            target.sync()?;
            target.read(*offset, buffer.bytes())?;
            ensure!(buffer.bytes() == bytes, "the partition table at byte {offset} is not what was written there");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::HeldBack;

    #[test]
    fn what_is_held_back_comes_out_and_goes_in_again_wherever_a_piece_is_cut() {
        let disk: Vec<u8> = (1..=40).collect();
        let held = HeldBack::of(&disk.as_slice(), &[0..5, 30..40]).unwrap();
        for from in 0..40 {
            for to in from..=40 {
                let mut piece = disk[from..to].to_vec();
                held.take_out(from as u64, &mut piece);
                let want = |at: usize| if (5..30).contains(&at) { disk[at] } else { 0 };
                assert_eq!(piece, (from..to).map(want).collect::<Vec<_>>(), "{from}..{to}");
                held.put_in(from as u64, &mut piece);
                assert_eq!(piece, disk[from..to], "{from}..{to}");
            }
        }
    }
}
