//! Turns an image into the layout of a qcow2 file that holds it.
use std::collections::BTreeSet;

use super::{
    CLUSTER, CLUSTER_BITS, COPIED, Error, HEADER, L2_ENTRIES, MAGIC, MAX_L1, OFFSET_MASK, REFCOUNT_ORDER, REFCOUNTS,
    words,
};
use crate::image::Image;

/// Where everything stands in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Length of the file in bytes.
    pub len: u64,
    /// Header and tables: byte offset in the file, and bytes.
    pub metadata: Vec<(u64, Vec<u8>)>,
    /// Disk clusters that hold something, in order.
    clusters: Vec<u64>,
    /// First byte in the file of the first of them; the others follow.
    data: u64,
}

impl Layout {
    /// Where in the file the cluster stands that begins at this byte of the disk; none for a hole.
    pub fn place(&self, offset: u64) -> Option<u64> {
        let index = self.clusters.binary_search(&(offset / CLUSTER)).ok()?;
        Some(self.data + index as u64 * CLUSTER)
    }
}

/// Lays the file out: header, refcounts, L1, L2 tables, then the clusters in the order of the disk.
pub fn layout<C>(image: &Image<C>) -> Result<Layout, Error> {
    if image.len > MAX_L1 * L2_ENTRIES * CLUSTER {
        return Err(Error::TooLarge(image.len));
    }
    let mut used = BTreeSet::new();
    for extent in image.extents.iter().filter(|extent| !extent.data.is_empty()) {
        used.extend(extent.offset / CLUSTER..=(extent.offset + extent.data.len() - 1) / CLUSTER);
    }
    let clusters: Vec<u64> = used.into_iter().collect();
    let tables: BTreeSet<u64> = clusters.iter().map(|cluster| cluster / L2_ENTRIES).collect();
    let l1_entries = image.len.div_ceil(CLUSTER * L2_ENTRIES).max(1);
    let l1_clusters = (l1_entries * 8).div_ceil(CLUSTER);
    let others = 1 + l1_clusters + tables.len() as u64 + clusters.len() as u64;
    // Refcount blocks count themselves and their table.
    let (mut blocks, mut table) = (1, 1);
    while blocks * REFCOUNTS < others + blocks + table {
        blocks += 1;
        table = (blocks * 8).div_ceil(CLUSTER);
    }
    let total = others + blocks + table;
    let (table_at, blocks_at) = (CLUSTER, (1 + table) * CLUSTER);
    let l1_at = blocks_at + blocks * CLUSTER;
    let l2_at = l1_at + l1_clusters * CLUSTER;
    let data = l2_at + tables.len() as u64 * CLUSTER;

    let mut l1 = vec![0u64; l1_entries as usize];
    let mut l2 = Vec::new();
    for (at, table) in (l2_at..).step_by(CLUSTER as usize).zip(&tables) {
        l1[*table as usize] = at | COPIED;
        l2.push((at, vec![0u64; L2_ENTRIES as usize]));
    }
    for (at, cluster) in (data..).step_by(CLUSTER as usize).zip(&clusters) {
        let table = l1[(cluster / L2_ENTRIES) as usize] & OFFSET_MASK;
        l2[((table - l2_at) / CLUSTER) as usize].1[(cluster % L2_ENTRIES) as usize] = at | COPIED;
    }
    let refcount_table: Vec<u64> = (blocks_at..l1_at).step_by(CLUSTER as usize).collect();
    let mut metadata = vec![
        (0, header(image.len, l1_entries as u32, l1_at, table_at, table as u32)),
        (table_at, words(&refcount_table)),
        (blocks_at, [0u8, 1].repeat(total as usize)),
        (l1_at, words(&l1)),
    ];
    metadata.extend(l2.into_iter().map(|(at, table)| (at, words(&table))));
    Ok(Layout { len: total * CLUSTER, metadata, clusters, data })
}

fn header(len: u64, l1_entries: u32, l1: u64, refcounts: u64, refcount_clusters: u32) -> Vec<u8> {
    let mut bytes = vec![0; HEADER + 8]; // an end-of-extensions record of zeros follows
    let mut put = |offset: usize, field: &[u8]| bytes[offset..offset + field.len()].copy_from_slice(field);
    put(0, &MAGIC.to_be_bytes());
    put(4, &3u32.to_be_bytes()); // version
    put(20, &CLUSTER_BITS.to_be_bytes());
    put(24, &len.to_be_bytes());
    put(36, &l1_entries.to_be_bytes());
    put(40, &l1.to_be_bytes());
    put(48, &refcounts.to_be_bytes());
    put(56, &refcount_clusters.to_be_bytes());
    put(96, &REFCOUNT_ORDER.to_be_bytes());
    put(100, &(HEADER as u32).to_be_bytes());
    bytes
}
