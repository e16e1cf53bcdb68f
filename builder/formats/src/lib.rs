//! Turns descriptions of disks and filesystems into plans of bytes: where every byte goes, known before one is written.
pub mod bmap;
pub mod bytes;
mod calendar;
pub mod cpio;
pub mod ext4;
pub mod fat32;
pub mod gpt;
pub mod guid;
pub mod image;
pub mod iso9660;
pub mod patch;
pub mod qcow2;
pub mod uki;
pub mod vhd;
pub mod vmdk;
