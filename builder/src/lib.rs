//! The builder as a library: one module a step, in the order in which `image::build` names them.
pub mod console;
pub mod lock;
pub mod spec;
pub mod store;
pub mod tree;
pub mod unpack;
