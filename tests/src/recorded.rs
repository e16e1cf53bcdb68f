//! Runs machines as a person does, by `kscratch-image run`, and holds what they said against patterns.
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use regex::Regex;

use crate::program::{self, Said};

/// From power on to the last thing that is waited for, under emulation; the first one may unpack QEMU.
const BOUND: Duration = Duration::from_secs(10 * 60);

/// Runs `kscratch-image run` in a folder; gives what it said, and what the machine did.
#[track_caller]
pub fn run(folder: &Path, args: &[&str]) -> (Said, String) {
    let record = folder.join("record");
    let mut command = Command::new(program::kscratch_image());
    command.arg("run").args(args).args(["--forward", "0:8080", "--record", "record"]).current_dir(folder);
    let said = program::run(command, BOUND);
    let console = String::from_utf8_lossy(&fs::read(&record).unwrap_or_default()).into_owned();
    assert_eq!(said.code, 0, "{args:?}: {}\n{console}", said.stderr);
    fs::remove_file(record).expect("what the machine said is removed");
    (said, console)
}

/// The console has it.
#[track_caller]
pub fn says(console: &str, pattern: &str) {
    let found = Regex::new(pattern).expect("the pattern is sound").is_match(console);
    assert!(found, "`{pattern}` is not in:\n{console}");
}
