//! The files that PID 1 renders for the agent, as types; an unknown field is refused.
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use ipnet::Ipv4Net;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Reads one of the files.
///
/// # Errors
/// It cannot be read, or says something else than its type.
pub fn read<T: DeserializeOwned>(file: &Path) -> Result<T> {
    let text = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("reading what {} says", file.display()))
}

/// `/run/kscratch/routes.json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Routes {
    /// The API server's URL.
    pub server: String,
    /// PEM file of the authorities that the API server's certificate is held against.
    pub authority: PathBuf,
    /// PEM file of the client certificate.
    pub certificate: PathBuf,
    /// PEM file of its key.
    pub key: PathBuf,
    /// This machine's Node.
    pub node: String,
    /// How packets get to the other machines.
    pub mode: Mode,
    /// The range that all pods' addresses are of.
    pub cluster_pod_range: Ipv4Net,
    /// The link that leads to the other machines.
    pub link: String,
    /// This machine's address on it.
    pub address: Ipv4Addr,
    /// Where the range of this machine's pods is written to once the cluster has said it.
    pub pod_range_file: PathBuf,
    /// Where the last known nodes are kept.
    pub state: PathBuf,
    /// MTU of the overlay's device in bytes.
    pub mtu: u32,
}

/// How packets get to the pods of other machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// By routes through the machines' addresses, which are all on one link.
    Routed,
    /// Inside of VXLAN packets between the machines' addresses, wherever they are.
    Overlay,
}
