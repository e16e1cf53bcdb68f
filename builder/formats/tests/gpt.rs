//! Holds planned partition tables against sgdisk, and the reader against damaged ones.
mod reference;

use kscratch_formats::gpt::{self, Error, Partition};
use kscratch_formats::guid::Guid;
use kscratch_formats::image::{Data, Image};
use proptest::prelude::*;
use reference::{run, write};

const MIB: u64 = 1 << 20;
const LEN: u64 = 64 * MIB;

fn guid(first: u8) -> Guid {
    Guid::version8([first; 16])
}

fn partition(name: &str, number: u8, start: u64, len: u64) -> Partition {
    let kind = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b".parse().unwrap();
    Partition { name: name.to_owned(), kind, guid: guid(number), start: start * MIB, len: len * MIB, attributes: 0 }
}

fn disk(partitions: &[Partition]) -> Image<()> {
    disk_of(512, partitions)
}

fn disk_of(sector: u64, partitions: &[Partition]) -> Image<()> {
    Image { len: LEN, extents: gpt::tables(guid(9), LEN, sector, partitions).unwrap() }
}

fn flat(image: &Image<()>) -> Vec<u8> {
    let mut bytes = vec![0; image.len as usize];
    for extent in &image.extents {
        let Data::Bytes(data) = &extent.data else { panic!("tables are literal") };
        bytes[extent.offset as usize..][..data.len()].copy_from_slice(data);
    }
    bytes
}

#[test]
fn sgdisk_finds_no_problem_and_the_same_partitions() {
    let partitions = [partition("esp", 1, 1, 32), partition("root-a", 2, 33, 10), partition("große Platte", 3, 43, 20)];
    let image = disk(&partitions);
    let file = tempfile::NamedTempFile::new().unwrap();
    write(&image, file.path(), |()| Vec::new());
    let path = file.path().to_str().unwrap();
    let verdict = run("sgdisk", "gdisk", &["-v", path]);
    assert!(verdict.contains("No problems found"), "{verdict}");
    let second = run("sgdisk", "gdisk", &["-i", "2", path]);
    assert!(second.contains(&guid(2).to_string().to_uppercase()) && second.contains("'root-a'"), "{second}");
    let table = gpt::read(flat(&image).as_slice(), LEN).unwrap();
    assert_eq!(table.disk, guid(9));
    assert_eq!(table.warning, None);
    assert_eq!(table.partitions, (1..).zip(partitions).collect::<Vec<_>>());
}

#[test]
fn tables_of_large_sectors_are_found_by_where_they_stand() {
    let partitions = [partition("esp", 1, 1, 32), partition("state", 2, 33, 30)];
    let good = flat(&disk_of(4096, &partitions));
    let table = gpt::read(good.as_slice(), LEN).unwrap();
    assert_eq!((table.sector, table.warning), (4096, None));
    assert_eq!(table.partitions, (1..).zip(partitions.clone()).collect::<Vec<_>>());
    assert_eq!(gpt::read(flat(&disk(&partitions)).as_slice(), LEN).unwrap().sector, 512);
    // One of both may be damaged; nothing of the other kind is found then.
    for at in [4096 + 60, 8192 + 40] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        let table = gpt::read(bytes.as_slice(), LEN).unwrap();
        assert_eq!((table.sector, table.partitions.len()), (4096, 2));
        assert!(table.warning.unwrap().to_string().starts_with("reading the primary partition table: "));
        let end = bytes.len() - 4096;
        bytes[end + 20] ^= 1;
        assert!(gpt::read(bytes.as_slice(), LEN).is_err());
    }
    assert_eq!(gpt::backup(4096), 20480);
    let error = gpt::tables::<()>(guid(9), LEN, 1000, &partitions).unwrap_err();
    assert_eq!(
        error.to_string(),
        "laying out a disk of 67108864 bytes: its sectors are neither 512 nor 4096 bytes long"
    );
}

#[test]
fn a_damaged_primary_is_read_from_the_backup() {
    let partitions = [partition("esp", 1, 1, 32)];
    let good = flat(&disk(&partitions));
    for at in [512, 512 + 60, 1024, 1024 + 40] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        let table = gpt::read(bytes.as_slice(), LEN).unwrap();
        assert_eq!(table.partitions, [(1, partitions[0].clone())]);
        assert!(table.warning.unwrap().to_string().starts_with("reading the primary partition table: "));
        let end = bytes.len() - 512;
        bytes[end + 20] ^= 1;
        assert!(gpt::read(bytes.as_slice(), LEN).is_err());
    }
    assert_eq!(
        gpt::read([0u8; 4096].as_slice(), 4096).unwrap_err().to_string(),
        "reading the primary partition table: there is no `EFI PART` signature"
    );
}

#[track_caller]
fn check(partitions: &[Partition], want: &str) {
    let error: Error = gpt::tables::<()>(guid(9), LEN, 512, partitions).unwrap_err();
    assert_eq!(error.to_string(), want);
}

#[test]
fn partitions_that_cannot_be_are_refused() {
    check(&[partition("a", 1, 1, 10), partition("b", 2, 10, 5)], "placing partition `b`: it overlaps partition `a`");
    check(
        &[partition("a", 1, 1, 10), partition("b", 1, 11, 5)],
        "placing partition `b`: it has the same GUID as partition `a`",
    );
    check(
        &[partition("a", 1, 1, 63)],
        "placing partition `a`: it ends at 67108864, past the last usable byte 67091968 of the disk",
    );
    check(
        &[partition("a", 1, 0, 1)],
        "placing partition `a`: it begins at 0, which is not a multiple of 1 MiB above 0",
    );
    check(
        &[partition(&"n".repeat(37), 1, 1, 1)],
        "placing partition `nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn`: its name is longer than 36 characters",
    );
}

#[test]
fn guids_are_written_and_read() {
    let text = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
    let guid: Guid = text.parse().unwrap();
    assert_eq!(guid.to_string(), text);
    assert_eq!(Guid::from_disk(guid.to_disk()), guid);
    assert_eq!(guid.to_disk()[..4], [0x28, 0x73, 0x2a, 0xc1]);
    assert!("c12a7328f81f11d2ba4b00a0c93ec93b".parse::<Guid>().is_err());
    assert!("é12a7328-f81f-11d2-ba4b-00a0c93ec93".parse::<Guid>().is_err());
}

proptest! {
    #[test]
    fn reading_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..4096), changes in prop::collection::vec((0usize..34 * 512, any::<u8>()), 0..8)) {
        let _ = gpt::read(bytes.as_slice(), bytes.len() as u64);
        let mut small = flat(&disk(&[partition("esp", 1, 1, 32)]));
        small.truncate(34 * 512);
        for (at, byte) in changes {
            small[at] = byte;
        }
        let _ = gpt::read(small.as_slice(), LEN);
    }
}
