//! Puts planned images into files and runs the reference checkers of the formats over them.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, dead_code)]
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use kscratch_formats::bytes::ReadAt;
use kscratch_formats::image::{Data, Image};

pub mod packed;

/// A file as a disk.
#[derive(Debug)]
pub struct Disk(File);

impl Disk {
    pub fn open(path: &Path) -> Self {
        Disk(File::open(path).unwrap())
    }
}

impl ReadAt for Disk {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
}

/// Writes the image, sparse; contents are looked up with `content`.
pub fn write<C>(image: &Image<C>, path: &Path, content: impl Fn(&C) -> Vec<u8>) {
    let file = File::create(path).unwrap();
    file.set_len(image.len).unwrap();
    let mut end = 0;
    for extent in &image.extents {
        assert!(extent.offset >= end, "extents overlap at {} (the one before ends at {end})", extent.offset);
        assert!(!extent.data.is_empty(), "empty extent at {}", extent.offset);
        end = extent.offset + extent.data.len();
        assert!(end <= image.len, "extent at {} ends behind the image", extent.offset);
        match &extent.data {
            Data::Bytes(bytes) => file.write_all_at(bytes, extent.offset).unwrap(),
            Data::Content { id, offset, len } => {
                let bytes = content(id);
                file.write_all_at(&bytes[*offset as usize..(offset + len) as usize], extent.offset).unwrap();
            }
        }
    }
}

/// Runs a checker and gives what it printed; it must be there and must succeed.
pub fn run(program: &str, package: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("MTOOLS_SKIP_CHECK", "1")
        .env("TZ", "UTC")
        .output()
        .unwrap_or_else(|error| panic!("starting {program}: {error}; get it with `apt-get install {package}`"));
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {}\n{text}", output.status);
    text
}
