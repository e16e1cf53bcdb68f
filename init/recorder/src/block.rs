//! Turns entries into a block of the ring, and a block's bytes into its entries, if its checksum says that they are what was written.
use crate::entry::{self, Entry};

/// Bytes of a block.
pub const BLOCK: usize = 4096;
/// Bytes before the entries.
const HEAD: usize = 40;
/// First bytes of a block, the last of which is the form's version.
const MAGIC: [u8; 8] = *b"KSFLIGH\x01";

/// The kernel's name for a boot (`/proc/sys/kernel/random/boot_id`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootId(pub [u8; 16]);

/// A block that is sound.
///
/// On the disk: magic (8 bytes), sequence number (8), boot (16), bytes of entries (4), CRC-32 of the whole block with this field as
/// zeros (4), entries, zeros. All numbers are little endian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Counts the blocks of a ring over all boots; it says where the block stands.
    pub sequence: u64,
    /// The boot that wrote it.
    pub boot: BootId,
    /// What was said, in order.
    pub entries: Vec<Entry>,
}

/// Entries that wait for being written, as they stand in a block.
#[derive(Debug, Default)]
pub(crate) struct Filling {
    bytes: Vec<u8>,
}

impl Filling {
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes an entry, if there is room for it.
    pub(crate) fn take(&mut self, entry: &Entry) -> bool {
        let before = self.bytes.len();
        entry::encode(entry, &mut self.bytes);
        let fits = self.bytes.len() <= BLOCK - HEAD;
        if !fits {
            self.bytes.truncate(before);
        }
        fits
    }

    /// The block, and nothing waits any more.
    pub(crate) fn seal(&mut self, sequence: u64, boot: BootId) -> Box<[u8; BLOCK]> {
        let mut block = Box::new([0; BLOCK]);
        block[..8].copy_from_slice(&MAGIC);
        block[8..16].copy_from_slice(&sequence.to_le_bytes());
        block[16..32].copy_from_slice(&boot.0);
        block[32..36].copy_from_slice(&u32::try_from(self.bytes.len()).unwrap_or_default().to_le_bytes());
        block[HEAD..HEAD + self.bytes.len()].copy_from_slice(&self.bytes);
        let sum = crc32fast::hash(&block[..]);
        block[36..40].copy_from_slice(&sum.to_le_bytes());
        self.bytes.clear();
        block
    }
}

impl Block {
    /// Reads a block; nothing where it is none, or is not what was written.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Block> {
        let bytes = bytes.first_chunk::<BLOCK>().filter(|bytes| bytes.starts_with(&MAGIC))?;
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let mut whole = *bytes;
        whole[36..40].fill(0);
        if crc32fast::hash(&whole) != number(36) {
            return None;
        }
        let entries = bytes[HEAD..].get(..number(32) as usize)?;
        let mut boot = [0; 16];
        boot.copy_from_slice(&bytes[16..32]);
        let sequence = u64::from(number(8)) | u64::from(number(12)) << 32;
        Some(Block { sequence, boot: BootId(boot), entries: entry::decode(entries) })
    }
}
