//! A size in image.toml, or the word `elsewhere`, becomes whether an image's disk has a place for state.
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ByteSize;

/// Instead of a size.
const ELSEWHERE: &str = "elsewhere";

/// Where the machines of an image have state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum State {
    /// On the image's disk, on a partition of this size as written.
    Here(ByteSize),
    /// On whichever disk of the machine has a partition for it, else in memory.
    Elsewhere,
}

impl State {
    /// Bytes of the partition; none where there is none.
    pub fn bytes(self) -> Option<u64> {
        match self {
            State::Here(size) => Some(size.0),
            State::Elsewhere => None,
        }
    }

    /// What init is told of it on the kernel's command line.
    pub fn word(self) -> Option<String> {
        (self == State::Elsewhere).then(|| WORD.to_owned())
    }
}

/// See ARCHITECTURE.md, "Kernel command line".
pub const WORD: &str = "kscratch.state=elsewhere";

impl FromStr for State {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == ELSEWHERE {
            return Ok(State::Elsewhere);
        }
        text.parse()
            .map(State::Here)
            .map_err(|error| format!("{error}; or `{ELSEWHERE}`, for another disk of the machine"))
    }
}

impl TryFrom<String> for State {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<State> for String {
    fn from(state: State) -> String {
        state.to_string()
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            State::Here(size) => size.fmt(f),
            State::Elsewhere => f.write_str(ELSEWHERE),
        }
    }
}
