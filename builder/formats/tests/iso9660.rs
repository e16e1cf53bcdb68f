//! Holds planned ISO 9660 volumes against xorriso, and against a reader of the test's own.
#![allow(clippy::disallowed_methods)] // A test reads what its tools wrote.
mod reference;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use kscratch_formats::gpt::{self, Partition};
use kscratch_formats::guid::Guid;
use kscratch_formats::image::{Data, Extent, Image};
use kscratch_formats::iso9660::{self, END, Error, File, Options, SECTOR};
use proptest::prelude::*;
use reference::{run, write};

const MIB: u64 = 1 << 20;
/// 2025-10-09 08:53:20.
const TIME: i64 = 1_760_000_000;

fn options(len: u64, boot: &str) -> Options {
    Options { len, volume: "KSCRATCH_INSTALL".to_owned(), time: TIME, boot: boot.to_owned() }
}

fn file(name: &str, start: u64, len: u64) -> File {
    File { name: name.to_owned(), start, len }
}

/// The byte at a place of a file: no two files have the same ones.
fn content(name: &str, len: u64) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(31) ^ name.as_bytes()[0]).collect()
}

/// The volume's bytes, with its files' ones.
fn image(files: &[File], options: &Options) -> Image<String> {
    let mut extents = vec![iso9660::plan(files, options).unwrap()];
    let named = |file: &File| Extent {
        offset: file.start,
        data: Data::Content { id: file.name.clone(), offset: 0, len: file.len },
    };
    extents.extend(files.iter().filter(|file| file.len > 0).map(named));
    extents.sort_by_key(|extent| extent.offset);
    Image { len: options.len, extents }
}

fn written(image: &Image<String>, files: &[File], path: &Path) {
    let lengths: BTreeMap<&str, u64> = files.iter().map(|file| (file.name.as_str(), file.len)).collect();
    write(image, path, |name| content(name, lengths[name.as_str()]));
}

#[test]
fn xorriso_finds_the_files_and_what_is_booted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("volume.iso");
    let files = [file("DISK.KSP", MIB, 70_001), file("README.TXT", 30 * SECTOR, 12), file("EFI.IMG", 2 * MIB, MIB)];
    let options = options(4 * MIB, "EFI.IMG");
    written(&image(&files, &options), &files, &path);
    let (path, out) = (path.to_str().unwrap(), folder.path().join("out"));

    let told =
        run("xorriso", "xorriso", &["-indev", path, "-toc", "-pvd_info", "-report_el_torito", "plain", "-lsl", "/"]);
    assert!(!["FAILURE", "SORRY", "MISHAP", "WARNING"].iter().any(|word| told.contains(word)), "{told}");
    for want in [
        "Volume id    : 'KSCRATCH_INSTALL'",
        "PVD address  : 16s",
        "App Id       : KSCRATCH",
        "Creation Time: 2025100908532000",
        "70001 Oct  9  2025 'DISK.KSP'",
    ] {
        assert!(told.contains(want), "`{want}` is not in: {told}");
    }
    let booted =
        told.lines().find(|line| line.starts_with("El Torito boot img :   1")).unwrap_or_else(|| panic!("{told}"));
    let words: Vec<&str> = booted.split_whitespace().collect();
    assert!(words.contains(&"UEFI") && words.contains(&"none"), "{booted}");
    assert_eq!(words.last(), Some(&(2 * MIB / SECTOR).to_string().as_str()), "{booted}");

    run("xorriso", "xorriso", &["-osirrox", "on", "-indev", path, "-extract", "/", out.to_str().unwrap()]);
    for file in &files {
        assert!(fs::read(out.join(&file.name)).unwrap() == content(&file.name, file.len), "{}", file.name);
    }
}

#[test]
fn a_partition_table_stands_before_it_and_both_hold() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("volume.iso");
    let files = [file("EFI.IMG", MIB, MIB)];
    let options = options(4 * MIB, "EFI.IMG");
    let mut image = image(&files, &options);
    let kind: Guid = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b".parse().unwrap();
    let guid = |first| Guid::version8([first; 16]);
    let esp = Partition { name: "esp".into(), kind, guid: guid(1), start: MIB, len: MIB, attributes: 0 };
    image.extents.extend(gpt::tables(guid(2), image.len, 512, &[esp]).unwrap());
    image.extents.sort_by_key(|extent| extent.offset);
    written(&image, &files, &path);
    let path = path.to_str().unwrap();
    let verdict = run("sgdisk", "gdisk", &["-v", path]);
    assert!(verdict.contains("No problems found"), "{verdict}");
    let told = run("xorriso", "xorriso", &["-indev", path, "-report_system_area", "plain"]);
    assert!(told.contains("GPT partition name") && told.contains("GPT type GUID"), "{told}");
    assert!(!["FAILURE", "SORRY", "corrupted"].iter().any(|word| told.contains(word)), "{told}");
}

#[test]
fn what_the_format_does_not_have_is_refused() {
    let plan = |files: &[File], options: &Options| iso9660::plan::<()>(files, options).map(drop);
    let good = [file("EFI.IMG", MIB, MIB)];
    let of = |files: &[File]| match plan(files, &options(4 * MIB, "EFI.IMG")) {
        Err(Error::File { reason, .. } | Error::Options { reason, .. }) => reason,
        Ok(()) => "nothing".to_owned(),
    };
    let with = |name: &str, start: u64, len: u64| of(&[good[0].clone(), file(name, start, len)]);
    assert_eq!(of(&good), "nothing");
    assert_eq!(with("A.TXT", 2 * MIB, 2 * MIB), "nothing");
    for name in ["", ".TXT", "a.TXT", "LONGERNAM.E", "A.LONG", "A.B.C", "A B"] {
        assert!(with(name, 2 * MIB, 1).starts_with("its name must be"), "{name}");
    }
    assert_eq!(with("EFI.IMG", 2 * MIB, 1), "it is there twice");
    for (start, len) in [(0, 1), (END - SECTOR, 1), (2 * MIB + 1, 1), (2 * MIB, 2 * MIB + 1), (u64::MAX - 2047, 1)] {
        assert!(with("A", start, len).starts_with("it cannot stand at"), "{start} {len}");
    }
    assert_eq!(with("A", MIB + SECTOR, 1), "it overlaps EFI.IMG");
    let large = options(16 << 30, "EFI.IMG");
    let huge = [good[0].clone(), file("A", 4 * MIB, 4 << 30)];
    assert!(matches!(plan(&huge, &large), Err(Error::File { reason, .. }) if reason.ends_with("4 GiB or more")));
    assert!(plan(&good, &options(4 * MIB, "BOOT.IMG")).is_err());
    assert!(plan(&good, &options(4 * MIB + 512, "EFI.IMG")).is_err());
    assert!(plan(&good, &Options { volume: "with blanks".into(), ..options(4 * MIB, "EFI.IMG") }).is_err());
    let many: Vec<File> = (0..60).map(|n| file(&format!("FILE{n}"), 2 * MIB, 0)).chain(good.clone()).collect();
    assert!(of(&many).contains("more files than"));
}

/// What the root directory says: names to places and lengths, in both orders of bytes.
fn listed(volume: &[u8]) -> Vec<(String, u64, u64)> {
    let both = |bytes: &[u8]| {
        let little = u32::from_le_bytes(bytes[..4].try_into().unwrap());
        assert_eq!(little, u32::from_be_bytes(bytes[4..8].try_into().unwrap()));
        u64::from(little)
    };
    let descriptor = &volume[16 * 2048..17 * 2048];
    assert_eq!(&descriptor[..7], b"\x01CD001\x01");
    let root = &descriptor[156..190];
    let (at, len) = (both(&root[2..10]) * 2048, both(&root[10..18]));
    let mut rest = &volume[at as usize..(at + len) as usize];
    let mut all = Vec::new();
    while let Some(len) = rest.first().copied().filter(|len| *len > 0) {
        let (record, tail) = rest.split_at(usize::from(len));
        let name = &record[33..33 + usize::from(record[32])];
        if record[25] & 2 == 0 {
            all.push((String::from_utf8(name.to_vec()).unwrap(), both(&record[2..10]) * 2048, both(&record[10..18])));
        }
        rest = tail;
    }
    all
}

proptest! {
    #[test]
    fn every_volume_lists_what_was_put_into_it(names in prop::collection::btree_set("[A-Z0-9_]{1,8}(\\.[A-Z0-9_]{1,3})?", 1..20), sizes in prop::collection::vec(0u64..9000, 20), shuffle in any::<u64>()) {
        let mut files = Vec::new();
        let mut start = END;
        for (name, len) in names.iter().zip(&sizes) {
            files.push(file(name, start, *len));
            start += len.next_multiple_of(SECTOR);
        }
        let turn = shuffle as usize % files.len();
        files.rotate_left(turn);
        let options = options(start.max(END), &files[0].name);
        let Extent { offset, data } = iso9660::plan::<()>(&files, &options).unwrap();
        prop_assert_eq!(offset, iso9660::START);
        let Data::Bytes(bytes) = data else { panic!("it is literal") };
        prop_assert_eq!(offset + bytes.len() as u64, END);
        let mut volume = vec![0; offset as usize];
        volume.extend(&bytes);
        let mut want: Vec<(String, u64, u64)> = files
            .iter()
            .map(|file| (format!("{}{};1", file.name, if file.name.contains('.') { "" } else { "." }), file.start, file.len))
            .collect();
        let told = listed(&volume);
        // Sorted by name, and by extension among equal ones.
        let key = |(name, ..): &(String, u64, u64)| {
            let (name, extension) = name.trim_end_matches(";1").split_once('.').unwrap();
            (format!("{name:<8}"), format!("{extension:<3}"))
        };
        want.sort_by_key(key);
        prop_assert_eq!(told, want);
        // The words of the catalogue's first entry add up to nothing, and the second leads to the file.
        let catalog = &volume[22 * 2048..][..64];
        let sum = catalog[..32].chunks(2).fold(0u16, |sum, word| sum.wrapping_add(u16::from_le_bytes([word[0], word[1]])));
        prop_assert_eq!(sum, 0);
        let booted = u32::from_le_bytes(catalog[40..44].try_into().unwrap());
        prop_assert_eq!(u64::from(booted) * 2048, files[0].start);
    }
}
