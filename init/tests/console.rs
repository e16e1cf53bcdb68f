//! Holds the console to its terminals: real ones of the kernel's, whose other end types, is silent, holds up or goes away.
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kscratch_init::console::terminal::{Heard, Terminal};
use kscratch_init::log;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

const BOUND: Duration = Duration::from_secs(10);

/// The other end of a line, and the name of this one.
struct Line {
    far: File,
    near: PathBuf,
}

impl Line {
    fn new() -> Self {
        let far = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&far).unwrap();
        unlockpt(&far).unwrap();
        let near = ptsname(&far, Vec::new()).unwrap().into_string().unwrap().into();
        Self { far: far.into(), near }
    }

    /// What has come at the other end, once there is something.
    fn hear(&mut self) -> Vec<u8> {
        let bound = Timespec::try_from(BOUND).unwrap();
        assert_eq!(poll(&mut [PollFd::new(&self.far, PollFlags::IN)], Some(&bound)).unwrap(), 1, "nothing came");
        let mut buffer = vec![0; 4096];
        let count = self.far.read(&mut buffer).unwrap();
        buffer.truncate(count);
        buffer
    }
}

#[track_caller]
fn heard(terminal: &Terminal, count: usize) -> Vec<u8> {
    let (begun, mut all) = (Instant::now(), Vec::new());
    while all.len() < count {
        assert!(begun.elapsed() < BOUND, "only {all:?} came");
        let bound = Timespec::try_from(BOUND).unwrap();
        poll(&mut [PollFd::new(&terminal.as_fd(), PollFlags::IN)], Some(&bound)).unwrap();
        let Heard::Bytes(bytes) = terminal.read() else { panic!("the line is gone") };
        all.extend(bytes);
    }
    all
}

#[test]
fn keys_come_as_they_are_and_nothing_is_echoed() {
    let mut line = Line::new();
    let terminal = Terminal::open(&line.near).unwrap();
    assert_eq!(terminal.read(), Heard::Bytes(Vec::new()), "nobody is waited for");
    // Signals, ends of input and of lines, and both bytes of software flow control are keys like others.
    let keys = b"s\x03\x1a\x1c\x04\r\n\x13\x11\x7f\0\xff?";
    line.far.write_all(keys).unwrap();
    assert_eq!(heard(&terminal, keys.len()), keys);
    assert!(terminal.send(b"shown"), "a line that was told to stop goes on");
    assert_eq!(line.hear(), b"shown", "no key is echoed");
    drop(line);
    assert_eq!(terminal.read(), Heard::Gone);
}

#[test]
fn what_is_no_terminal_is_none() {
    let error = Terminal::open(Path::new("/dev/null")).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
}

#[test]
fn a_line_that_is_held_up_holds_up_nobody() {
    let mut line = Line::new();
    let terminal = Terminal::open(&line.near).unwrap();
    log::move_to(&line.near);
    // Nobody reads at the other end: some 4 KiB, and the line is full.
    let begun = Instant::now();
    for number in 0..2000 {
        log::show(&[format!("line {number} {}", "x".repeat(60))]);
    }
    assert!(!terminal.send(&[b'y'; 100_000]));
    log::flush(Duration::from_millis(50));
    assert!(begun.elapsed() < Duration::from_secs(5), "whoever speaks waited {:?}", begun.elapsed());
    assert!(log::is_waiting());
    // It is read again: all comes, and in order.
    let (mut all, begun) = (Vec::new(), Instant::now());
    while log::is_waiting() {
        assert!(begun.elapsed() < BOUND, "{} bytes came", all.len());
        all.extend(line.hear());
        log::drain();
    }
    while !all.ends_with(b"x\r\n") || !all.windows(10).any(|part| part == b"line 1999 ") {
        all.extend(line.hear());
    }
    let text = String::from_utf8(all).unwrap().replace('y', "");
    let numbers: Vec<usize> =
        text.lines().filter_map(|line| line.strip_prefix("line ")?.split(' ').next()?.parse().ok()).collect();
    assert_eq!(numbers, (0..2000).collect::<Vec<_>>());
}
