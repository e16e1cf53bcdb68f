//! A flash that is stopped in the middle, by its user, its device or a signal that nobody can catch: there is the whole disk or none.
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use kscratch_formats::gpt;
use kscratch_image::inspect::Opened;
use kscratch_image::write::Format;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::sample::MIB;
use super::tool::run;
use super::{Image, Loop, Mount, OLD, flash, flashed, image, is_clean, told};

#[test]
fn a_device_that_fails_half_way_is_no_disk() {
    let image = image(Format::Raw, "disk.img");
    // A file system with room for a part of it: the loop device answers with errors from there on.
    let mount = Mount::of(&["-t", "tmpfs", "-o", "size=14m", "tmpfs"]);
    let file = Path::new(mount.at()).join("device");
    File::create(&file).unwrap().set_len(image.len).unwrap();
    let device = Loop::over(&file);
    let output = flash(&image.path, &device.device, &["--serial", &device.device]).output().unwrap();
    let verdict = told(&output);
    let is_a_disk = device.is_a_disk();
    drop(device);
    assert!(!output.status.success(), "{verdict}");
    for word in ["os error", "at byte", "has no partition table now", "run the same again"] {
        assert!(verdict.contains(word), "`{word}` is not in: {verdict}");
    }
    assert!(!is_a_disk);
}

/// The kernel takes a device that is pulled out its length away (block/genhd.c, blk_mark_disk_dead), and so does a loop device whose file is emptied.
#[test]
fn a_device_that_is_pulled_out_is_told_and_is_no_disk() {
    let image = image(Format::Raw, "disk.img");
    let device = Loop::of(image.len);
    let begun = Begun::of(&image, &device);
    let name = device.device.trim_start_matches("/dev/");
    let says = |file: &str| fs::read_to_string(format!("/sys/block/{name}/{file}")).unwrap();
    // What is on its way would make the file longer again.
    until(|| says("inflight").split_whitespace().all(|number| number == "0"));
    let file = File::options().write(true).open(&device.file).unwrap();
    file.set_len(0).unwrap();
    run("losetup", "mount", &["--set-capacity", &device.device]);
    assert_eq!(says("size").trim(), "0");
    begun.signal(Signal::SIGCONT);
    let (code, told) = begun.end();
    assert_eq!(code, Some(1), "{told}");
    for word in ["flashing /dev/loop", "is not there any more (was it pulled out?)"] {
        assert!(told.contains(word), "`{word}` is not in: {told}");
    }
    // It may have gone while the table was taken out that was there, which stands at two places.
    let taken_out = told.contains("taking out the partition table that was there");
    let now = if taken_out { "its partition table may be there, whole or not" } else { "has no partition table now" };
    assert!(told.contains(now), "`{now}` is not in: {told}");
    file.set_len(image.len).unwrap();
    run("losetup", "mount", &["--set-capacity", &device.device]);
    assert!(!device.is_a_disk());
    flashed(&image.path, &device, &[]);
}

#[test]
fn stopped_by_a_signal_it_says_what_the_device_is_now() {
    let image = image(Format::Raw, "disk.img");
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let device = Loop::of(image.len);
        let begun = Begun::of(&image, &device);
        begun.signal(signal);
        begun.signal(Signal::SIGCONT);
        let (status, told) = begun.end();
        assert_eq!(status, Some(code), "{told}");
        let stopped = format!("stopped by {signal}");
        for word in ["stopping: ", &stopped, "has no partition table now", "run the same again to have it whole"] {
            assert!(told.contains(word), "`{word}` is not in: {told}");
        }
        assert!(!device.is_a_disk());
        flashed(&image.path, &device, &[]);
        assert!(device.is_a_disk());
    }
}

#[test]
fn stopped_before_it_writes_it_leaves_the_device_alone() {
    let image = image(Format::Raw, "disk.img");
    let device = Loop::of(image.len);
    let fifo = image.folder.path().join("role.toml");
    run("mkfifo", "coreutils", &[fifo.to_str().unwrap()]);
    let more = ["--metadata", fifo.to_str().unwrap(), "--serial", &device.device];
    let child = flash(&image.path, &device.device, &more).stderr(Stdio::piped()).spawn().unwrap();
    // It waits for metadata once the pipe can be opened.
    let pipe = File::options().write(true).open(&fifo).unwrap();
    let begun = Begun(child);
    begun.signal(Signal::SIGINT);
    let (code, told) = begun.end();
    assert_eq!((code, told.trim()), (Some(130), "nothing was written"));
    drop(pipe);
    assert!(device.bytes().iter().all(|byte| *byte == OLD));
}

/// A flash that has begun to write, and is held up there.
struct Begun(Child);

impl Begun {
    fn of(image: &Image, device: &Loop) -> Begun {
        let mut command = flash(&image.path, &device.device, &["--serial", &device.device]);
        let begun = Begun(command.stderr(Stdio::piped()).spawn().unwrap());
        // The table is taken out first.
        let disk = File::open(&device.file).unwrap();
        let mut start = [OLD; 512];
        until(|| {
            disk.read_exact_at(&mut start, 0).unwrap();
            start.iter().all(|byte| *byte == 0)
        });
        begun.signal(Signal::SIGSTOP);
        begun
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().cast_signed()), signal).unwrap();
    }

    /// Its exit code, and what it told.
    fn end(mut self) -> (Option<i32>, String) {
        let mut told = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        (self.0.wait().unwrap().code(), told)
    }
}

#[track_caller]
fn until(mut is_so: impl FnMut() -> bool) {
    for _ in 0..600_000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    panic!("it did not come to that");
}

/// Ends it at any moment: then there is the whole disk or none.
#[test]
fn killed_at_any_moment_it_leaves_a_whole_disk_or_none() {
    let image = image(Format::Raw, "disk.img");
    let (mut whole, mut none) = (0, 0);
    let want = fs::read(&image.path).unwrap();
    for round in 0..12 {
        let device = Loop::of(image.len);
        let mut child = flash(&image.path, &device.device, &["--quiet", "--serial", &device.device]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(30 * round));
        let _ = child.kill();
        let ended = child.wait().unwrap();
        let disk = device.bytes();
        if gpt::read(disk.as_slice(), image.len).is_ok() {
            whole += 1;
            // Between the backup of the table and the table itself the disk is whole, but for that.
            let start = &disk[..MIB as usize];
            assert!(*start == want[..MIB as usize] || start.iter().all(|byte| *byte == 0), "half a first MiB");
            is_clean(&disk, image.folder.path());
        } else if disk.iter().all(|byte| *byte == OLD) {
            // It had not begun.
        } else {
            none += 1;
            assert!(!ended.success());
        }
    }
    assert!(none > 0, "it was never killed half way ({whole} whole)");
    let device = Loop::of(image.len);
    flashed(&image.path, &device, &[]);
    assert!(Opened::open(Path::new(&device.device)).is_ok() && device.is_a_disk());
}
