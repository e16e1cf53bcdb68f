//! Holds block maps against bmaptool, and the reader against damage.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]
mod reference;

use kscratch_formats::bmap::{BLOCK, BlockMap, Mapped};
use proptest::prelude::*;
use reference::run;
use sha2::{Digest, Sha256};

/// A disk of `len` bytes, no two blocks of it alike.
fn disk(len: u64) -> Vec<u8> {
    (0..len).map(|at| (at / BLOCK * 7 + at % 251) as u8).collect()
}

fn map(disk: &[u8], ranges: &[std::ops::Range<u64>]) -> BlockMap {
    let ranges = ranges.iter().map(|bytes| {
        let sha256 = Sha256::digest(&disk[bytes.start as usize..bytes.end as usize]).into();
        Mapped { bytes: bytes.clone(), sha256 }
    });
    BlockMap { image: disk.len() as u64, ranges: ranges.collect() }
}

#[test]
fn bmaptool_copies_what_is_mapped_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    // The last block is not whole; the second and third range touch.
    let disk = disk(9 * BLOCK + 100);
    let ranges = [0..BLOCK, 2 * BLOCK..4 * BLOCK, 4 * BLOCK..5 * BLOCK, 8 * BLOCK..9 * BLOCK + 100];
    let map = map(&disk, &ranges);
    std::fs::write(file("image"), &disk).unwrap();
    std::fs::write(file("image.bmap"), map.print()).unwrap();
    let copy = ["copy", "--bmap", &file("image.bmap"), &file("image"), &file("target")];
    run("bmaptool", "bmap-tools", &copy);
    let mut want = vec![0; disk.len()];
    for range in &ranges {
        let range = range.start as usize..range.end as usize;
        want[range.clone()].copy_from_slice(&disk[range]);
    }
    assert!(std::fs::read(file("target")).unwrap() == want);
    // It checks: neither another image nor another map passes.
    let fails = |what: &str| {
        let output = std::process::Command::new("bmaptool").args(copy).output().unwrap();
        assert!(!output.status.success(), "{what}");
    };
    let mut other = disk.clone();
    other[3 * BLOCK as usize] ^= 1;
    std::fs::write(file("image"), &other).unwrap();
    fails("a changed image");
    std::fs::write(file("image"), &disk).unwrap();
    std::fs::write(file("image.bmap"), map.print().replace("> 0 <", "> 1 <")).unwrap();
    fails("a changed map");
}

#[test]
fn a_map_of_bmaptool_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let disk = disk(300 * BLOCK);
    std::fs::write(file("image"), &disk).unwrap();
    run("bmaptool", "bmap-tools", &["create", "--output", &file("image.bmap"), &file("image")]);
    let read = BlockMap::parse(&std::fs::read_to_string(file("image.bmap")).unwrap()).unwrap();
    assert_eq!(read, map(&disk, std::slice::from_ref(&(0..300 * BLOCK))));
}

#[track_caller]
fn refused(text: &str, why: &str) {
    let error = BlockMap::parse(text).unwrap_err().to_string();
    assert!(error.contains(why), "{error}");
}

/// The same map with its own checksum made right again.
fn resealed(text: &str) -> String {
    let (head, rest) = text.split_once("<BmapFileChecksum> ").unwrap();
    let zeros = format!("{head}<BmapFileChecksum> {}{}", "0".repeat(64), &rest[64..]);
    format!("{head}<BmapFileChecksum> {}{}", hex::encode(Sha256::digest(&zeros)), &rest[64..])
}

#[test]
fn what_cannot_be_trusted_is_refused() {
    let disk = disk(8 * BLOCK);
    let good = map(&disk, &[BLOCK..3 * BLOCK, 5 * BLOCK..6 * BLOCK]).print();
    assert!(BlockMap::parse(&resealed(&good)).is_ok());
    refused("", "reading the block map");
    refused("<bmap version=\"1.4\"/>", "`1.4`");
    refused("<other version=\"2.0\"/>", "<other>");
    refused("<bmap version=\"2.0\"/>", "<ChecksumType>");
    refused(&good.replace("sha256", "md5"), "`md5`");
    refused(&good.replace("1-2", "1-3"), "it says that its checksum is");
    let changed = |from: &str, to: &str| {
        assert!(good.contains(from));
        resealed(&good.replace(from, to))
    };
    refused(&changed("> 1-2 <", "> 1-5 <"), "range 5 is empty, past the disk, or not behind");
    refused(&changed("> 5 <", "> 8 <"), "range 8 is empty, past the disk");
    refused(&changed("> 5 <", "> 5-4 <"), "range 5-4");
    refused(&changed("> 5 <", "> 18446744073709551615 <"), "past any disk");
    refused(&changed("> 5 <", "> five <"), "`five` is no number");
    refused(&changed("<BlockSize> 4096", "<BlockSize> 4095"), "4095 bytes");
    refused(&changed("chksum=\"", "sum=\""), "no SHA-256");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_printed_is_read_again(len in 1u64..80_000, cuts in proptest::collection::btree_set(0u64..20, 0..8)) {
        let disk = disk(len);
        let blocks = len.div_ceil(BLOCK);
        let cuts: Vec<u64> = cuts.into_iter().filter(|cut| *cut < blocks).collect();
        let ranges: Vec<_> = cuts.chunks_exact(2).map(|pair| pair[0] * BLOCK..((pair[1]) * BLOCK).min(len)).collect();
        let map = map(&disk, &ranges);
        prop_assert_eq!(BlockMap::parse(&map.print()), Ok(map));
    }

    #[test]
    fn no_text_is_more_than_refused(text in "[<>a-zA-Z0-9 =\"/.-]{0,200}", at in 0usize..2000, byte in 32u8..127) {
        let _ = BlockMap::parse(&text);
        let disk = disk(8 * BLOCK);
        let good = map(&disk, &[BLOCK..3 * BLOCK, 5 * BLOCK..6 * BLOCK]);
        let mut bytes = good.print().into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        // Whatever is changed, the ranges are those or there are none.
        if let Ok(read) = BlockMap::parse(&String::from_utf8(bytes).unwrap()) {
            prop_assert_eq!(read, good);
        }
    }
}
