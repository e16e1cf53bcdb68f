//! Flashes real block devices (loop devices), and harms that in every way that a machine without others offers.
#[path = "../holder/mod.rs"]
mod holder;
mod interrupted;
#[path = "../sample/mod.rs"]
mod sample;
#[path = "../tool/mod.rs"]
mod tool;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use holder::Holder;
use kscratch_formats::bmap::BlockMap;
use kscratch_formats::bytes::Window;
use kscratch_formats::ext4::Reader;
use kscratch_formats::gpt;
use kscratch_image::blockmap;
use kscratch_image::inspect;
use kscratch_image::write::Format;
use sample::{MIB, written};
use tempfile::TempDir;
use tool::run;

/// What stood on a device before: neither zeros nor anything that has a meaning.
const OLD: u8 = 0xA5;
const ROLE: &str = "version = 1\nrole = \"node\"\n[node]\nname = \"edge-7\"\n";

/// An image with its block map.
struct Image {
    folder: TempDir,
    path: PathBuf,
    len: u64,
}

fn image(format: Format, name: &str) -> Image {
    let (folder, path, told) = written(format, name);
    blockmap::write(&path, &told).unwrap();
    Image { folder, path, len: told.disk }
}

/// A loop device, which ends with the value.
struct Loop {
    device: String,
    file: PathBuf,
    /// Kept as long as the device.
    #[allow(dead_code)]
    folder: Option<TempDir>,
}

impl Loop {
    /// A device of so many bytes, full of old data.
    fn of(bytes: u64) -> Loop {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("device");
        fs::write(&file, vec![OLD; bytes as usize]).unwrap();
        let mut device = Loop::over(&file);
        device.folder = Some(folder);
        device
    }

    fn over(file: &Path) -> Loop {
        let device = run("losetup", "mount", &["--find", "--show", file.to_str().unwrap()]).trim().to_owned();
        Loop { device, file: file.to_owned(), folder: None }
    }

    /// What is on it.
    fn bytes(&self) -> Vec<u8> {
        run("blockdev", "util-linux", &["--flushbufs", &self.device]);
        fs::read(&self.device).unwrap()
    }

    /// Whether a machine would take it for a disk.
    fn is_a_disk(&self) -> bool {
        let disk = self.bytes();
        gpt::read(disk.as_slice(), disk.len() as u64).is_ok()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.device]).status();
    }
}

/// Something that is mounted, and is not any more when the value ends.
struct Mount {
    place: TempDir,
}

impl Mount {
    fn of(args: &[&str]) -> Mount {
        let place = tempfile::tempdir().unwrap();
        run("mount", "mount", &[args, &[place.path().to_str().unwrap()]].concat());
        Mount { place }
    }

    fn at(&self) -> &str {
        self.place.path().to_str().unwrap()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["--lazy", self.at()]).status();
    }
}

fn flash(image: &Path, to: &str, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kscratch-image"));
    command.arg("flash").arg(image).args(["--to", to]).args(more).stdin(Stdio::null());
    command
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Flashes and gives what was told.
#[track_caller]
fn flashed(image: &Path, to: &Loop, more: &[&str]) -> String {
    let output = flash(image, &to.device, &[&["--serial", &to.device], more].concat()).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    told(&output)
}

/// Is refused, says so, and has written nothing.
#[track_caller]
fn refused(image: &Path, to: &Loop, more: &[&str], words: &[&str]) {
    let before = to.bytes();
    let output = flash(image, &to.device, more).output().unwrap();
    let told = told(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    for word in words {
        assert!(told.contains(word), "`{word}` is not in: {told}");
    }
    assert!(to.bytes() == before, "something was written");
}

fn map_of(image: &Image) -> BlockMap {
    BlockMap::parse(&fs::read_to_string(blockmap::place(&image.path)).unwrap()).unwrap()
}

/// Holds every filesystem of a device against its checker.
#[track_caller]
fn is_clean(disk: &[u8], folder: &Path) {
    let table = gpt::read(disk, disk.len() as u64).unwrap();
    let names: Vec<&str> = table.partitions.iter().map(|(_, partition)| partition.name.as_str()).collect();
    assert_eq!(names, ["esp", "root-a", "root-b", "recorder", "state"]);
    for (_, partition) in &table.partitions {
        let (start, len) = (partition.start as usize, partition.len as usize);
        let file = folder.join(&partition.name);
        fs::write(&file, &disk[start..start + len]).unwrap();
        let file = file.to_str().unwrap();
        match partition.name.as_str() {
            "esp" => drop(run("fsck.fat", "dosfstools", &["-n", file])),
            "root-b" | "recorder" => {
                assert!(Reader::open(Window { inner: disk, start: partition.start, len: partition.len }).is_err())
            }
            _ => drop(run("e2fsck", "e2fsprogs", &["-fn", file])),
        }
    }
}

#[test]
fn a_device_full_of_other_data_becomes_the_disk_and_keeps_what_the_disk_does_not_use() {
    let image = image(Format::Raw, "disk.img");
    let device = Loop::of(image.len + 40 * MIB);
    let told = flashed(&image.path, &device, &[]);
    for word in ["holds      data of an unknown kind", "serial     none", "is ready", "read back in"] {
        assert!(told.contains(word), "`{word}` is not in: {told}");
    }
    let (disk, want) = (device.bytes(), fs::read(&image.path).unwrap());
    is_clean(&disk, image.folder.path());
    let (mut end, mut left) = (0, 0);
    let map = map_of(&image);
    for range in &map.ranges {
        let bytes = range.bytes.start as usize..range.bytes.end as usize;
        assert!(disk[bytes.clone()] == want[bytes.clone()], "{bytes:?}");
        left += disk[end..bytes.start].iter().filter(|byte| **byte == OLD).count();
        end = bytes.end;
    }
    assert!(left as u64 > image.len - map.mapped() - 2 * MIB, "{left} bytes of {} were left alone", image.len);
    assert!(map.mapped() < 72 * MIB, "{} bytes are mapped", map.mapped());
    // Of what another machine's flight recorder said nothing is left.
    let (_, recorder) = &gpt::read(disk.as_slice(), disk.len() as u64).unwrap().partitions[3];
    let bytes = recorder.start as usize..(recorder.start + recorder.len) as usize;
    assert!(disk[bytes].iter().all(|byte| *byte == 0), "the recorder is not empty");
    let [ours, theirs] = [Path::new(&device.device), &image.path].map(|path| inspect::report(path, true).unwrap());
    assert_eq!((&ours.partitions, &ours.boot), (&theirs.partitions, &theirs.boot));
}

#[test]
fn every_form_and_bmaptool_make_the_same_disk() {
    let raw = image(Format::Raw, "disk.img");
    let mut disks = Vec::new();
    for image in [image(Format::RawZst, "disk.img.zst"), image(Format::Qcow2, "disk.qcow2")] {
        let device = Loop::of(raw.len);
        flashed(&image.path, &device, &[]);
        disks.push(device.bytes());
    }
    let device = Loop::of(raw.len);
    let [map, file] = [blockmap::place(&raw.path), raw.path.clone()].map(|path| path.display().to_string());
    run("bmaptool", "bmap-tools", &["copy", "--bmap", &map, &file, &device.device]);
    disks.push(device.bytes());
    // Without a map, one is made.
    fs::remove_file(&map).unwrap();
    let device = Loop::of(raw.len);
    let told = flashed(&raw.path, &device, &[]);
    assert!(told.contains("has no block map beside it"), "{told}");
    disks.push(device.bytes());
    for disk in &disks {
        is_clean(disk, raw.folder.path());
        assert!(disk[..8 * MIB as usize] == disks[0][..8 * MIB as usize]);
        assert!(run_equal(disk, &disks[0]), "they differ");
    }
}

/// Equal but for what no range names, where the first pass of bmaptool or ours may leave what was there.
fn run_equal(one: &[u8], other: &[u8]) -> bool {
    one.chunks(MIB as usize).zip(other.chunks(MIB as usize)).all(|(one, other)| {
        let left = |chunk: &[u8]| chunk.iter().all(|byte| *byte == OLD) || chunk.iter().all(|byte| *byte == 0);
        one == other || left(one) && left(other)
    })
}

#[test]
fn metadata_goes_with_it() {
    let image = image(Format::RawZst, "disk.img.zst");
    let role = image.folder.path().join("role.toml");
    fs::write(&role, ROLE).unwrap();
    let device = Loop::of(image.len);
    flashed(&image.path, &device, &["--metadata", role.to_str().unwrap()]);
    is_clean(&device.bytes(), image.folder.path());
    let report = inspect::report(Path::new(&device.device), false).unwrap();
    assert_eq!(report.role.unwrap().node.as_deref(), Some("edge-7"));
    fs::write(&role, "version = 1\nrole = \"king\"\n").unwrap();
    refused(&image.path, &device, &["--serial", &device.device, "--metadata", role.to_str().unwrap()], &["king"]);
}

#[test]
fn an_image_that_was_stamped_has_a_map_that_says_so() {
    let image = image(Format::Raw, "disk.img");
    let role = image.folder.path().join("role.toml");
    fs::write(&role, ROLE).unwrap();
    let before = map_of(&image);
    let mut stamp = Command::new(env!("CARGO_BIN_EXE_kscratch-image"));
    stamp.arg("stamp").arg(&image.path).arg("--metadata").arg(&role);
    assert!(stamp.status().unwrap().success());
    let after = map_of(&image);
    assert!(after != before && after.mapped() >= before.mapped());
    let mode = fs::metadata(&image.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "a machine's secrets are on it");
    // Another form of the disk that it was has a map of its own.
    let other = image.folder.path().join("disk.img.zst");
    assert!(blockmap::place(&other) != blockmap::place(&image.path));
    flashed(&image.path, &Loop::of(image.len), &[]);
}

#[test]
fn what_is_in_use_or_not_meant_is_not_written_to() {
    let image = image(Format::Raw, "disk.img");
    let device = Loop::of(image.len);
    let serial = ["--serial", device.device.as_str()];
    refused(&image.path, &device, &[], &["nobody said that", &format!("--serial {}", device.device)]);
    refused(
        &image.path,
        &device,
        &["--serial", "S123"],
        &["has no serial number that could be S123", &format!("--serial {}", device.device)],
    );
    let small = Loop::of(image.len - MIB);
    refused(&image.path, &small, &["--serial", &small.device], &["the image needs", "kscratch-image devices"]);
    let missing = flash(&image.path, "/dev/no-such-disk", &[]).output().unwrap();
    assert!(told(&missing).contains("there is no block device /dev/no-such-disk"), "{}", told(&missing));
    assert!(!missing.status.success() && !Path::new("/dev/no-such-disk").exists());
    // Mounted: refused by its place, and by that alone overridden.
    run("mkfs.ext4", "e2fsprogs", &["-q", "-F", "-L", "precious", &device.device]);
    // To read alone: otherwise the filesystem itself writes.
    let mount = Mount::of(&["-o", "ro", &device.device]);
    let at = mount.at();
    let mounted = format!("is mounted at {at}");
    refused(&image.path, &device, &serial, &[&mounted, &format!("`umount {at}`"), &format!("--override mounted:{at}")]);
    refused(&image.path, &device, &[&serial[..], &["--override", "mounted:/elsewhere"]].concat(), &[&mounted]);
    refused(
        &image.path,
        &device,
        &[&serial[..], &["--override", "all"]].concat(),
        &["--override all", "mounted:PLACE"],
    );
    let dry =
        flash(&image.path, &device.device, &["--dry-run", "--override", &format!("mounted:{at}")]).output().unwrap();
    assert!(dry.status.success() && told(&dry).contains("holds      ext4 `precious`"), "{}", told(&dry));
    drop(mount);
    // A machine runs from it, as from a logical volume: QEMU asks nobody to be alone with a device.
    let holder = Holder::of(Path::new(&device.device));
    refused(&image.path, &device, &serial, &["somebody has it open for himself alone", "look for a virtual machine"]);
    drop(holder);
    // Read-only.
    run("blockdev", "util-linux", &["--setro", &device.device]);
    refused(&image.path, &device, &serial, &["it is read-only"]);
    run("blockdev", "util-linux", &["--setrw", &device.device]);
    // Another image's map.
    let other = image.folder.path().join("other.bmap");
    let first = fs::read_to_string(blockmap::place(&image.path)).unwrap().lines().nth(9).unwrap().to_owned();
    let digest = first.split('"').nth(1).unwrap().to_owned();
    let text = fs::read_to_string(blockmap::place(&image.path)).unwrap().replace(&digest, &"7".repeat(64));
    fs::write(&other, resealed(&text)).unwrap();
    let map = ["--map", other.to_str().unwrap()];
    refused(
        &image.path,
        &device,
        &[&serial[..], &map].concat(),
        &["is not the image that it was made of", "other.bmap"],
    );
    flashed(&image.path, &device, &[]);
}

/// A map with its own checksum made right again.
fn resealed(text: &str) -> String {
    use sha2::Digest as _;
    let (head, rest) = text.split_once("<BmapFileChecksum> ").unwrap();
    let with = |checksum: &str| format!("{head}<BmapFileChecksum> {checksum}{}", &rest[64..]);
    with(&hex::encode(sha2::Sha256::digest(with(&"0".repeat(64)))))
}

#[test]
fn a_plain_file_is_made_and_one_that_is_there_is_left_alone() {
    let image = image(Format::Qcow2, "disk.qcow2");
    let file = image.folder.path().join("copy.img");
    let to = file.to_str().unwrap();
    let output = flash(&image.path, to, &[]).output().unwrap();
    assert!(output.status.success() && told(&output).contains("a new file"), "{}", told(&output));
    is_clean(&fs::read(&file).unwrap(), image.folder.path());
    let output = flash(&image.path, to, &[]).output().unwrap();
    assert!(told(&output).contains(&format!("--override exists:{to}")), "{}", told(&output));
    let output = flash(&image.path, to, &["--override", &format!("exists:{to}")]).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
}

#[test]
fn an_image_is_not_written_over_itself() {
    let image = image(Format::Raw, "disk.img");
    let before = fs::read(&image.path).unwrap();
    let device = Loop::over(&image.path);
    refused(&image.path, &device, &["--serial", &device.device], &["it is the image itself"]);
    let link = image.folder.path().join("link.img");
    fs::hard_link(&image.path, &link).unwrap();
    let link = link.to_str().unwrap();
    let output = flash(&image.path, link, &["--override", &format!("exists:{link}")]).output().unwrap();
    assert!(!output.status.success() && told(&output).contains("it is the image itself"), "{}", told(&output));
    drop(device);
    assert!(fs::read(&image.path).unwrap() == before);
}

#[test]
fn the_disk_that_this_machine_runs_from_is_never_offered() {
    let output = Command::new(env!("CARGO_BIN_EXE_kscratch-image")).args(["devices", "--json"]).output().unwrap();
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let device = Loop::of(4 * MIB);
    let source = run("findmnt", "mount", &["--noheadings", "--output", "SOURCE", "/"]);
    let name = source.trim().trim_start_matches("/dev/").to_owned();
    let system = list.as_array().unwrap().iter().find(|one| {
        let disk = one["device"]["name"].as_str().unwrap();
        name.starts_with(disk)
    });
    let system = system.unwrap_or_else(|| panic!("{name} is not in {list}"));
    assert_eq!(system["flashable"], false);
    let reason = system["reasons"][0].as_str().unwrap();
    assert!(reason.contains("this machine runs from it"), "{reason}");
    let output = Command::new(env!("CARGO_BIN_EXE_kscratch-image")).arg("devices").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains(&format!("{}: {}", device.device, device.file.display())), "{text}");
}

#[test]
fn an_image_that_is_damaged_makes_no_disk() {
    let image = image(Format::Raw, "disk.img");
    let device = Loop::of(image.len);
    let place = map_of(&image).ranges[20].bytes.start;
    File::options().write(true).open(&image.path).unwrap().write_all_at(&[0x17; 9], place + 77).unwrap();
    let output = flash(&image.path, &device.device, &["--serial", &device.device]).output().unwrap();
    let told = told(&output);
    assert!(!output.status.success() && told.contains("the image is not what its block map says"), "{told}");
    assert!(told.contains("has no partition table now"), "{told}");
    assert!(!device.is_a_disk());
}
