//! Reads of a finished image what a cluster has to know of it: role, Kubernetes version, and the images that it names and lacks.
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use kscratch_formats::ext4::{FoundKind, Reader};
use kscratch_formats::gpt;
use serde::Deserialize;

use crate::check::images::{closure, is_manifest};
use crate::dockerstore::{SEED, listed};
use crate::inspect::{Opened, partition};
use crate::overlay::RELEASE;
use crate::plan::TYPE_ROOT;

/// A file of more bytes is no manifest, and no list of images.
const MAX_TEXT: u64 = 16 << 20;

/// A finished image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finished {
    /// Its file, as it was named.
    pub file: String,
    /// Whether it runs the control plane.
    pub master: bool,
    /// Version of its Kubernetes, e.g. `v1.37.2`.
    pub version: String,
    /// How many images its files name.
    pub named: usize,
    /// Files that name an image which it does not have.
    pub faults: Vec<String>,
}

/// What is needed of release.json.
#[derive(Deserialize)]
struct Release {
    kubernetes: String,
    role: String,
}

/// Reads an image.
///
/// # Errors
/// It cannot be read, or was not made by this program.
pub(super) fn read(path: &Path) -> Result<Finished> {
    open(path).with_context(|| format!("reading the image {}", path.display()))
}

fn open(path: &Path) -> Result<Finished> {
    let disk = Opened::open(path)?;
    let table = gpt::read(&disk, disk.disk_len())?;
    let root = partition(&disk, &table, TYPE_ROOT).context("it has no root partition")?;
    let root = Reader::open(root).context("reading its root")?;
    let (mut texts, mut seed) = (BTreeMap::new(), BTreeSet::new());
    let list = format!("{SEED}/seed.json");
    for (path, found) in root.walk()?.into_iter().filter(|(_, found)| found.kind == FoundKind::File) {
        if path == list {
            seed = listed(&root.read(&found, MAX_TEXT)?)?;
        } else if path == RELEASE || is_manifest(&path) && !path.starts_with(SEED) {
            let text = String::from_utf8(root.read(&found, MAX_TEXT)?).with_context(|| format!("reading {path}"))?;
            texts.insert(path, text);
        }
    }
    let release = texts.get(RELEASE).with_context(|| format!("it has no {RELEASE}"))?;
    let release: Release = serde_json::from_str(release).with_context(|| format!("reading {RELEASE}"))?;
    let closure = closure(&seed, &texts)?;
    let file = path.display().to_string();
    let faults = closure.faults.into_iter().map(|fault| format!("{file}: {} {}", fault.path, fault.what)).collect();
    Ok(Finished {
        master: release.role == "master",
        version: release.kubernetes,
        named: closure.named.len(),
        faults,
        file,
    })
}
