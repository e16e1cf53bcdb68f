//! Installs onto real block devices (loop devices), and harms that on the way: a device boots as a whole or not at all.
//!
//! Needs root, util-linux, gdisk, dosfstools and mtools.
use std::fs::{self, File};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::bail;
use kscratch_formats::bmap::Mapped;
use kscratch_formats::fat32;
use kscratch_formats::gpt::{self, Partition};
use kscratch_formats::guid::Guid;
use kscratch_formats::image::{Data, Extent};
use kscratch_init::source::Text;
use kscratch_init::stage::install::writing;
use kscratch_install::blockdevice::{BlockDevice, Kernel};
use kscratch_install::packed::{Index, Packed, Range, pack};
use kscratch_install::refuse::{Needs, Victim, unattended};
use kscratch_install::{Step, Target, Watch, esp};
use rustix::fs::OFlags;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
const ESP: u64 = 36 * MIB;
const LEN: u64 = 48 * MIB;
/// What stood on a device before.
const OLD: u8 = 0xA5;

fn run(program: &str, args: &[&str]) -> String {
    let path = "/usr/sbin:/usr/bin:/sbin:/bin";
    let output = Command::new(program).args(args).env("PATH", path).env("MTOOLS_SKIP_CHECK", "1").output();
    let output = output.unwrap_or_else(|error| panic!("starting {program}: {error}; .ci/run lists what to install"));
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {args:?}: {text}");
    text
}

fn put(disk: &mut [u8], start: u64, extents: Vec<Extent<()>>) {
    for extent in extents {
        let Data::Bytes(bytes) = extent.data else { panic!("it is literal") };
        let at = (start + extent.offset) as usize;
        disk[at..at + bytes.len()].copy_from_slice(&bytes);
    }
}

/// A disk with an ESP, a partition of random bytes, and holes.
fn disk() -> Vec<u8> {
    let mut disk = vec![0; LEN as usize];
    let guid = |first| Guid::version8([first; 16]);
    let part = |name: &str, kind, number, start, len| Partition {
        name: name.to_owned(),
        kind,
        guid: guid(number),
        start,
        len,
        attributes: 0,
    };
    let parts = [part("esp", esp::TYPE, 1, MIB, ESP), part("data", guid(7), 2, ESP + MIB, 8 * MIB)];
    put(&mut disk, 0, gpt::tables(guid(9), LEN, 512, &parts).unwrap());
    let options = fat32::Options {
        size: ESP,
        sector: 512,
        label: "KSCRATCHESP".to_owned(),
        serial: 7,
        time: 1_760_000_000,
        hidden_sectors: 2048,
    };
    let folder = fat32::Entry { path: esp::FOLDER.to_owned(), kind: fat32::Kind::Directory };
    put(&mut disk, MIB, fat32::plan([folder], &options).unwrap().extents);
    let noise = (0..3 * MIB).map(|at| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 53) as u8);
    for (at, byte) in ((ESP + MIB) as usize..).zip(noise) {
        disk[at] = byte;
    }
    disk
}

/// The disk, packed: all that is not zeros, and its ends.
fn packed(disk: &[u8]) -> Vec<u8> {
    let chunks: Vec<(u64, &[u8])> = (0..).step_by(MIB as usize).zip(disk.chunks(MIB as usize)).collect();
    let used: Vec<_> = chunks.into_iter().filter(|(_, chunk)| chunk.iter().any(|byte| *byte != 0)).collect();
    let mut index = Index { sector: Some(512), disk: LEN, ranges: Vec::new() };
    let mut frames = Vec::new();
    for (start, chunk) in &used {
        let frame = pack(chunk).unwrap();
        let mapped = Mapped { bytes: *start..start + chunk.len() as u64, sha256: Sha256::digest(chunk).into() };
        let place = Index::end(used.len()) + frames.len() as u64;
        index.ranges.push(Range { mapped, place, len: frame.len() as u32 });
        frames.extend(frame);
    }
    [index.print(), frames].concat()
}

/// A loop device, which ends with the value.
struct Loop {
    device: String,
    folder: TempDir,
}

impl Loop {
    /// One of so many bytes, full of old data but for its ends, where somebody has made it blank.
    fn of(bytes: u64) -> Loop {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("device");
        let mut contents = vec![OLD; bytes as usize];
        contents[..MIB as usize].fill(0);
        let end = contents.len() - MIB as usize;
        contents[end..].fill(0);
        fs::write(&file, contents).unwrap();
        let device = run("losetup", &["--find", "--show", file.to_str().unwrap()]).trim().to_owned();
        Loop { device, folder }
    }

    fn bytes(&self) -> Vec<u8> {
        run("blockdev", &["--flushbufs", &self.device]);
        fs::read(&self.device).unwrap()
    }

    fn is_a_disk(&self) -> bool {
        let disk = self.bytes();
        gpt::read(disk.as_slice(), disk.len() as u64).is_ok()
    }

    fn refusals(&self, replaces: Option<&str>) -> Vec<String> {
        let device = BlockDevice::at(Path::new(&self.device), &Kernel::default()).unwrap();
        let victim = Victim::of(Path::new(&self.device), device, false);
        let needs = Needs { bytes: LEN, sector: Some(512) };
        unattended(&victim, &needs, false, replaces).iter().map(ToString::to_string).collect()
    }

    fn install(&self, packed: &[u8], watch: &impl Watch) -> Result<(), String> {
        let packed = Packed::open(packed, packed.len() as u64).unwrap();
        let path = Path::new(&self.device);
        let kernel = Kernel::default();
        let device = BlockDevice::at(path, &kernel).unwrap();
        let target = Target::open(path, LEN, (device.as_ref(), &kernel), true).map_err(|error| format!("{error:#}"))?;
        let done = writing::onto(&packed, &target, Some(&text()), watch);
        done.map(drop).map_err(|error| error.to_string())
    }
}

#[test]
fn a_device_that_became_another_one_is_not_written_to() {
    let (device, twin, kernel) = (Loop::of(LEN), Loop::of(LEN), Kernel::default());
    let path = &device.folder.path().join("by-id");
    symlink(&device.device, path).unwrap();
    let before = BlockDevice::at(path, &kernel).unwrap().unwrap();
    assert!(before.sequence.is_some(), "the kernel counts no disks");
    let open = |looked_at: Option<&BlockDevice>| Target::open(path, LEN, (looked_at, &kernel), true);
    assert!(open(Some(&before)).is_ok());
    let since = BlockDevice { sequence: before.sequence.map(|number| number + 1), ..before.clone() };
    assert!(open(Some(&since)).is_err());
    // As a stick that was changed for its twin.
    fs::remove_file(path).unwrap();
    symlink(&twin.device, path).unwrap();
    let error = format!("{:#}", open(Some(&before)).unwrap_err());
    assert!(error.contains("is not the device any more that was looked at"), "{error}");
    let error = format!("{:#}", open(None).unwrap_err());
    assert!(error.contains("was no device when it was looked at"), "{error}");
    // And where its node is gone, none is made.
    let gone = device.folder.path().join("gone");
    assert!(Target::open(&gone, LEN, (Some(&before), &kernel), true).is_err() && !gone.exists());
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.device]).status();
    }
}

fn text() -> Text {
    let role = "version = 1\nrole = \"node\"\n[install]\nserial = \"S1\"\n".to_owned();
    Text { place: "test".to_owned(), role, secrets: Some("[join]\ntoken = \"abcdef.0123456789abcdef\"\n".to_owned()) }
}

/// Ends the work after so many bytes.
struct Stops {
    after: u64,
    done: AtomicU64,
}

impl Stops {
    fn after(after: u64) -> Stops {
        Stops { after, done: AtomicU64::new(0) }
    }
}

impl Watch for Stops {
    fn begins(&self, _: Step, _: u64) {}

    fn go_on(&self) -> anyhow::Result<()> {
        if self.done.load(Ordering::Relaxed) >= self.after {
            bail!("the machine stops");
        }
        Ok(())
    }

    fn done(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }
}

#[test]
fn a_blank_disk_becomes_the_image_with_its_metadata_and_is_not_blank_then() {
    let want = disk();
    let device = Loop::of(LEN + 8 * MIB);
    assert!(device.refusals(None).is_empty());
    device.install(&packed(&want), &Stops::after(u64::MAX)).unwrap();

    let told = run("sgdisk", &["-p", &device.device]);
    assert!(told.contains("esp") && told.contains("data"), "{told}");
    let found = device.bytes();
    let data = (ESP + MIB) as usize..(ESP + 9 * MIB) as usize;
    // What the disk does not use is what it was.
    let expected = |at: usize| if at < data.start + 3 * MIB as usize { want[at] } else { OLD };
    assert!(data.clone().all(|at| found[at] == expected(at)), "the data are not what they were");
    assert!(found[..MIB as usize] == want[..MIB as usize], "the partition table is another");
    let volume = device.folder.path().join("esp");
    fs::write(&volume, &found[MIB as usize..(MIB + ESP) as usize]).unwrap();
    let volume = volume.to_str().unwrap();
    run("fsck.fat", &["-n", volume]);
    let text = text();
    assert_eq!(run("mtype", &["-i", volume, "::/kscratch/role.toml"]), text.role);
    assert_eq!(run("mtype", &["-i", volume, "::/kscratch/secrets.toml"]), text.secrets.unwrap());

    // Nobody installs over that by accident.
    let guid = Guid::version8([9; 16]);
    let holds = device.refusals(None);
    assert!(matches!(holds.as_slice(), [one] if one.starts_with("something is on it: GPT: esp")), "{holds:?}");
    assert_eq!(device.refusals(Some("gpt:0b2d1f5e-93c4-8a7b-9f10-5a6c7d8e9f01")), holds);
    assert!(device.refusals(Some(&format!("gpt:{guid}"))).is_empty());
    let small = Loop::of(LEN - MIB);
    assert!(small.refusals(None)[0].contains("the image needs"), "{:?}", small.refusals(None));
}

#[test]
fn a_cut_or_a_medium_that_is_damaged_leaves_no_disk() {
    let good = packed(&disk());
    let device = Loop::of(LEN);
    // In the middle of writing, of reading back, and right before the tables.
    let work = Packed::open(good.as_slice(), good.len() as u64).unwrap().map().mapped();
    for after in [MIB, work + MIB, 2 * work] {
        let error = device.install(&good, &Stops::after(after)).unwrap_err();
        assert_eq!(error, "the machine stops");
        assert!(!device.is_a_disk(), "after {after} bytes");
        assert!(device.refusals(None).is_empty(), "it can be installed again");
    }
    let mut bad = good.clone();
    let at = bad.len() - 1000;
    bad[at] ^= 1;
    let error = device.install(&bad, &Stops::after(u64::MAX)).unwrap_err();
    assert!(error.contains("reading the image at byte") || error.contains("have another digest"), "{error}");
    assert!(!device.is_a_disk());
    device.install(&good, &Stops::after(u64::MAX)).unwrap();
    assert!(device.is_a_disk());
}

#[test]
fn a_disk_that_is_in_use_is_not_written_to() {
    let device = Loop::of(LEN);
    let before = device.bytes();
    let holder =
        File::options().read(true).custom_flags(OFlags::EXCL.bits().cast_signed()).open(&device.device).unwrap();
    let error = device.install(&packed(&disk()), &Stops::after(u64::MAX)).unwrap_err();
    assert!(error.contains("esource busy"), "{error}");
    drop(holder);
    assert!(device.bytes() == before, "something was written");
}
