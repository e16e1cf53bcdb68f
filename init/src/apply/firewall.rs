//! Turns a ruleset's text into the kernel's nftables rules, all of it or nothing.
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::sys::Sys;

/// Where Debian has programs; searched in this order.
const FOLDERS: [&str; 2] = ["/usr/sbin", "/usr/bin"];

/// What an earlier run may have left (R10): docker's and kube-proxy's nat rules. Both families of names are those that iptables over
/// nftables uses. `add` before `delete`: a table that is not there must not be an error.
const STALE: &str = "\
add table ip nat
delete table ip nat
add table ip6 nat
delete table ip6 nat
";

/// Loads a ruleset in one transaction (`nft -f -`).
///
/// # Errors
/// There is no `nft`, or it refuses the ruleset: then nothing of it holds and the error has its words.
pub fn load(sys: &dyn Sys, ruleset: &str) -> Result<()> {
    run_nft(sys, ruleset).context("loading the firewall's ruleset")
}

/// Removes nat rules that an earlier run left (R10). To be done before docker and kube-proxy start.
///
/// # Errors
/// As [`load`].
pub fn remove_stale(sys: &dyn Sys) -> Result<()> {
    run_nft(sys, STALE).context("removing nat rules of an earlier run")
}

fn run_nft(sys: &dyn Sys, ruleset: &str) -> Result<()> {
    let nft = program("nft")?;
    let ran = sys.run(&nft, &["-f", "-"], ruleset.as_bytes()).with_context(|| format!("running {}", nft.display()))?;
    if !ran.ok() {
        let status = ran.status.map_or_else(|| String::from("a signal"), |status| format!("status {status}"));
        bail!("nft ended with {status}: {}", ran.text.trim());
    }
    Ok(())
}

fn program(name: &str) -> Result<PathBuf> {
    FOLDERS
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.is_file())
        .with_context(|| format!("there is no program {name} in {}", FOLDERS.join(" or ")))
}
