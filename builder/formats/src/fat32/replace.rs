//! Turns new contents of a file into ordered patches of the volume, such that a power cut between two leaves the old file or the new.
use std::collections::{BTreeMap, BTreeSet};

use super::plan::slot;
use super::read::Volume;
use super::{ATTR_ARCHIVE, ATTR_LONG_NAME, END_OF_CHAIN, ENTRY_MASK, Error, SLOT, dos_time, name};
use crate::bytes::{ReadAt, put_u16, put_u32, u32_at};
use crate::patch::Patch;

impl<R: ReadAt> Volume<R> {
    /// How to put `contents` at the absolute path `path`, whose directory exists. The volume must be opened again after it is patched.
    pub fn replace(&self, path: &str, contents: &[u8], time: i64) -> Result<Vec<Patch>, Error> {
        let wrong = |reason: String| Error::Entry { path: path.to_owned(), reason };
        let (parent, name) = path.rsplit_once('/').ok_or_else(|| wrong("its path is not absolute".to_owned()))?;
        let directory = self.directory(parent)?;
        let old = self.find(path)?;
        if old.as_ref().is_some_and(|old| old.directory) {
            return Err(wrong("a directory stands there".to_owned()));
        }
        let size = u32::try_from(contents.len()).map_err(|_| wrong("it is 4 GiB long or more".to_owned()))?;
        let mut changes = BTreeMap::new();
        let chain = self.reserve(contents.len() as u64, &mut changes)?;
        let mut data: Vec<(u64, Vec<u8>)> = Vec::new();
        for (cluster, part) in chain.iter().zip(contents.chunks(self.cluster as usize)) {
            let mut bytes = part.to_vec();
            bytes.resize(self.cluster as usize, 0);
            data.push((self.offset(*cluster), bytes));
        }
        let first = chain.first().copied().unwrap_or(0);
        let mut freed = BTreeMap::new();
        let entry = match &old {
            Some(old) => {
                if old.cluster != 0 {
                    freed.extend(self.chain(old.cluster)?.into_iter().map(|cluster| (cluster, 0)));
                }
                self.changed_entry(old.slot, first, size, time)?
            }
            None => self.new_entry(directory, name, (first, size, time), &mut changes, &mut data).map_err(|error| {
                match error {
                    Error::Entry { reason, .. } => wrong(reason),
                    other => other,
                }
            })?,
        };
        let mut after = changes.clone();
        after.extend(freed.iter());
        let mut patches = vec![Patch(data), Patch(self.fat_writes(&changes, &BTreeMap::new()))];
        patches.extend(entry);
        let mut last = if freed.is_empty() { Vec::new() } else { self.fat_writes(&freed, &changes) };
        last.extend(self.info_write(&after)?);
        patches.push(Patch(last));
        patches.retain(|patch| !patch.0.is_empty());
        Ok(patches)
    }

    /// Finds free clusters for `len` bytes and chains them in `changes`.
    fn reserve(&self, len: u64, changes: &mut BTreeMap<u32, u32>) -> Result<Vec<u32>, Error> {
        let needed = len.div_ceil(self.cluster) as usize;
        let free = (2..)
            .zip(&self.fat[2..])
            .filter(|(cluster, entry)| **entry & ENTRY_MASK == 0 && !changes.contains_key(cluster));
        let chain: Vec<u32> = free.map(|(cluster, _)| cluster).take(needed).collect();
        if chain.len() < needed {
            return Err(Error::NoSpace { missing: (needed - chain.len()) as u64 * self.cluster });
        }
        let next = chain.iter().skip(1).copied().chain([END_OF_CHAIN]);
        changes.extend(chain.iter().copied().zip(next));
        Ok(chain)
    }

    /// The existing entry with new cluster, size and time: one slot, which never spans two sectors.
    fn changed_entry(&self, at: u64, cluster: u32, size: u32, time: i64) -> Result<Vec<Patch>, Error> {
        let mut entry = vec![0; SLOT];
        self.disk.read_at(at, &mut entry)?;
        let (date, clock) = dos_time(time);
        put_u16(&mut entry, 18, date);
        put_u16(&mut entry, 20, (cluster >> 16) as u16);
        put_u16(&mut entry, 22, clock);
        put_u16(&mut entry, 24, date);
        put_u16(&mut entry, 26, cluster as u16);
        put_u32(&mut entry, 28, size);
        Ok(vec![Patch(vec![(at, entry)])])
    }

    /// A new entry in free slots, in a new cluster of the directory where there are too few: long-name slots first, then the
    /// short entry that makes them count.
    fn new_entry(
        &self,
        directory: u32,
        name: &str,
        (cluster, size, time): (u32, u32, i64),
        changes: &mut BTreeMap<u32, u32>,
        data: &mut Vec<(u64, Vec<u8>)>,
    ) -> Result<Vec<Patch>, Error> {
        let slots = self.slots(directory)?;
        let end = slots.iter().position(|(_, slot)| slot[0] == 0).unwrap_or(slots.len());
        let used = slots[..end].iter().filter(|(_, slot)| slot[0] != 0xE5 && slot[11] & 0x3F != ATTR_LONG_NAME);
        let mut taken: BTreeSet<name::Short> = used
            .map(|(_, slot)| {
                let mut short = [0; 11];
                short.copy_from_slice(&slot[..11]);
                short
            })
            .collect();
        let (long, short) =
            name::encode(name, &mut taken).map_err(|reason| Error::Entry { path: name.to_owned(), reason })?;
        let mut places: Vec<u64> = slots[end..].iter().map(|(at, _)| *at).collect();
        if places.len() <= long.len() {
            // The rest of the last cluster and a new one: entries may span clusters.
            let new = self.reserve(self.cluster, changes)?[0];
            let last = *self.chain(directory)?.last().unwrap_or(&directory);
            changes.insert(last, new);
            data.push((self.offset(new), vec![0; self.cluster as usize]));
            places.extend((self.offset(new)..).step_by(SLOT).take(self.cluster as usize / SLOT));
        }
        let slot = slot(&short, ATTR_ARCHIVE, cluster, size, time);
        let names = long.iter().zip(&places).map(|(slot, at)| (*at, slot.to_vec())).collect();
        Ok(vec![Patch(names), Patch(vec![(places[long.len()], slot.to_vec())])])
    }

    /// The sectors of all FATs that hold `changes`, with `earlier` ones already in force.
    fn fat_writes(&self, changes: &BTreeMap<u32, u32>, earlier: &BTreeMap<u32, u32>) -> Vec<(u64, Vec<u8>)> {
        let per_sector = self.sector as u32 / 4;
        let sectors: BTreeSet<u32> = changes.keys().map(|cluster| cluster / per_sector).collect();
        let mut writes = Vec::new();
        for sector in sectors {
            let entries = (sector * per_sector..(sector + 1) * per_sector).map(|cluster| {
                let before = self.fat.get(cluster as usize).copied().unwrap_or(0);
                let now = changes.get(&cluster).or_else(|| earlier.get(&cluster));
                now.map_or(before, |now| before & !ENTRY_MASK | now)
            });
            let bytes: Vec<u8> = entries.flat_map(u32::to_le_bytes).collect();
            for copy in 0..u64::from(self.fats) {
                writes.push((self.fat_start + copy * self.fat_bytes + u64::from(sector) * self.sector, bytes.clone()));
            }
        }
        writes
    }

    /// `FSI_Free_Count`, which is a hint, made right; none where there is no FSInfo sector.
    fn info_write(&self, changes: &BTreeMap<u32, u32>) -> Result<Option<(u64, Vec<u8>)>, Error> {
        let Some(at) = self.info else { return Ok(None) };
        let mut sector = vec![0; self.sector as usize];
        self.disk.read_at(at, &mut sector)?;
        if u32_at(&sector, 0) != 0x4161_5252 || u32_at(&sector, 484) != 0x6141_7272 {
            return Ok(None);
        }
        let entries = (2u32..).zip(&self.fat[2..]);
        let free = entries.filter(|(cluster, entry)| changes.get(cluster).unwrap_or(entry) & ENTRY_MASK == 0).count();
        put_u32(&mut sector, 488, free as u32);
        Ok(Some((at, sector)))
    }
}
