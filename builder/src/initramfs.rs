//! Turns a small tree (init, the modules that reach the root) into the compressed cpio archive that the kernel unpacks.
use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use kscratch_formats::cpio::{self, Member, MemberKind};

use crate::tree::{Content, Kind, Node, Origin, Tree};
use crate::write::Contents;

/// The level that `zstd` calls its default: the archive is small, and a warm build makes it anew.
const LEVEL: i32 = 3;

/// The archive, zstd-compressed (Debian's kernels have `CONFIG_RD_ZSTD`). `store` is the store's folder; `time` is in seconds since 1970.
pub fn archive(tree: &Tree, store: &Path, time: i64) -> Result<Vec<u8>> {
    let stored = tree.nodes.values().filter_map(|node| match &node.kind {
        Kind::File(content) => Some(content),
        _ => None,
    });
    let contents = Contents::open(stored, store)?;
    let mut files: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    for (path, node) in &tree.nodes {
        if let Kind::File(content) = &node.kind {
            files.insert(path, whole(&contents, content).with_context(|| format!("reading {path} for the initramfs"))?);
        }
    }
    let mut members = Vec::new();
    for (path, node) in tree.nodes.iter().filter(|(path, _)| *path != "/") {
        let kind = match &node.kind {
            Kind::Directory => MemberKind::Directory,
            Kind::File(_) => MemberKind::File(&files[path.as_str()]),
            Kind::Symlink(target) => MemberKind::Symlink(target),
            Kind::CharDevice { major, minor } => MemberKind::CharDevice { major: *major, minor: *minor },
            Kind::BlockDevice { .. } => bail!("putting {path} into the initramfs: block devices are found, not packed"),
        };
        members.push(Member { path: path.trim_start_matches('/'), kind, mode: node.mode });
    }
    let time = u32::try_from(time).context("stamping the initramfs with its time")?;
    let archive = cpio::archive(&members, time).context("packing the initramfs")?;
    zstd::bulk::compress(&archive, LEVEL).context("compressing the initramfs")
}

/// A content's bytes in memory.
fn whole(contents: &Contents, content: &Content) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(content.len())?];
    contents.read(content, 0, &mut bytes)?;
    Ok(bytes)
}

/// What is in the archive: init, the modules that reach the root, mount points, and the console that the kernel opens for init.
///
/// # Errors
/// Modules that want something at a path that is taken.
pub fn tree(modules: &Tree, init: &'static [u8]) -> Result<Tree> {
    let origin = || Origin { declaration: "initramfs".to_owned(), artifact: "kscratch-image".to_owned() };
    let mut tree = Tree::default();
    for folder in ["/dev", "/proc", "/run", "/sys", "/sysroot"] {
        tree.insert(folder, Node::directory(0o755, origin()))?;
    }
    let console = Kind::CharDevice { major: 5, minor: 1 };
    tree.insert("/dev/console", Node { kind: console, ..Node::file(Vec::new(), 0o600, origin()) })?;
    tree.insert("/init", Node::file(init.to_vec(), 0o755, origin()))?;
    tree.insert("/etc/initrd-release", Node::file(Vec::new(), 0o644, origin()))?;
    Ok(tree.merge(modules.clone())?.complete()?)
}
