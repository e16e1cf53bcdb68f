//! The container images of a node's root become an archive that `docker load` reads: the same programs, packed once more.
use anyhow::{Context, Result};
use kscratch_formats::bytes::ReadAt;
use kscratch_formats::ext4::{FoundKind, Reader};
use kscratch_image::dockerstore::SEED;
use serde_json::Value;

use crate::contents::read;
use crate::measure::archive::{Archive, append};

/// The archive of all images of the seed.
///
/// # Errors
/// The root has no seed, or what reading says.
pub fn archive<R: ReadAt>(root: &Reader<R>) -> Result<Vec<u8>> {
    let seed: Value = serde_json::from_slice(&read(root, &format!("{SEED}/seed.json"))?)?;
    let mut archive = Archive::empty();
    for image in seed["images"].as_array().context("the seed lists no images")? {
        let config = serde_json::from_slice(&read(root, &format!("{SEED}/config/{}", text(image, "id")?))?)?;
        let mut layers = Vec::new();
        for layer in image["layers"].as_array().into_iter().flatten() {
            let cache_id = text(layer, "cache_id")?;
            layers.push((cache_id, pack(root, &format!("{SEED}/layers/{cache_id}"))?));
        }
        archive.image(text(image, "reference")?, config, &layers)?;
    }
    archive.finished()
}

/// A layer's tar: its regular files, which is all that our own images have.
fn pack<R: ReadAt>(root: &Reader<R>, folder: &str) -> Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    for (path, found) in root.walk()? {
        let Some(name) = path.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/')) else { continue };
        if found.kind == FoundKind::File {
            append(&mut layer, name, u32::from(found.mode), &root.read(&found, found.len)?)?;
        }
    }
    Ok(layer.into_inner()?)
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key].as_str().with_context(|| format!("the seed lacks {key}"))
}
