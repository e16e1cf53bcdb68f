//! Turns the user's cache into what cold builds are measured with: a cache that has only what was fetched, and packages taken apart.
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use kscratch_image::lock::{Artifact, Lock, Origin};
use kscratch_image::store::{Digest, Store};
use tempfile::TempDir;

use crate::measure::node::Node;

/// The packages' archives of files, packed as they are, shared out to two processes.
#[derive(Debug)]
pub struct Members {
    /// How many packages there are.
    pub count: usize,
    /// Bytes of all of them, packed.
    pub bytes: u64,
    halves: [Vec<PathBuf>; 2],
    _folder: TempDir,
}

impl Members {
    /// The commands that unpack them to nowhere, one for each half.
    pub fn commands(&self, xz: &Path) -> Vec<Command> {
        let unpack = |files: &Vec<PathBuf>| {
            let mut command = Command::new(xz);
            command.arg("-dc").args(files);
            command
        };
        self.halves.iter().map(unpack).collect()
    }
}

/// The Debian packages of the image's lock with their digests.
///
/// # Errors
/// The lock cannot be read.
fn debian(node: &Node) -> Result<Vec<(Artifact, Digest)>> {
    let of_debian = |artifact: &Artifact| matches!(artifact.origin, Origin::DebianPackage { .. });
    let artifacts = Lock::read(&node.lock)?.artifacts.into_iter().filter(of_debian);
    Ok(artifacts.filter_map(|artifact| Some((artifact.clone(), artifact.sha256?))).collect())
}

/// Takes the packages apart.
///
/// # Errors
/// A package has no `data.tar.xz`, or what reading and writing says.
pub fn data_members(node: &Node) -> Result<Members> {
    let folder = tempfile::tempdir_in(&node.folder).context("making a folder for the packages' members")?;
    let store = Store::open(&node.cache)?;
    let mut files = Vec::new();
    for (artifact, digest) in debian(node)? {
        let file = folder.path().join(format!("{}.tar.xz", artifact.name));
        let bytes = take_out(store.get(&digest)?, &file).with_context(|| format!("opening {}", artifact.name))?;
        files.push((bytes, file));
    }
    // The largest first, each to the process that has less: both end together.
    files.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
    let (count, bytes) = (files.len(), files.iter().map(|(bytes, _)| bytes).sum());
    let (mut halves, mut sizes) = ([Vec::new(), Vec::new()], [0, 0]);
    for (bytes, file) in files {
        let less = usize::from(sizes[1] < sizes[0]);
        sizes[less] += bytes;
        halves[less].push(file);
    }
    Ok(Members { count, bytes, halves, _folder: folder })
}

fn take_out(package: File, to: &Path) -> Result<u64> {
    let mut archive = ar::Archive::new(package);
    while let Some(member) = archive.next_entry() {
        let mut member = member?;
        let name = String::from_utf8_lossy(member.header().identifier()).trim_end_matches('/').to_owned();
        if name.starts_with("data.tar") {
            ensure!(name == "data.tar.xz", "its files are in {name}, and the floor is that of xz");
            return Ok(std::io::copy(&mut member, &mut File::create(to)?)?);
        }
    }
    anyhow::bail!("it has no member data.tar")
}

/// A cache with what the lock names and the programs of Kubernetes and cri-dockerd, and nothing made of the rest.
///
/// # Errors
/// What reading and writing says.
pub fn cold_cache(node: &Node) -> Result<TempDir> {
    let folder = tempfile::tempdir_in(&node.folder).context("making a folder for the cold cache")?;
    let (warm, cold) = (Store::open(&node.cache)?, Store::open(folder.path())?);
    let fetched = Lock::read(&node.lock)?.artifacts;
    for digest in fetched.iter().filter_map(|artifact| artifact.sha256).filter(|digest| warm.has(digest)) {
        give(&warm.path(&digest), &cold.path(&digest))?;
    }
    let (from, to) = (warm.root().join("derived"), cold.root().join("derived"));
    fs::create_dir(&to).with_context(|| format!("making {}", to.display()))?;
    for entry in fs::read_dir(&from).with_context(|| format!("reading {}", from.display()))? {
        let record = entry?;
        // Records of compiles and of releases name programs; those of modules and layers do not.
        let text = fs::read(record.path()).with_context(|| format!("reading {}", record.path().display()))?;
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        let Some(programs) = value.get("programs").and_then(|programs| programs.as_object()) else { continue };
        give(&record.path(), &to.join(record.file_name()))?;
        for digest in programs.values().filter_map(|digest| digest.as_str()?.parse().ok()) {
            if warm.has(&digest) && !cold.has(&digest) {
                give(&warm.path(&digest), &cold.path(&digest))?;
            }
        }
    }
    Ok(folder)
}

/// A second name for a file, or a copy where it would be on another disk: builds never write to a file that has its name.
pub fn give(from: &Path, to: &Path) -> Result<()> {
    let given = match fs::hard_link(from, to) {
        Err(error) if error.kind() == ErrorKind::CrossesDevices => fs::copy(from, to).map(drop),
        // Two artifacts may be the same file.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        given => given,
    };
    given.with_context(|| format!("taking {} to {}", from.display(), to.display()))
}
