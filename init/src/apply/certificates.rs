//! Has the agent make certificates: PID 1 itself knows no cryptography.
use std::path::Path;

use anyhow::{Result, bail};

use crate::log;
use crate::sys::Sys;

/// The program in the image.
pub const AGENT: &str = "/usr/lib/kscratch/agent";

/// Makes what the file `wanted` wants, and tells what was made and what was kept.
///
/// # Errors
/// The program is missing, or one of the certificates could not be made; in its words.
pub fn make(sys: &dyn Sys, wanted: &str) -> Result<()> {
    let ran = sys.run(Path::new(AGENT), &["certificates", wanted], b"")?;
    if ran.ok() {
        ran.text.lines().for_each(|line| log::line(format_args!("certificates: {line}")));
        return Ok(());
    }
    bail!("{}", ran.text.trim())
}
