//! Boots the real image through UEFI and asserts from outside what a node must do: on its console, its ports and its disk.
mod lifecycle;
mod master;
mod metadata;
mod told;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kscratch_qemu::{Overlay, Vm};
use kscratch_tests::bench::Bench;
use kscratch_tests::program::SHORT;
use kscratch_tests::{disk, node_image, program};
use regex::Regex;

/// Name under which init looks for role metadata in fw_cfg.
const FW_CFG_ROLE: &str = "opt/kscratch/role";

/// This host, as a machine on QEMU's user network sees it.
const HOST: &str = "10.0.2.2";

#[test]
fn run_boots_an_image_directly_and_ends_it_in_time() {
    let bench = Bench::take();
    let image = node_image::node();
    let before = fs::metadata(image).unwrap().modified().unwrap();
    let said = run(image, &["--direct", "--timeout", "45", "--forward", "0:8080"]);
    assert_eq!(said.code, 124, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("Linux version"), "the serial line is not on the output:\n{}", said.stdout);
    assert!(Regex::new(r"phase \d+ ").unwrap().is_match(&said.stdout), "init was not reached:\n{}", said.stdout);
    assert!(said.stderr.contains("leads to port 8080 of the guest"), "{}", said.stderr);
    assert_eq!(fs::metadata(image).unwrap().modified().unwrap(), before, "the image was changed");
    drop(bench);
}

fn run(image: &Path, more: &[&str]) -> program::Said {
    let mut command = Command::new(program::kscratch_image());
    command.arg("run").arg(image).args(more).current_dir(program::scratch());
    program::run(command, Duration::from_secs(180))
}

/// What `kscratch-image autopsy` reads off a disk: boots, the oldest first.
#[track_caller]
fn autopsy(overlay: &Overlay) -> Vec<serde_json::Value> {
    let disk = overlay.path().display().to_string();
    let said =
        program::kscratch(&program::scratch(), ["autopsy", &disk, "--all", "--json", "--log"], SHORT).succeeded();
    let boots: Vec<serde_json::Value> =
        serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {}", said.stdout));
    // They are counted from the last one back.
    let numbers: Vec<Option<u64>> = boots.iter().map(|boot| boot["number"].as_u64()).collect();
    assert!(numbers.is_sorted_by(|one, other| one > other), "{numbers:?}");
    boots
}

/// The machine said that it went down in order, and its filesystems agree.
#[track_caller]
fn assert_clean(bench: &Bench, overlay: &Overlay, vm: &Vm) {
    let text: Vec<String> = vm.lines().into_iter().map(|line| line.text).collect();
    let complaint = Regex::new(r"\] (unmounting|making / read-only)|does not die|killing it").unwrap();
    let complaints: Vec<&String> = text.iter().filter(|line| complaint.is_match(line)).collect();
    assert!(complaints.is_empty(), "the way down was not clean: {complaints:?}");
    assert!(text.iter().any(|line| line.ends_with("] power off")), "no ordered end:\n{}", text.join("\n"));
    let folder = tempfile::tempdir_in(program::scratch()).unwrap();
    let raw = folder.path().join("disk");
    overlay.to_raw(&bench.tools, &raw).unwrap();
    // The disk has grown: the backup table is at its new end, and sgdisk finds it there.
    for partition in disk::partitions(&raw) {
        let file = folder.path().join(&partition.name);
        match partition.name.as_str() {
            "state" => {
                assert!(partition.len > 4 << 30, "state has not grown: {partition:?}");
                disk::extract(&raw, &partition, &file);
                disk::check_ext4(&file);
            }
            "root-a" => {
                disk::extract(&raw, &partition, &file);
                disk::check_ext4(&file);
            }
            "esp" => {
                disk::extract(&raw, &partition, &file);
                disk::check_fat(&file);
            }
            _ => {}
        }
    }
}
