//! The container images of a node's root become an archive that `docker load` reads: the same programs, packed once more.
use anyhow::{Context, Result};
use kscratch_formats::bytes::ReadAt;
use kscratch_formats::ext4::{FoundKind, Reader};
use kscratch_image::dockerstore::SEED;
use kscratch_image::store::Digest;
use serde_json::{Value, json};

use crate::contents::read;

/// The archive of all images of the seed (moby image spec v1.2, "Combined Image JSON + Filesystem Changeset Format").
///
/// # Errors
/// The root has no seed, or what reading says.
pub fn archive<R: ReadAt>(root: &Reader<R>) -> Result<Vec<u8>> {
    let seed: Value = serde_json::from_slice(&read(root, &format!("{SEED}/seed.json"))?)?;
    let (mut archive, mut list) = (tar::Builder::new(Vec::new()), Vec::new());
    for image in seed["images"].as_array().context("the seed lists no images")? {
        let mut config: Value = serde_json::from_slice(&read(root, &format!("{SEED}/config/{}", text(image, "id")?))?)?;
        let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
        for layer in image["layers"].as_array().into_iter().flatten() {
            let cache_id = text(layer, "cache_id")?;
            let bytes = pack(root, &format!("{SEED}/layers/{cache_id}"))?;
            let name = format!("{cache_id}/layer.tar");
            diff_ids.push(format!("sha256:{}", Digest::of(&bytes)));
            append(&mut archive, &name, 0o644, &bytes)?;
            layers.push(name);
        }
        // Packed by another hand, the layers have other digests; docker looks.
        config["rootfs"]["diff_ids"] = diff_ids.into();
        let config = config.to_string();
        let name = format!("{}.json", Digest::of(config.as_bytes()));
        append(&mut archive, &name, 0o644, config.as_bytes())?;
        list.push(json!({ "Config": name, "RepoTags": [text(image, "reference")?], "Layers": layers }));
    }
    append(&mut archive, "manifest.json", 0o644, Value::from(list).to_string().as_bytes())?;
    Ok(archive.into_inner()?)
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

fn append(archive: &mut tar::Builder<Vec<u8>>, name: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    archive.append_data(&mut header, name, bytes).with_context(|| format!("packing {name}"))
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key].as_str().with_context(|| format!("the seed lacks {key}"))
}
