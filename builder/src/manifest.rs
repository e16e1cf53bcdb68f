//! A finished build becomes its manifest: the JSON beside the image that says what it is made of, file by file.
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kscratch_formats::gpt::Partition;
use serde_json::{Value, json};

use crate::image::{NetbootFile, NetbootFiles, Request, Root};
use crate::installer::Installer;
use crate::plan::{DiskPlan, TYPE_VAR};
use crate::rootarchive::Archive;
use crate::spec::Role;
use crate::store::{Digest, sync_folder};
use crate::tree::{Kind, Node};
use crate::write::Written;

/// Version of the manifest's form.
const VERSION: u32 = 1;

/// What was written: a disk, or the root alone.
#[derive(Debug, Clone, Copy)]
pub enum Product<'a> {
    /// A disk by this plan.
    Disk(&'a DiskPlan, &'a Written),
    /// An installer of the disk by this plan.
    Installer(&'a DiskPlan, &'a Written, &'a Installer),
    /// An archive of the root.
    Archive(&'a Archive),
    /// A folder for machines that boot over the network.
    Folder(&'a NetbootFiles),
}

/// Writes the manifest beside the image and tells where.
///
/// # Errors
/// What writing says.
pub fn write(request: &Request<'_>, root: &Root, product: Product<'_>) -> Result<PathBuf> {
    let file = beside(&request.output, "manifest.json");
    let manifest = manifest(request, root, product)?;
    write_json(&file, &manifest)?;
    Ok(file)
}

/// The path of a file that goes with an image: `node.img.zst` has `node.manifest.json`.
pub(crate) fn beside(image: &Path, ending: &str) -> PathBuf {
    let name = image.file_name().and_then(|name| name.to_str()).unwrap_or("image");
    let stem = [".img.zst", ".raw.zst", ".img", ".raw", ".qcow2", ".vmdk", ".vhd", ".iso", ".tar", ".zst"]
        .iter()
        .find_map(|ending| name.strip_suffix(ending))
        .unwrap_or(name);
    image.with_file_name(format!("{stem}.{ending}"))
}

/// Writes JSON whole or not at all.
pub(crate) fn write_json(file: &Path, value: &Value) -> Result<()> {
    // In one piece: printed into a file, every word would be a system call.
    let mut text = serde_json::to_vec_pretty(value).with_context(|| format!("writing {}", file.display()))?;
    text.push(b'\n');
    write_text(file, &text)
}

/// Writes a text whole or not at all.
pub(crate) fn write_text(file: &Path, text: &[u8]) -> Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || -> Result<()> {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        let mut part = tempfile::Builder::new().permissions(permissions).tempfile_in(folder)?;
        std::io::Write::write_all(&mut part, text)?;
        part.as_file().sync_all()?;
        part.persist(file)?;
        sync_folder(file)
    };
    fs::create_dir_all(folder)
        .and_then(|()| write().map_err(std::io::Error::other))
        .with_context(|| format!("writing {}", file.display()))
}

/// The role's name in files.
pub(crate) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Node => "node",
        Role::Master => "master",
    }
}

fn manifest(request: &Request<'_>, root: &Root, product: Product<'_>) -> Result<Value> {
    let spec = serde_json::to_vec(request.spec).context("printing the spec")?;
    let mut manifest = json!({
        "version": VERSION,
        "kscratch": env!("CARGO_PKG_VERSION"),
        "role": role_name(request.role),
        "spec_sha256": Digest::of(&spec).to_string(),
        "lock_sha256": Digest::of(request.lock.print()?.as_bytes()).to_string(),
        "versions": {
            "kubernetes": root.versions.kubernetes,
            "cri_dockerd": root.versions.cri_dockerd,
            "docker": root.versions.docker,
            "kernel": root.versions.kernel,
        },
        "artifacts": serde_json::to_value(&request.lock.artifacts).context("printing the lock's artifacts")?,
        "files": root.tree.nodes.iter().map(|(path, node)| entry(path, node)).collect::<Vec<_>>(),
    });
    match product {
        Product::Disk(plan, written) => disk(&mut manifest, plan, written),
        Product::Installer(plan, written, installer) => {
            disk(&mut manifest, plan, written);
            manifest["installer"] = json!({ "guid": installer.guid.to_string(), "len": installer.len });
        }
        Product::Archive(archive) => {
            manifest["archive"] = json!({ "sha256": archive.sha256.to_string(), "len": archive.len });
        }
        Product::Folder(files) => {
            let file = |file: &NetbootFile| json!({ "sha256": file.sha256.to_string(), "len": file.len });
            manifest["folder"] = files.iter().map(|(name, written)| ((*name).to_owned(), file(written))).collect();
        }
    }
    Ok(manifest)
}

fn disk(manifest: &mut Value, plan: &DiskPlan, written: &Written) {
    let (digest, guid) = (written.digest.to_string(), plan.disk.to_string());
    let state = if plan.partitions.iter().any(|one| one.kind == TYPE_VAR) { "partition" } else { "elsewhere" };
    manifest["disk"] = json!({ "digest": digest, "len": written.disk, "guid": guid, "state": state });
    manifest["partitions"] = plan.partitions.iter().enumerate().map(partition).collect();
}

fn partition((at, partition): (usize, &Partition)) -> Value {
    json!({
        "number": at + 1,
        "name": partition.name,
        "type": partition.kind.to_string(),
        "guid": partition.guid.to_string(),
        "start": partition.start,
        "len": partition.len,
    })
}

fn entry(path: &str, node: &Node) -> Value {
    let (declaration, artifact) = (&node.origin.declaration, &node.origin.artifact);
    let mut entry = json!({
        "path": path,
        "mode": format!("{:04o}", node.mode),
        "uid": node.uid,
        "gid": node.gid,
        "declaration": declaration,
        "artifact": artifact,
    });
    let mut put = |name: &str, value: Value| entry[name] = value;
    match &node.kind {
        Kind::Directory => put("kind", "directory".into()),
        Kind::File(content) => {
            put("kind", "file".into());
            put("size", content.len().into());
            put("sha256", content.sha256().to_string().into());
        }
        Kind::Symlink(target) => {
            put("kind", "symlink".into());
            put("target", target.as_str().into());
        }
        Kind::CharDevice { major, minor } => {
            put("kind", "character device".into());
            put("device", json!([major, minor]));
        }
        Kind::BlockDevice { major, minor } => {
            put("kind", "block device".into());
            put("device", json!([major, minor]));
        }
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Origin;

    #[test]
    fn files_beside_an_image_share_its_name() {
        for (image, want) in [
            ("out/kscratch-node.img", "out/kscratch-node.manifest.json"),
            ("a.img.zst", "a.manifest.json"),
            ("a.b.qcow2", "a.b.manifest.json"),
            ("a.vmdk", "a.manifest.json"),
            ("a.iso", "a.manifest.json"),
            ("a.tar", "a.manifest.json"),
            ("disk", "disk.manifest.json"),
        ] {
            assert_eq!(beside(Path::new(image), "manifest.json"), Path::new(want));
        }
    }

    #[test]
    fn an_entry_says_what_a_file_is_and_where_it_came_from() {
        let origin = Origin { declaration: "program /x".into(), artifact: "x 1 (debian)".into() };
        let file = entry("/x", &Node::file(b"1".to_vec(), 0o755, origin.clone()));
        assert_eq!(
            (file["kind"].as_str(), file["size"].as_u64(), file["mode"].as_str()),
            (Some("file"), Some(1), Some("0755"))
        );
        assert_eq!(
            (file["sha256"].as_str().map(str::len), file["artifact"].as_str()),
            (Some(64), Some("x 1 (debian)"))
        );
        assert_eq!(entry("/y", &Node::symlink("x", origin))["target"], "x");
    }

    #[test]
    fn json_is_written_whole_with_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("new/m.json");
        write_json(&file, &json!({ "a": 1 })).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "{\n  \"a\": 1\n}\n");
        let error = write_json(&file.join("below"), &json!(1)).unwrap_err();
        assert!(error.to_string().starts_with("writing "), "{error}");
    }
}
