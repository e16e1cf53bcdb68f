//! Turns entries into the plan of a FAT32 volume: directories first, every file contiguous.
use std::collections::{BTreeMap, BTreeSet};

use super::{
    ATTR_ARCHIVE, ATTR_DIRECTORY, ATTR_VOLUME_ID, END_OF_CHAIN, Entry, Error, Kind, MIN_CLUSTERS, Options, SECTORS,
    SLOT, dos_time, name,
};
use crate::bytes::{put, put_u16, put_u32};
use crate::image::{Data, Extent, Image};

/// `BPB_RsvdSecCnt`: boot sector, FSInfo and their copies; a multiple of 4 KiB with any sectors.
const RESERVED: u64 = 32;
const MEDIA: u8 = 0xF8;

/// The volume's geometry, in sectors.
struct Layout {
    /// Bytes of a sector.
    sector: u64,
    sectors: u64,
    per_cluster: u64,
    fat: u64,
    clusters: u64,
}

impl Layout {
    fn new(options: &Options) -> Result<Self, Error> {
        let wrong = |reason: &str| Error::Options { label: options.label.clone(), reason: reason.to_owned() };
        let sector = options.sector;
        if !SECTORS.contains(&sector) {
            return Err(wrong("its sectors must be 512, 1024, 2048 or 4096 bytes long"));
        }
        let sectors = options.size / sector;
        if sectors > u64::from(u32::MAX) {
            return Err(wrong("it must be smaller than 2 TiB"));
        }
        let largest: u64 = if options.size <= 8 << 30 { 4096 } else { 32768 };
        let fits = |cluster: u64| {
            let per_cluster = cluster / sector;
            // FATs are rounded to 2 KiB, so that two of them leave the data at a multiple of 4 KiB.
            let clusters = sectors.saturating_sub(RESERVED) / per_cluster;
            let fat = ((clusters + 2) * 4).div_ceil(sector).next_multiple_of((2048 / sector).max(1));
            let clusters = sectors.saturating_sub(RESERVED + 2 * fat) / per_cluster;
            (clusters >= MIN_CLUSTERS).then_some(Layout { sector, sectors, per_cluster, fat, clusters })
        };
        (9..=15)
            .rev()
            .map(|bits| 1 << bits)
            .filter(|cluster| (sector..=largest).contains(cluster))
            .find_map(fits)
            .ok_or_else(|| wrong(&format!("FAT32 needs {} MiB at least", MIN_CLUSTERS * sector / (1 << 20) + 3)))
    }

    fn cluster_bytes(&self) -> u64 {
        self.per_cluster * self.sector
    }

    fn offset(&self, cluster: u32) -> u64 {
        (RESERVED + 2 * self.fat) * self.sector + u64::from(cluster - 2) * self.cluster_bytes()
    }
}

/// A directory that is being filled: slots, names in use, first cluster.
struct Directory {
    slots: Vec<[u8; SLOT]>,
    short: BTreeSet<name::Short>,
    folded: BTreeSet<String>,
    cluster: u32,
}

/// Plans the volume. Parents come before their children (entries sorted by path do); the same input gives the same bytes.
pub fn plan<C: Clone>(entries: impl IntoIterator<Item = Entry<C>>, options: &Options) -> Result<Image<C>, Error> {
    let layout = Layout::new(options)?;
    let label = label(options)?;
    let (directories, files): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|entry| matches!(entry.kind, Kind::Directory));
    let sizes = directory_sizes(&directories, &files, &layout)?;
    let mut volume =
        Allocation { layout: &layout, fat: vec![0x0FFF_FF00 | u32::from(MEDIA), END_OF_CHAIN], extents: Vec::new() };
    let time = options.time;
    let mut open: BTreeMap<String, Directory> = BTreeMap::new();
    let root = volume.take(sizes.get("").copied().unwrap_or(1))?;
    let label_slot = slot(&label, ATTR_VOLUME_ID, 0, 0, time);
    open.insert(
        String::new(),
        Directory { slots: vec![label_slot], short: BTreeSet::new(), folded: BTreeSet::new(), cluster: root },
    );
    for entry in directories {
        let cluster = volume.take(sizes.get(&entry.path).copied().unwrap_or(1))?;
        let parent = add(&mut open, &entry.path, ATTR_DIRECTORY, cluster, 0, time)?;
        // `..` of a directory in the root says cluster 0.
        let up = if parent == root { 0 } else { parent };
        let dots = [(b".          ", cluster), (b"..         ", up)];
        let slots = dots.map(|(name, cluster)| slot(name, ATTR_DIRECTORY, cluster, 0, time)).to_vec();
        open.insert(entry.path, Directory { slots, short: BTreeSet::new(), folded: BTreeSet::new(), cluster });
    }
    for entry in files {
        let (len, data) = match entry.kind {
            Kind::File { id, offset, len } => (len, Data::Content { id, offset, len }),
            Kind::Bytes(bytes) => (bytes.len() as u64, Data::Bytes(bytes)),
            Kind::Directory => continue,
        };
        let size = u32::try_from(len).map_err(|_| Error::Entry {
            path: entry.path.clone(),
            reason: format!("it is {len} bytes long, 4 GiB or more"),
        })?;
        let cluster = if len == 0 { 0 } else { volume.take(len.div_ceil(layout.cluster_bytes()))? };
        add(&mut open, &entry.path, ATTR_ARCHIVE, cluster, size, time)?;
        if len > 0 {
            volume.extents.push(Extent { offset: layout.offset(cluster), data });
        }
    }
    for directory in open.into_values() {
        volume
            .extents
            .push(Extent { offset: layout.offset(directory.cluster), data: Data::Bytes(directory.slots.concat()) });
    }
    Ok(volume.finish(options, &label, root))
}

/// Clusters of every directory, by path (the root is ``).
fn directory_sizes<C>(
    directories: &[Entry<C>],
    files: &[Entry<C>],
    layout: &Layout,
) -> Result<BTreeMap<String, u64>, Error> {
    let mut slots: BTreeMap<String, u64> = directories.iter().map(|entry| (entry.path.clone(), 2)).collect();
    slots.insert(String::new(), 1);
    for entry in directories.iter().chain(files) {
        let (parent, name) = split(&entry.path)?;
        // An upper bound: the long name's slots, even where the short name is enough.
        let count = 1 + name.encode_utf16().count().div_ceil(13) as u64;
        if let Some(slots) = slots.get_mut(parent) {
            *slots += count;
        }
    }
    let clusters =
        slots.into_iter().map(|(path, slots)| (path, (slots * SLOT as u64).div_ceil(layout.cluster_bytes())));
    Ok(clusters.collect())
}

fn split(path: &str) -> Result<(&str, &str), Error> {
    path.rsplit_once('/')
        .ok_or_else(|| Error::Entry { path: path.to_owned(), reason: "its path is not absolute".to_owned() })
}

/// Adds an entry to its parent, whose cluster it gives.
fn add(
    open: &mut BTreeMap<String, Directory>,
    path: &str,
    attributes: u8,
    cluster: u32,
    size: u32,
    time: i64,
) -> Result<u32, Error> {
    let wrong = |reason: String| Error::Entry { path: path.to_owned(), reason };
    let (parent, name) = split(path)?;
    let directory = open.get_mut(parent).ok_or_else(|| wrong(format!("there is no directory {parent} for it")))?;
    if !directory.folded.insert(name::folded(name)) {
        return Err(wrong("it is there twice; capitals do not tell names apart here".to_owned()));
    }
    let (long, short) = name::encode(name, &mut directory.short).map_err(wrong)?;
    directory.slots.extend(long);
    directory.slots.push(slot(&short, attributes, cluster, size, time));
    Ok(directory.cluster)
}

/// A directory entry with a short name.
pub(super) fn slot(short: &name::Short, attributes: u8, cluster: u32, size: u32, time: i64) -> [u8; SLOT] {
    let mut slot = [0; SLOT];
    let (date, clock) = dos_time(time);
    put(&mut slot, 0, short);
    slot[11] = attributes;
    put_u16(&mut slot, 14, clock); // DIR_CrtTime
    put_u16(&mut slot, 16, date);
    put_u16(&mut slot, 18, date); // DIR_LstAccDate
    put_u16(&mut slot, 20, (cluster >> 16) as u16);
    put_u16(&mut slot, 22, clock); // DIR_WrtTime
    put_u16(&mut slot, 24, date);
    put_u16(&mut slot, 26, cluster as u16);
    put_u32(&mut slot, 28, size);
    slot
}

fn label(options: &Options) -> Result<name::Short, Error> {
    let plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    if options.label.is_empty() || options.label.len() > 11 || !options.label.bytes().all(plain) {
        let reason = "its label must be 1 to 11 of A-Z, 0-9, _ and -".to_owned();
        return Err(Error::Options { label: options.label.clone(), reason });
    }
    let mut label = [b' '; 11];
    put(&mut label, 0, options.label.as_bytes());
    Ok(label)
}

/// The FAT as far as it is used, and what stands in the clusters.
struct Allocation<'a, C> {
    layout: &'a Layout,
    fat: Vec<u32>,
    extents: Vec<Extent<C>>,
}

impl<C> Allocation<'_, C> {
    /// Takes `clusters` clusters in a row; gives the first.
    fn take(&mut self, clusters: u64) -> Result<u32, Error> {
        let first = self.fat.len() as u64;
        let missing = (first + clusters).saturating_sub(self.layout.clusters + 2);
        if missing > 0 {
            return Err(Error::NoSpace { missing: missing * self.layout.cluster_bytes() });
        }
        self.fat.extend((first + 1..first + clusters).map(|next| next as u32));
        self.fat.push(END_OF_CHAIN);
        Ok(first as u32)
    }

    /// Puts both FATs, the boot sector and FSInfo, each with its copy.
    fn finish(mut self, options: &Options, label: &name::Short, root: u32) -> Image<C> {
        let fat: Vec<u8> = self.fat.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        let start =
            [boot_sector(self.layout, options, label, root), info_sector(self.layout, self.fat.len() as u64)].concat();
        // BPB_BkBootSec: the copies stand at sector 6.
        for (sector, bytes) in [(0, &start), (6, &start), (RESERVED, &fat), (RESERVED + self.layout.fat, &fat)] {
            self.extents.push(Extent { offset: sector * self.layout.sector, data: Data::Bytes(bytes.clone()) });
        }
        self.extents.sort_by_key(|extent| extent.offset);
        Image { len: options.size, extents: self.extents }
    }
}

fn boot_sector(layout: &Layout, options: &Options, label: &name::Short, root: u32) -> Vec<u8> {
    let mut sector = vec![0; layout.sector as usize];
    put(&mut sector, 0, &[0xEB, 0x58, 0x90]);
    put(&mut sector, 3, b"KSCRATCH");
    put_u16(&mut sector, 11, layout.sector as u16);
    sector[13] = layout.per_cluster as u8;
    put_u16(&mut sector, 14, RESERVED as u16);
    sector[16] = 2; // BPB_NumFATs
    sector[21] = MEDIA;
    put_u16(&mut sector, 24, 63); // BPB_SecPerTrk
    put_u16(&mut sector, 26, 255); // BPB_NumHeads
    put_u32(&mut sector, 28, options.hidden_sectors);
    put_u32(&mut sector, 32, layout.sectors as u32);
    put_u32(&mut sector, 36, layout.fat as u32);
    put_u32(&mut sector, 44, root);
    put_u16(&mut sector, 48, 1); // BPB_FSInfo
    put_u16(&mut sector, 50, 6); // BPB_BkBootSec
    sector[64] = 0x80;
    sector[66] = 0x29;
    put_u32(&mut sector, 67, options.serial);
    put(&mut sector, 71, label);
    put(&mut sector, 82, b"FAT32   ");
    // `int 18h`, and a halt should that return: no code to boot here by a BIOS.
    put(&mut sector, 90, &[0xCD, 0x18, 0xF4, 0xEB, 0xFD]);
    put_u16(&mut sector, 510, 0xAA55);
    sector
}

fn info_sector(layout: &Layout, used: u64) -> Vec<u8> {
    let mut sector = vec![0; layout.sector as usize];
    put_u32(&mut sector, 0, 0x4161_5252);
    put_u32(&mut sector, 484, 0x6141_7272);
    put_u32(&mut sector, 488, (layout.clusters + 2 - used) as u32); // FSI_Free_Count
    put_u32(&mut sector, 492, used as u32); // FSI_Nxt_Free
    put_u32(&mut sector, 508, 0xAA55_0000);
    sector
}
