//! Holds planned and changed FAT32 volumes against fsck.fat and mtools.
mod reference;

use std::collections::BTreeMap;
use std::path::Path;

use kscratch_formats::fat32::{self, Entry, Kind, Options, Volume};
use kscratch_formats::image::Image;
use kscratch_formats::patch::Patch;
use proptest::prelude::*;
use reference::{Disk, run, write};

const MIB: u64 = 1 << 20;

fn options(size: u64) -> Options {
    Options {
        size,
        sector: 512,
        label: "KSCRATCHESP".to_owned(),
        serial: 0x1234_ABCD,
        time: 1_750_000_001,
        hidden_sectors: 2048,
    }
}

fn dir(path: &str) -> Entry<()> {
    Entry { path: path.to_owned(), kind: Kind::Directory }
}

fn file(path: &str, bytes: &[u8]) -> Entry<()> {
    Entry { path: path.to_owned(), kind: Kind::Bytes(bytes.to_vec()) }
}

fn open(path: &Path) -> Volume<Disk> {
    Volume::open(Disk::open(path)).unwrap()
}

#[allow(clippy::disallowed_types)]
fn patch(path: &Path, patches: Vec<Patch>) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    for Patch(writes) in patches {
        for (at, bytes) in writes {
            file.write_all_at(&bytes, at).unwrap();
        }
        // Whatever was written so far, the volume is readable; only lost clusters may be there.
    }
}

#[track_caller]
fn fsck(path: &Path) {
    run("fsck.fat", "dosfstools", &["-n", path.to_str().unwrap()]);
}

#[track_caller]
fn check(entries: Vec<Entry<()>>, options: &Options) -> tempfile::NamedTempFile {
    let image: Image<()> = fat32::plan(entries, options).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    write(&image, file.path(), |()| Vec::new());
    fsck(file.path());
    file
}

fn mtype(image: &Path, path: &str) -> String {
    run("mtype", "mtools", &["-i", image.to_str().unwrap(), &format!("::{path}")])
}

fn esp() -> Vec<Entry<()>> {
    vec![
        dir("/EFI"),
        dir("/EFI/BOOT"),
        file("/EFI/BOOT/BOOTX64.EFI", &[7; 100_000]),
        file("/empty", b""),
        dir("/kscratch"),
        file("/kscratch/role.toml", b"version = 1\n"),
    ]
}

#[test]
fn empty_volumes_of_many_sizes_are_clean() {
    for size in [34, 64, 100, 260, 512, 1024, 9000, 40_000] {
        check(vec![], &options(size * MIB));
    }
}

#[test]
fn volumes_of_larger_sectors_are_clean_and_stay_so() {
    for (sector, size) in [(1024, 80), (2048, 200), (4096, 260), (4096, 512), (4096, 9000)] {
        let options = Options { sector, hidden_sectors: (MIB / sector) as u32, ..options(size * MIB) };
        let made = check(esp(), &options);
        for contents in ["again", &"long".repeat(10_000)] {
            let patches = open(made.path()).replace("/kscratch/role.toml", contents.as_bytes(), 1_760_000_000).unwrap();
            patch(made.path(), patches);
            fsck(made.path());
            assert_eq!(mtype(made.path(), "/kscratch/role.toml"), contents);
        }
    }
    let small = Options { sector: 4096, ..options(250 * MIB) };
    let error = fat32::plan::<()>(vec![], &small).unwrap_err().to_string();
    assert!(error.contains("FAT32 needs 258 MiB at least"), "{error}");
    let odd = Options { sector: 520, ..options(250 * MIB) };
    assert!(fat32::plan::<()>(vec![], &odd).unwrap_err().to_string().contains("512, 1024, 2048 or 4096"));
}

#[test]
fn an_esp_is_clean_and_mtools_reads_it() {
    let made = check(esp(), &options(512 * MIB));
    assert_eq!(mtype(made.path(), "/kscratch/role.toml"), "version = 1\n");
    let listing = run("mdir", "mtools", &["-i", made.path().to_str().unwrap(), "::/EFI/BOOT"]);
    assert!(listing.contains("BOOTX64  EFI    100000 2025-06-15  15:06"), "{listing}");
    let volume = open(made.path());
    assert_eq!(volume.label(), "KSCRATCHESP");
    let all: Vec<String> = volume.walk().unwrap().into_iter().map(|(path, _)| path).collect();
    assert_eq!(all, ["/EFI", "/EFI/BOOT", "/EFI/BOOT/BOOTX64.EFI", "/kscratch", "/kscratch/role.toml", "/empty"]);
}

#[test]
#[allow(clippy::disallowed_methods)]
fn clusters_in_use_alone_are_the_volume() {
    let file = check(esp(), &options(64 * MIB));
    let volume = open(file.path());
    let bytes = std::fs::read(file.path()).unwrap();
    let mut copy = vec![0xA5; bytes.len()];
    let ranges = volume.used_ranges();
    assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start), "{ranges:?}");
    for range in ranges {
        let range = range.start as usize..range.end as usize;
        copy[range.clone()].copy_from_slice(&bytes[range]);
    }
    assert!(copy.iter().filter(|byte| **byte == 0xA5).count() as u64 > 60 * MIB);
    std::fs::write(file.path(), &copy).unwrap();
    fsck(file.path());
    assert_eq!(open(file.path()).walk().unwrap(), volume.walk().unwrap());
    assert_eq!(mtype(file.path(), "kscratch/role.toml"), "version = 1\n");
}

#[test]
fn files_are_replaced_and_inserted_cleanly() {
    let made = check(esp(), &options(512 * MIB));
    let long = "x".repeat(20_000);
    let steps = [
        ("/kscratch/role.toml", long.as_str()),
        ("/kscratch/role.toml", "short"),
        ("/kscratch/role.toml", ""),
        ("/kscratch/role.toml", "again"),
        ("/kscratch/secrets.toml", "token"),
        ("/README.TXT", "hello"),
    ];
    for (path, contents) in steps {
        let patches = open(made.path()).replace(path, contents.as_bytes(), 1_760_000_000).unwrap();
        patch(made.path(), patches);
        fsck(made.path());
        assert_eq!(mtype(made.path(), path), contents);
    }
    for number in 0..100 {
        let path = format!("/kscratch/a long name that takes several slots, number {number}");
        let patches = open(made.path()).replace(&path, path.as_bytes(), 0).unwrap();
        patch(made.path(), patches);
    }
    fsck(made.path());
    let volume = open(made.path());
    let found = volume.find("/KSCRATCH/A long name that takes several slots, number 77").unwrap().unwrap();
    assert_eq!(volume.read(&found, 100).unwrap(), b"/kscratch/a long name that takes several slots, number 77");
}

#[test]
fn every_prefix_of_the_patches_leaves_the_old_file_or_the_new() {
    let made = check(esp(), &options(64 * MIB));
    let patches = open(made.path()).replace("/kscratch/role.toml", b"new", 0).unwrap();
    let count = patches.len();
    for (index, step) in patches.into_iter().enumerate() {
        patch(made.path(), vec![step]);
        let contents = mtype(made.path(), "/kscratch/role.toml");
        assert!(
            contents == "version = 1\n" && index < count - 2 || contents == "new",
            "after step {index}: {contents}"
        );
    }
}

#[test]
fn errors_say_which_and_why() {
    let say = |entries: Vec<Entry<()>>, options: &Options| fat32::plan(entries, options).unwrap_err().to_string();
    assert!(say(vec![], &options(30 * MIB)).contains("FAT32 needs 34 MiB at least"));
    assert_eq!(
        say(vec![file("/a/b", b"")], &options(64 * MIB)),
        "placing /a/b on the FAT32 volume: there is no directory /a for it"
    );
    assert!(say(vec![file("/a", b""), file("/A", b"")], &options(64 * MIB)).contains("it is there twice"));
    assert!(say(vec![file("/a:b", b"")], &options(64 * MIB)).contains("not one that a FAT volume can hold"));
    assert!(say(vec![], &Options { label: "lower".to_owned(), ..options(64 * MIB) }).contains("its label must be"));
    let big = Entry { path: "/big".to_owned(), kind: Kind::File { id: (), offset: 0, len: 80 * MIB } };
    assert!(say(vec![big], &options(64 * MIB)).starts_with("the FAT32 volume is 1"));
    let made = check(esp(), &options(64 * MIB));
    let say = |path: &str| open(made.path()).replace(path, b"", 0).unwrap_err().to_string();
    assert_eq!(say("/nowhere/file"), "there is no /nowhere on the FAT32 volume");
    assert_eq!(say("/kscratch"), "placing /kscratch on the FAT32 volume: a directory stands there");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn random_volumes_are_clean_and_read_back(
        names in prop::collection::btree_map("[a-zA-Z0-9 ._+äß-]{0,40}[a-z]", (any::<bool>(), 0usize..20_000), 0..60),
    ) {
        let mut entries = vec![];
        let mut expected = BTreeMap::new();
        let mut parent = String::new();
        for (name, (directory, len)) in names {
            let path = format!("{parent}/{name}");
            if !expected.keys().any(|known: &String| known.to_uppercase() == path.to_uppercase()) {
                if directory {
                    entries.push(dir(&path));
                    parent = if len % 3 == 0 { String::new() } else { path.clone() };
                    expected.insert(path, None);
                } else {
                    let bytes = vec![len as u8; len];
                    entries.push(file(&path, &bytes));
                    expected.insert(path, Some(bytes));
                }
            }
            if parent.matches('/').count() > 6 {
                parent.clear();
            }
        }
        let made = check(entries, &options(64 * MIB));
        let volume = open(made.path());
        let found: BTreeMap<String, Option<Vec<u8>>> = volume.walk().unwrap().into_iter()
            .map(|(path, found)| (path, (!found.directory).then(|| volume.read(&found, 1 << 20).unwrap())))
            .collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn reading_a_damaged_volume_never_panics(changes in prop::collection::vec((0usize..600_000, any::<u8>()), 1..30)) {
        let image: Image<()> = fat32::plan(esp(), &options(34 * MIB)).unwrap();
        let mut bytes = vec![0; image.len as usize];
        for extent in &image.extents {
            let kscratch_formats::image::Data::Bytes(data) = &extent.data else { unreachable!() };
            bytes[extent.offset as usize..][..data.len()].copy_from_slice(data);
        }
        for (at, byte) in changes {
            bytes[at % 4 * 150_000 % 600_000 + at % 150_000 / 100] = byte;
        }
        if let Ok(volume) = Volume::open(bytes.as_slice()) {
            for (_, found) in volume.walk().unwrap_or_default() {
                let _ = volume.read(&found, 1 << 20);
            }
            let _ = volume.replace("/kscratch/role.toml", b"x", 0);
        }
    }
}
