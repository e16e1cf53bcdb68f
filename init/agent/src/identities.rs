//! To be written.
use anyhow::Result;

use crate::contract::Identities;

/// To be written.
///
/// # Errors
/// To be written.
pub async fn run(wanted: Identities) -> Result<()> {
    anyhow::bail!("{wanted:?}")
}
