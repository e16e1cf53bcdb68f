//! Turns configs and layers into an archive as `docker save` writes it (moby image spec v1.2, "Combined Image JSON + Filesystem Changeset Format").
use anyhow::{Context, Result};
use kscratch_image::store::Digest;
use serde_json::{Value, json};

/// An archive that grows image by image.
pub struct Archive {
    tar: tar::Builder<Vec<u8>>,
    images: Vec<Value>,
}

impl Archive {
    /// One without images.
    pub fn empty() -> Archive {
        Archive { tar: tar::Builder::new(Vec::new()), images: Vec::new() }
    }

    /// Adds an image: its name, its config, of which the digests of the layers are put right, and the tars of its layers with a name each.
    ///
    /// # Errors
    /// A name that no tar header can hold.
    pub fn image(&mut self, reference: &str, mut config: Value, layers: &[(&str, Vec<u8>)]) -> Result<()> {
        let (mut names, mut diff_ids) = (Vec::new(), Vec::new());
        for (name, bytes) in layers {
            let name = format!("{name}/layer.tar");
            diff_ids.push(format!("sha256:{}", Digest::of(bytes)));
            append(&mut self.tar, &name, 0o644, bytes)?;
            names.push(name);
        }
        config["rootfs"] = json!({ "type": "layers", "diff_ids": diff_ids });
        let config = config.to_string();
        let name = format!("{}.json", Digest::of(config.as_bytes()));
        append(&mut self.tar, &name, 0o644, config.as_bytes())?;
        self.images.push(json!({ "Config": name, "RepoTags": [reference], "Layers": names }));
        Ok(())
    }

    /// Its bytes.
    ///
    /// # Errors
    /// As for [`Archive::image`].
    pub fn finished(mut self) -> Result<Vec<u8>> {
        append(&mut self.tar, "manifest.json", 0o644, Value::from(self.images).to_string().as_bytes())?;
        Ok(self.tar.into_inner()?)
    }
}

/// Adds a regular file of root's to a tar.
///
/// # Errors
/// A name that no tar header can hold.
pub fn append(tar: &mut tar::Builder<Vec<u8>>, name: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    // Empty fields are no numbers to every reader.
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    tar.append_data(&mut header, name, bytes).with_context(|| format!("packing {name}"))
}
