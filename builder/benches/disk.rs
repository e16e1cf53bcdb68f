//! Prints how long a root of 450 MB takes to be written from the store, as a ratio to `dd` of the same bytes, side by side in one run.
#![allow(clippy::print_stdout)]
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use kscratch_image::filesystem;
use kscratch_image::store::{Digest, Stored};
use kscratch_image::tree::{Content, Kind, Node, Origin, Tree};
use kscratch_image::write::{self, Format};

use crate::measure::Bar;
use crate::measure::program::{self, BOUND};

mod measure;

const TIME: i64 = 1_760_000_000;
/// Many: a write takes a quarter of a second, and a neighbour's burst as long.
const ROUNDS: usize = 9;

fn main() -> Result<()> {
    let zstd = program::tool("zstd", "zstd")?;
    let base = measure::folder()?;
    let folder = tempfile::tempdir_in(&base).with_context(|| format!("making a folder in {}", base.display()))?;
    let tree = tree(folder.path())?;
    let data = folder.path().join("data");
    measure::title("disk: a root filesystem written from the store, planned, hashed and synced");
    let bytes = fs::metadata(&data)?.len();
    println!("{} files, {} MB of contents; least of {ROUNDS} rounds", tree.nodes.len(), bytes / 1_000_000);
    let dd = || program::dd(&data, &folder.path().join("copy"));
    let planned = || filesystem::root(&tree, 1 << 30, TIME).map(drop);
    let written = &|format| {
        // Each over a file of its own that is gone before, as for dd: memory that was just freed is there at once, and a virtual machine
        // waits for any other.
        let out = folder.path().join(format!("{format:?}"));
        drop(fs::remove_file(&out));
        let root = filesystem::root(&tree, 1 << 30, TIME)?;
        write::image(&root.image, folder.path(), format, &out, &|_| ()).map(drop)
    };
    let compressed = || {
        let mut command = Command::new(&zstd);
        command.args(["-3", "-T2", "--quiet", "--force"]).arg(&data).arg("-o").arg(folder.path().join("data.zst"));
        program::run(command, BOUND)
    };
    let [raw, qcow2, raw_zst] = [Format::Raw, Format::Qcow2, Format::RawZst].map(|format| move || written(format));
    let [floor, planned, raw, qcow2, compressed, raw_zst] =
        measure::least(ROUNDS, [&dd, &planned, &raw, &qcow2, &compressed, &raw_zst])?;
    measure::time("dd conv=fsync", floor);
    measure::ratio("  of the root: the plan", planned, floor, Bar::Open);
    measure::ratio("root as raw", raw, floor, Bar::AtMost(1.5));
    measure::ratio("root as qcow2", qcow2, floor, Bar::Open);
    measure::time("zstd -3 -T2", compressed);
    measure::ratio("root as raw.zst", raw_zst, compressed, Bar::Open);
    println!("peak memory of all this {:>36} {} MB", "", peak_memory()? / 1000);
    Ok(())
}

/// A tree like a node's: a few large programs, some hundred libraries and modules, thousands of small files, all in one store file.
fn tree(store: &Path) -> Result<Tree> {
    let large = [95 << 20, 70 << 20, 60 << 20, 50 << 20, 40 << 20, 30 << 20, 20 << 20];
    let sizes = large.into_iter().chain(std::iter::repeat_n(150 << 10, 300)).chain((0..3000).map(|n| 200 + n * 9));
    let mut file = std::io::BufWriter::new(File::create(store.join("data"))?);
    let mut tree = Tree::default();
    let origin = Origin { declaration: "bench".into(), artifact: "bench".into() };
    let node = |kind| Node { kind, mode: 0o755, uid: 0, gid: 0, xattrs: BTreeMap::new(), origin: origin.clone() };
    tree.nodes.insert("/usr".into(), node(Kind::Directory));
    let (mut offset, mut state) = (0, 1u64);
    for (index, size) in sizes.enumerate() {
        // Bytes that compress by half, as programs do.
        let mut bytes = Vec::with_capacity(size + 8);
        while bytes.len() < size {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            bytes.extend_from_slice(&(state >> 32).to_be_bytes());
        }
        bytes.truncate(size);
        file.write_all(&bytes)?;
        let len = size as u64;
        let stored = Stored { file: "data".into(), offset, len, sha256: Digest::of(&bytes) };
        offset += len;
        tree.nodes.insert(format!("/usr/file-{index:05}"), node(Kind::File(Content::Stored(stored))));
    }
    file.flush()?;
    Ok(tree)
}

/// `VmHWM` of this process in kB.
fn peak_memory() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("reading /proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("finding VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
