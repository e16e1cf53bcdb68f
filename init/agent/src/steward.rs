//! To be written.
use anyhow::Result;

use crate::contract::Steward;

/// To be written.
///
/// # Errors
/// To be written.
pub async fn run(wanted: Steward) -> Result<()> {
    anyhow::bail!("{wanted:?}")
}
