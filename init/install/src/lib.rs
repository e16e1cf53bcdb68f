//! Puts an image onto a disk: what the kernel tells of disks, the reasons not to write to one, and writing so that nothing boots by half.
//!
//! Both use it: `kscratch-image flash` at a desk, with a person who says which disk is meant, and the installer of an ISO image, with metadata that do.
pub mod blockdevice;
mod copy;
pub mod esp;
mod heldback;
mod onto;
pub mod packed;
mod plain;
pub mod refuse;
mod target;
pub mod words;

pub use copy::{PIECE, Watch};
pub use onto::{Failure, Left, Step, Took, write};
pub use plain::Plain;
pub use target::Target;
