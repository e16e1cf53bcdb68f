//! Turns inodes and geometry into the image: blocks are handed out, then all metadata is encoded where it stands.
use super::checksum::{filesystem_seed, inode_seed};
use super::geometry::{BLOCKS_PER_GROUP, Cursor, DESCRIPTOR_SIZE, FIRST_INODE, Geometry, INODE_SIZE, Run};
use super::inode::{EXTENTS, Inode, S_IFREG};
use super::superblock::{self, JournalBackup, Usage};
use super::tree::{Payload, Planned};
use super::xattr::{self, Attributes, IN_INODE};
use super::{BLOCK, Error, Options, extent, journal};
use crate::bytes::put_u32;
use crate::image::{Data, Extent, Image};

/// The inode of the reserved descriptor blocks.
const RESIZE: u32 = 7;
/// The journal's inode.
pub(super) const JOURNAL: u32 = 8;

/// The image in the making.
struct Emitter<'a, C> {
    geometry: &'a Geometry,
    options: &'a Options,
    seed: u32,
    cursor: Cursor<'a>,
    extents: Vec<Extent<C>>,
    /// Encoded inodes by number - 1, from the first on.
    table: Vec<[u8; INODE_SIZE as usize]>,
}

/// Lays out `inodes` (sorted by number, no gaps after lost+found).
pub(super) fn image<C: Clone>(
    inodes: Vec<Planned<C>>,
    geometry: &Geometry,
    options: &Options,
) -> Result<Image<C>, Error> {
    if options.label.len() > 16 {
        return Err(Error::Options {
            label: options.label.clone(),
            reason: "its label is longer than 16 bytes".to_owned(),
        });
    }
    check_space(&inodes, geometry, options)?;
    let mut emitter = Emitter {
        geometry,
        options,
        seed: filesystem_seed(&options.uuid),
        cursor: Cursor::new(geometry),
        extents: Vec::new(),
        table: vec![[0; INODE_SIZE as usize]; FIRST_INODE as usize - 2 + inodes.len()],
    };
    let directories: Vec<u32> = inodes.iter().filter(|inode| inode.is_directory()).map(|inode| inode.number).collect();
    // Directories first: finding a file then reads one stretch of the disk.
    let (first, rest): (Vec<_>, Vec<_>) = inodes.into_iter().partition(Planned::is_directory);
    for inode in first.into_iter().chain(rest) {
        emitter.inode(inode)?;
    }
    emitter.resize_inode()?;
    let journal = emitter.journal()?;
    emitter.finish(&directories, journal.as_ref());
    let mut extents = emitter.extents;
    extents.sort_by_key(|extent| extent.offset);
    Ok(Image { len: options.size, extents })
}

fn check_space<C>(inodes: &[Planned<C>], geometry: &Geometry, options: &Options) -> Result<(), Error> {
    let attributes = inodes.iter().filter(|inode| matches!(inode.attributes, Attributes::Block(_))).count() as u64;
    let contents: u64 = inodes.iter().map(Planned::blocks).sum();
    let others = u64::from(options.journal_blocks.unwrap_or(0)) + u64::from(geometry.reserved_descriptor_blocks > 0);
    let needed = contents + attributes + others;
    let available = geometry.free_blocks();
    if needed > available {
        return Err(no_space(options, needed, needed - available));
    }
    match options.journal_blocks {
        Some(blocks) if blocks < 1024 => Err(Error::Options {
            label: options.label.clone(),
            reason: format!("a journal needs 1024 blocks at least, not {blocks}"),
        }),
        _ => Ok(()),
    }
}

fn no_space(options: &Options, needed: u64, missing: u64) -> Error {
    Error::NoSpace { label: options.label.clone(), needed: needed * BLOCK, missing: missing * BLOCK }
}

impl<C: Clone> Emitter<'_, C> {
    fn take(&mut self, blocks: u64) -> Result<Vec<Run>, Error> {
        self.cursor.take(blocks).ok_or_else(|| no_space(self.options, self.geometry.free_blocks() + blocks, blocks))
    }

    fn bytes(&mut self, offset: u64, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.extents.push(Extent { offset, data: Data::Bytes(bytes) });
        }
    }

    /// Gives the inode its blocks, and puts them and the inode.
    fn inode(&mut self, planned: Planned<C>) -> Result<(), Error> {
        let seed = inode_seed(self.seed, planned.number);
        let mut xattr_block = 0;
        let mut xattrs = [0; IN_INODE];
        match &planned.attributes {
            Attributes::None => {}
            Attributes::InInode(bytes) => xattrs = *bytes,
            Attributes::Block(block) => {
                let mut block = block.clone();
                xattr_block = self.take(1)?[0].start;
                xattr::seal(&mut block, xattr_block, self.seed);
                self.bytes(xattr_block * BLOCK, block);
            }
        }
        let contents = planned.blocks();
        let (block, nodes) = match &planned.payload {
            Payload::Field(field) => (*field, None),
            _ => {
                let runs = self.take(contents)?;
                let (block, nodes) = self.extents_of(&runs, seed)?;
                self.contents(planned.payload, &runs);
                (block, Some(nodes))
            }
        };
        let inode = Inode {
            mode: planned.mode,
            uid: planned.uid,
            gid: planned.gid,
            mtime: planned.mtime,
            ctime: self.options.time,
            links: planned.links,
            size: planned.size,
            blocks: contents + nodes.unwrap_or(0) + u64::from(xattr_block != 0),
            flags: if nodes.is_some() { EXTENTS } else { 0 },
            block,
            xattr_block,
            xattrs,
        };
        self.table[planned.number as usize - 1] = inode.encode(seed);
        Ok(())
    }

    /// Puts the extent tree's blocks; gives `i_block` and their number.
    fn extents_of(&mut self, runs: &[Run], seed: u32) -> Result<([u8; 60], u64), Error> {
        let nodes: Vec<u64> =
            self.take(extent::node_blocks(runs))?.iter().flat_map(|run| run.start..run.start + run.blocks).collect();
        let (block, written) = extent::encode(runs, &nodes, seed);
        for (at, node) in written {
            self.bytes(at * BLOCK, node);
        }
        Ok((block, nodes.len() as u64))
    }

    /// Puts a file's contents into its runs.
    fn contents(&mut self, payload: Payload<C>, runs: &[Run]) {
        let mut done = 0;
        for run in runs {
            let at = run.start * BLOCK;
            let room = run.blocks * BLOCK;
            match &payload {
                Payload::Field(_) => {}
                Payload::Bytes(bytes) => {
                    let end = bytes.len().min((done + room) as usize);
                    self.bytes(at, bytes[done as usize..end].to_vec());
                }
                Payload::Content { id, offset, len } => {
                    let data = Data::Content { id: id.clone(), offset: offset + done, len: room.min(len - done) };
                    self.extents.push(Extent { offset: at, data });
                }
            }
            done += room;
        }
    }

    fn own_inode(&self, size: u64, blocks: u64, flags: u32, block: [u8; 60]) -> Inode {
        let time = self.options.time;
        Inode {
            mode: S_IFREG | 0o600,
            uid: 0,
            gid: 0,
            mtime: time,
            ctime: time,
            links: 1,
            size,
            blocks,
            flags,
            block,
            xattr_block: 0,
            xattrs: [0; IN_INODE],
        }
    }

    /// The resize inode: a double-indirect block of the reserved descriptor blocks, each of which lists its own backups.
    fn resize_inode(&mut self) -> Result<(), Error> {
        let geometry = self.geometry;
        let reserved = geometry.reserved_descriptor_blocks;
        if reserved == 0 {
            return Ok(());
        }
        let pointers = BLOCK / 4;
        let double = self.take(1)?[0].start;
        let mut table = vec![0; BLOCK as usize];
        let backups: Vec<u64> = (1..geometry.groups).filter(|group| geometry.has_super(*group)).collect();
        for index in 0..reserved {
            let descriptor = geometry.descriptor_blocks + index;
            let block = 1 + descriptor;
            put_u32(&mut table, (descriptor % pointers * 4) as usize, block as u32);
            let copies = backups.iter().flat_map(|group| ((geometry.group_start(*group) + block) as u32).to_le_bytes());
            self.bytes(block * BLOCK, copies.collect());
        }
        self.bytes(double * BLOCK, table);
        let mut block = [0; 60];
        put_u32(&mut block, 13 * 4, double as u32); // EXT4_DIND_BLOCK
        let size = (pointers * pointers + pointers + 12) * BLOCK;
        let inode = self.own_inode(size, 1 + reserved * (1 + backups.len() as u64), 0, block);
        self.table[RESIZE as usize - 1] = inode.encode(inode_seed(self.seed, RESIZE));
        Ok(())
    }

    fn journal(&mut self) -> Result<Option<JournalBackup>, Error> {
        let Some(blocks) = self.options.journal_blocks else {
            return Ok(None);
        };
        let seed = inode_seed(self.seed, JOURNAL);
        let runs = self.take(u64::from(blocks))?;
        let (block, nodes) = self.extents_of(&runs, seed)?;
        self.bytes(runs[0].start * BLOCK, journal::superblock(blocks, &self.options.uuid));
        let size = u64::from(blocks) * BLOCK;
        let inode = self.own_inode(size, u64::from(blocks) + nodes, EXTENTS, block);
        self.table[JOURNAL as usize - 1] = inode.encode(seed);
        Ok(Some(JournalBackup { block, size }))
    }

    /// Puts inode tables, bitmaps, descriptors and superblocks.
    fn finish(&mut self, directories: &[u32], journal: Option<&JournalBackup>) {
        let geometry = self.geometry;
        let per_group = geometry.inodes_per_group as usize;
        let tables: Vec<(u64, Vec<u8>)> = (1u32..)
            .step_by(per_group)
            .zip(self.table.chunks(per_group))
            .map(|(first, inodes)| (geometry.inode_offset(first), inodes.concat()))
            .collect();
        let usage: Vec<Usage> = (0..geometry.groups)
            .map(|group| Usage {
                blocks: self.cursor.used(group),
                inodes: (self.table.len() as u64)
                    .saturating_sub(group * geometry.inodes_per_group)
                    .min(geometry.inodes_per_group),
                directories: directories
                    .iter()
                    .filter(|number| u64::from(**number - 1) / geometry.inodes_per_group == group)
                    .count() as u64,
            })
            .collect();
        let (descriptors, bitmaps) = superblock::groups(geometry, self.options, &usage);
        for (offset, bytes) in
            tables.into_iter().chain(bitmaps.into_iter().map(|(block, bytes)| (block * BLOCK, bytes)))
        {
            self.bytes(offset, bytes);
        }
        let primary = superblock::primary(geometry, self.options, &usage, journal);
        for group in (0..geometry.groups).filter(|group| geometry.has_super(*group)) {
            let start = group * BLOCKS_PER_GROUP * BLOCK;
            // The first 1024 bytes of the filesystem are left to boot loaders.
            match group {
                0 => self.bytes(1024, primary.to_vec()),
                _ => self.bytes(start, superblock::backup(&primary, group).to_vec()),
            }
            self.bytes(start + BLOCK, descriptors.clone());
        }
        debug_assert_eq!(descriptors.len() as u64, geometry.groups * DESCRIPTOR_SIZE);
    }
}
