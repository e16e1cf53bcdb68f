//! Container images become the docker store's seed: a [`Tree`] below `/usr/share/kscratch/images` that init shows to docker as it is.
//!
//! The form is ARCHITECTURE's "Docker store seed": layers unpacked as overlay2's `diff` wants them, so that nothing is loaded at boot.
use std::collections::BTreeSet;

use crate::store::Digest;
use crate::tree::{Kind, Node, Origin, Tree};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

mod archive;
mod compose;
mod layer;
mod reference;

pub use archive::load;
pub use compose::{Component, component, compose};
pub use layer::Layer;
pub use reference::{normal, pulled_always};

/// Where the seed stands in the root.
pub const SEED: &str = "/usr/share/kscratch/images";

/// Reference of the pause image, which kscratch makes itself.
pub const PAUSE: &str = concat!("kscratch.local/pause:", env!("CARGO_PKG_VERSION"));

/// Reference of the image that answers over HTTP on port 8080, which kscratch makes itself.
pub const HELLO: &str = concat!("kscratch.local/hello:", env!("CARGO_PKG_VERSION"));

/// A container image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its name and tag, e.g. `kscratch.local/pause:0.1.0`.
    pub reference: String,
    /// Its config (OCI image-spec, config.md), the bytes whose digest is the image's id.
    pub config: Vec<u8>,
    /// Its layers, the lowest first.
    pub layers: Vec<Layer>,
    /// The artifact it came from, as origins name it.
    pub artifact: String,
}

impl Image {
    /// The image's id.
    pub fn id(&self) -> Digest {
        Digest::of(&self.config)
    }
}

/// `seed.json`: what init reads.
#[derive(Debug, Serialize, Deserialize)]
struct Seed {
    images: Vec<SeedImage>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SeedImage {
    reference: String,
    id: String,
    layers: Vec<SeedLayer>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SeedLayer {
    chain_id: String,
    diff_id: String,
    cache_id: String,
    link: String,
    size: u64,
    parent: Option<String>,
}

/// The seed of these images. A layer that two images share is there once.
///
/// # Errors
/// Two images of one name that are not the same.
pub fn seed(images: &[Image]) -> Result<Tree> {
    let mut tree = Tree::default();
    let mut sorted: Vec<&Image> = images.iter().collect();
    sorted.sort_by(|a, b| (&a.reference, a.id()).cmp(&(&b.reference, b.id())));
    sorted.dedup_by(|a, b| a.reference == b.reference && a.config == b.config);
    let references: BTreeSet<&str> = sorted.iter().map(|image| image.reference.as_str()).collect();
    ensure!(references.len() == sorted.len(), "two different images have one name: {}", doubled(&sorted));
    let mut list = Vec::new();
    for image in sorted {
        let origin = Origin { declaration: format!("image {}", image.reference), artifact: image.artifact.clone() };
        tree.insert(&format!("{SEED}/config/{}", image.id()), Node::file(image.config.clone(), 0o644, origin.clone()))?;
        let mut layers: Vec<SeedLayer> = Vec::new();
        for layer in &image.layers {
            let parent = layers.last().map(|parent| parent.chain_id.clone());
            let chain_id = chain_id(parent.as_deref(), &layer.diff_id);
            let cache_id = Digest::of(format!("overlay2 cache id of {chain_id}").as_bytes()).to_string();
            let folder = format!("{SEED}/layers/{cache_id}");
            if !tree.nodes.contains_key(&folder) {
                put(&mut tree, &folder, layer, &origin)?;
            }
            layers.push(SeedLayer {
                link: link(&chain_id),
                diff_id: layer.diff_id.to_string(),
                size: layer.size(),
                chain_id,
                cache_id,
                parent,
            });
        }
        list.push(SeedImage { reference: image.reference.clone(), id: image.id().to_string(), layers });
    }
    let origin = Origin { declaration: "list of the images".into(), artifact: "kscratch-image".into() };
    let text = serde_json::to_vec_pretty(&Seed { images: list }).context("writing seed.json")?;
    tree.insert(&format!("{SEED}/seed.json"), Node::file(text, 0o644, origin))?;
    Ok(tree)
}

fn put(tree: &mut Tree, folder: &str, layer: &Layer, origin: &Origin) -> Result<()> {
    let root = layer.nodes.get("/").map_or(0o755, |node| node.mode);
    tree.insert(folder, Node::directory(root, origin.clone()))?;
    for (path, node) in layer.nodes.iter().filter(|(path, _)| *path != "/") {
        tree.insert(&format!("{folder}{path}"), Node { origin: origin.clone(), ..node.clone() })?;
    }
    Ok(())
}

fn doubled(sorted: &[&Image]) -> String {
    sorted
        .windows(2)
        .find(|pair| pair[0].reference == pair[1].reference)
        .map(|pair| pair[0].reference.clone())
        .unwrap_or_default()
}

/// OCI image-spec, config.md, "Layer ChainID"; hex without `sha256:`.
fn chain_id(parent: Option<&str>, diff_id: &Digest) -> String {
    match parent {
        None => diff_id.to_string(),
        Some(parent) => Digest::of(format!("sha256:{parent} sha256:{diff_id}").as_bytes()).to_string(),
    }
}

/// The short name that overlay2 gives a layer so that many fit in one mount: 26 letters of base32 (moby
/// `daemon/graphdriver/overlay2`, `idLength`). Docker draws them; here they follow from the layer.
fn link(chain_id: &str) -> String {
    let digest = Digest::of(format!("overlay2 link of {chain_id}").as_bytes());
    digest
        .0
        .iter()
        .take(26)
        .map(|byte| char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[usize::from(byte % 32)]))
        .collect()
}

/// The references of the images in a tree's seed, as they are written there.
///
/// # Errors
/// A `seed.json` that is no such list.
pub fn references(tree: &Tree) -> Result<BTreeSet<String>> {
    let Some(Node { kind: Kind::File(crate::tree::Content::Literal(bytes)), .. }) =
        tree.nodes.get(&format!("{SEED}/seed.json"))
    else {
        return Ok(BTreeSet::new());
    };
    listed(bytes)
}

/// The references of the images that a `seed.json` lists.
///
/// # Errors
/// It is no such list.
pub fn listed(seed: &[u8]) -> Result<BTreeSet<String>> {
    let seed: Seed = serde_json::from_slice(seed).context("reading seed.json")?;
    Ok(seed.images.into_iter().map(|image| image.reference).collect())
}

#[cfg(test)]
mod tests;
