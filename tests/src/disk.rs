//! Reads a raw disk with the system's own tools, so that a test never believes the code that wrote the disk.
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use crate::program::tool;

/// A partition as `sgdisk` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number, from 1.
    pub number: u32,
    /// Its GPT name.
    pub name: String,
    /// First byte.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
}

/// Checks the partition tables with `sgdisk -v` and lists partitions 1 to 4.
#[track_caller]
pub fn partitions(disk: &Path) -> Vec<Partition> {
    let verified = tool("sgdisk", "gdisk", ["-v".as_ref(), disk.as_os_str()]).succeeded();
    assert!(verified.stdout.contains("No problems found"), "sgdisk -v says:\n{}", verified.stdout);
    (1..=5).map(|number| partition(disk, number)).collect()
}

#[track_caller]
fn partition(disk: &Path, number: u32) -> Partition {
    let told = tool("sgdisk", "gdisk", ["-i".as_ref(), number.to_string().as_ref(), disk.as_os_str()]).succeeded();
    let field = |name: &str| {
        let line = told.stdout.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("sgdisk says nothing of `{name}` of partition {number}:\n{}", told.stdout)).trim()
    };
    let sectors = |text: &str| -> u64 {
        let digits = text.split(' ').next().unwrap_or_default();
        digits.parse().unwrap_or_else(|error| panic!("`{text}` of partition {number}: {error}"))
    };
    Partition {
        number,
        name: field("Partition name:").trim_matches('\'').to_owned(),
        start: sectors(field("First sector:")) * 512,
        len: sectors(field("Partition size:")) * 512,
    }
}

/// Copies a partition into a file of its own, with holes where it is zero.
#[track_caller]
pub fn extract(disk: &Path, partition: &Partition, to: &Path) {
    let mut from = File::open(disk).expect("opening the disk");
    from.seek(SeekFrom::Start(partition.start)).expect("seeking to the partition");
    let mut to = File::create(to).expect("making the partition's file");
    to.set_len(partition.len).expect("giving the partition's file its size");
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    while done < partition.len {
        let length = usize::try_from(partition.len - done).unwrap_or(usize::MAX).min(buffer.len());
        from.read_exact(&mut buffer[..length]).expect("reading the partition");
        if buffer[..length].iter().any(|byte| *byte != 0) {
            to.seek(SeekFrom::Start(done)).expect("seeking in the partition's file");
            to.write_all(&buffer[..length]).expect("writing the partition's file");
        }
        done += length as u64;
    }
}

/// Runs `e2fsck -fn`, which changes nothing, on a file with a filesystem; any finding ends the test.
#[track_caller]
pub fn check_ext4(filesystem: &Path) {
    let said = tool("e2fsck", "e2fsprogs", ["-fn".as_ref(), filesystem.as_os_str()]);
    assert_eq!(said.code, 0, "e2fsck -fn {} says:\n{}{}", filesystem.display(), said.stdout, said.stderr);
}

/// Runs `fsck.fat -n`, which changes nothing; any finding ends the test.
#[track_caller]
pub fn check_fat(filesystem: &Path) {
    let said = tool("fsck.fat", "dosfstools", ["-n".as_ref(), filesystem.as_os_str()]);
    assert_eq!(said.code, 0, "fsck.fat -n {} says:\n{}{}", filesystem.display(), said.stdout, said.stderr);
}

/// Ends the test, naming the first byte, where two files differ.
#[track_caller]
pub fn same_bytes(one: &Path, two: &Path) {
    let open = |path: &Path| File::open(path).unwrap_or_else(|error| panic!("opening {}: {error}", path.display()));
    let (mut first, mut second) = (open(one), open(two));
    let length = |file: &File| file.metadata().expect("asking for a file's size").len();
    assert_eq!(length(&first), length(&second), "{} and {} differ in length", one.display(), two.display());
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut offset = 0;
    let whole = length(&first);
    while offset < whole {
        let length = usize::try_from(whole - offset).unwrap_or(usize::MAX).min(left.len());
        first.read_exact(&mut left[..length]).expect("reading the first file");
        second.read_exact(&mut right[..length]).expect("reading the second file");
        if let Some(at) = (0..length).find(|at| left[*at] != right[*at]) {
            panic!("{} and {} differ, first at byte {}", one.display(), two.display(), offset + at as u64);
        }
        offset += length as u64;
    }
}
