//! Disks with sectors of 4096 bytes: written, checked as others see them, flashed onto a device that has such.
mod sample;
mod tool;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kscratch_formats::gpt;
use kscratch_image::stamp::{Texts, stamp};
use kscratch_image::write::{self, Format};
use kscratch_image::{blockmap, inspect};
use sample::{MIB, TIME, disk_of};
use tempfile::TempDir;
use tool::run;

const ROLE: &str = "version = 1\nrole = \"node\"\n[node]\nname = \"edge-7\"\n";
/// A FAT32 of sectors of 4096 bytes has no fewer clusters than one of 512.
const ESP: u64 = 260 * MIB;

/// An image for such sectors, with its block map.
fn image(format: Format, name: &str, sector: u64) -> (TempDir, PathBuf, u64) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    let plan = disk_of(folder.path(), ESP, sector);
    let written = write::image(&plan.image, folder.path(), format, &path, &|_| ()).unwrap();
    blockmap::write(&path, &written).unwrap();
    (folder, path, written.disk)
}

/// A loop device, which ends with the value.
struct Loop(String);

impl Loop {
    fn over(file: &Path, sector: u64) -> Loop {
        let sector = sector.to_string();
        let args = ["--find", "--show", "--sector-size", &sector, file.to_str().unwrap()];
        Loop(run("losetup", "mount", &args).trim().to_owned())
    }

    /// An empty one of so many bytes.
    fn of(folder: &Path, bytes: u64, sector: u64) -> Loop {
        let file = folder.join(format!("device-{sector}"));
        File::create(&file).unwrap().set_len(bytes).unwrap();
        Loop::over(&file, sector)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

#[test]
fn the_checkers_find_the_partitions_of_large_sectors() {
    let (folder, raw, len) = image(Format::Raw, "disk.img", 4096);
    let device = Loop::over(&raw, 4096);
    let verdict = run("sgdisk", "gdisk", &["-v", &device.0]);
    assert!(verdict.contains("No problems found"), "{verdict}");
    let listed = run("sgdisk", "gdisk", &["-p", &device.0]);
    for want in ["4096", "esp", "root-a", "root-b", "recorder", "state"] {
        assert!(listed.contains(want), "{want} is not in {listed}");
    }

    let report = inspect::report(&raw, true).unwrap();
    assert_eq!((report.sector_bytes, report.disk_bytes, report.table_warning.as_deref()), (4096, len, None));
    assert!(report.boot.is_some() && report.partitions.iter().all(|partition| partition.problem.is_none()));
    for metadata in [ROLE, "version = 1\nrole = \"node\"\n"] {
        stamp(&raw, &Texts { role: metadata, secrets: None, names: ("role.toml", "secrets.toml") }, TIME).unwrap();
        let place = format!("{}@@{MIB}", raw.display());
        assert_eq!(run("mtype", "mtools", &["-i", &place, "::/kscratch/role.toml"]), metadata);
        let esp = folder.path().join("esp");
        fs::write(&esp, &fs::read(&raw).unwrap()[MIB as usize..(MIB + ESP) as usize]).unwrap();
        run("fsck.fat", "dosfstools", &["-n", esp.to_str().unwrap()]);
    }
    assert_eq!(report.partitions.len(), 5);
}

#[test]
fn an_image_goes_onto_a_device_with_its_own_sectors_alone() {
    let (folder, large, len) = image(Format::Qcow2, "large.qcow2", 4096);
    let (_small_folder, small, small_len) = image(Format::Raw, "small.img", 512);
    assert_eq!(len, small_len);
    let role = folder.path().join("role.toml");
    fs::write(&role, ROLE).unwrap();
    let flash = |image: &Path, to: &Loop| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kscratch-image"));
        command.arg("flash").arg(image).args(["--to", &to.0, "--serial", &to.0, "--metadata"]).arg(&role);
        let output = command.stdin(Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let device = Loop::of(folder.path(), len + MIB, 4096);
    let (code, told) = flash(&small, &device);
    assert_eq!(code, Some(1), "{told}");
    let why = "its blocks are 4096 bytes long, and the image is made for blocks of 512";
    assert!(told.contains(why) && told.contains("hint: `kscratch-image build --sector-size 4096`"), "{told}");

    let (code, told) = flash(&large, &device);
    assert_eq!(code, Some(0), "{told}");
    run("blockdev", "util-linux", &["--flushbufs", &device.0]);
    let disk = inspect::Opened::open(Path::new(&device.0)).unwrap();
    let table = gpt::read(&disk, disk.disk_len()).unwrap();
    assert_eq!((table.sector, table.partitions.len()), (4096, 5));
    assert_eq!(inspect::report(Path::new(&device.0), false).unwrap().role.unwrap().node.as_deref(), Some("edge-7"));

    let device = Loop::of(folder.path(), len + MIB, 512);
    let (code, told) = flash(&large, &device);
    assert!(code == Some(1) && told.contains("build --sector-size 512`"), "{told}");
}
