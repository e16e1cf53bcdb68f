//! What the end-to-end tests in `tests/` share: the built programs, images, and machines that run one at a time.
//!
//! Everything here is for tests: what goes wrong ends the test that asked, with words.
#![expect(clippy::missing_panics_doc, reason = "a panic is how a test ends")]
pub mod api;
pub mod archive;
pub mod bench;
pub mod cluster;
pub mod disk;
pub mod dump;
pub mod fileserver;
pub mod http;
pub mod https;
pub mod logserver;
pub mod node_image;
pub mod probe;
pub mod program;
pub mod recorded;
pub mod step;
