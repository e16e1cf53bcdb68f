//! Reads a disk on which some blocks stand elsewhere: the places of a filesystem whose newest copies are still in its journal.
use std::collections::BTreeMap;
use std::io;

use crate::bytes::ReadAt;

/// Where the newest copy of a block stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moved {
    /// Block on the disk.
    pub at: u64,
    /// The copy begins with zeros where the block begins with this: the log would take it for one of its own blocks.
    pub begins: Option<[u8; 4]>,
}

/// A disk, and the blocks that stand elsewhere.
#[derive(Debug, Clone)]
pub(super) struct Overlaid<R> {
    pub disk: R,
    /// Bytes of a block.
    pub block: u64,
    pub moved: BTreeMap<u64, Moved>,
}

impl<R: ReadAt> ReadAt for Overlaid<R> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < buf.len() {
            let at = offset.checked_add(done as u64).ok_or(io::ErrorKind::UnexpectedEof)?;
            let (number, inside) = (at / self.block, at % self.block);
            let next = self.moved.range(number..).next();
            let stretch = match next {
                Some((block, _)) if *block == number => self.block - inside,
                Some((block, _)) => (block - number) * self.block - inside,
                None => u64::MAX,
            };
            let len = usize::try_from(stretch).unwrap_or(usize::MAX).min(buf.len() - done);
            let part = &mut buf[done..done + len];
            match next {
                Some((block, moved)) if *block == number => self.read_moved(*moved, inside, part)?,
                _ => self.disk.read_at(at, part)?,
            }
            done += len;
        }
        Ok(())
    }
}

impl<R: ReadAt> Overlaid<R> {
    /// Fills `part` from byte `inside` of the block.
    fn read_moved(&self, moved: Moved, inside: u64, part: &mut [u8]) -> io::Result<()> {
        let at = moved.at.checked_mul(self.block).and_then(|at| at.checked_add(inside));
        self.disk.read_at(at.ok_or(io::ErrorKind::UnexpectedEof)?, part)?;
        let begins = moved.begins.iter().flatten().skip(usize::try_from(inside).unwrap_or(usize::MAX));
        for (byte, begin) in part.iter_mut().zip(begins) {
            *byte = *begin;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Moved, Overlaid};
    use crate::bytes::ReadAt;

    #[test]
    fn every_span_reads_as_if_the_blocks_were_in_their_places() {
        // Blocks of 8 bytes; 1 stands in 5 with its first four bytes taken out, 3 in 4.
        let mut disk: Vec<u8> = (0..48).collect();
        let mut want = disk.clone();
        want[8..16].copy_from_slice(&disk[40..48]);
        want[8..12].copy_from_slice(b"MAGI");
        want[24..32].copy_from_slice(&disk[32..40]);
        disk[40..44].fill(0);
        want[40..44].fill(0);
        let moved = BTreeMap::from([(1, Moved { at: 5, begins: Some(*b"MAGI") }), (3, Moved { at: 4, begins: None })]);
        let overlaid = Overlaid { disk: disk.as_slice(), block: 8, moved };
        for from in 0..48 {
            for to in from..=48 {
                let mut got = vec![0xFF; to - from];
                overlaid.read_at(from as u64, &mut got).unwrap();
                assert_eq!(got, want[from..to], "{from}..{to}");
            }
        }
        assert!(overlaid.read_at(47, &mut [0; 2]).is_err());
        assert!(overlaid.read_at(u64::MAX, &mut [0; 2]).is_err());
    }
}
