//! A static program becomes an [`Image`] of nothing but that program, and perhaps the certificates of the public authorities.
use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Image, Layer};
use crate::store::Store;
use crate::tree::Content;

/// The user that our own images run as: nobody's, and no user of the host.
const USER: &str = "65535:65535";

/// Nothing comes from the clock.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// Where Go looks for the certificates of the public authorities (`crypto/x509`, root_linux.go).
const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A program of the store that becomes an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component<'a> {
    /// The image's name and tag, as upstream names it.
    pub reference: String,
    /// Absolute path of the program in the image; what the container starts.
    pub path: &'a str,
    /// The program.
    pub program: Content,
    /// User and group that it runs as, where its pod says nothing else.
    pub user: u32,
    /// Certificates of the public authorities, for the TLS servers that it is a client of.
    pub bundle: Option<Content>,
    /// The artifact that the program came from, as origins name it.
    pub artifact: String,
}

/// The image of a component. Those with the same certificates share that layer.
///
/// # Errors
/// What reading the store says.
pub fn component(component: &Component<'_>, store: &Store) -> Result<Image> {
    let mut layers = Vec::new();
    if let Some(bundle) = &component.bundle {
        layers.push(Layer::of_file(BUNDLE, 0o644, bundle, store).context("making the layer of certificates")?);
    }
    let program = Layer::of_file(component.path, 0o755, &component.program, store);
    layers.push(program.with_context(|| format!("composing the image {}", component.reference))?);
    let user = format!("{0}:{0}", component.user);
    let config = json!({
        "Entrypoint": [component.path],
        "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"],
        "User": user,
        "WorkingDir": "/",
    });
    Ok(image(&component.reference, config, layers, &component.artifact))
}

/// An image of nothing but one static program `/NAME` of our own, run as a user without rights.
///
/// # Errors
/// A name that no tar header can hold.
pub fn compose(reference: &str, name: &str, program: &'static [u8], port: Option<u16>) -> Result<Image> {
    let layer = Layer::of_bytes(name, program).with_context(|| format!("composing the image {reference}"))?;
    let mut config = json!({ "Entrypoint": [format!("/{name}")], "Env": ["PATH=/"], "User": USER, "WorkingDir": "/" });
    if let (Some(port), Some(table)) = (port, config.as_object_mut()) {
        table.insert("ExposedPorts".into(), json!({ format!("{port}/tcp"): {} }));
    }
    Ok(image(reference, config, vec![layer], "kscratch-image"))
}

fn image(reference: &str, config: Value, layers: Vec<Layer>, artifact: &str) -> Image {
    let diff_ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", layer.diff_id)).collect();
    let history = json!({ "created": CREATED, "created_by": "kscratch-image" });
    let config = json!({
        "architecture": "amd64",
        "config": config,
        "created": CREATED,
        "history": vec![history; layers.len()],
        "os": "linux",
        "rootfs": { "diff_ids": diff_ids, "type": "layers" },
    });
    Image {
        reference: reference.to_owned(),
        config: config.to_string().into_bytes(),
        layers,
        artifact: artifact.to_owned(),
    }
}
