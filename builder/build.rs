//! Compiles the programs that run in the image and lists the overlays, so that one `kscratch-image` program carries both.
use std::env;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Programs of the crates below: PID 1, the contents of our own two images, what keeps a machine in its cluster, and what forwards ports.
const PROGRAMS: [&str; 5] = ["kscratch-init", "kscratch-pause", "kscratch-hello", "kscratch-agent", "kscratch-socat"];

/// Crates that they are of.
const PACKAGES: [&str; 2] = ["kscratch-init", "kscratch-agent"];

const TARGET: &str = "x86_64-unknown-linux-gnu";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let workspace = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("..").canonicalize()?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    for watched in [
        "init/src",
        "init/Cargo.toml",
        "builder/formats/src",
        "builder/formats/Cargo.toml",
        "init/agent/src",
        "init/agent/Cargo.toml",
        "init/install/src",
        "init/install/Cargo.toml",
        "init/pki/src",
        "init/pki/Cargo.toml",
        "init/metadata/src",
        "init/metadata/Cargo.toml",
        "init/netlink/src",
        "init/netlink/Cargo.toml",
        "init/recorder/src",
        "init/recorder/Cargo.toml",
        "Cargo.toml",
        "Cargo.lock",
        "overlays",
    ] {
        println!("cargo::rerun-if-changed={}", workspace.join(watched).display());
    }
    overlays(&workspace.join("overlays"), &out.join("overlays.rs"))?;
    programs(&workspace, &out)
}

/// Runs a cargo of its own for [`PROGRAMS`]: static, small, and without a trace of the folders they were compiled in.
fn programs(workspace: &Path, out: &Path) -> Result<(), Box<dyn std::error::Error>> {
    // Beside the folders of the outer cargo's profiles: tests, lints, benches and releases each run this, and compile the same programs once.
    let target = out.ancestors().nth(4).ok_or("OUT_DIR is not TARGET/PROFILE/build/PACKAGE/out")?.join("programs");
    let home = env::var_os("CARGO_HOME")
        .map_or_else(|| PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cargo"), PathBuf::from);
    let sysroot = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--print", "sysroot"])
        .output()?
        .stdout;
    let sysroot = String::from_utf8(sysroot)?;
    let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    let flags = [
        "-Ctarget-feature=+crt-static".to_owned(),
        remap(workspace, "/kscratch"),
        remap(&target, "/target"),
        remap(&home, "/cargo"),
        remap(Path::new(sysroot.trim()), "/rust"),
    ];
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os().filter(|(name, _)| leaks(name)) {
        cargo.env_remove(name);
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f")).current_dir(workspace);
    cargo.args(["build", "--locked", "--quiet", "--release", "--bins", "--target", TARGET, "--target-dir"]);
    cargo.arg(&target);
    cargo.args(PACKAGES.iter().flat_map(|package| ["--package", package]));
    let settings =
        ["opt-level=\"s\"", "strip=\"symbols\"", "debug=false", "lto=\"thin\"", "codegen-units=1", "incremental=false"];
    // A root from the network is hashed and unpacked before anything else happens.
    let settings = settings.into_iter().chain(["package.\"sha2@0.11\".opt-level=3", "package.zstd-sys.opt-level=3"]);
    for setting in settings {
        cargo.args(["--config", &format!("profile.release.{setting}")]);
    }
    let status = cargo.status()?;
    if !status.success() {
        return Err(format!("compiling the programs for the image ended with {status}; run `cargo build -p kscratch-init -p kscratch-agent` to see why").into());
    }
    let mut table = String::new();
    for program in PROGRAMS {
        let file = target.join(TARGET).join("release").join(program);
        let name = program.trim_start_matches("kscratch-").to_uppercase();
        fs::metadata(&file).map_err(|error| format!("cargo has made no program {program}: {error}"))?;
        writeln!(table, "/// The program `{program}`, static.\npub const {name}: &[u8] = include_bytes!({file:?});")?;
    }
    fs::write(out.join("programs.rs"), table)?;
    Ok(())
}

/// Whether the outer cargo set this variable for this package's build alone. Where cargo finds its home, network and registries stays.
fn leaks(name: &OsString) -> bool {
    let name = name.to_string_lossy();
    let kept = ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_", "CARGO_MAKEFLAGS"];
    let cargo =
        (name.starts_with("CARGO_") || name.starts_with("__CARGO")) && !kept.iter().any(|kept| name.starts_with(kept));
    let rust = ["RUSTFLAGS", "RUSTDOCFLAGS", "RUSTC", "CLIPPY_", "DEP_"].iter().any(|prefix| name.starts_with(prefix));
    cargo
        || rust
        || matches!(name.as_ref(), "TARGET" | "HOST" | "PROFILE" | "OPT_LEVEL" | "DEBUG" | "NUM_JOBS" | "OUT_DIR")
}

/// Writes a table of what stands below `overlays/ROLE`: Rust text of an array of `Embedded`.
fn overlays(folder: &Path, table: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut text = String::from("&[\n");
    for overlay in ["common", "node", "master"] {
        let root = folder.join(overlay);
        if root.is_dir() {
            list(&root, &root, overlay, &mut text)?;
        }
    }
    text.push(']');
    fs::write(table, text)?;
    Ok(())
}

fn list(root: &Path, folder: &Path, overlay: &str, text: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    entries.sort();
    for path in entries {
        let metadata = fs::symlink_metadata(&path)?;
        let inside = format!("/{}", path.strip_prefix(root)?.to_str().ok_or("an overlay's path is not UTF-8")?);
        if metadata.is_dir() {
            list(root, &path, overlay, text)?;
        } else if metadata.is_symlink() {
            let target = fs::read_link(&path)?;
            writeln!(text, "    Embedded {{ overlay: {overlay:?}, path: {inside:?}, what: What::Link({target:?}) }},")?;
        } else {
            // Like git, which keeps no other permission bit.
            let mode = if metadata.permissions().mode() & 0o100 == 0 { 0o644 } else { 0o755 };
            writeln!(
                text,
                "    Embedded {{ overlay: {overlay:?}, path: {inside:?}, what: What::File({mode:#o}, include_bytes!({path:?})) }},"
            )?;
        }
    }
    Ok(())
}
