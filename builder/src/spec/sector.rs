//! A number in image.toml or on the command line becomes the size of a disk's sectors.
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Bytes of a disk's logical sectors: tables and the ESP are made for just these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct SectorSize(u64);

impl SectorSize {
    /// What nearly all disks have, or show.
    pub const USUAL: SectorSize = SectorSize(512);

    /// In bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl TryFrom<u64> for SectorSize {
    type Error = String;

    fn try_from(bytes: u64) -> Result<Self, String> {
        match bytes {
            512 | 4096 => Ok(SectorSize(bytes)),
            _ => Err(format!("sectors of {bytes} bytes: there are disks with 512 and with 4096")),
        }
    }
}

impl From<SectorSize> for u64 {
    fn from(size: SectorSize) -> u64 {
        size.0
    }
}

impl FromStr for SectorSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<u64>().map_err(|error| error.to_string())?.try_into()
    }
}

impl fmt::Display for SectorSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
