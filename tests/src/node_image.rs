//! Builds the images that tests boot: once per test run, from a lock and a cache that outlive it.
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use crate::program::{self, Said};
use crate::{archive, probe};

/// A cold build downloads some 200 MB and may compile Kubernetes.
pub const COLD: Duration = Duration::from_secs(50 * 60);

/// The image of `build --role node` with no other setting.
pub fn node() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| built("node", "node", None, &[]))
}

/// The image of `build --role node --flavour metal`.
pub fn metal() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| built("metal", "node", None, &["--flavour", "metal"]))
}

/// The metal image for disks with sectors of 4096 bytes: of the same lock.
pub fn metal_with_large_sectors() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let folder = metal().parent().expect("an image is in a folder");
        let _turn = turn("metal-with-large-sectors");
        let output = folder.join("large-sectors.img");
        let options = ["--flavour", "metal", "--sector-size", "4096", "--locked", "--offline"];
        build(folder, &output, None, &options).succeeded();
        output
    })
}

/// The metal image without a place for state: of the same lock.
pub fn metal_without_state() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let folder = metal().parent().expect("an image is in a folder");
        let _turn = turn("metal-without-state");
        let (config, output) = (folder.join("without-state.toml"), folder.join("without-state.img"));
        fs::write(&config, "version = 1\n\n[disk]\nstate = \"elsewhere\"\n").expect("writing image.toml");
        build(folder, &output, Some(&config), &["--flavour", "metal", "--locked", "--offline"]).succeeded();
        output
    })
}

/// The metal image as a file of that format: of the same lock.
pub fn metal_as(format: &str) -> PathBuf {
    let folder = metal().parent().expect("an image is in a folder");
    let output = folder.join(format!("kscratch-node.{format}"));
    let _turn = turn("metal");
    let options = ["--flavour", "metal", "--format", format, "--locked", "--offline"];
    build(folder, &output, None, &options).succeeded();
    output
}

/// Writes the folder of `build --format pxe`, of the node image's lock, for a server with this URL.
pub fn netboot(folder: &Path, url: &str) {
    write_netboot(node(), "node", folder, &["--root-url", url]);
}

/// The same of the metal image.
pub fn netboot_of_metal(folder: &Path, url: &str) {
    write_netboot(metal(), "metal", folder, &["--root-url", url, "--flavour", "metal"]);
}

fn write_netboot(image: &Path, name: &str, folder: &Path, more: &[&str]) {
    let beside = image.parent().expect("an image is in a folder");
    let _turn = turn(name);
    build(beside, folder, None, &[&["--format", "pxe", "--locked", "--offline"], more].concat()).succeeded();
}

/// The installer of [`metal`]'s disk.
pub fn installer_of_metal() -> PathBuf {
    metal_as("iso")
}

/// Writes the installer of [`node`]'s disk: of the same lock.
pub fn installer_of_node(output: &Path) {
    let folder = node().parent().expect("an image is in a folder");
    let _turn = turn("node");
    build(folder, output, None, &["--format", "iso", "--locked", "--offline"]).succeeded();
}

/// The same image with the probe's program in docker's store.
pub fn with_probe() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| built("node-with-probe", "node", Some(&probe_config()), &[]))
}

/// The image of `build --role master`, with the probe's program in docker's store; its `kscratch.lock` stands beside it.
pub fn master_with_probe() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| built("master-with-probe", "master", Some(&probe_config()), &[]))
}

/// An image.toml that loads the probe, and beside it the probe.
fn probe_config() -> PathBuf {
    let folder = program::scratch().join("probe");
    fs::create_dir_all(&folder).expect("making the probe's folder");
    let _turn = turn("probe");
    let config = folder.join("image.toml");
    let program = probe::compile(&folder);
    archive::write(&folder, "kscratch-probe", "test", &program);
    fs::write(&config, "version = 1\n\n[images]\nload = [\"kscratch-probe.tar\"]\n").expect("writing image.toml");
    config
}

fn built(name: &str, role: &str, config: Option<&Path>, more: &[&str]) -> PathBuf {
    let folder = program::scratch().join(name);
    fs::create_dir_all(&folder).expect("making the image's folder");
    let _turn = turn(name);
    let output = folder.join(format!("kscratch-{role}.img"));
    build_role(role, &folder, &output, config, more).succeeded();
    output
}

/// `kscratch-image build --role node` in `folder`, with its lock there.
pub fn build(folder: &Path, output: &Path, config: Option<&Path>, more: &[&str]) -> Said {
    build_role("node", folder, output, config, more)
}

fn build_role(role: &str, folder: &Path, output: &Path, config: Option<&Path>, more: &[&str]) -> Said {
    let mut args: Vec<&std::ffi::OsStr> = ["build", "--role", role, "--output"].map(AsRef::as_ref).into();
    args.push(output.as_os_str());
    let lock = folder.join("kscratch.lock");
    args.extend(["--lock".as_ref(), lock.as_os_str()]);
    if let Some(config) = config {
        args.extend(["--config".as_ref(), config.as_os_str()]);
    }
    args.extend(more.iter().map(std::ffi::OsStr::new));
    program::kscratch(folder, args, COLD)
}

/// Waits for the turn to do something that only one test program at a time may do; the turn ends when the file is dropped.
pub fn turn(name: &str) -> File {
    let path = program::scratch().join(format!("{name}.turn"));
    let file = File::create(&path).unwrap_or_else(|error| panic!("making {}: {error}", path.display()));
    file.lock().unwrap_or_else(|error| panic!("locking {}: {error}", path.display()));
    file
}
