//! What the machine tells whoever stands before it, on its serial line and its screen, and what keys do there.
pub mod answers;
pub mod attending;
pub mod board;
pub mod keys;
pub mod page;
pub mod sampling;
pub mod screen;
pub mod status;
pub mod terminal;
pub mod told;
pub mod words;
