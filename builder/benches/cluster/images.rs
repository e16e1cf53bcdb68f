//! Builds the images of the defaults with one more program in docker's store, `inside.rs`, which nobody starts before memory is looked at.
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::json;

use crate::measure::archive::{Archive, append};
use crate::measure::node::Node;
use crate::measure::program::{self, BOUND};

/// The program, which is all that its image has.
pub const PROGRAM: &str = "inside";
/// The name of its image.
pub const REFERENCE: &str = "kscratch.local/inside:bench";

/// The images of a master and of a node.
///
/// # Errors
/// What the compiler or the build says.
pub fn built(node: &Node) -> Result<[PathBuf; 2]> {
    let folder = node.folder.join("cluster");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let mut layer = tar::Builder::new(Vec::new());
    append(&mut layer, PROGRAM, 0o755, &compiled(&folder)?)?;
    let (created, entrypoint) = ("1970-01-01T00:00:00Z", [format!("/{PROGRAM}")]);
    let history = [json!({ "created": created, "created_by": "kscratch-bench" })];
    let config = json!({
        "architecture": "amd64", "os": "linux", "created": created, "history": history, "config": { "Entrypoint": entrypoint },
    });
    let mut archive = Archive::empty();
    archive.image(REFERENCE, config, &[(PROGRAM, layer.into_inner()?)])?;
    write(&folder.join("inside.tar"), &archive.finished()?)?;
    let config = folder.join("image.toml");
    write(&config, b"version = 1\n\n[images]\nload = [\"inside.tar\"]\n")?;
    let built = |role: &str| -> Result<PathBuf> {
        let image = folder.join(format!("kscratch-{role}.img"));
        node.build_role(role, &image, &["--config", &config.display().to_string()])?;
        Ok(image)
    };
    Ok([built("master")?, built("node")?])
}

/// The program, linked statically: its image has no libc.
fn compiled(folder: &Path) -> Result<Vec<u8>> {
    let program = folder.join(PROGRAM);
    let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--edition", "2024", "-O", "-C", "target-feature=+crt-static", "-C", "strip=symbols", "-o"]);
    rustc.arg(&program).arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/cluster/inside.rs"));
    program::run(rustc, BOUND).context("compiling the program that looks at memory")?;
    fs::read(&program).with_context(|| format!("reading {}", program.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}
