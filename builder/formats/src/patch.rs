//! A [`Patch`] is a step of a change to what is written already: a power cut between two steps leaves a state that reads well.

/// Writes (offset in what is changed, bytes) that may reach the disk in any order; the next patch must wait until they have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch(pub Vec<(u64, Vec<u8>)>);
