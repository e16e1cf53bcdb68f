//! Builds the node image and holds it against the reference checkers, against itself, and against what `inspect` says of it.
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use kscratch_tests::disk::{self, Partition};
use kscratch_tests::program::{SHORT, kscratch, tool};
use kscratch_tests::{node_image, program};

const ROLE: &str = "version = 1\nrole = \"node\"\n\n[node]\nname = \"stamped-1\"\npod_range = \"10.244.7.0/24\"\n";

#[track_caller]
fn named<'a>(partitions: &'a [Partition], name: &str) -> &'a Partition {
    partitions.iter().find(|partition| partition.name == name).unwrap_or_else(|| panic!("no partition is named {name}"))
}

#[test]
fn every_partition_passes_its_reference_checker() {
    let image = node_image::node();
    let folder = tempfile::tempdir().unwrap();
    let partitions = disk::partitions(image);
    let names: Vec<&str> = partitions.iter().map(|partition| partition.name.as_str()).collect();
    assert_eq!(names, ["esp", "root-a", "root-b", "recorder", "state"]);
    let extract = |name: &str| {
        let file = folder.path().join(name);
        disk::extract(image, named(&partitions, name), &file);
        file
    };
    disk::check_fat(&extract("esp"));
    disk::check_ext4(&extract("root-a"));
    disk::check_ext4(&extract("state"));
    let empty = extract("root-b");
    let told = tool("du", "coreutils", ["--block-size=1".as_ref(), empty.as_os_str()]).succeeded();
    assert!(told.stdout.starts_with("0\t"), "root-b is not empty: {}", told.stdout);
}

#[test]
fn two_builds_in_two_folders_have_the_same_bytes() {
    let first = node_image::node();
    let lock = first.with_file_name("kscratch.lock");
    let second = tempfile::tempdir_in(program::scratch()).unwrap();
    fs::copy(lock, second.path().join("kscratch.lock")).unwrap();
    let output = second.path().join("another-name.img");
    node_image::build(second.path(), &output, None, &["--locked", "--offline"]).succeeded();
    disk::same_bytes(first, &output);
}

#[test]
fn every_format_holds_the_same_disk() {
    let raw = node_image::node();
    let lock = raw.with_file_name("kscratch.lock");
    let folder = tempfile::tempdir_in(program::scratch()).unwrap();
    fs::copy(lock, folder.path().join("kscratch.lock")).unwrap();
    let locked = ["--locked", "--offline", "--format"];

    let qcow2 = folder.path().join("node.qcow2");
    node_image::build(folder.path(), &qcow2, None, &[&locked[..], &["qcow2"]].concat()).succeeded();
    let back = folder.path().join("back.img");
    let args = ["convert", "-O", "raw"].map(AsRef::as_ref).into_iter().chain([qcow2.as_os_str(), back.as_os_str()]);
    tool("qemu-img", "qemu-utils", args).succeeded();
    disk::same_bytes(raw, &back);
    fs::remove_file(&back).unwrap();

    let zst = folder.path().join("node.img.zst");
    node_image::build(folder.path(), &zst, None, &[&locked[..], &["raw.zst"]].concat()).succeeded();
    let args = ["-d", "-q", "--sparse", "-o"].map(AsRef::as_ref).into_iter().chain([back.as_os_str(), zst.as_os_str()]);
    tool("zstd", "zstd", args).succeeded();
    disk::same_bytes(raw, &back);

    fs::remove_file(&back).unwrap();
    let [vmdk, vhd] = ["vmdk", "vhd"].map(|ending| {
        let image = folder.path().join(format!("node.{ending}"));
        node_image::build(folder.path(), &image, None, &[&locked[..], &[ending]].concat()).succeeded();
        let format = if ending == "vhd" { "vpc" } else { ending };
        let args = ["convert", "-f", format, "-O", "raw"].map(AsRef::as_ref).into_iter();
        tool("qemu-img", "qemu-utils", args.chain([image.as_os_str(), back.as_os_str()])).succeeded();
        disk::same_bytes(raw, &back);
        fs::remove_file(&back).unwrap();
        image
    });

    for image in [&qcow2, &zst, &vmdk, &vhd] {
        let told = inspect(image, &[]);
        assert!(told.contains("root-a") && told.contains("kscratch.root=PARTUUID="), "{}:\n{told}", image.display());
    }
}

#[test]
fn a_tar_is_the_root_alone() {
    let lock = node_image::node().with_file_name("kscratch.lock");
    let folder = tempfile::tempdir_in(program::scratch()).unwrap();
    fs::copy(lock, folder.path().join("kscratch.lock")).unwrap();
    let tar = folder.path().join("node.tar");
    node_image::build(folder.path(), &tar, None, &["--locked", "--offline", "--format", "tar"]).succeeded();
    let listed = tool("tar", "tar", ["-tf".as_ref(), tar.as_os_str()]).succeeded().stdout;
    let manifest = fs::read(folder.path().join("node.manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let files = manifest["files"].as_array().unwrap();
    let plain = |line: &str| format!("/{}", line.trim_start_matches("./").trim_end_matches('/'));
    let listed: Vec<String> = listed.lines().map(plain).collect();
    assert_eq!(listed, files.iter().map(|file| file["path"].as_str().unwrap().to_owned()).collect::<Vec<_>>());
    assert!(listed.iter().any(|path| path == "/usr/bin/kubelet") && manifest.get("disk").is_none());
    let sum = tool("sha256sum", "coreutils", [tar.as_os_str()]).succeeded().stdout;
    assert!(sum.starts_with(manifest["archive"]["sha256"].as_str().unwrap()), "{sum}");
    let said = kscratch(folder.path(), ["inspect".as_ref(), tar.as_os_str()], SHORT);
    assert!(said.code == 1 && said.stderr.contains("it is a tar archive and no disk"), "{}", said.stderr);
}

#[test]
fn inspect_tells_what_is_in_an_image() {
    let image = node_image::node();
    let told = inspect(image, &[]);
    for want in ["esp", "root-a", "root-b", "state", "kscratch.root=PARTUUID=", "console=ttyS0", "1.37.2"] {
        assert!(told.contains(want), "`{want}` is not in:\n{told}");
    }
    let files = inspect(image, &["--files"]);
    for want in ["/usr/lib/kscratch/init", "/usr/bin/kubelet", "/usr/sbin/dockerd", "/opt/cni/bin/bridge"] {
        assert!(files.contains(want), "`{want}` is not in the list of files");
    }
    for none in ["/bin/sh", "/usr/bin/bash", "/usr/bin/dpkg", "/usr/share/doc"] {
        let there = files.lines().any(|line| line.split_whitespace().any(|word| word == none));
        assert!(!there, "{none} is in the image");
    }
    serde_json::from_str::<serde_json::Value>(&inspect(image, &["--json"])).unwrap();
}

#[test]
fn a_stamp_takes_less_than_a_second_and_changes_the_metadata_alone() {
    let folder = tempfile::tempdir_in(program::scratch()).unwrap();
    let image = folder.path().join("stamped.img");
    let args = ["--sparse=always".as_ref(), node_image::node().as_os_str(), image.as_os_str()];
    tool("cp", "coreutils", args).succeeded();
    let role = folder.path().join("role.toml");
    fs::write(&role, ROLE).unwrap();
    // The fastest of three: the machine may be busy with something else.
    let took = (0..3).map(|_| stamp(&image, &role)).min().unwrap();
    assert!(took < Duration::from_secs(1), "stamping took {took:?}");

    let partitions = disk::partitions(&image);
    let esp = named(&partitions, "esp");
    let place = format!("{}@@{}", image.display(), esp.start);
    let read = tool("mtype", "mtools", ["-i", &place, "::/kscratch/role.toml"]).succeeded();
    assert_eq!(read.stdout, ROLE);
    assert!(inspect(&image, &[]).contains("stamped-1"));
    let file = folder.path().join("esp");
    disk::extract(&image, esp, &file);
    disk::check_fat(&file);
    for name in ["root-a", "root-b", "state"] {
        let partition = named(&partitions, name);
        let (before, after) = (folder.path().join("before"), folder.path().join("after"));
        disk::extract(node_image::node(), partition, &before);
        disk::extract(&image, partition, &after);
        disk::same_bytes(&before, &after);
    }
}

#[test]
fn a_stamp_of_bad_metadata_leaves_the_image_as_it_was() {
    let folder = tempfile::tempdir_in(program::scratch()).unwrap();
    let image = folder.path().join("image.img");
    let args = ["--sparse=always".as_ref(), node_image::node().as_os_str(), image.as_os_str()];
    tool("cp", "coreutils", args).succeeded();
    let role = folder.path().join("role.toml");
    fs::write(&role, "version = 1\nrole = \"node\"\nnodes = 3\n").unwrap();
    let said =
        kscratch(folder.path(), ["stamp".as_ref(), image.as_os_str(), "--metadata".as_ref(), role.as_os_str()], SHORT);
    assert_ne!(said.code, 0);
    assert!(said.stderr.contains("nodes") && said.stderr.contains('3'), "{}", said.stderr);
    disk::same_bytes(node_image::node(), &image);
}

#[track_caller]
fn stamp(image: &Path, role: &Path) -> Duration {
    program::kscratch_image();
    let begun = Instant::now();
    let args = ["stamp".as_ref(), image.as_os_str(), "--metadata".as_ref(), role.as_os_str()];
    kscratch(image.parent().unwrap(), args, SHORT).succeeded();
    begun.elapsed()
}

#[track_caller]
fn inspect(image: &Path, more: &[&str]) -> String {
    let args = ["inspect".as_ref(), image.as_os_str()].into_iter().chain(more.iter().map(|word| word.as_ref()));
    kscratch(image.parent().unwrap(), args, SHORT).succeeded().stdout
}
