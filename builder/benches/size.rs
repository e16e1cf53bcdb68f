//! Prints how large the images of a node and of a master are, whole and by component: bytes, files and programs; and a node's in every form and for every
//! kind of machine.
//!
//! Some twenty builds, of which the first ones may fetch and compile: a few minutes where the cache has everything.
#![allow(clippy::print_stdout)]
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use kscratch_image::inspect;
use serde_json::Value;

use crate::measure::is_library;
use crate::measure::node::{Node, kscratch_image};
use crate::measure::program::{self, BOUND};

mod measure;

/// The partition with the root that is booted.
const FIRST_SLOT: &str = "root-a";

/// Files of one component.
#[derive(Debug, Default, Clone, Copy)]
struct Share {
    bytes: u64,
    files: u64,
    programs: u64,
}

impl Share {
    fn add(&mut self, other: Share) {
        self.bytes += other.bytes;
        self.files += other.files;
        self.programs += other.programs;
    }
}

fn main() -> Result<()> {
    measure::title("size: the images of the defaults, a node's and a master's");
    let node = Node::built()?;
    let master = node.master()?;
    sizes(&node, "node", &node.image)?;
    sizes(&node, "master", &master)?;
    forms(&node)?;
    forms(&Node::metal()?)
}

/// What is passed on, and what the machine gets from it.
const FORMS: [&str; 6] = ["raw.zst", "qcow2", "vmdk", "vhd", "tar", "iso"];

/// Tells the sizes of a node in every form.
fn forms(node: &Node) -> Result<()> {
    println!("{:<36} {:>9} {:>9}", format!("--- node, {}", node.flavour), "MB", "allocated");
    let told = |what: &str, len: u64, allocated: u64| {
        println!("{what:<36} {:>9.1} {:>9.1}", len as f64 / 1e6, allocated as f64 / 1e6);
    };
    let report = inspect::report(&node.image, false)?;
    let boot = report.boot.context("the image has no boot file")?;
    told("boot file (UKI)", boot.len, boot.len);
    told("  its kernel", boot.linux_bytes, boot.linux_bytes);
    told("  its initramfs", boot.initrd_bytes, boot.initrd_bytes);
    told("    of that, microcode", boot.microcode_bytes, boot.microcode_bytes);
    let raw = fs::metadata(&node.image).context("looking at the image")?;
    told("raw", raw.len(), raw.blocks() * 512);
    for form in FORMS {
        let file = node.folder.join(format!("kscratch-size.{form}"));
        node.build_role("node", &file, &["--locked", "--offline", "--format", form])?;
        let metadata = fs::metadata(&file).with_context(|| format!("looking at {}", file.display()))?;
        told(form, metadata.len(), metadata.blocks() * 512);
        fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))?;
    }
    let folder = node.folder.join("kscratch-size-pxe");
    let options = ["--locked", "--offline", "--format", "pxe", "--root-url", "http://192.168.7.1/"];
    node.build_role("node", &folder, &options)?;
    for name in ["kscratch.efi", "vmlinuz", "initramfs", "root.ext4.zst"] {
        let len = fs::metadata(folder.join(name)).with_context(|| format!("looking at {name}"))?.len();
        told(&format!("pxe: {name}"), len, len);
    }
    fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))
}

/// Tells the sizes of an image, which is built once more to be passed on.
fn sizes(node: &Node, role: &str, image: &Path) -> Result<()> {
    let compressed = node.folder.join("kscratch-size.img.zst");
    let mut build = Command::new(kscratch_image());
    build.args(node.role(role, &node.cache, &compressed, &["--locked", "--offline", "--format", "raw.zst"]));
    program::run(build, BOUND)?;
    let raw = fs::metadata(image).context("looking at the image")?;
    println!("{:<36} {:>9}", format!("--- {role}"), "MB");
    row("as raw.zst, to be passed on", fs::metadata(&compressed)?.len());
    row("raw, allocated on the disk", raw.blocks() * 512);
    row("raw, as the machine sees it", raw.len());
    let report = inspect::report(image, false)?;
    for partition in &report.partitions {
        if let Some(filesystem) = &partition.filesystem {
            row(&format!("{} ({}), in use", partition.name, filesystem.kind), filesystem.used);
        }
        if partition.name == FIRST_SLOT {
            let used = partition.filesystem.as_ref().context("the root's slot has no filesystem")?.used;
            row("  of a slot, which has", partition.len);
            println!(
                "{:<36} {:>9.1}",
                "  so that of a slot is in use, in %",
                used as f64 * 100.0 / partition.len as f64
            );
        }
    }
    if let Some(boot) = &report.boot {
        row("  of the boot file: kernel", boot.linux_bytes);
        row("  of the boot file: initramfs", boot.initrd_bytes);
    }
    components(&image.with_extension("manifest.json"))?;
    Ok(fs::remove_file(compressed)?)
}

fn row(what: &str, bytes: u64) {
    println!("{what:<36} {:>9.1}", bytes as f64 / 1e6);
}

/// The root's files, as the manifest lists them.
fn components(manifest: &Path) -> Result<()> {
    let text = fs::read(manifest).with_context(|| format!("reading {}", manifest.display()))?;
    let manifest: Value = serde_json::from_slice(&text).context("reading the manifest")?;
    let (mut shares, mut whole) = (BTreeMap::<&str, Share>::new(), Share::default());
    for file in manifest["files"].as_array().context("the manifest lists no files")? {
        if file["kind"] != "file" {
            continue;
        }
        let path = file["path"].as_str().unwrap_or_default();
        let mode = u32::from_str_radix(file["mode"].as_str().unwrap_or_default(), 8).unwrap_or_default();
        let executable = mode & 0o111 != 0 && !is_library(path);
        let share = Share { bytes: file["size"].as_u64().unwrap_or_default(), files: 1, programs: executable.into() };
        shares.entry(component(path, file["artifact"].as_str().unwrap_or_default())).or_default().add(share);
        whole.add(share);
    }
    let mut shares: Vec<(&str, Share)> = shares.into_iter().collect();
    shares.sort_by_key(|(_, share)| std::cmp::Reverse(share.bytes));
    println!("{:<36} {:>9} {:>7} {:>9}", "the root by component", "MB", "files", "programs");
    for (name, share) in shares.into_iter().chain([("together", whole)]) {
        println!("{name:<36} {:>9.1} {:>7} {:>9}", share.bytes as f64 / 1e6, share.files, share.programs);
    }
    Ok(())
}

/// Which part of a machine a file belongs to.
fn component(path: &str, artifact: &str) -> &'static str {
    // An artifact is told as `name version (whence)`.
    let package = artifact.split(' ').next().unwrap_or_default();
    match package {
        _ if path.starts_with("/usr/lib/modules/") => "kernel modules",
        _ if path.starts_with("/usr/share/kscratch/images/") => "container images",
        _ if path == "/usr/lib/kscratch/init" => "init",
        "docker.io" | "tini" => "docker",
        "containerd" => "containerd",
        "runc" => "runc",
        "kubernetes" => "kubernetes",
        "cri-dockerd" => "cri-dockerd",
        "containernetworking-plugins" => "CNI plugins",
        _ if is_library(path) => "libraries",
        _ => "other",
    }
}
