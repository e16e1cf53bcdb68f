//! Holds planned ext4 filesystems against e2fsck, debugfs and resize2fs.
mod reference;

use std::collections::BTreeMap;
use std::path::Path;

use kscratch_formats::ext4::{self, Entry, Error, FoundKind, Kind, Options, Reader};
use proptest::prelude::*;
use reference::{Disk, run, write};

const MIB: u64 = 1 << 20;

fn options(size: u64) -> Options {
    Options {
        size,
        label: "kscratch-root".to_owned(),
        uuid: *b"0123456789abcdef",
        hash_seed: *b"fedcba9876543210",
        inodes: None,
        journal_blocks: None,
        time: 1_750_000_000,
        grow_to: None,
    }
}

fn entry(path: &str, kind: Kind<u64>) -> Entry<u64> {
    let mode = if matches!(kind, Kind::Directory) { 0o755 } else { 0o644 };
    Entry { path: path.to_owned(), kind, mode, uid: 0, gid: 0, mtime: 1_700_000_000, xattrs: BTreeMap::new() }
}

fn dir(path: &str) -> Entry<u64> {
    entry(path, Kind::Directory)
}

/// A file of content `id`, see [`content`].
fn file(path: &str, id: u64, len: u64) -> Entry<u64> {
    entry(path, Kind::File { id, offset: 0, len })
}

/// Content `id` is this many repetitions of its number.
fn content(id: &u64) -> Vec<u8> {
    let mut state = *id;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    })
    .take(300_000)
    .collect()
}

fn fsck(path: &Path) {
    run("e2fsck", "e2fsprogs", &["-fn", path.to_str().unwrap()]);
}

/// Plans, writes and checks; gives the file for further questions.
#[track_caller]
fn check(entries: Vec<Entry<u64>>, options: &Options) -> tempfile::NamedTempFile {
    let image = ext4::plan(entries, options).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    write(&image, file.path(), content);
    fsck(file.path());
    file
}

fn open(path: &Path) -> Reader<Disk> {
    Reader::open(Disk::open(path)).unwrap()
}

fn debugfs(file: &Path, request: &str) -> String {
    run("debugfs", "e2fsprogs", &["-R", request, file.to_str().unwrap()])
}

#[test]
fn empty_filesystems_of_many_sizes_are_clean() {
    for size in [1, 4, 127, 128, 129, 300, 512, 1024, 3000, 40_000] {
        check(vec![], &options(size * MIB));
    }
    check(vec![], &options(256 << 10));
    check(vec![], &Options { inodes: Some(600_000), ..options(3000 * MIB) });
}

#[test]
fn every_kind_of_entry_is_clean_and_reads_back() {
    let long = "x".repeat(200);
    let mut capable = file("/bin/ping", 1, 5000);
    capable
        .xattrs
        .insert("security.capability".to_owned(), vec![1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut labelled = file("/bin/pong", 2, 4096);
    labelled.xattrs.insert("user.comment".to_owned(), vec![7; 500]);
    labelled.xattrs.insert("security.capability".to_owned(), vec![9; 20]);
    labelled.xattrs.insert("user.empty".to_owned(), vec![]);
    let mut owned = dir("/home");
    (owned.uid, owned.gid, owned.mode, owned.mtime) = (70_000, 80_000, 0o1777, 5_000_000_000);
    let made = check(
        vec![
            dir("/"),
            dir("/bin"),
            capable,
            labelled,
            file("/bin/big", 3, 300_000),
            entry("/bin/empty", Kind::Bytes(vec![])),
            entry("/bin/small", Kind::Bytes(b"hello".to_vec())),
            dir("/dev"),
            entry("/dev/console", Kind::CharDevice { major: 5, minor: 1 }),
            entry("/dev/vda", Kind::BlockDevice { major: 254, minor: 1000 }),
            owned,
            entry("/short", Kind::Symlink("bin/big".to_owned())),
            entry("/long", Kind::Symlink(long.clone())),
        ],
        &options(64 * MIB),
    );
    for (path, id, len) in [("/bin/ping", 1, 5000), ("/bin/big", 3, 300_000)] {
        let out = tempfile::NamedTempFile::new().unwrap();
        debugfs(made.path(), &format!("dump {path} {}", out.path().display()));
        assert!(read(out.path()) == content(&id)[..len], "{path}");
    }
    assert!(debugfs(made.path(), "cat /bin/small").starts_with("hello"));
    assert!(debugfs(made.path(), "stat /long").contains("Size: 200"));
    assert!(debugfs(made.path(), "stat /short").contains("Fast link dest: \"bin/big\""));
    assert!(debugfs(made.path(), "stat /dev/console").contains("Device major/minor number: 05:01"));
    assert!(debugfs(made.path(), "stat /dev/vda").contains("Device major/minor number: 254:1000"));
    assert!(debugfs(made.path(), "ea_list /bin/ping").contains("security.capability (20) = 01 00 00 02"));
    let labels = debugfs(made.path(), "ea_list /bin/pong");
    assert!(labels.contains("user.comment (500)") && labels.contains("security.capability (20)"), "{labels}");
    let home = debugfs(made.path(), "stat /home");
    assert!(
        home.contains("User: 70000   Group: 80000") && home.contains("Mode:  01777") && home.contains("2128"),
        "{home}"
    );
}

#[allow(clippy::disallowed_methods)]
fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

#[test]
fn a_directory_with_twenty_thousand_entries_is_clean() {
    let names =
        (0..20_000).map(|n| entry(&format!("/many/a-rather-long-name-for-a-file-{n:05}"), Kind::Bytes(vec![b'x'])));
    let made = check(
        [dir("/many")].into_iter().chain(names).collect(),
        &Options { inodes: Some(20_100), ..options(256 * MIB) },
    );
    assert!(debugfs(made.path(), "cat /many/a-rather-long-name-for-a-file-19999").starts_with('x'));
}

#[test]
fn seventy_thousand_subdirectories_are_clean() {
    let names = (0..70_000).map(|n| dir(&format!("/many/{n}")));
    check([dir("/many")].into_iter().chain(names).collect(), &Options { inodes: Some(70_100), ..options(1024 * MIB) });
}

/// Nothing is read of the content: this is about extents in index nodes, e2fsck looks at metadata alone.
#[test]
fn files_of_many_gigabytes_are_clean() {
    let image = ext4::plan(
        vec![
            entry("/a", Kind::File { id: 0, offset: 0, len: 3 << 30 }),
            entry("/b", Kind::File { id: 0, offset: 0, len: 60 << 30 }),
        ],
        &options(80 << 30),
    )
    .unwrap();
    let literal = kscratch_formats::image::Image {
        len: image.len,
        extents: image
            .extents
            .into_iter()
            .filter(|extent| matches!(extent.data, kscratch_formats::image::Data::Bytes(_)))
            .collect(),
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    write(&literal, file.path(), |_: &u64| Vec::new());
    fsck(file.path());
    assert!(debugfs(file.path(), "stat /b").contains("Size: 64424509440"));
}

#[test]
fn state_has_a_journal_and_grows_two_hundredfold() {
    let state = Options { journal_blocks: Some(4096), grow_to: Some(8 << 40), ..options(512 * MIB) };
    let made = check(vec![dir("/log"), file("/log/first", 4, 200_000)], &state);
    let header = run("dumpe2fs", "e2fsprogs", &["-h", made.path().to_str().unwrap()]);
    assert!(header.contains("Total journal size:       16M"), "{header}");
    made.as_file().set_len(100 << 30).unwrap();
    run("resize2fs", "e2fsprogs", &[made.path().to_str().unwrap()]);
    fsck(made.path());
    let out = tempfile::NamedTempFile::new().unwrap();
    debugfs(made.path(), &format!("dump /log/first {}", out.path().display()));
    assert!(read(out.path()) == content(&4)[..200_000]);
}

#[test]
fn errors_say_by_how_much_and_which() {
    let say = |entries: Vec<Entry<u64>>, options: &Options| ext4::plan(entries, options).unwrap_err().to_string();
    let Err(Error::NoSpace { missing, .. }) = ext4::plan(vec![file("/a", 0, 20 * MIB)], &options(16 * MIB)) else {
        panic!("it fitted")
    };
    let fits = Options { size: 16 * MIB + missing, ..options(0) };
    assert!(ext4::plan(vec![file("/a", 0, 20 * MIB)], &Options { inodes: Some(1024), ..fits }).is_ok());
    assert_eq!(
        say(vec![file("/a/b", 0, 1)], &options(MIB)),
        "placing /a/b in the ext4 filesystem: there is no directory /a for it"
    );
    assert_eq!(say(vec![dir("/a"), dir("/a")], &options(MIB)), "placing /a in the ext4 filesystem: it is there twice");
    assert_eq!(
        say(vec![dir("/a"), dir("/b")], &Options { inodes: Some(12), size: 4096, ..options(MIB) }),
        "laying out the ext4 filesystem `kscratch-root`: it must be 256 KiB at least"
    );
    assert!(
        say((0..50).map(|n| dir(&format!("/{n}"))).collect(), &Options { inodes: Some(32), ..options(MIB) })
            .contains("61 inodes are needed")
    );
    assert!(say(vec![file("/lost+found", 0, 1)], &options(MIB)).contains("must be a directory"));
    assert!(say(vec![entry("/l", Kind::Symlink(String::new()))], &options(MIB)).contains("needs a target"));
    let mut acl = dir("/a");
    acl.xattrs.insert("system.posix_acl_access".to_owned(), vec![1]);
    assert!(say(vec![acl], &options(MIB)).contains("system.posix_acl_access"));
}

/// A tree of random shape: names decide depth, lengths decide the kind.
fn trees() -> impl Strategy<Value = BTreeMap<String, (u8, u64, u16)>> {
    let path = prop::collection::vec("[a-zA-Z0-9._+-]{1,30}x", 1..5).prop_map(|parts| format!("/{}", parts.join("/")));
    prop::collection::btree_map(path, (any::<u8>(), 0u64..300_000, 0u16..0o1000), 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn random_trees_are_clean(tree in trees(), size in 64u64..400, journal in any::<bool>(), grow in any::<bool>()) {
        let mut entries: BTreeMap<String, Entry<u64>> = BTreeMap::new();
        for (path, (kind, len, mode)) in &tree {
            let above = path.match_indices('/').skip(1).map(|(at, _)| path[..at].to_owned());
            for parent in above {
                entries.insert(parent.clone(), dir(&parent));
            }
            let kind = match kind % 6 {
                0 => Kind::Directory,
                1 => Kind::Symlink("y".repeat(1 + (len % 4000) as usize)),
                2 => Kind::Bytes(vec![7; (len % 10_000) as usize]),
                3 => Kind::CharDevice { major: (len % 4000) as u32, minor: *mode as u32 },
                _ => Kind::File { id: *len, offset: 0, len: *len },
            };
            let mut new = entry(path, kind);
            new.mode = *mode;
            if len % 5 == 0 {
                new.xattrs.insert("security.x".to_owned(), vec![3; (len % 2000) as usize]);
            }
            entries.entry(path.clone()).or_insert(new);
        }
        let options = Options {
            journal_blocks: journal.then_some(1024),
            grow_to: grow.then_some(1 << 40),
            ..options(size * MIB)
        };
        let made = check(entries.values().cloned().collect(), &options);
        let reader = open(made.path());
        let found = reader.walk().unwrap();
        prop_assert_eq!(found.keys().filter(|path| *path != "/lost+found").collect::<Vec<_>>(), entries.keys().collect::<Vec<_>>());
        for (path, entry) in entries {
            let (want_kind, want) = match entry.kind {
                Kind::Directory => (FoundKind::Directory, None),
                Kind::File { id, len, .. } => (FoundKind::File, Some(content(&id)[..len as usize].to_vec())),
                Kind::Bytes(bytes) => (FoundKind::File, Some(bytes)),
                Kind::Symlink(target) => (FoundKind::Symlink, Some(target.into_bytes())),
                _ => (FoundKind::Other, None),
            };
            prop_assert_eq!(found[&path].kind, want_kind);
            prop_assert_eq!(found[&path].mode, entry.mode);
            prop_assert!(want.is_none_or(|want| reader.read(&found[&path], 1 << 20).unwrap() == want), "{}", path);
        }
    }

    #[test]
    fn reading_a_damaged_filesystem_never_panics(changes in prop::collection::vec((0usize..200_000, any::<u8>()), 1..40)) {
        let entries = vec![dir("/a"), entry("/a/b", Kind::Bytes(vec![1; 9000])), entry("/l", Kind::Symlink("a/b".to_owned()))];
        let image = ext4::plan(entries, &options(MIB)).unwrap();
        let mut bytes = vec![0; image.len as usize];
        for extent in &image.extents {
            let kscratch_formats::image::Data::Bytes(data) = &extent.data else { unreachable!() };
            bytes[extent.offset as usize..][..data.len()].copy_from_slice(data);
        }
        for (at, byte) in changes {
            // Not the superblock: its checksum would end the reading.
            bytes[2048 + at] = byte;
        }
        let reader = Reader::open(bytes.as_slice()).unwrap();
        for found in reader.walk().unwrap_or_default().values() {
            let _ = reader.read(found, 1 << 20);
        }
    }
}

/// A copy of the blocks in use, with old data in all others, is the same filesystem.
#[allow(clippy::disallowed_methods)]
#[track_caller]
fn check_used(path: &Path) {
    let reader = Reader::open(Disk::open(path)).unwrap();
    let ranges = reader.used_ranges().unwrap();
    let bytes = std::fs::read(path).unwrap();
    let mut copy = vec![0xA5; bytes.len()];
    for range in &ranges {
        let range = range.start as usize..range.end as usize;
        copy[range.clone()].copy_from_slice(&bytes[range]);
    }
    assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start), "{ranges:?}");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &copy).unwrap();
    fsck(file.path());
    let dump = |path: &Path| run("dumpe2fs", "e2fsprogs", &["-h", path.to_str().unwrap()]);
    assert_eq!(dump(file.path()), dump(path));
    let copied = Reader::open(copy.as_slice()).unwrap();
    assert_eq!(copied.walk().unwrap(), reader.walk().unwrap());
    let used: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    // Metadata that nothing is written to yet counts as used, and not much else.
    assert!(used >= reader.used() && used < reader.used() + reader.size() / 20, "{used} of {}", reader.used());
}

#[test]
fn blocks_in_use_alone_are_the_filesystem() {
    let entries = || vec![dir("/a"), file("/a/b", 7, 300_000), file("/a/c", 8, 1)];
    check_used(check(entries(), &options(40 * MIB)).path());
    let grows = Options { journal_blocks: Some(1024), grow_to: Some(1 << 40), ..options(700 * MIB) };
    check_used(check(entries(), &grows).path());
    // Those of mke2fs have groups whose bitmaps are not made yet; blocks of 1 KiB, descriptors of 32 bytes, no sparse_super.
    for options in [&["-b", "4096"][..], &["-b", "1024"], &["-O", "^64bit"], &["-O", "^sparse_super,^resize_inode"]] {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(400 * MIB).unwrap();
        let path = file.path().to_str().unwrap();
        run("mke2fs", "e2fsprogs", &[&["-q", "-t", "ext4", "-F"], options, &[path]].concat());
        check_used(file.path());
    }
}
