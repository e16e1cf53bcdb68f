//! GPT reading and growing, held against sgdisk.
use std::fs::{File, OpenOptions};
use std::io::Cursor;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use proptest::prelude::{any, proptest};

use super::{Copy, Error, Guid, Table};

const MIB: u64 = 1 << 20;

fn sgdisk(args: &[&str], disk: &Path) -> String {
    let output = Command::new("sgdisk").args(args).arg(disk).output();
    let output = output.expect("sgdisk is needed: apt-get install gdisk");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "sgdisk {args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// A 40 MiB disk like ours: ESP, root, state.
fn disk(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("disk");
    File::create(&path).unwrap().set_len(40 * MIB).unwrap();
    let args = [
        "-n1:1M:+8M",
        "-t1:C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
        "-c1:esp",
        "-n2:9M:+8M",
        "-t2:4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
        "-c2:root-a",
        "-u2:0B2D1F5E-93C4-8A7B-9F10-5A6C7D8E9F01",
        "-n4:17M:+4M",
        "-t4:4D21B016-B534-45C2-A9FB-5C16E091FD2D",
        "-c4:state",
    ];
    sgdisk(&args, &path);
    path
}

#[test]
fn a_table_that_sgdisk_made() {
    let folder = tempfile::tempdir().unwrap();
    let table = Table::read(&mut File::open(disk(folder.path())).unwrap()).unwrap();
    assert_eq!((table.sector, table.copy), (512, Copy::Primary));
    let names: Vec<(u32, &str)> = table.partitions.iter().map(|one| (one.number, one.name.as_str())).collect();
    assert_eq!(names, [(1, "esp"), (2, "root-a"), (4, "state")]);
    assert_eq!(table.partitions[0].kind, Guid::ESP);
    assert_eq!(table.partitions[1].guid.to_string(), "0b2d1f5e-93c4-8a7b-9f10-5a6c7d8e9f01");
    assert_eq!(table.partitions[2].kind, Guid::VAR);
    assert_eq!((table.partitions[2].first, table.partitions[2].last), (17 * 2048, 21 * 2048 - 1));
}

#[test]
fn the_backup_stands_in_for_a_damaged_primary() {
    let folder = tempfile::tempdir().unwrap();
    let path = disk(folder.path());
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let sound = Table::read(&mut &file).unwrap();
    for (offset, what) in [(2 * 512 + 20, "an entry"), (512 + 60, "the header"), (512, "the signature")] {
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
        let table = Table::read(&mut &file).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!((table.copy, &table.partitions), (Copy::Backup, &sound.partitions), "{what}");
    }
    file.write_all_at(&[0; 512], 40 * MIB - 512).unwrap();
    assert!(matches!(Table::read(&mut &file), Err(Error::Missing)));
}

/// A disk that was written anew by something that leaves its end alone.
#[test]
fn a_backup_behind_another_disks_beginning_is_no_table() {
    let folder = tempfile::tempdir().unwrap();
    let file = OpenOptions::new().read(true).write(true).open(disk(folder.path())).unwrap();
    let mut mbr = [0; 512];
    file.read_exact_at(&mut mbr, 0).unwrap();
    file.write_all_at(&[0; 512], 512).unwrap();
    let is_there = |first: &[u8]| {
        file.write_all_at(first, 0).unwrap();
        Table::read(&mut &file).is_ok()
    };
    assert!(is_there(&mbr) && is_there(&[0; 512]));
    // An MBR of type 0x0C, and what is no MBR at all.
    let mut other = mbr;
    other[450] = 0x0C;
    assert!(!is_there(&other) && !is_there(&[b"XFSB".as_slice(), &[0; 508]].concat()));
    // A hybrid one is one of a GPT.
    other[466] = 0xEE;
    assert!(is_there(&other));
}

#[test]
fn growing_leaves_boot_code_and_a_hybrid_mbr_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = OpenOptions::new().read(true).write(true).open(disk(folder.path())).unwrap();
    let mut mbr = [0; 512];
    file.read_exact_at(&mut mbr, 0).unwrap();
    let grown = |first: &[u8; 512]| {
        file.write_all_at(first, 0).unwrap();
        let growth = Table::read(&mut &file).unwrap().grow(4, 64 * MIB).unwrap();
        growth.then.bytes[..512].to_vec()
    };
    mbr[..446].fill(0x90);
    let plain = grown(&mbr);
    assert_eq!(
        (&plain[..446], &plain[458..462]),
        (&mbr[..446], &131_071_u32.to_le_bytes()[..]),
        "boot code, and a size"
    );
    mbr[466] = 0x0C;
    assert_eq!(grown(&mbr), mbr);
}

#[test]
fn two_damaged_copies_are_told_from_none() {
    let folder = tempfile::tempdir().unwrap();
    let file = OpenOptions::new().read(true).write(true).open(disk(folder.path())).unwrap();
    for header in [512, 40 * MIB - 512] {
        file.write_all_at(&[0xFF], header + 60).unwrap();
    }
    let error = Table::read(&mut &file).unwrap_err();
    assert_eq!(error.to_string(), "the GPT is damaged: the header's checksum is wrong");
    assert!(matches!(Table::read(&mut Cursor::new(vec![0; 1 << 20])), Err(Error::Missing)));
    assert!(matches!(Table::read(&mut Cursor::new(vec![])), Err(Error::Missing)));
}

#[test]
fn state_grows_to_the_disks_end_and_sgdisk_finds_no_fault() {
    let folder = tempfile::tempdir().unwrap();
    let path = disk(folder.path());
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let before = Table::read(&mut &file).unwrap();
    for length in [64 * MIB, 100 * MIB + 512] {
        file.set_len(length).unwrap();
        let growth = Table::read(&mut &file).unwrap().grow(4, length).unwrap();
        file.write_all_at(&growth.first.bytes, growth.first.offset).unwrap();
        // A power cut here: the old primary still stands.
        assert_eq!(Table::read(&mut &file).unwrap().copy, Copy::Primary);
        file.write_all_at(&growth.then.bytes, growth.then.offset).unwrap();
        let table = Table::read(&mut &file).unwrap();
        let state = &table.partitions[2];
        assert_eq!((state.first * 512, (state.last + 1 - state.first) * 512), (growth.start, growth.length));
        assert_eq!(growth.start + growth.length, length / MIB * MIB - MIB);
        assert_eq!(table.partitions[..2], before.partitions[..2]);
        assert!(sgdisk(&["-v"], &path).contains("No problems found"));
        assert!(table.grow(4, length).is_none(), "it is grown already");
    }
}

#[test]
fn a_partition_gets_another_name_and_sgdisk_finds_no_fault() {
    let folder = tempfile::tempdir().unwrap();
    let path = disk(folder.path());
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut before = Table::read(&mut &file).unwrap();
    // On the disk as it is, with a copy lost, and on one that is larger than its table knows.
    for (name, lost, length) in [
        ("state-unfinished", None, 40 * MIB),
        ("state", Some(512), 40 * MIB),
        ("a name of thirty-six characters is ä", Some(40 * MIB - 512), 40 * MIB),
        ("state", None, 64 * MIB),
        ("", Some(512), 64 * MIB),
    ] {
        file.set_len(length).unwrap();
        if let Some(at) = lost {
            file.write_all_at(&[0; 512], at).unwrap();
        }
        let change = Table::read(&mut &file).unwrap().rename(4, name, length).unwrap();
        assert_eq!((change.start, change.length), (17 * MIB, 4 * MIB));
        for write in [&change.first, &change.then] {
            // A power cut here: one of the copies is sound.
            file.write_all_at(&write.bytes[..write.bytes.len() / 2], write.offset).unwrap();
            let table = Table::read(&mut &file).unwrap();
            assert!([name, &before.partitions[2].name].contains(&table.partitions[2].name.as_str()), "{table:?}");
            file.write_all_at(&write.bytes, write.offset).unwrap();
        }
        let table = Table::read(&mut &file).unwrap();
        name.clone_into(&mut before.partitions[2].name);
        assert_eq!((table.copy, &table.partitions), (Copy::Primary, &before.partitions), "{name}");
        assert!(sgdisk(&["-v"], &path).contains("No problems found"), "{name}");
    }
    let table = Table::read(&mut &file).unwrap();
    assert!(table.rename(3, "state", 64 * MIB).is_none() && table.rename(0, "state", 64 * MIB).is_none());
    assert!(table.rename(4, "state", 21 * MIB).is_none(), "the backup would be in the partition");
    let long = table.rename(4, &"ab".repeat(30), 64 * MIB).unwrap();
    file.write_all_at(&long.then.bytes, 0).unwrap();
    assert_eq!(Table::read(&mut &file).unwrap().partitions[2].name, "ab".repeat(18));
}

#[test]
fn only_the_last_partition_grows() {
    let folder = tempfile::tempdir().unwrap();
    let table = Table::read(&mut File::open(disk(folder.path())).unwrap()).unwrap();
    assert!(table.grow(2, 100 * MIB).is_none());
    assert!(table.grow(3, 100 * MIB).is_none());
    assert!(table.grow(4, 1000).is_none());
    assert!(table.grow(4, 0).is_none());
}

/// The smallest table of 4096-byte sectors, built from the 512-byte one's header and entries.
#[test]
fn sectors_of_4096_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let table = Table::read(&mut File::open(disk(folder.path())).unwrap()).unwrap();
    let mut wide = table.clone();
    wide.sector = 4096;
    wide.mbr.resize(4096, 0);
    wide.partitions.retain(|one| one.number == 4);
    wide.header.first_usable = 6;
    let growth = wide.grow(4, 400 * MIB).unwrap();
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(folder.path().join("wide")).unwrap();
    file.set_len(400 * MIB).unwrap();
    for write in [&growth.first, &growth.then] {
        file.write_all_at(&write.bytes, write.offset).unwrap();
    }
    let read = Table::read(&mut &file).unwrap();
    assert_eq!((read.sector, read.copy, read.partitions.len()), (4096, Copy::Primary, 3));
    file.write_all_at(&[0; 4096], 4096).unwrap();
    let read = Table::read(&mut &file).unwrap();
    assert_eq!((read.sector, read.copy), (4096, Copy::Backup));
}

#[test]
fn guids_read_and_write() {
    let text = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
    assert_eq!(text.parse::<Guid>().unwrap(), Guid::ESP);
    assert_eq!(Guid::ESP.to_string(), text);
    for wrong in [
        "",
        "c12a7328f81f11d2ba4b00a0c93ec93b",
        "c12a7328-f81f-11d2-ba4b-00a0c93ec93",
        "g12a7328-f81f-11d2-ba4b-00a0c93ec93b",
        "ä2a7328-f81f-11d2-ba4b-00a0c93ec93b",
    ] {
        assert!(wrong.parse::<Guid>().is_err(), "{wrong}");
    }
}

proptest! {
    #[test]
    fn no_disk_breaks_the_reader(mut bytes in proptest::collection::vec(any::<u8>(), 2048..8192), my in 0u64..20, count in any::<u32>(), size in any::<u32>(), entries in any::<u64>()) {
        // A header with a right checksum and wild fields, so that the checks behind the checksum are reached.
        let header = super::Header { my_lba: my, alternate_lba: entries, first_usable: entries, last_usable: my, disk_guid: [7; 16], entries_lba: entries % 30, count: count % 200, size: if size % 2 == 0 { 128 } else { size }, entries_crc: count };
        let sector = header.bytes(512);
        bytes[512..1024].copy_from_slice(&sector);
        if let Ok(table) = Table::read(&mut Cursor::new(bytes)) {
            let _ = table.grow(count, entries);
            let _ = table.rename(my as u32, "state", entries);
        }
    }
}
