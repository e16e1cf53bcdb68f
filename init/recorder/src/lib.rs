//! The flight recorder: a raw partition that holds what a machine's last boots have said, whatever became of them.
//!
//! The partition is a ring of blocks of 4096 bytes, the unit that disks write whole or not at all. A block is written once: a boot that goes on
//! takes the next one. So a cut loses what had not been written yet, damage loses the blocks that it is in, and neither makes another block
//! unreadable. Nothing is believed of a block but what its checksum covers.
//!
//! [`Ring::read`] gives the boots, [`Writer`] the blocks of this one, [`story::tell`] what a boot's entries mean.
mod block;
mod entry;
mod ring;
pub mod story;

pub use block::{BLOCK, Block, BootId};
pub use entry::{Begin, Entry, What};
pub use ring::{Boot, Placed, Ring, Writer};

/// Bytes of a partition that are used: what is behind them is not looked at.
pub const LONGEST: u64 = 64 << 20;

/// Type of the partition, in the order in which a GUID is written: `6b736372-6174-4368-8001-7265636f7264`.
pub const PARTITION_TYPE: [u8; 16] = *b"\x6b\x73\x63\x72\x61\x74\x43\x68\x80\x01\x72\x65\x63\x6f\x72\x64";
