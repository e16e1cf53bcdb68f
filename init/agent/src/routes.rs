//! To be written.
use anyhow::Result;

use crate::contract::Routes;

/// To be written.
///
/// # Errors
/// To be written.
pub async fn run(wanted: Routes) -> Result<()> {
    anyhow::bail!("{wanted:?}")
}
