//! Turns descriptions of disks and filesystems into plans of bytes: where every byte goes, known before one is written.
pub mod image;
