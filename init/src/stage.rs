//! The two stages of a boot: from the kernel's start to the root, and from the root to the event loop.
pub mod beside;
pub mod block;
pub mod clock;
pub mod gather;
pub mod hardware;
pub mod initramfs;
mod lastwords;
pub mod listener;
pub mod metadata;
pub mod modprobe;
pub mod mounts;
pub mod newlease;
pub mod owncluster;
pub mod phases;
pub mod plugging;
pub mod podnetwork;
pub mod root;
pub mod synchronise;
