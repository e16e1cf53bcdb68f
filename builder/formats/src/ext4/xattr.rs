//! Turns extended attributes into the free bytes of an inode or, where they do not fit, into a block of their own.
use std::collections::BTreeMap;

use super::BLOCK;
use super::checksum::crc;
use crate::bytes::{put, put_u16, put_u32, u32_at};

const MAGIC: u32 = 0xEA02_0000;
/// Bytes after `i_extra_isize` (32) of a 256-byte inode, the magic included.
pub(super) const IN_INODE: usize = 256 - 128 - 32;
/// Bytes of `struct ext4_xattr_header`.
const HEADER: usize = 32;

/// Where an inode's attributes stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Attributes {
    None,
    InInode([u8; IN_INODE]),
    /// A block without its checksum, which covers the block's number: see [`seal`].
    Block(Vec<u8>),
}

struct Attribute<'a> {
    index: u8,
    name: &'a str,
    value: &'a [u8],
}

/// Encodes `xattrs`; the reason in words where they cannot be.
pub(super) fn encode(xattrs: &BTreeMap<String, Vec<u8>>) -> Result<Attributes, String> {
    if xattrs.is_empty() {
        return Ok(Attributes::None);
    }
    let mut attributes = xattrs.iter().map(|(name, value)| split(name, value)).collect::<Result<Vec<_>, _>>()?;
    // The kernel looks a block's entries up in this order (ext4_xattr_find_entry).
    attributes.sort_by_key(|attribute| (attribute.index, attribute.name.len(), attribute.name));
    let entries: usize = attributes.iter().map(|attribute| (16 + attribute.name.len()).next_multiple_of(4)).sum();
    let values: usize = attributes.iter().map(|attribute| attribute.value.len().next_multiple_of(4)).sum();
    if 4 + entries + 4 + values <= IN_INODE {
        let mut bytes = [0; IN_INODE];
        put_u32(&mut bytes, 0, MAGIC);
        put_entries(&mut bytes[4..], &attributes, 0);
        return Ok(Attributes::InInode(bytes));
    }
    if HEADER + entries + 4 + values > BLOCK as usize {
        return Err(format!("its extended attributes take {} bytes, more than one block", entries + values));
    }
    let mut block = vec![0; BLOCK as usize];
    let hashes = put_entries(&mut block, &attributes, HEADER);
    put_u32(&mut block, 0, MAGIC);
    put_u32(&mut block, 4, 1); // h_refcount
    put_u32(&mut block, 8, 1); // h_blocks
    // An entry without a hash leaves the block without one, and the kernel does not share it.
    let hash =
        if hashes.contains(&0) { 0 } else { hashes.iter().fold(0u32, |hash, entry| hash.rotate_left(16) ^ entry) };
    put_u32(&mut block, 12, hash);
    Ok(Attributes::Block(block))
}

/// Puts the checksum of an attribute block that stands at block `number` (`ext4_xattr_block_csum`).
pub(super) fn seal(block: &mut [u8], number: u64, filesystem_seed: u32) {
    let sum = crc(crc(filesystem_seed, &number.to_le_bytes()), block);
    put_u32(block, 16, sum);
}

fn split<'a>(name: &'a str, value: &'a [u8]) -> Result<Attribute<'a>, String> {
    let prefixes = [("user.", 1), ("trusted.", 4), ("security.", 6)];
    let found = prefixes.iter().find_map(|(prefix, index)| Some((*index, name.strip_prefix(prefix)?)));
    match found {
        Some((index, name)) if (1..=255).contains(&name.len()) => Ok(Attribute { index, name, value }),
        _ => Err(format!("the extended attribute `{name}` is not one of user., trusted. or security.")),
    }
}

/// Entries from `first` upwards, values from the end downwards; value offsets count from the start of `area`. Gives the hashes.
fn put_entries(area: &mut [u8], attributes: &[Attribute<'_>], first: usize) -> Vec<u32> {
    let mut at = first;
    let mut end = area.len();
    let mut hashes = Vec::new();
    for attribute in attributes {
        let stored = attribute.value.len().next_multiple_of(4);
        end -= stored;
        put(area, end, attribute.value);
        let hash = hash(attribute.name, &area[end..end + stored]);
        area[at] = attribute.name.len() as u8;
        area[at + 1] = attribute.index;
        put_u16(area, at + 2, if stored == 0 { 0 } else { end as u16 });
        put_u32(area, at + 8, attribute.value.len() as u32);
        put_u32(area, at + 12, hash);
        put(area, at + 16, attribute.name.as_bytes());
        at += (16 + attribute.name.len()).next_multiple_of(4);
        hashes.push(hash);
    }
    hashes
}

/// `ext4_xattr_hash_entry`.
fn hash(name: &str, padded_value: &[u8]) -> u32 {
    let name = name.bytes().fold(0u32, |hash, byte| hash.rotate_left(5) ^ u32::from(byte));
    padded_value.chunks_exact(4).fold(name, |hash, word| hash.rotate_left(16) ^ u32_at(word, 0))
}
