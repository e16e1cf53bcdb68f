//! A tree like a node's made the usual way, by mmdebstrap and `mke2fs -d`, from packages that were fetched before.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use kscratch_image::lock::Lock;
use kscratch_image::spec::Role;
use kscratch_image::store::Store;

use crate::measure::debian::{Repository, Tools};
use crate::measure::node::Node;
use crate::measure::program::{self, BOUND};
use crate::measure::{settle, timed};
use crate::packages::{cold_cache, give};

/// What an image's programs come from, and a kernel: its package has a boot with an initramfs made, as ours has one.
const PACKAGES: [&str; 15] = [
    "linux-image-cloud-amd64",
    "docker.io",
    "containerd",
    "runc",
    "tini",
    "containernetworking-plugins",
    "iptables",
    "nftables",
    "conntrack",
    "ethtool",
    "iproute2",
    "mount",
    "util-linux",
    "e2fsprogs",
    "ca-certificates",
];

/// Fetches the packages, and then makes the tree and its filesystem, which alone is timed. Also tells what was made.
///
/// # Errors
/// No network where packages are missing; what the tools say.
pub fn build(node: &Node, tools: &Tools) -> Result<(Duration, String)> {
    let packages = PACKAGES.map(str::to_owned);
    let repository = Repository::of(&packages, "mmdebstrap-packages", node, tools)
        .context("fetching the packages for mmdebstrap")?;
    let folder = tools.folder(&node.folder)?;
    let programs = programs(node, folder.path())?;
    let (root, image) = (folder.path().join("root"), folder.path().join("root.ext4"));
    let make = commands(tools, &repository, &programs, &root, &image);
    settle();
    let took = timed(|| make.into_iter().try_for_each(|command| program::run(command, BOUND)))?;
    let bytes = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&image)?) * 512;
    tools.remove(&root)?;
    let what = format!(
        "for comparison: {} packages of {} installed by mmdebstrap (variant essential, none recommended, the kernel's initramfs made), \
         the same Kubernetes programs copied in, all as ext4 of {} MB",
        repository.packages,
        repository.suite,
        bytes / 1_000_000
    );
    Ok((took, what))
}

fn commands(tools: &Tools, from: &Repository, programs: &[PathBuf], root: &Path, image: &Path) -> Vec<Command> {
    let mut tree = tools.tree("essential", &PACKAGES.join(","), root);
    let names: Vec<String> = programs.iter().map(|program| format!("'{}'", program.display())).collect();
    tree.arg(format!("--customize-hook=copy-in {} /usr/bin", names.join(" ")));
    tree.arg(&from.suite).arg(root).arg(from.source());
    vec![tree, tools.filesystem(root, image, "2G")]
}

/// Kubernetes' programs under their own names, as the image has them.
fn programs(node: &Node, folder: &Path) -> Result<Vec<PathBuf>> {
    let cache = cold_cache(node)?;
    let lock = Lock::read(&node.lock)?;
    let silent = kscratch_image::console::Console::silent();
    let store = Store::open(cache.path())?;
    let release = kscratch_image::kubernetes::obtain(&lock, Role::Node, Path::new(""), &store, true, &silent)?;
    let named = |(name, program): (&String, &kscratch_image::kubernetes::Program)| {
        let place = folder.join(name);
        give(&store.root().join(&program.file.file), &place)?;
        Ok(place)
    };
    release.programs.iter().map(named).collect()
}
