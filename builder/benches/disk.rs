//! Prints how long a root of 450 MB takes to be written from the store, as a ratio to `dd` of the same bytes, side by side in one run.
#![allow(clippy::print_stdout)]
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kscratch_image::filesystem;
use kscratch_image::store::{Digest, Stored};
use kscratch_image::tree::{Content, Kind, Node, Origin, Tree};
use kscratch_image::write::{self, Format};

const TIME: i64 = 1_760_000_000;
const ROUNDS: usize = 5;

fn main() -> Result<()> {
    // Beside the build's own output: the benchmark must run on the disk that images are written to, not on a tmpfs.
    let base = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let folder = tempfile::tempdir_in(&base).with_context(|| format!("making a folder in {}", base.display()))?;
    let tree = tree(folder.path())?;
    let bytes = fs::metadata(folder.path().join("data"))?.len();
    println!("{} files, {} MB of contents; least of {ROUNDS} rounds", tree.nodes.len(), bytes / 1_000_000);
    let floor = least(|| dd(folder.path()))?;
    println!("dd conv=fsync              {:>7.3} s", floor.as_secs_f64());
    let planned = least(|| {
        filesystem::root(&tree, 1 << 30, TIME)?;
        Ok(())
    })?;
    println!("plan of the root           {:>7.3} s   {:.2}x", planned.as_secs_f64(), ratio(planned, floor));
    for (name, format) in [("raw", Format::Raw), ("qcow2", Format::Qcow2), ("raw.zst", Format::RawZst)] {
        let took = least(|| {
            let root = filesystem::root(&tree, 1 << 30, TIME)?;
            write::image(&root.image, folder.path(), format, &folder.path().join("out"), &|_| ())?;
            Ok(())
        })?;
        println!("plan, write, hash, fsync: {name:<8} {:.3} s   {:.2}x", took.as_secs_f64(), ratio(took, floor));
    }
    println!("peak memory                {} MB", peak_memory()? / 1000);
    Ok(())
}

fn ratio(took: Duration, floor: Duration) -> f64 {
    took.as_secs_f64() / floor.as_secs_f64()
}

fn least(mut run: impl FnMut() -> Result<()>) -> Result<Duration> {
    let mut least = Duration::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        run()?;
        least = least.min(start.elapsed());
    }
    Ok(least)
}

fn dd(folder: &Path) -> Result<()> {
    let (from, to) = (folder.join("data"), folder.join("copy"));
    drop(fs::remove_file(&to));
    let operands = [format!("if={}", from.display()), format!("of={}", to.display())];
    let status = Command::new("dd").args(operands).args(["bs=1M", "conv=fsync", "status=none"]).status();
    ensure!(status.context("starting dd")?.success(), "dd failed");
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
