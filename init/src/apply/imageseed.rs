//! Turns the images that the root brings into entries of docker's store that point at them, so that nothing is loaded at boot.
//!
//! The store's files are those of docker 26 with the overlay2 driver: moby `layer/filestore.go` (layerdb), `image/fs.go` (imagedb),
//! `reference/store.go` (repositories.json), `daemon/graphdriver/overlay2/overlay.go` (link, lower, work, committed, `l/`).
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::files;
use crate::log;

/// Where the root keeps the seed.
pub const SEED: &str = "/usr/share/kscratch/images";
/// Docker's data root.
pub const DOCKER: &str = "/var/lib/docker";

/// `seed.json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    /// The images.
    pub images: Vec<Image>,
}

/// An image of the seed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Full name, e.g. `registry.k8s.io/pause:3.10`.
    pub reference: String,
    /// SHA-256 of its config, hex, with or without `sha256:`.
    pub id: String,
    /// Its layers from the lowest up.
    pub layers: Vec<Layer>,
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// SHA-256 over the chain of diff ids up to this one (OCI image-spec, config.md, "Layer ChainID").
    pub chain_id: String,
    /// SHA-256 of the layer's uncompressed tar.
    pub diff_id: String,
    /// Name of its folder in the overlay2 store: 64 hex digits.
    pub cache_id: String,
    /// Short name of the layer below `overlay2/l`: 26 characters.
    pub link: String,
    /// Bytes of its files.
    pub size: u64,
    /// Chain id of the layer below.
    #[serde(default)]
    pub parent: Option<String>,
}

/// `repositories.json`: names to references to image ids.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Repositories {
    #[serde(rename = "Repositories", default)]
    repositories: BTreeMap<String, BTreeMap<String, String>>,
}

/// Makes docker's store below `root` know the images of the seed below `root`. Called before dockerd starts, at every boot; what is
/// right already is not written again. Gives the references.
///
/// # Errors
/// The seed is damaged, or the store cannot be written.
pub fn seed(root: &Path) -> Result<Vec<String>> {
    let list = files::below(root, SEED).join("seed.json");
    let text = match fs::read(&list) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.with_context(|| format!("reading {SEED}/seed.json"))?,
    };
    let seed: Seed = serde_json::from_slice(&text).with_context(|| format!("reading {SEED}/seed.json"))?;
    let store = Store { seed: files::below(root, SEED), docker: files::below(root, DOCKER) };
    store.folders().with_context(|| format!("making the folders of docker's store {DOCKER}"))?;
    for image in &seed.images {
        store.image(image).with_context(|| format!("giving docker the image {}", image.reference))?;
    }
    // Last, because a name must not be there before what it names.
    store.repositories(&seed)?;
    Ok(seed.images.into_iter().map(|image| image.reference).collect())
}

struct Store {
    seed: PathBuf,
    docker: PathBuf,
}

impl Store {
    /// With the permission bits that dockerd gives them.
    fn folders(&self) -> io::Result<()> {
        for (folder, mode) in [
            ("", 0o710),
            ("overlay2", 0o710),
            ("overlay2/l", 0o700),
            ("image", 0o700),
            ("image/overlay2", 0o700),
            ("image/overlay2/imagedb", 0o700),
            ("image/overlay2/imagedb/content", 0o700),
            ("image/overlay2/imagedb/content/sha256", 0o700),
            ("image/overlay2/layerdb", 0o700),
            ("image/overlay2/layerdb/sha256", 0o755),
        ] {
            make_folder(&self.docker.join(folder), mode)?;
        }
        Ok(())
    }

    fn image(&self, image: &Image) -> Result<()> {
        let mut below: Vec<&Layer> = Vec::new();
        for layer in &image.layers {
            let expected = below.last().map(|parent| hex(&parent.chain_id));
            if layer.parent.as_deref().map(hex) != expected {
                bail!("the seed's layer {} does not name the layer below it as its parent", layer.chain_id);
            }
            self.layer(layer, &below)?;
            below.push(layer);
        }
        let id = digest(&image.id)?;
        let config = self.seed.join("config").join(id);
        let config = fs::read(&config).with_context(|| format!("reading {}", config.display()))?;
        keep(&self.docker.join("image/overlay2/imagedb/content/sha256").join(id), &config, 0o600)?;
        Ok(())
    }

    fn layer(&self, layer: &Layer, below: &[&Layer]) -> Result<()> {
        let (chain, diff_id, cache) = (digest(&layer.chain_id)?, digest(&layer.diff_id)?, digest(&layer.cache_id)?);
        if layer.link.is_empty() || !layer.link.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            bail!("the seed's layer {chain} has the link name {:?}", layer.link);
        }
        let folder = self.docker.join("overlay2").join(cache);
        make_folder(&folder, 0o710)?;
        // Absolute, as the machine sees it: the root's own files, read-only, are the layer.
        link(&Path::new(SEED).join("layers").join(cache), &folder.join("diff"))?;
        link(&Path::new("..").join(cache).join("diff"), &self.docker.join("overlay2/l").join(&layer.link))?;
        keep(&folder.join("link"), layer.link.as_bytes(), 0o644)?;
        keep(&folder.join("committed"), b"", 0o600)?;
        if !below.is_empty() {
            let lower: Vec<String> = below.iter().rev().map(|layer| format!("l/{}", layer.link)).collect();
            make_folder(&folder.join("work"), 0o700)?;
            keep(&folder.join("lower"), lower.join(":").as_bytes(), 0o644)?;
        }
        let entry = self.docker.join("image/overlay2/layerdb/sha256").join(chain);
        make_folder(&entry, 0o755)?;
        keep(&entry.join("diff"), format!("sha256:{diff_id}").as_bytes(), 0o644)?;
        keep(&entry.join("size"), layer.size.to_string().as_bytes(), 0o644)?;
        keep(&entry.join("cache-id"), self.cache_id(&entry, cache).as_bytes(), 0o644)?;
        if let Some(parent) = below.last() {
            keep(&entry.join("parent"), format!("sha256:{}", digest(&parent.chain_id)?).as_bytes(), 0o644)?;
        }
        Ok(())
    }

    /// A layer that docker pulled by itself before (the chain id names contents) stays in the folder it has: containers use it.
    fn cache_id(&self, entry: &Path, ours: &str) -> String {
        let present = fs::read_to_string(entry.join("cache-id")).unwrap_or_default();
        let folder = self.docker.join("overlay2").join(present.trim());
        let usable = !present.trim().is_empty() && folder.join("link").exists() && folder.join("diff").is_dir();
        if usable { present.trim().to_owned() } else { ours.to_owned() }
    }

    fn repositories(&self, seed: &Seed) -> Result<()> {
        let path = self.docker.join("image/overlay2/repositories.json");
        let mut all = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Repositories::default(),
            text => {
                let text = text.with_context(|| format!("reading {}", path.display()))?;
                // dockerd refuses to start with a damaged one; the images themselves are still there and can be named again.
                serde_json::from_slice(&text).unwrap_or_else(|error| {
                    log::line(format_args!("docker's {} is damaged ({error}) and is made anew", path.display()));
                    Repositories::default()
                })
            }
        };
        for image in &seed.images {
            let (name, reference) = familiar(&image.reference);
            all.repositories.entry(name).or_default().insert(reference, format!("sha256:{}", digest(&image.id)?));
        }
        let text = serde_json::to_vec(&all).context("writing docker's repositories.json")?;
        keep(&path, &text, 0o600).context("writing docker's repositories.json")
    }
}

/// Docker's short form of a reference (`FamiliarName`, `FamiliarString`): without `docker.io/` and `library/`, with a tag.
fn familiar(reference: &str) -> (String, String) {
    let short = reference.strip_prefix("docker.io/").unwrap_or(reference);
    let short = short.strip_prefix("library/").unwrap_or(short);
    let name_end = short.rfind('/').map_or(0, |slash| slash + 1);
    match short[name_end..].find(':') {
        Some(colon) => (short[..name_end + colon].to_owned(), short.to_owned()),
        None => (short.to_owned(), format!("{short}:latest")),
    }
}

fn hex(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}

/// The 64 hex digits of a digest: it becomes part of a path.
fn digest(text: &str) -> Result<&str> {
    let digits = hex(text);
    if digits.len() != 64 || !digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        bail!("the seed's digest {text:?} is not one of 64 hex digits");
    }
    Ok(digits)
}

fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Writes a file where it does not hold this already: on the second boot nothing is written.
fn keep(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    match fs::read(path) {
        Ok(present) if present == contents => Ok(()),
        _ => files::put(path, contents, mode, files::Sync::Later),
    }
}

fn link(target: &Path, path: &Path) -> Result<()> {
    if fs::read_link(path).is_ok_and(|present| present == target) {
        return Ok(());
    }
    match fs::symlink_metadata(path) {
        Ok(present) if present.is_dir() => bail!("{} is a folder of docker's own", path.display()),
        Ok(_) => fs::remove_file(path).with_context(|| format!("replacing {}", path.display()))?,
        Err(_) => {}
    }
    symlink(target, path).with_context(|| format!("linking {}", path.display()))
}

#[cfg(test)]
mod tests;
