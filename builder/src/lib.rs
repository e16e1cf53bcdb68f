//! The builder as a library: one module a step, in the order in which `image::build` names them.
pub mod console;
pub mod derived;
pub mod digest;
pub mod filesystem;
pub mod http;
pub mod initramfs;
pub mod lock;
pub mod modules;
pub mod plan;
pub mod reach;
pub mod run;
pub mod spec;
pub mod store;
pub mod tree;
pub mod uki;
pub mod unpack;
pub mod write;
