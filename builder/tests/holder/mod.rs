//! QEMU's own program for its disks holds one as a running machine does.
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use kscratch_image::running::is_in_use;

/// A raw disk that is in use until this ends.
pub struct Holder {
    program: Child,
    input: Option<ChildStdin>,
}

impl Holder {
    /// Opens a file or a device to write; it has it when this returns.
    pub fn of(disk: &Path) -> Holder {
        assert!(!is_in_use(disk), "{} is in use before", disk.display());
        let mut program = Command::new("qemu-io")
            .args(["-f", "raw"])
            .arg(disk)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("qemu-io is missing: apt-get install qemu-utils");
        let mut input = program.stdin.take().expect("its input is piped");
        input.write_all(b"length\n").expect("it reads");
        let holder = Holder { program, input: Some(input) };
        let end = Instant::now() + Duration::from_secs(20);
        while !is_in_use(disk) {
            assert!(Instant::now() < end, "the lock was not seen");
            thread::sleep(Duration::from_millis(20));
        }
        holder
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // Its input's end is its own.
        drop(self.input.take());
        let _ = self.program.wait();
    }
}
