//! An archive of `docker save` (or an OCI layout in a tar) becomes [`Image`]s, every digest in it checked.
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Image, Layer};
use crate::store::{Digest, Store};
use crate::tree::link_target;

/// One image of `manifest.json` (moby image spec v1.2, "Combined Image JSON + Filesystem Changeset Format").
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// `index.json` and image indices (OCI image-spec, image-index.md).
#[derive(Debug, Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

/// OCI image-spec, descriptor.md.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    digest: String,
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Debug, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

/// OCI image-spec, manifest.md.
#[derive(Debug, Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// The part of an image's config that is checked.
#[derive(Debug, Deserialize)]
struct Config {
    architecture: String,
    os: String,
    rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// Reads the images of an archive, compressed or not. `artifact` is what origins name it.
///
/// # Errors
/// An archive of another form, an image without a name or for another machine, a layer whose digest is not the config's.
pub fn load(path: &Path, artifact: &str, store: &Store) -> Result<Vec<Image>> {
    let read = || -> Result<Vec<Image>> { Archive::open(path, store)?.images(artifact) };
    read().with_context(|| format!("reading the image archive {}", path.display()))
}

struct Archive<'a> {
    file: File,
    store: &'a Store,
    /// Offset and length of files, by path.
    files: BTreeMap<String, (u64, u64)>,
}

impl<'a> Archive<'a> {
    fn open(path: &Path, store: &'a Store) -> Result<Archive<'a>> {
        let mut file = File::open(path)?;
        let mut start = [0; 6];
        let got = file.read(&mut start)?;
        file.rewind()?;
        if compressed(&start[..got]) {
            let (digest, _) = store.add(&mut *decoder(&start[..got], file)?)?;
            file = store.get(&digest)?;
        }
        let mut files = BTreeMap::new();
        let mut links = Vec::new();
        for entry in tar::Archive::new(&file).entries_with_seek()? {
            let entry = entry.context("it is no tar, or cut off")?;
            let name = link_target("/", &String::from_utf8_lossy(&entry.path_bytes()));
            match entry.header().entry_type() {
                tar::EntryType::Regular => {
                    files.insert(name, (entry.raw_file_position(), entry.size()));
                }
                kind @ (tar::EntryType::Symlink | tar::EntryType::Link) => {
                    let to =
                        entry.link_name_bytes().map(|to| String::from_utf8_lossy(&to).into_owned()).unwrap_or_default();
                    let from = if kind == tar::EntryType::Link { "/" } else { name.as_str() };
                    links.push((name.clone(), link_target(from, &to)));
                }
                _ => {}
            }
        }
        for (name, to) in links {
            if let Some(place) = files.get(&to) {
                files.insert(name, *place);
            }
        }
        Ok(Archive { file, store, files })
    }

    fn images(&self, artifact: &str) -> Result<Vec<Image>> {
        let mut images = Vec::new();
        if self.files.contains_key("/manifest.json") {
            for saved in self.json::<Vec<Saved>>("manifest.json")? {
                let tags = saved.repo_tags.unwrap_or_default();
                images.extend(self.image(&tags, &saved.config, &saved.layers, artifact)?);
            }
        } else if self.files.contains_key("/index.json") {
            for descriptor in self.json::<Index>("index.json")?.manifests {
                let manifest = self.manifest(&descriptor)?;
                let layers: Vec<String> =
                    manifest.layers.iter().map(|layer| blob(&layer.digest)).collect::<Result<_>>()?;
                let tags: Vec<String> = name(&descriptor.annotations).into_iter().collect();
                images.extend(self.image(&tags, &blob(&manifest.config.digest)?, &layers, artifact)?);
            }
        } else {
            bail!("it holds neither manifest.json (docker save) nor index.json (OCI layout)");
        }
        ensure!(!images.is_empty(), "it holds no image");
        Ok(images)
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Manifest> {
        if !(descriptor.media_type.ends_with("image.index.v1+json")
            || descriptor.media_type.ends_with("manifest.list.v2+json"))
        {
            return self.json(&blob(&descriptor.digest)?);
        }
        let index: Index = self.json(&blob(&descriptor.digest)?)?;
        let ours = |platform: &Platform| platform.os == "linux" && platform.architecture == "amd64";
        let found = index.manifests.iter().find(|manifest| manifest.platform.as_ref().is_some_and(ours));
        self.json(&blob(&found.context("its image index has no linux/amd64 image")?.digest)?)
    }

    /// The image once for every name it has.
    fn image(&self, tags: &[String], config: &str, layers: &[String], artifact: &str) -> Result<Vec<Image>> {
        ensure!(!tags.is_empty(), "an image in it has no name; save it by its name: docker save NAME:TAG");
        let named = || tags.join(", ");
        let bytes = self.bytes(config)?;
        let parsed: Config =
            serde_json::from_slice(&bytes).with_context(|| format!("reading the config of {}", named()))?;
        ensure!(
            parsed.os == "linux" && parsed.architecture == "amd64",
            "the image {} is for {}/{}, and the machine is linux/amd64",
            named(),
            parsed.os,
            parsed.architecture
        );
        ensure!(
            parsed.rootfs.diff_ids.len() == layers.len(),
            "the image {} has {} layers, and its config names {}",
            named(),
            layers.len(),
            parsed.rootfs.diff_ids.len()
        );
        let mut read = Vec::new();
        for (layer, diff_id) in layers.iter().zip(&parsed.rootfs.diff_ids) {
            let expected = digest(diff_id)?;
            let unpacked =
                self.layer(layer, &expected).with_context(|| format!("reading layer {layer} of {}", named()))?;
            read.push(unpacked);
        }
        let image = |reference: &String| Image {
            reference: reference.clone(),
            config: bytes.clone(),
            layers: read.clone(),
            artifact: artifact.to_owned(),
        };
        Ok(tags.iter().map(image).collect())
    }

    fn layer(&self, path: &str, expected: &Digest) -> Result<Layer> {
        if !self.store.has(expected) {
            let (at, len) = self.place(path)?;
            let mut file = self.file.try_clone()?;
            file.seek(SeekFrom::Start(at))?;
            let mut start = [0; 6];
            let got = (&mut file).take(6.min(len)).read(&mut start)?;
            file.seek(SeekFrom::Start(at))?;
            let (digest, _) = self.store.add(&mut *decoder(&start[..got], file.take(len))?)?;
            ensure!(digest == *expected, "its digest is {digest}, the image's config says {expected}");
        }
        Layer::read(*expected, self.store)
    }

    fn place(&self, path: &str) -> Result<(u64, u64)> {
        self.files.get(&link_target("/", path)).copied().with_context(|| format!("it holds no {path}"))
    }

    fn bytes(&self, path: &str) -> Result<Vec<u8>> {
        let (at, len) = self.place(path)?;
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(at))?;
        let mut bytes = Vec::new();
        file.take(len).read_to_end(&mut bytes)?;
        if let Some(hex) = path.strip_prefix("blobs/sha256/") {
            ensure!(Digest::of(&bytes).to_string() == hex, "the digest of {path} is {}", Digest::of(&bytes));
        }
        Ok(bytes)
    }

    fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        serde_json::from_slice(&self.bytes(path)?).with_context(|| format!("reading {path}"))
    }
}

/// The image's name as its makers wrote it.
fn name(annotations: &BTreeMap<String, String>) -> Option<String> {
    ["io.containerd.image.name", "org.opencontainers.image.ref.name"]
        .iter()
        .find_map(|key| annotations.get(*key))
        .filter(|name| name.contains(':'))
        .cloned()
}

fn digest(text: &str) -> Result<Digest> {
    let hex = text.strip_prefix("sha256:").with_context(|| format!("the digest {text} is not SHA-256"))?;
    hex.parse().map_err(|error| anyhow!("the digest {text} is malformed: {error}"))
}

fn blob(text: &str) -> Result<String> {
    Ok(format!("blobs/sha256/{}", digest(text)?))
}

/// A reader of what stands behind a compression's magic number; the bytes themselves where there is none.
fn decoder<'r>(start: &[u8], reader: impl Read + 'r) -> Result<Box<dyn Read + 'r>> {
    Ok(match start {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(reader)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::new(reader)?),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Box::new(liblzma::read::XzDecoder::new(reader)),
        _ => Box::new(reader),
    })
}

fn compressed(start: &[u8]) -> bool {
    [[0x1f, 0x8b].as_slice(), &[0x28, 0xb5, 0x2f, 0xfd], &[0xfd, b'7', b'z', b'X', b'Z', 0]]
        .iter()
        .any(|magic| start.starts_with(magic))
}
