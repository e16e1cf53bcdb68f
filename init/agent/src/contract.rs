//! The files that PID 1 renders for the agent, as types; an unknown field is refused.
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use ipnet::Ipv4Net;
use kscratch_pki::Wanted;
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

/// `/run/kscratch/certificates.json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificates {
    /// Who signs, by name.
    pub authorities: BTreeMap<String, AuthorityFiles>,
    /// What is to be there.
    pub certificates: Vec<CertificateFiles>,
    /// PEM bundles of certificate and key that are removed once the certificate is not valid any more.
    pub discard_expired: Vec<PathBuf>,
}

/// Where an authority is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthorityFiles {
    /// PEM file of its certificate.
    pub certificate: PathBuf,
    /// PEM file of its key.
    pub key: PathBuf,
}

/// A certificate that is to be there.
#[derive(Debug, Clone, Deserialize)]
pub struct CertificateFiles {
    /// PEM file of the certificate, 0644.
    pub certificate: PathBuf,
    /// PEM file of its key, 0600.
    pub key: PathBuf,
    /// Name of the authority that signs it.
    pub authority: String,
    /// User and group of both files.
    pub owner: u32,
    /// What it says.
    #[serde(flatten)]
    pub wanted: Wanted,
}

/// `/run/kscratch/identities.json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identities {
    /// The API server's URL.
    pub server: String,
    /// PEM file of the cluster's authority.
    pub authority: PathBuf,
    /// PEM file of the kubelet's client certificate and key.
    pub kubelet: PathBuf,
    /// This machine's Node.
    pub node: String,
    /// Who is to have a certificate.
    pub identities: Vec<Identity>,
    /// An empty file that is written when all of them have one.
    pub ready: PathBuf,
}

/// A program of this machine as a client of the API server.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// One word for people.
    pub name: String,
    /// Its user name.
    pub common_name: String,
    /// Its groups.
    pub organizations: Vec<String>,
    /// PEM file of its certificate.
    pub certificate: PathBuf,
    /// PEM file of its key.
    pub key: PathBuf,
    /// User and group of both files.
    pub owner: u32,
}

/// `/run/kscratch/steward.json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Steward {
    /// The API server's URL.
    pub server: String,
    /// PEM file of the cluster's authority.
    pub authority: PathBuf,
    /// PEM file of the steward's client certificate.
    pub certificate: PathBuf,
    /// PEM file of its key.
    pub key: PathBuf,
    /// Folder of objects that are to be in the cluster, `*.json`, applied in the order of their names.
    pub objects: PathBuf,
    /// The file with the certificates of this machine.
    pub certificates: PathBuf,
    /// Whom a node may ask a client certificate for, besides its kubelet.
    pub approve: Vec<Approvable>,
    /// An empty file that is written once all objects have been applied.
    pub ready: PathBuf,
}

/// A client that nodes may ask a certificate for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approvable {
    /// Its user name.
    pub common_name: String,
    /// Its groups.
    pub organizations: Vec<String>,
}
