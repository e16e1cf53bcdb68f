//! Boots the installer from a CD, and looks at the disks that the machine leaves: the one that the metadata name is the image, the other was not touched.
//! The disk boots then, and the CD, which is still in the machine, does not install onto it again.
use std::fs::{self, File};
use std::path::Path;

use kscratch_tests::bench::Bench;
use kscratch_tests::program::tool;
use kscratch_tests::recorded::{self, says};
use kscratch_tests::{disk, node_image, program};
use regex::Regex;

const ROLE: &str = r#"version = 1
role = "node"

[node]
name = "edge-7"

[install]
serial = "TARGET"
"#;

/// An empty disk that is just large enough, so that its checker finds the second table where it looks for it.
fn empty(path: &Path) {
    let len = fs::metadata(node_image::node()).unwrap().len();
    File::create(path).unwrap().set_len(len).unwrap();
}

/// Runs an image, and gives what the machine said.
#[track_caller]
fn run(folder: &Path, more: &[&str]) -> String {
    recorded::run(folder, &[more, &["--timeout", "300"]].concat()).1
}

/// The CD, and two disks behind it.
const MACHINE: [&str; 7] = [
    "node.iso",
    "--disk-model",
    "cd",
    "--disk",
    "other.img,model=sata,serial=OTHER",
    "--disk",
    "target.img,model=nvme,serial=TARGET",
];

#[test]
fn a_cd_installs_onto_the_disk_that_the_metadata_name_and_the_machine_is_off_then() {
    let _bench = Bench::take();
    let folder = tempfile::tempdir_in(program::scratch()).unwrap();
    let file = |name: &str| folder.path().join(name);
    let iso = file("node.iso");
    node_image::installer_of_node(&iso);
    let stamp = |role: &str| {
        fs::write(file("role.toml"), role).unwrap();
        let args = ["stamp", "node.iso", "--metadata", "role.toml"];
        program::kscratch(folder.path(), args, program::SHORT).succeeded();
    };
    stamp(ROLE);
    let (target, other) = (file("target.img"), file("other.img"));
    empty(&target);
    empty(&other);

    // It is over by itself: the machine has switched itself off.
    let console = run(folder.path(), &MACHINE);
    says(&console, r"install: from /dev/sr0 \(PARTUUID=[0-9a-f-]{36}\), a disk of \d+ MiB");
    says(&console, r"role metadata: the EFI system partition \(/kscratch/role\.toml on /dev/sr0\)");
    says(&console, r"install: onto /dev/nvme0n1 \(serial TARGET\), QEMU NVMe Ctrl, \d\.\d GiB, nvme, serial TARGET");
    says(&console, r"install: writing \d+\.\d MiB of \d+\.\d MiB, 50 %, ");
    says(&console, r"install: reading back \d+\.\d MiB of \d+\.\d MiB, 100 %, ");
    says(
        &console,
        r"install: /dev/nvme0n1 \(serial TARGET\) is installed and was read back; the medium can be taken out",
    );
    says(&console, r"the image is installed");

    let partitions = disk::partitions(&target);
    let names: Vec<&str> = partitions.iter().map(|partition| partition.name.as_str()).collect();
    assert_eq!(names, ["esp", "root-a", "root-b", "recorder", "state"]);
    let (installed, built) = (file("installed"), file("built"));
    let extract = |image: &Path, number: usize, to: &Path| {
        let partitions = disk::partitions(image);
        disk::extract(image, &partitions[number - 1], to);
    };
    extract(&target, 1, &installed);
    disk::check_fat(&installed);
    let role = [installed.as_os_str(), "::/kscratch/role.toml".as_ref()];
    let role = tool("mtype", "mtools", std::iter::once("-i".as_ref()).chain(role)).succeeded();
    assert_eq!(role.stdout, ROLE);
    // The root is the one of `build --format raw`, byte for byte.
    extract(&target, 2, &installed);
    disk::check_ext4(&installed);
    extract(node_image::node(), 2, &built);
    disk::same_bytes(&installed, &built);
    assert_eq!(allocated(&other), 0, "the other disk was written to");

    // Nothing gives up what is there without a word, nor, with it, the very image that the CD has.
    let refusal = "install: nothing is written to /dev/nvme0n1, serial TARGET: something is on it: GPT: esp";
    let console = run(folder.path(), &[&MACHINE[..], &["--cut-at", refusal]].concat());
    let word = Regex::new(r#"write replaces = "(gpt:[0-9a-f-]{36})" into \[install\]"#).unwrap();
    let word = &word.captures(&console).unwrap_or_else(|| panic!("no word is told:\n{console}"))[1];
    stamp(&format!("{ROLE}replaces = \"{word}\"\nthen = \"reboot\"\n"));
    let refusal = "install: /dev/nvme0n1 (serial TARGET) holds this very image already";
    let console = run(folder.path(), &[&MACHINE[..], &["--cut-at", refusal]].concat());
    says(&console, r"to have it installed again, write attempt = 2 into \[install\]");
    extract(&target, 2, &installed);
    disk::same_bytes(&installed, &built);

    // And it boots, with the metadata by which it was installed.
    let console = run(folder.path(), &["target.img", "--disk-model", "nvme", "--cut-at", " plan: start"]);
    says(&console, r"role metadata: the EFI system partition \(");
    says(&console, r"\] root /dev/nvme0n1p2 \(root-a, ");
}

#[test]
fn a_stick_without_metadata_lists_the_disks_and_writes_to_none() {
    let _bench = Bench::take();
    let folder = tempfile::tempdir_in(program::scratch()).unwrap();
    let iso = node_image::installer_of_metal();
    let (blank, full) = (folder.path().join("blank.img"), folder.path().join("full.img"));
    empty(&blank);
    fs::write(&full, vec![0xA5; 8 << 20]).unwrap();
    let last = "the machine waits for the power button";
    let disks = ["--disk", "blank.img,model=nvme,serial=BLANK", "--disk", "full.img,model=sata,serial=FULL"];
    let stick = [iso.to_str().unwrap(), "--disk-model", "usb", "--cut-at", last];
    let console = run(folder.path(), &[&stick[..], &disks].concat());
    says(&console, r"install: from /dev/sd[ab] \(PARTUUID=[0-9a-f-]{36}\), a disk of \d+ MiB");
    says(&console, "install: there are no metadata, so nothing is written");
    let line = r"[^\n]*\n[^\n]*";
    says(
        &console,
        &format!(
            "disk /dev/nvme0n1: QEMU NVMe Ctrl, 4.0 GiB, nvme, serial BLANK,{line}holds empty{line}  can be installed onto\r?\n"
        ),
    );
    says(
        &console,
        &format!(
            "disk /dev/sd[ab]: .*, serial FULL,{line}holds data of an unknown kind{line}cannot be installed onto: it has 8388608 bytes"
        ),
    );
    says(&console, "cannot be installed onto: it is the medium that is installed from");
    assert_eq!(allocated(&blank), 0, "a disk was written to");
    assert!(fs::read(&full).unwrap().iter().all(|byte| *byte == 0xA5), "a disk was written to");
}

/// Bytes that a sparse file takes.
fn allocated(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).unwrap().blocks() * 512
}
