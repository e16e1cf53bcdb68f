//! `kscratch.lock` is a [`Lock`]: exactly which artifacts an image is made of, by version, place, size and digest.
use serde::{Deserialize, Serialize};

use crate::store::Digest;

/// Every artifact of an image, and what was asked for when they were chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Version of this format: 1.
    pub version: u32,
    /// What the spec asked for.
    pub inputs: Inputs,
    /// The Debian releases that packages were chosen from.
    #[serde(rename = "release")]
    pub releases: Vec<DebianRelease>,
    /// The artifacts, sorted by kind and name.
    #[serde(rename = "artifact")]
    pub artifacts: Vec<Artifact>,
}

/// The part of an image spec that decides which artifacts there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inputs {
    /// Debian suites, e.g. `trixie`, `trixie-updates`, `trixie-security`.
    pub suites: Vec<String>,
    /// Debian packages that were declared.
    pub packages: Vec<String>,
    /// Kubernetes version.
    pub kubernetes: String,
    /// Where Kubernetes comes from (`auto`, `tarball`, `compile` or a path).
    pub kubernetes_source: String,
    /// cri-dockerd version.
    pub cri_dockerd: String,
}

/// A Debian release file as it was when packages were chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DebianRelease {
    /// Which archive.
    pub archive: Archive,
    /// Name below `dists/`, e.g. `trixie-security`.
    pub suite: String,
    /// Its `Date:`, seconds since 1970.
    pub date: u64,
    /// Digest of the InRelease file.
    pub sha256: Digest,
}

/// Debian's archives, by what they are: which mirror serves them is the machine's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Archive {
    /// Releases and their updates.
    Main,
    /// Security updates.
    Security,
}

/// One thing that is fetched or made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// Name, one per kind: the package's name, `kubernetes`, `cri-dockerd`.
    pub name: String,
    /// Version, as its origin writes it.
    pub version: String,
    /// Length in bytes; none for what is compiled and has not been yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Digest; none for what is compiled and has not been yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where an artifact comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Origin {
    /// A package of Debian's archive.
    DebianPackage {
        /// Which archive.
        archive: Archive,
        /// Path below the archive's base URL, `pool/main/d/docker.io/docker.io_….deb`.
        path: String,
    },
    /// A program compiled from a Go module.
    GoBuild {
        /// Module path.
        module: String,
        /// Module version with its `v`.
        module_version: String,
        /// Programs (package paths) that are built.
        programs: Vec<String>,
        /// SHA-256 of the committed go.mod and go.sum that pin every module.
        go_sum: Digest,
        /// Go version, e.g. `1.26.1`.
        go: String,
        /// Flags of `go build`.
        flags: Vec<String>,
    },
    /// An archive at a URL.
    Tarball {
        /// Where.
        url: String,
        /// The published SHA-512, in hex.
        sha512: String,
    },
    /// A file or folder of this machine.
    LocalFile {
        /// Where.
        path: String,
    },
}
