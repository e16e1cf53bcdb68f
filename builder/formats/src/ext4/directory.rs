//! Turns a directory's children into its blocks: linear directories, each block with a checksum in its tail.
use super::BLOCK;
use super::checksum::crc;
use crate::bytes::{put, put_u16, put_u32};

/// Bytes of `struct ext4_dir_entry_tail`.
const TAIL: usize = 12;
const TAIL_TYPE: u8 = 0xDE;

/// An entry: inode number, `file_type` code and name (1 to 255 bytes).
#[derive(Debug, Clone)]
pub(super) struct Child {
    pub number: u32,
    pub file_type: u8,
    pub name: String,
}

/// The directory's bytes, whole blocks. `seed` is the checksum seed of the directory's inode.
pub(super) fn encode(number: u32, parent: u32, children: &[Child], seed: u32) -> Vec<u8> {
    let directory =
        |number, name: &str| Child { number, file_type: super::tree::TYPE_DIRECTORY, name: name.to_owned() };
    let dots = [directory(number, "."), directory(parent, "..")];
    let block = BLOCK as usize;
    let mut bytes: Vec<u8> = Vec::new();
    let mut used = block;
    let mut last = 0;
    for child in dots.iter().chain(children) {
        let len = (8 + child.name.len()).next_multiple_of(4);
        if used + len > block - TAIL {
            close(&mut bytes, last, seed);
            bytes.resize(bytes.len() + block, 0);
            used = 0;
        }
        last = bytes.len() - block + used;
        put_u32(&mut bytes, last, child.number);
        put_u16(&mut bytes, last + 4, len as u16);
        bytes[last + 6] = child.name.len() as u8;
        bytes[last + 7] = child.file_type;
        put(&mut bytes, last + 8, child.name.as_bytes());
        used += len;
    }
    close(&mut bytes, last, seed);
    bytes
}

/// Stretches the last entry to the tail and writes the tail.
fn close(bytes: &mut [u8], last: usize, seed: u32) {
    if bytes.is_empty() {
        return;
    }
    let tail = bytes.len() - TAIL;
    put_u16(bytes, last + 4, (tail - last) as u16);
    put_u16(bytes, tail + 4, TAIL as u16);
    bytes[tail + 7] = TAIL_TYPE;
    let sum = crc(seed, &bytes[tail + TAIL - BLOCK as usize..tail]);
    put_u32(bytes, tail + 8, sum);
}
