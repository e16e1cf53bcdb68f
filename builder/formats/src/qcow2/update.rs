//! Turns new bytes of the disk into ordered patches of the qcow2 file, such that a power cut between two leaves a file without corruption.
//!
//! What stands in a cluster of its own is written in place. For a hole a cluster is taken at the file's end: its bytes come first, then
//! its refcount, then the entry that makes it part of the disk. Cut off in between, the file has grown by clusters that nothing
//! refers to; `qemu-img check` calls them leaked and gives them back, and the disk reads as before.
use std::collections::{BTreeMap, BTreeSet};

use super::{
    CLUSTER, CLUSTER_BITS, COMPRESSED, COPIED, DIRTY, Disk, Error, L2_ENTRIES, OFFSET_MASK, REFCOUNT_ORDER, REFCOUNTS,
    ZERO, damaged, u64_at, words,
};
use crate::bytes::ReadAt;
use crate::patch::Patch;

/// QEMU's own bound for the refcount table, 8 MiB.
const MAX_REFCOUNT_TABLE: u32 = 128;

/// Bits 9 to 63 of an entry of the refcount table.
const BLOCK_MASK: u64 = 0xFFFF_FFFF_FFFF_FE00;

impl<R: ReadAt> Disk<R> {
    /// How to put `writes` (byte of the disk, bytes) into this file, which is `file_len` bytes long. The writes may show in any order, those in
    /// place from the first patch on; a write that reaches over clusters may show in parts. The file must be opened again after it is patched.
    ///
    /// # Errors
    /// A file of another form than [`layout`](super::layout) makes, damaged tables, a place behind the disk's end.
    pub fn patches(&self, writes: &[(u64, Vec<u8>)], file_len: u64) -> Result<Vec<Patch>, Error> {
        self.refuse_other_forms()?;
        let mut update = Update::new(self, file_len)?;
        for (cluster, parts) in self.by_cluster(writes)? {
            update.put(cluster, &parts)?;
        }
        update.finish()
    }

    /// Refuses what would have to be kept right besides the tables that are known here.
    fn refuse_other_forms(&self) -> Result<(), Error> {
        let header = &self.header;
        let refusals = [
            (header.version != 3, "is of version 2"),
            (header.nb_snapshots != 0, "has internal snapshots"),
            (header.incompatible_features & DIRTY != 0, "is marked as dirty: whoever wrote it has not ended well"),
            (header.autoclear_features != 0, "has dirty bitmaps or other extras that do not bear a change"),
            (header.cluster_bits != CLUSTER_BITS, "has clusters of another size than 64 KiB"),
            (header.refcount_order != REFCOUNT_ORDER, "has refcounts of another width than 16 bits"),
        ];
        match refusals.iter().find(|(refused, _)| *refused) {
            Some((_, what)) => Err(Error::Unsupported(what)),
            None => Ok(()),
        }
    }

    /// The writes cut at the borders of clusters: for each cluster of the disk, bytes and where in the cluster they stand.
    fn by_cluster<'a>(&self, writes: &'a [(u64, Vec<u8>)]) -> Result<BTreeMap<u64, Vec<Part<'a>>>, Error> {
        let mut clusters: BTreeMap<u64, Vec<Part<'a>>> = BTreeMap::new();
        for (offset, bytes) in writes {
            let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= self.header.size);
            end.ok_or_else(|| {
                damaged(format!("its disk ends before byte {offset}, where something is to be written"))
            })?;
            let (mut at, mut rest) = (*offset, bytes.as_slice());
            while !rest.is_empty() {
                let inside = at % CLUSTER;
                let (part, more) = rest.split_at(rest.len().min((CLUSTER - inside) as usize));
                clusters.entry(at / CLUSTER).or_default().push((inside, part));
                (at, rest) = (at + part.len() as u64, more);
            }
        }
        Ok(clusters)
    }
}

/// Bytes, and where in a cluster they stand.
type Part<'a> = (u64, &'a [u8]);

/// What an L2 entry says.
enum Entry {
    /// The cluster's bytes stand here in the file.
    Here(u64),
    /// It reads as zeros; where there is a cluster in the file that is kept for it, that one.
    Zeros(Option<u64>),
}

/// A change in the making.
struct Update<'a, R> {
    disk: &'a Disk<R>,
    /// The refcount table: where the refcount blocks stand.
    blocks: Vec<u64>,
    /// Clusters of the file that hold tables, and those that are written in place: nothing may be written twice.
    taken: BTreeSet<u64>,
    /// The first cluster behind the file's end, and the first of these that is still free.
    end: u64,
    free: u64,
    /// New L2 tables by their L1 entry, with their places.
    tables: BTreeMap<usize, (u64, Vec<u64>)>,
    /// What may be on the disk before anything refers to it, and what is written in place.
    contents: Vec<(u64, Vec<u8>)>,
    /// L1 and L2 entries.
    links: Vec<(u64, Vec<u8>)>,
}

impl<'a, R: ReadAt> Update<'a, R> {
    /// Reads the refcount table and finds where all tables stand: a damaged file could lead data into them.
    fn new(disk: &'a Disk<R>, file_len: u64) -> Result<Self, Error> {
        let header = &disk.header;
        let clusters = header.refcount_table_clusters;
        if clusters == 0 || clusters > MAX_REFCOUNT_TABLE {
            return Err(damaged(format!("its refcount table is {clusters} clusters long")));
        }
        let mut bytes = vec![0; clusters as usize * CLUSTER as usize];
        disk.file.read_at(header.refcount_table_offset, &mut bytes)?;
        let blocks: Vec<u64> = bytes.chunks_exact(8).map(|word| u64_at(word, 0) & BLOCK_MASK).collect();
        let end = file_len.div_ceil(CLUSTER);
        let mut update = Update {
            disk,
            blocks,
            taken: BTreeSet::from([0]),
            end,
            free: end,
            tables: BTreeMap::new(),
            contents: Vec::new(),
            links: Vec::new(),
        };
        update.take(header.refcount_table_offset, u64::from(clusters))?;
        update.take(header.l1_table_offset, (disk.l1.len() as u64 * 8).div_ceil(CLUSTER))?;
        let l2 = disk.l1.iter().map(|entry| entry & OFFSET_MASK);
        for at in update.blocks.clone().into_iter().chain(l2).filter(|at| *at != 0) {
            update.take(at, 1)?;
        }
        Ok(update)
    }

    /// Marks clusters of the file as those of one table, or as written.
    fn take(&mut self, at: u64, clusters: u64) -> Result<(), Error> {
        if !at.is_multiple_of(CLUSTER) {
            return Err(damaged(format!("what stands at byte {at} begins at no cluster")));
        }
        for cluster in at / CLUSTER..at / CLUSTER + clusters {
            if cluster >= self.end {
                return Err(damaged(format!("it ends before byte {at}, to which it refers")));
            }
            if !self.taken.insert(cluster) {
                return Err(damaged(format!("two things stand at byte {}", cluster * CLUSTER)));
            }
        }
        Ok(())
    }

    /// A cluster behind the file's end: its first byte.
    fn allocate(&mut self) -> u64 {
        self.free += 1;
        (self.free - 1) * CLUSTER
    }

    /// Puts bytes into a cluster of the disk.
    fn put(&mut self, index: u64, parts: &[Part<'_>]) -> Result<(), Error> {
        let kept = match self.entry(index)? {
            Entry::Here(at) => {
                self.own(at)?;
                self.contents.extend(parts.iter().map(|(inside, bytes)| (at + inside, bytes.to_vec())));
                return Ok(());
            }
            Entry::Zeros(kept) => kept,
        };
        let mut cluster = vec![0; CLUSTER as usize];
        for (inside, bytes) in parts {
            cluster[*inside as usize..][..bytes.len()].copy_from_slice(bytes);
        }
        if cluster.iter().all(|byte| *byte == 0) {
            // It reads so already.
            return Ok(());
        }
        let at = match kept {
            Some(at) => {
                self.own(at)?;
                at
            }
            None => self.allocate(),
        };
        self.contents.push((at, cluster));
        self.link(index, at)
    }

    /// Takes a cluster of the file that only one entry may refer to.
    fn own(&mut self, at: u64) -> Result<(), Error> {
        self.take(at, 1)?;
        match self.refcount(at / CLUSTER)? {
            1 => Ok(()),
            count => Err(damaged(format!("the refcount of the cluster at byte {at} is {count} where it must be 1"))),
        }
    }

    /// The refcount of a cluster of the file.
    fn refcount(&self, cluster: u64) -> Result<u16, Error> {
        let block = usize::try_from(cluster / REFCOUNTS).ok().and_then(|index| self.blocks.get(index));
        let Some(block) = block.filter(|block| **block != 0) else { return Ok(0) };
        let mut count = [0; 2];
        self.disk.file.read_at(block + cluster % REFCOUNTS * 2, &mut count)?;
        Ok(u16::from_be_bytes(count))
    }

    /// The L1 entry's number for a cluster of the disk, and the entry's number in the L2 table.
    fn slot(index: u64) -> (usize, u64) {
        ((index / L2_ENTRIES) as usize, index % L2_ENTRIES)
    }

    /// Where the L2 table of an L1 entry stands; none where there is none yet.
    fn table(&self, number: usize) -> Result<Option<u64>, Error> {
        let entry = self.disk.l1.get(number).ok_or_else(|| damaged("its disk is longer than its L1 table says"))?;
        match (entry & OFFSET_MASK, entry & COPIED) {
            (0, _) => Ok(None),
            (_, 0) => Err(Error::Unsupported("has an L2 table that is shared")),
            (at, _) => Ok(Some(at)),
        }
    }

    fn entry(&self, index: u64) -> Result<Entry, Error> {
        let (number, slot) = Self::slot(index);
        let Some(table) = self.table(number)? else { return Ok(Entry::Zeros(None)) };
        let mut word = [0; 8];
        self.disk.file.read_at(table + slot * 8, &mut word)?;
        let entry = u64_at(&word, 0);
        if entry & COMPRESSED != 0 {
            return Err(Error::Unsupported("has compressed clusters"));
        }
        if entry & !(COPIED | OFFSET_MASK | ZERO) != 0 {
            return Err(damaged(format!("its entry for byte {} of the disk has unknown bits", index * CLUSTER)));
        }
        match (entry & OFFSET_MASK, entry & COPIED != 0, entry & ZERO != 0) {
            (0, ..) => Ok(Entry::Zeros(None)),
            (_, false, _) => Err(Error::Unsupported("has clusters that are shared")),
            (at, true, true) => Ok(Entry::Zeros(Some(at))),
            (at, true, false) => Ok(Entry::Here(at)),
        }
    }

    /// Makes a cluster of the disk stand at a place in the file, with a new L2 table where there is none.
    fn link(&mut self, index: u64, at: u64) -> Result<(), Error> {
        let (number, slot) = Self::slot(index);
        if let Some(table) = self.table(number)? {
            self.links.push((table + slot * 8, words(&[at | COPIED])));
            return Ok(());
        }
        if !self.tables.contains_key(&number) {
            let table = (self.allocate(), vec![0; L2_ENTRIES as usize]);
            self.tables.insert(number, table);
        }
        if let Some((_, entries)) = self.tables.get_mut(&number) {
            entries[slot as usize] = at | COPIED;
        }
        Ok(())
    }

    /// Counts the new clusters and brings everything into its order.
    fn finish(mut self) -> Result<Vec<Patch>, Error> {
        for (number, (at, entries)) in std::mem::take(&mut self.tables) {
            self.contents.push((at, words(&entries)));
            self.links.push((self.disk.header.l1_table_offset + number as u64 * 8, words(&[at | COPIED])));
        }
        let new_blocks = self.new_blocks()?;
        let mut counted: BTreeMap<u64, Vec<u8>> =
            new_blocks.values().map(|at| (*at, vec![0; CLUSTER as usize])).collect();
        let (mut counts, count) = (Vec::new(), 1u16.to_be_bytes());
        for cluster in self.end..self.free {
            let (block, inside) = (cluster / REFCOUNTS, cluster % REFCOUNTS * 2);
            if let Some(bytes) = new_blocks.get(&block).and_then(|at| counted.get_mut(at)) {
                bytes[inside as usize..][..2].copy_from_slice(&count);
            } else if self.refcount(cluster)? == 0 {
                counts.push((self.blocks[block as usize] + inside, count.to_vec()));
            } else {
                return Err(damaged(format!("it ends before byte {}, which it counts as in use", cluster * CLUSTER)));
            }
        }
        self.contents.extend(counted);
        let table = self.disk.header.refcount_table_offset;
        let blocks = new_blocks.iter().map(|(block, at)| (table + block * 8, words(&[*at]))).collect();
        // A block is counted before it is one: QEMU takes what nobody counts.
        let mut patches = vec![Patch(self.contents), Patch(counts), Patch(blocks), Patch(self.links)];
        patches.retain(|patch| !patch.0.is_empty());
        Ok(patches)
    }

    /// Refcount blocks for new clusters that no block counts, by their number, with their places. They count themselves, so that one
    /// may call for the next.
    fn new_blocks(&mut self) -> Result<BTreeMap<u64, u64>, Error> {
        let mut new = BTreeMap::new();
        let mut cluster = self.end;
        while cluster < self.free {
            let block = cluster / REFCOUNTS;
            match self.blocks.get(block as usize).copied() {
                None => return Err(Error::Unsupported("has no room in its refcount table")),
                Some(0) => {
                    new.entry(block).or_insert_with(|| self.allocate());
                }
                Some(_) => {}
            }
            cluster += 1;
        }
        Ok(new)
    }
}
