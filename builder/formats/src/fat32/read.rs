//! Turns the bytes of a FAT32 volume into its directories and files.
use std::collections::BTreeSet;
use std::ops::Range;

use super::{ATTR_DIRECTORY, ATTR_LONG_NAME, ATTR_VOLUME_ID, ENTRY_MASK, Error, MIN_CLUSTERS, SECTORS, SLOT, name};
use crate::bytes::{ReadAt, u16_at, u32_at};

/// A FAT of more bytes than this is not read: that of a 32 GiB volume of 4 KiB clusters.
const MAX_FAT: u64 = 32 << 20;
/// Directories are not followed deeper, so that a volume that loops ends.
const MAX_DEPTH: usize = 32;

/// An opened volume: its geometry and its FAT are in memory.
#[derive(Debug, Clone)]
pub struct Volume<R> {
    pub(super) disk: R,
    pub(super) fat: Vec<u32>,
    pub(super) fat_start: u64,
    pub(super) fat_bytes: u64,
    /// Bytes of a sector.
    pub(super) sector: u64,
    pub(super) fats: u8,
    pub(super) data: u64,
    pub(super) cluster: u64,
    pub(super) info: Option<u64>,
    root: u32,
    label: String,
    serial: u32,
}

/// A file or directory that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its name: the long one where there is one.
    pub name: String,
    /// Whether it is a directory.
    pub directory: bool,
    /// Length in bytes; 0 for directories.
    pub len: u64,
    /// First cluster; 0 for an empty file.
    pub(super) cluster: u32,
    /// Where its short entry stands, in bytes from the volume's start.
    pub(super) slot: u64,
}

fn damaged(reason: impl Into<String>) -> Error {
    Error::Damaged { reason: reason.into() }
}

impl<R: ReadAt> Volume<R> {
    /// Reads boot sector and FAT.
    pub fn open(disk: R) -> Result<Self, Error> {
        let mut boot = [0; 512];
        disk.read_at(0, &mut boot)?;
        let sector = u64::from(u16_at(&boot, 11));
        if u16_at(&boot, 510) != 0xAA55 || !SECTORS.contains(&sector) || u16_at(&boot, 22) != 0 {
            return Err(damaged("its first sector is not that of a FAT32 volume"));
        }
        let (per_cluster, fats) = (u64::from(boot[13]), boot[16]);
        let (reserved, fat) = (u64::from(u16_at(&boot, 14)), u64::from(u32_at(&boot, 36)));
        let sectors = u64::from(u32_at(&boot, 32));
        if !per_cluster.is_power_of_two() || !(1..=2).contains(&fats) || reserved == 0 {
            return Err(damaged("the fields of its first sector make no sense"));
        }
        let start = reserved + u64::from(fats) * fat;
        let clusters = sectors.saturating_sub(start) / per_cluster;
        if clusters < MIN_CLUSTERS || (clusters + 2) * 4 > fat * sector || fat * sector > MAX_FAT {
            return Err(damaged(format!("{clusters} clusters and a FAT of {fat} sectors do not belong together")));
        }
        let mut bytes = vec![0; (clusters as usize + 2) * 4];
        disk.read_at(reserved * sector, &mut bytes)?;
        let info = u64::from(u16_at(&boot, 48));
        Ok(Volume {
            disk,
            fat: bytes.chunks_exact(4).map(|entry| u32_at(entry, 0)).collect(),
            fat_start: reserved * sector,
            fat_bytes: fat * sector,
            sector,
            fats,
            data: start * sector,
            cluster: per_cluster * sector,
            info: (1..reserved).contains(&info).then_some(info * sector),
            root: u32_at(&boot, 44),
            label: String::from_utf8_lossy(&boot[71..82]).trim_end().to_owned(),
            serial: u32_at(&boot, 67),
        })
    }

    /// The label in the boot sector.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// `BS_VolID`, which `blkid` shows as the UUID.
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// Bytes of clusters in use.
    pub fn used(&self) -> u64 {
        self.fat[2..].iter().filter(|entry| **entry & ENTRY_MASK != 0).count() as u64 * self.cluster
    }

    /// The bytes that mean something, in order: what stands before the clusters, and clusters in use.
    pub fn used_ranges(&self) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = std::iter::once(0..self.data).collect();
        let clusters = (2..).zip(self.fat.iter().skip(2)).filter(|(_, entry)| **entry & ENTRY_MASK != 0);
        for (number, _) in clusters {
            let start = self.offset(number);
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end += self.cluster,
                _ => ranges.push(start..start + self.cluster),
            }
        }
        ranges
    }

    /// All files and directories with their absolute paths, parents before children, in the order in which they stand.
    pub fn walk(&self) -> Result<Vec<(String, Found)>, Error> {
        let mut all = Vec::new();
        let mut seen = BTreeSet::from([self.root]);
        self.walk_into("", self.root, MAX_DEPTH, &mut seen, &mut all)?;
        Ok(all)
    }

    fn walk_into(
        &self,
        path: &str,
        cluster: u32,
        depth: usize,
        seen: &mut BTreeSet<u32>,
        all: &mut Vec<(String, Found)>,
    ) -> Result<(), Error> {
        for found in self.list(cluster)? {
            let path = format!("{path}/{}", found.name);
            let (directory, cluster) = (found.directory, found.cluster);
            all.push((path.clone(), found));
            if directory {
                if depth == 0 || !seen.insert(cluster) {
                    return Err(damaged(format!("directory {path} is inside itself")));
                }
                self.walk_into(&path, cluster, depth - 1, seen, all)?;
            }
        }
        Ok(())
    }

    /// What stands at an absolute path; capitals do not count.
    pub fn find(&self, path: &str) -> Result<Option<Found>, Error> {
        let mut found: Option<Found> = None;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let cluster = match &found {
                None => self.root,
                Some(found) if found.directory => found.cluster,
                Some(_) => return Ok(None),
            };
            let wanted = name::folded(part);
            found = self.list(cluster)?.into_iter().find(|entry| name::folded(&entry.name) == wanted);
            if found.is_none() {
                return Ok(None);
            }
        }
        Ok(found)
    }

    /// The first cluster of the directory at `path` (empty for the root).
    pub(super) fn directory(&self, path: &str) -> Result<u32, Error> {
        if path.is_empty() {
            return Ok(self.root);
        }
        match self.find(path)? {
            Some(found) if found.directory => Ok(found.cluster),
            _ => Err(Error::NotFound { path: path.to_owned() }),
        }
    }

    /// The contents of a file of `limit` bytes at most.
    pub fn read(&self, found: &Found, limit: u64) -> Result<Vec<u8>, Error> {
        if found.len > limit {
            return Err(damaged(format!("{} is {} bytes long, more than the {limit} expected", found.name, found.len)));
        }
        let mut bytes = vec![0; found.len as usize];
        self.read_file(found, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// Fills `buf` from byte `offset` of a file.
    pub fn read_file(&self, found: &Found, offset: u64, buf: &mut [u8]) -> Result<(), Error> {
        if offset + buf.len() as u64 > found.len {
            return Err(Error::Read(std::io::ErrorKind::UnexpectedEof.into()));
        }
        if buf.is_empty() {
            return Ok(());
        }
        let chain = self.chain(found.cluster)?;
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let cluster =
                chain.get((at / self.cluster) as usize).ok_or_else(|| damaged("a file is longer than its clusters"))?;
            let inside = at % self.cluster;
            let len = ((self.cluster - inside) as usize).min(buf.len() - done);
            self.disk.read_at(self.offset(*cluster) + inside, &mut buf[done..done + len])?;
            done += len;
        }
        Ok(())
    }

    pub(super) fn offset(&self, cluster: u32) -> u64 {
        self.data + (u64::from(cluster) - 2) * self.cluster
    }

    /// The clusters of a chain.
    pub(super) fn chain(&self, first: u32) -> Result<Vec<u32>, Error> {
        let mut chain = Vec::new();
        let mut next = first;
        while next < 0x0FFF_FFF8 {
            if next < 2 || next as usize >= self.fat.len() || chain.len() >= self.fat.len() {
                return Err(damaged(format!("the chain from cluster {first} leads astray at {next}")));
            }
            chain.push(next);
            next = self.fat[next as usize] & ENTRY_MASK;
        }
        Ok(chain)
    }

    /// All slots of a directory with their places.
    pub(super) fn slots(&self, cluster: u32) -> Result<Vec<(u64, [u8; SLOT])>, Error> {
        let mut slots = Vec::new();
        let mut bytes = vec![0; self.cluster as usize];
        // 65536 slots are the most that a directory may have.
        for cluster in self.chain(cluster)?.into_iter().take((65536 * SLOT as u64 / self.cluster) as usize) {
            let start = self.offset(cluster);
            self.disk.read_at(start, &mut bytes)?;
            for (at, chunk) in (start..).step_by(SLOT).zip(bytes.chunks_exact(SLOT)) {
                let mut slot = [0; SLOT];
                slot.copy_from_slice(chunk);
                slots.push((at, slot));
            }
        }
        Ok(slots)
    }

    fn list(&self, cluster: u32) -> Result<Vec<Found>, Error> {
        let mut all = Vec::new();
        let mut long = Vec::new();
        for (at, slot) in self.slots(cluster)? {
            let attributes = slot[11];
            match slot[0] {
                0 => break,
                0xE5 => long.clear(),
                _ if attributes & 0x3F == ATTR_LONG_NAME => long.push(slot),
                b'.' => long.clear(),
                _ if attributes & ATTR_VOLUME_ID != 0 => long.clear(),
                _ => {
                    let mut short = [0; 11];
                    short.copy_from_slice(&slot[..11]);
                    let name = name::decode_long(&long, &short).unwrap_or_else(|| name::decode_short(&short, slot[12]));
                    let directory = attributes & ATTR_DIRECTORY != 0;
                    all.push(Found {
                        name,
                        directory,
                        len: if directory { 0 } else { u64::from(u32_at(&slot, 28)) },
                        cluster: (u32::from(u16_at(&slot, 20)) << 16 | u32::from(u16_at(&slot, 26))) & ENTRY_MASK,
                        slot: at,
                    });
                    long.clear();
                }
            }
        }
        Ok(all)
    }
}
