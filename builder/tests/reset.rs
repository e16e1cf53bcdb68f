//! Resets machines' disks that are off: files of every form and a loop device, held against the reference tools before and after.
mod holder;
mod sample;
mod tool;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use holder::Holder;
use kscratch_formats::bmap::BlockMap;
use kscratch_image::write::Format;
use kscratch_image::{blockmap, inspect};
use sample::{MIB, TIME, written};
use tempfile::TempDir;
use tool::run;

/// Where the sample's state partition is, in MiB.
const STATE: u64 = 201;
const STATE_LEN: u64 = 128;

fn reset(disk: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kscratch-image"));
    command.arg("reset").arg(disk).args(more).stdin(Stdio::null()).output().unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn done(disk: &Path, more: &[&str]) -> String {
    let output = reset(disk, more);
    assert!(output.status.success(), "{}", told(&output));
    told(&output)
}

/// Is refused, says so, and has written nothing.
#[track_caller]
fn refused(disk: &Path, more: &[&str], words: &[&str]) {
    let before = fs::read(disk).unwrap();
    let output = reset(disk, more);
    let told = told(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    for word in words {
        assert!(told.contains(word), "`{word}` is not in: {told}");
    }
    assert!(fs::read(disk).unwrap() == before, "something was written");
}

/// The disk's bytes, of whatever form, by the reference tool.
fn raw(file: &Path) -> Vec<u8> {
    let (raw, ending) = (file.with_extension("raw"), file.extension().unwrap().to_str().unwrap());
    let format = match ending {
        "qcow2" => "qcow2",
        "vhd" => "vpc",
        _ => return fs::read(file).unwrap(),
    };
    if format == "qcow2" {
        run("qemu-img", "qemu-utils", &["check", "-q", file.to_str().unwrap()]);
    }
    let ends = [file.to_str().unwrap(), raw.to_str().unwrap()];
    run("qemu-img", "qemu-utils", &[&["convert", "-f", format, "-O", "raw"], &ends[..]].concat());
    fs::read(raw).unwrap()
}

fn state_of(disk: &[u8]) -> &[u8] {
    &disk[(STATE * MIB) as usize..((STATE + STATE_LEN) * MIB) as usize]
}

/// What is on the partition is state that init would mount as it is.
#[track_caller]
fn is_sound(folder: &Path, state: &[u8]) {
    let file = folder.join("state");
    fs::write(&file, state).unwrap();
    run("e2fsck", "e2fsprogs", &["-fn", file.to_str().unwrap()]);
}

/// What is on the partition becomes state by the command that init has for blank ones.
#[track_caller]
fn becomes_sound(folder: &Path, state: &[u8]) {
    assert!(state[..MIB as usize].iter().all(|byte| *byte == 0), "init would not call it blank");
    let file = folder.join("state");
    fs::write(&file, state).unwrap();
    let file = file.to_str().unwrap();
    let probed =
        Command::new("blkid").args(["-p", file]).env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&probed.stdout),
        "",
        "something is left that others would take for a filesystem"
    );
    run("mkfs.ext4", "e2fsprogs", &["-q", "-F", "-L", "kscratch-state", "-m", "1", file]);
    run("e2fsck", "e2fsprogs", &["-fn", file]);
}

#[test]
fn the_next_boot_of_every_form_makes_state_anew_and_all_else_is_as_it_was() {
    for (format, name) in
        [(Format::Raw, "disk.img"), (Format::Qcow2, "disk.qcow2"), (Format::Vhd { time: TIME }, "disk.vhd")]
    {
        let (folder, file, _) = written(format, name);
        let before = raw(&file);
        is_sound(folder.path(), state_of(&before));
        let words =
            ["machine    without a name that its disk tells, a node", "partition 5, 128.0 MiB: a machine's state"];
        let dry = done(&file, &["--dry-run"]);
        assert!(dry.contains("nothing was written") && words.iter().all(|word| dry.contains(word)), "{dry}");
        assert!(raw(&file) == before, "{name}");

        let told = done(&file, &["--yes"]);
        assert!(told.contains("makes its state anew") && words.iter().all(|word| told.contains(word)), "{told}");
        let mut after = raw(&file);
        becomes_sound(folder.path(), state_of(&after));
        let wiped = (STATE * MIB) as usize..((STATE + 1) * MIB) as usize;
        after[wiped.clone()].copy_from_slice(&before[wiped]);
        assert!(after == before, "{name}: more was written than the first MiB of state");

        let again = done(&file, &[]);
        assert!(again.contains("nothing is to be wiped"), "{again}");
        let report = inspect::report(&file, false).unwrap();
        assert!(report.partitions[4].filesystem.is_none() && report.partitions[4].problem.is_none(), "{report}");
    }
}

#[test]
fn what_cannot_be_changed_in_its_place_says_what_helps() {
    let (folder, packed, _) = written(Format::RawZst, "disk.img.zst");
    refused(&packed, &["--yes"], &["is raw.zst, which cannot be changed in its place", "zstd -d "]);
    let (_vmdk_folder, vmdk, _) = written(Format::Vmdk, "disk.vmdk");
    refused(&vmdk, &["--yes"], &["is vmdk, which", "qemu-img convert"]);
    let (_qcow2_folder, qcow2, _) = written(Format::Qcow2, "disk.qcow2");
    let [over, small] = ["over.qcow2", "compressed.qcow2"].map(|name| folder.path().join(name));
    let ends = ["-F", "qcow2", "-b", qcow2.to_str().unwrap(), over.to_str().unwrap()];
    run("qemu-img", "qemu-utils", &[&["create", "-q", "-f", "qcow2"], &ends[..]].concat());
    refused(&over, &["--yes"], &["has a backing file", "`run --overlay` makes it anew"]);
    let ends = [qcow2.to_str().unwrap(), small.to_str().unwrap()];
    run("qemu-img", "qemu-utils", &[&["convert", "-c", "-O", "qcow2"], &ends[..]].concat());
    refused(&small, &["--yes"], &["has compressed clusters"]);
}

#[test]
fn a_file_is_meant_by_a_word_and_a_running_machines_is_left_alone() {
    let (_folder, file, _) = written(Format::Raw, "disk.img");
    let path = file.display().to_string();
    refused(&file, &[], &[&format!("nobody said that {path} is the file to overwrite"), "say so with `--yes`"]);
    refused(&file, &["--serial", "S1"], &["has no serial number that could be S1"]);
    refused(
        &file,
        &["--yes", "--keep-identity"],
        &["cannot be kept on a disk that is off", "node reset NODE --keep-identity"],
    );
    refused(&file, &["--yes", "--override", "mounted:/mnt"], &["etcd:NAME, holds:WHAT"]);
    let holder = Holder::of(&file);
    refused(&file, &["--yes"], &["somebody has it open for himself alone", "look for a virtual machine"]);
    drop(holder);
    // The path, as a person types it, is as good as --yes.
    done(&file, &["--serial", &path]);
}

#[test]
fn a_disk_without_state_or_with_something_else_is_refused() {
    let (folder, file, _) = written(Format::Raw, "disk.img");
    let disk = File::options().write(true).open(&file).unwrap();
    disk.write_all_at(&[0; MIB as usize], STATE * MIB).unwrap();
    disk.write_all_at(b"LUKS\xBA\xBE", STATE * MIB).unwrap();
    let words = ["there is no state on its state partition: LUKS", "`--override holds:luks`"];
    refused(&file, &["--yes"], &words);
    refused(&file, &["--yes", "--override", "holds:swap"], &words);
    done(&file, &["--yes", "--override", "holds:luks"]);
    becomes_sound(folder.path(), state_of(&fs::read(&file).unwrap()));
    // What init did not make to its end is nobody's, whatever it looks like: the next boot makes it anew.
    disk.write_all_at(b"LUKS\xBA\xBE", STATE * MIB).unwrap();
    run("sgdisk", "gdisk", &["-c", "5:state-unfinished", file.to_str().unwrap()]);
    let told = done(&file, &[]);
    assert!(told.contains("nothing is to be wiped"), "{told}");
    // Init would not take one of another name either.
    run("sgdisk", "gdisk", &["-c", "5:var", file.to_str().unwrap()]);
    refused(&file, &["--yes"], &["with the name state on it", "state = \"elsewhere\""]);
    let none = folder.path().join("none.img");
    fs::write(&none, vec![0; 2 << 20]).unwrap();
    refused(&none, &["--yes"], &["partition table", "name the whole disk of a machine"]);
}

/// The sample's disk with a master's state, as it is after a power cut: what makes it one is in the journal, and nowhere else.
fn master() -> (TempDir, PathBuf) {
    let (folder, file, _) = written(Format::Raw, "disk.img");
    let at = |name: &str| folder.path().join(name);
    let state = state_of(&fs::read(&file).unwrap()).to_vec();
    let debugfs = |disk: &Path, requests: String| {
        fs::write(at("requests"), requests).unwrap();
        run("debugfs", "e2fsprogs", &["-w", "-f", at("requests").to_str().unwrap(), disk.to_str().unwrap()]);
    };
    fs::write(at("before"), &state).unwrap();
    fs::write(at("after"), &state).unwrap();
    fs::write(at("name"), "m1\n").unwrap();
    let folders = ["/lib", "/lib/kscratch", "/lib/etcd", "/lib/etcd/member"].map(|path| format!("mkdir {path}\n"));
    debugfs(&at("after"), format!("{}write {} /lib/kscratch/node-name\n", folders.concat(), at("name").display()));
    let (mut numbers, mut changed) = (Vec::new(), Vec::new());
    for (number, (old, new)) in state.chunks(4096).zip(fs::read(at("after")).unwrap().chunks(4096)).enumerate() {
        if old != new {
            numbers.push(number.to_string());
            changed.extend_from_slice(new);
        }
    }
    fs::write(at("blocks"), changed).unwrap();
    let journal = format!("jo -c -v 3\njw -b {} {}\njc\n", numbers.join(","), at("blocks").display());
    debugfs(&at("before"), journal);
    let disk = File::options().write(true).open(&file).unwrap();
    disk.write_all_at(&fs::read(at("before")).unwrap(), STATE * MIB).unwrap();
    (folder, file)
}

#[test]
fn a_masters_share_of_etcd_is_lost_only_by_its_name() {
    let (folder, file) = master();
    let words = ["it is the disk of the master m1: its share of etcd is lost", "`--override etcd:m1`"];
    refused(&file, &["--yes"], &words);
    refused(&file, &["--yes", "--override", "etcd:m2"], &words);
    let told = done(&file, &["--yes", "--override", "etcd:m1"]);
    assert!(told.contains("machine    m1, a node") && told.contains("a master's state, with etcd's data"), "{told}");
    becomes_sound(folder.path(), state_of(&fs::read(&file).unwrap()));
}

#[test]
fn a_reset_that_was_cut_is_done_again() {
    let (folder, file, _) = written(Format::Raw, "disk.img");
    let disk = File::options().write(true).open(&file).unwrap();
    disk.write_all_at(&[0; MIB as usize - 4096], STATE * MIB + 4096).unwrap();
    let told = done(&file, &["--yes"]);
    assert!(told.contains("state, which cannot be read"), "{told}");
    becomes_sound(folder.path(), state_of(&fs::read(&file).unwrap()));
}

#[test]
fn a_block_map_beside_it_stays_right() {
    let (_folder, file, written) = written(Format::Raw, "disk.img");
    let map = blockmap::write(&file, &written).unwrap();
    done(&file, &["--yes"]);
    let disk = inspect::Opened::open(&file).unwrap();
    let want = blockmap::read(&disk, disk.disk_len(), &mut |_| {}).unwrap();
    assert!(BlockMap::parse(&fs::read_to_string(map).unwrap()).unwrap() == want);
}

/// A loop device, which ends with the value.
struct Loop(String);

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

/// Something that is mounted, and is not any more when the value ends.
struct Mount(TempDir);

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["--lazy", self.0.path().to_str().unwrap()]).status();
    }
}

#[test]
fn a_device_is_meant_by_its_serial_number_and_in_use_by_nobody() {
    let (folder, file, _) = written(Format::Raw, "disk.img");
    let before = fs::read(&file).unwrap();
    let device = Loop(run("losetup", "mount", &["--find", "--show", file.to_str().unwrap()]).trim().to_owned());
    let path = Path::new(&device.0);
    let serial = ["--serial", device.0.as_str()];
    refused(path, &[], &["is the device to overwrite", &format!("--serial {}", device.0)]);
    refused(path, &["--yes"], &["--yes is for files", &format!("--serial {}", device.0)]);
    refused(path, &["--serial", "S123"], &["has no serial number that could be S123"]);
    // A partition that is mounted, here by a device of its own over the same place.
    {
        let root = Loop(
            run(
                "losetup",
                "mount",
                &[
                    "--find",
                    "--show",
                    "--offset",
                    &(65 * MIB).to_string(),
                    "--sizelimit",
                    &(64 * MIB).to_string(),
                    &device.0,
                ],
            )
            .trim()
            .to_owned(),
        );
        let mount = Mount(tempfile::tempdir().unwrap());
        run("mount", "mount", &["-o", "ro", &root.0, mount.0.path().to_str().unwrap()]);
        let at = mount.0.path().to_str().unwrap();
        refused(
            Path::new(&root.0),
            &["--serial", &root.0],
            &[&format!("is mounted at {at}"), &format!("`umount {at}`")],
        );
    }
    run("blockdev", "util-linux", &["--setro", &device.0]);
    refused(path, &serial, &["it is read-only"]);
    run("blockdev", "util-linux", &["--setrw", &device.0]);
    let told = done(path, &serial);
    assert!(told.contains("serial     none") && told.contains("makes its state anew"), "{told}");
    drop(device);
    let after = fs::read(&file).unwrap();
    becomes_sound(folder.path(), state_of(&after));
    let wiped = (STATE * MIB) as usize..((STATE + 1) * MIB) as usize;
    assert!(after[..wiped.start] == before[..wiped.start] && after[wiped.end..] == before[wiped.end..]);
    let missing = reset(Path::new("/dev/no-such-disk"), &[]);
    assert!(self::told(&missing).contains("there is no block device /dev/no-such-disk"), "{}", self::told(&missing));
}
