//! Holds qcow2 layouts against qemu-img, and the reader against damage.
mod reference;

use kscratch_formats::bytes::ReadAt;
use kscratch_formats::image::{Data, Image};
use kscratch_formats::patch::Patch;
use kscratch_formats::qcow2::{self, CLUSTER};
use proptest::prelude::*;
use reference::packed::{self, image};
use reference::{Disk, run, write};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The qcow2 file as an image.
fn file(image: &Image<()>) -> Image<()> {
    let layout = qcow2::layout(image).unwrap();
    let metadata = layout.metadata.iter().map(|(at, data)| (*at, data.clone()));
    packed::file(image, layout.len, metadata, CLUSTER, |offset| layout.place(offset))
}

#[track_caller]
fn check(image: &Image<()>) {
    let disk = packed::same(image, &file(image), "qcow2", |file| qcow2::Disk::open(file).unwrap());
    assert_eq!(disk.disk_len(), image.len);
    assert!(disk.read_at(image.len, &mut [0]).is_err());
}

#[test]
fn qemu_reads_the_same_disk() {
    check(&image(1 << 20, &[]));
    check(&image((3 << 30) + 512, &[(0, 512), (65_530, 20), (1 << 30, 200_000), ((3 << 30) + 500, 12)]));
    check(&image(200 << 30, &[(5, 5), (100 << 30, 1_000_000), ((200 << 30) - 1, 1)]));
    // More than 32768 clusters need a second refcount block.
    let many: Vec<(u64, usize)> = (0..33_000).map(|index| (index * 70_000, 1)).collect();
    check(&image(4 << 30, &many));
}

#[test]
fn what_cannot_be_read_is_refused() {
    let refusal = |bytes: &[u8]| qcow2::Disk::open(bytes).map(|_| ()).unwrap_err().to_string();
    assert_eq!(refusal(&[0; 200]), "reading the qcow2 file: it is not a qcow2 file of version 2 or 3");
    let mut header = qcow2::layout(&image(1 << 20, &[])).unwrap().metadata[0].1.clone();
    header[8] = 1;
    assert_eq!(
        refusal(&header),
        "the qcow2 file has a backing file; `qemu-img convert -O qcow2` makes a plain one of it"
    );
    let with = |at: usize, byte: u8| {
        let mut bytes = bytes_of(&file(&image(MIB, &[(0, 512)])));
        bytes[at] = byte;
        refusal(&bytes)
    };
    assert!(with(35, 1).contains("is encrypted"));
    assert!(with(79, 0b10).contains("is marked as corrupt"));
    assert!(with(79, 0b100).contains("keeps its data in another file"));
    assert!(with(79, 0b1000).contains("is compressed in another way"));
    assert!(with(79, 0b1_0000).contains("has extended L2 entries"));
    assert!(with(79, 0b10_0000).contains("has features that are not known here"));
}

/// The disk as QEMU sees it through overlays over overlays, and as we do.
#[test]
fn overlays_read_as_qemu_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (raw, middle, top, whole) = (path("disk.raw"), path("middle.qcow2"), path("top.qcow2"), path("whole.raw"));
    write(&image(3 * MIB + 512, &[(0, 70_000), (MIB, 300_000), (3 * MIB, 512)]), raw.as_ref(), |()| Vec::new());
    let qemu_img = |arguments: &[&str]| run("qemu-img", "qemu-utils", arguments);
    let qemu_io = |file: &str, requests: &[&str]| {
        let requests: Vec<&str> = requests.iter().flat_map(|request| ["-c", *request]).collect();
        run("qemu-io", "qemu-utils", &[&["-f", "qcow2"][..], &requests, &[file]].concat())
    };
    // Version 2 knows no clusters of zeros; the one above it grows.
    qemu_img(&["create", "-q", "-f", "qcow2", "-o", "compat=0.10", "-F", "raw", "-b", "disk.raw", &middle]);
    qemu_io(&middle, &["write -P 0x55 65k 3k", "write -P 0x56 3M 512"]);
    qemu_img(&["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &middle, &top, "9M"]);
    qemu_io(&top, &["write -P 0x77 1100k 9k", "write -z 64k 64k", "write -P 0x78 7M 65k"]);
    qemu_img(&["convert", "-O", "raw", &top, &whole]);
    let (open, len) = (|name: &str| Disk::open(name.as_ref()), 3 * MIB + 512);
    let named = |name: &str, format: &str| qcow2::Backing { name: name.to_owned(), format: Some(format.to_owned()) };
    assert_eq!(qcow2::backing(&open(&middle)).unwrap(), Some(named("disk.raw", "raw")));
    assert_eq!(qcow2::backing(&open(&top)).unwrap(), Some(named(&middle, "qcow2")));
    let below = qcow2::Overlay::open(open(&middle), open(&raw), len).unwrap();
    let disk = qcow2::Overlay::open(open(&top), &below, below.disk_len()).unwrap();
    assert_eq!((below.disk_len(), disk.disk_len()), (len, 9 * MIB));
    let (mut got, mut want) = (vec![1; 9 << 20], vec![2; 9 << 20]);
    disk.read_at(0, &mut got).unwrap();
    open(&whole).read_at(0, &mut want).unwrap();
    assert!(got == want);
    assert!(disk.read_at(9 * MIB - 1, &mut [0; 2]).is_err());
}

/// Bytes in memory of a file that was planned.
fn bytes_of(image: &Image<()>) -> Vec<u8> {
    let mut bytes = vec![0; image.len as usize];
    for extent in &image.extents {
        let Data::Bytes(data) = &extent.data else { unreachable!() };
        bytes[extent.offset as usize..][..data.len()].copy_from_slice(data);
    }
    bytes
}

fn patches(bytes: &[u8], writes: &[(u64, Vec<u8>)]) -> Result<Vec<Patch>, qcow2::Error> {
    qcow2::Disk::open(bytes)?.patches(writes, bytes.len() as u64)
}

fn put(bytes: &mut Vec<u8>, at: u64, data: &[u8]) {
    let end = at as usize + data.len();
    bytes.resize(bytes.len().max(end), 0);
    bytes[at as usize..end].copy_from_slice(data);
}

#[test]
fn writing_into_what_is_not_plain_is_refused() {
    let plain = bytes_of(&file(&image(GIB, &[(0, 512), (4 * MIB, 512)])));
    let say = |changes: &[(usize, u8)], at: u64| {
        let mut bytes = plain.clone();
        for (at, byte) in changes {
            bytes[*at] = *byte;
        }
        patches(&bytes, &[(at, vec![7; 10])]).unwrap_err().to_string()
    };
    // Header, refcount table, refcount block, L1, L2, two clusters of data.
    let (block, l1, l2) = (2 << 16, 3 << 16, 4 << 16);
    let plain_one = "`qemu-img convert -O qcow2` makes a plain one of it";
    for (changes, want) in [
        (&[(7, 2)][..], "is of version 2"),
        (&[(63, 1)], "has internal snapshots"),
        (&[(79, 1)], "is marked as dirty"),
        (&[(95, 1)], "has dirty bitmaps or other extras"),
        (&[(99, 3)], "has refcounts of another width than 16 bits"),
        (&[(l2, 0xC0)], "has compressed clusters"),
        (&[(l2, 0)], "has clusters that are shared"),
        (&[(l1, 0)], "has an L2 table that is shared"),
    ] {
        let said = say(changes, 0);
        assert!(said.contains(want) && said.contains(plain_one), "{said}");
    }
    for (changes, want) in [
        (&[(block + 11, 2)][..], "the refcount of the cluster at byte 327680 is 2 where it must be 1"),
        (&[(block + 11, 0)], "is 0 where it must be 1"),
        (&[(l2 + 7, 2)], "has unknown bits"),
        (&[(l2 + 6, 2)], "begins at no cluster"),
        (&[(l2 + 5, 3)], "two things stand at byte 196608"),
        (&[(l2 + 5, 99)], "it ends before byte 6488064"),
        (&[(l1 + 5, 99)], "it ends before byte 6488064"),
        (&[(l1 + 5, 2)], "two things stand at byte 131072"),
        (&[(59, 0)], "its refcount table is 0 clusters long"),
        (&[(56, 1)], "its refcount table is 16777217 clusters long"),
        (&[(39, 0)], "its disk is longer than its L1 table says"),
    ] {
        let said = say(changes, 0);
        assert!(said.contains(want), "{said}");
    }
    // A file that was cut off says so where a cluster would be taken, and so does an end of the disk.
    let said = say(&[(block + 15, 1)], 8 * MIB);
    assert!(said.contains("it ends before byte 458752, which it counts as in use"), "{said}");
    let said = say(&[], GIB - 5);
    assert!(said.contains("its disk ends before byte 1073741819"), "{said}");
}

/// Writes into a file on disk, and holds it and its disk against qemu-img.
#[track_caller]
fn check_writes(image: &Image<()>, writes: &[(u64, Vec<u8>)], grown: u64) {
    use std::os::unix::fs::FileExt;
    let folder = tempfile::tempdir().unwrap();
    let (raw, packed) = (folder.path().join("disk.raw"), folder.path().join("disk.qcow2"));
    write(image, &raw, |()| Vec::new());
    write(&file(image), &packed, |()| Vec::new());
    #[allow(clippy::disallowed_types)]
    let open = |path| std::fs::OpenOptions::new().write(true).open(path).unwrap();
    let (plain, changed) = (open(&raw), open(&packed));
    let before = changed.metadata().unwrap().len();
    for (at, bytes) in writes {
        plain.write_all_at(bytes, *at).unwrap();
    }
    for Patch(writes) in qcow2::Disk::open(Disk::open(&packed)).unwrap().patches(writes, before).unwrap() {
        for (at, bytes) in writes {
            changed.write_all_at(&bytes, at).unwrap();
        }
    }
    let verdict = run("qemu-img", "qemu-utils", &["check", packed.to_str().unwrap()]);
    assert!(verdict.contains("No errors were found"), "{verdict}");
    let same = ["compare", "-f", "raw", "-F", "qcow2", raw.to_str().unwrap(), packed.to_str().unwrap()];
    run("qemu-img", "qemu-utils", &same);
    assert_eq!((changed.metadata().unwrap().len() - before) / CLUSTER, grown, "clusters that were taken");
}

#[test]
fn qemu_finds_no_fault_in_a_file_that_was_written_into() {
    let small = image(3 * GIB + 512, &[(0, 512), (65_530, 20), (GIB, 200_000)]);
    let bytes = |len: usize| (0..len).map(|at| at as u8 | 1).collect::<Vec<u8>>();
    // In place; a hole beside data; over the border of both; where there is no L2 table; at the very end of the disk.
    check_writes(&small, &[(100, bytes(300))], 0);
    check_writes(&small, &[(5 * CLUSTER + 9, bytes(1)), (5 * CLUSTER + 99, bytes(1))], 1);
    check_writes(&small, &[(2 * CLUSTER - 100, bytes(300))], 1);
    check_writes(&small, &[(2 * GIB, bytes(100)), (2 * GIB + CLUSTER, bytes(70_000))], 4);
    check_writes(&small, &[(3 * GIB + 500, bytes(12))], 2);
    check_writes(&small, &[(2 * GIB, vec![0; 300_000])], 0);
    check_writes(&image(MIB, &[]), &[(70_000, bytes(1))], 2);
    // A file of exactly one full refcount block: the next cluster needs a block of its own, which counts itself.
    let full: Vec<(u64, usize)> = (0..32_760).map(|index| (index * CLUSTER, 1)).collect();
    let full = image(4 * GIB, &full);
    assert_eq!(file(&full).len, 32_768 * CLUSTER);
    check_writes(&full, &[(4 * GIB - 9, bytes(9))], 3);
}

/// References and refcounts of a file's clusters, counted without the code that is tested.
#[track_caller]
fn assert_sound(bytes: &[u8]) {
    let word = |at: u64| u64::from_be_bytes(bytes[at as usize..][..8].try_into().unwrap());
    let half = |at: u64| u64::from(u32::from_be_bytes(bytes[at as usize..][..4].try_into().unwrap()));
    let offset = |entry: u64| entry & 0x00FF_FFFF_FFFF_FE00;
    let mut references = vec![0u16; bytes.len().div_ceil(CLUSTER as usize)];
    let mut refer =
        |at: u64, len: u64| (at / CLUSTER..(at + len).div_ceil(CLUSTER)).for_each(|c| references[c as usize] += 1);
    let (l1, l1_len, table, table_len) = (word(40), half(36) * 8, word(48), half(56) * CLUSTER);
    refer(0, 104);
    refer(l1, l1_len);
    refer(table, table_len);
    let entries = |at: u64, len: u64| (at..at + len).step_by(8).map(word).filter(|entry| *entry != 0);
    for l2 in entries(l1, l1_len).map(offset) {
        refer(l2, CLUSTER);
        entries(l2, CLUSTER).for_each(|entry| refer(offset(entry), CLUSTER));
    }
    entries(table, table_len).for_each(|block| refer(block, CLUSTER));
    for (cluster, references) in references.iter().enumerate() {
        let block = word(table + cluster as u64 / 32_768 * 8);
        let at = block as usize + cluster % 32_768 * 2;
        let count = if block == 0 { 0 } else { u16::from_be_bytes([bytes[at], bytes[at + 1]]) };
        assert!(*references <= count.min(1), "cluster {cluster} has {references} references and counts {count}");
    }
}

proptest! {
    #[test]
    fn reading_a_damaged_file_never_panics(changes in prop::collection::vec((0usize..400_000, any::<u8>()), 1..40)) {
        let mut bytes = bytes_of(&file(&image(1 << 30, &[(0, 512), (1 << 20, 100)])));
        for (at, byte) in changes {
            let at = if at % 2 == 0 { at % 112 } else { at % bytes.len() };
            bytes[at] = byte;
        }
        if let Ok(disk) = qcow2::Disk::open(bytes.as_slice()) {
            let _ = disk.read_at(0, &mut vec![0; 70_000]);
            let _ = disk.read_at(1 << 20, &mut [0; 4096]);
            // What may be written is what is read then, however damaged the rest is.
            let writes = [(500, vec![5; 70_000]), (1 << 29, vec![6; 10])];
            if let Ok(patches) = disk.patches(&writes, bytes.len() as u64) {
                let mut changed = bytes.clone();
                patches.into_iter().flat_map(|patch| patch.0).for_each(|(at, data)| put(&mut changed, at, &data));
                let disk = qcow2::Disk::open(changed.as_slice()).unwrap();
                for (at, data) in writes {
                    let mut read = vec![0; data.len()];
                    disk.read_at(at, &mut read).unwrap();
                    prop_assert_eq!(read, data);
                }
            }
        }
    }

    #[test]
    fn a_power_cut_leaves_old_bytes_or_new_ones_and_no_corruption(
        spans in prop::collection::btree_map(0u64..40_000, 1usize..3, 0..12),
        wanted in prop::collection::btree_map(0u64..40_000, (0u64..CLUSTER, 1usize..9), 1..8),
        (cut, lost) in (0usize..5, any::<u64>()),
    ) {
        // Clusters of the disk in one of every 8192 of which a new L2 table begins; each span and write in its own.
        let spans: Vec<(u64, usize)> = spans.into_iter().map(|(cluster, len)| (cluster * CLUSTER + 7, len)).collect();
        let before = bytes_of(&file(&image(3 * GIB, &spans)));
        let writes: Vec<(u64, Vec<u8>)> =
            wanted.into_iter().map(|(cluster, (inside, len))| (cluster * CLUSTER + inside, vec![0xEE; len])).collect();
        let mut bytes = before.clone();
        let steps = patches(&before, &writes).unwrap();
        let whole = cut >= steps.len();
        for (number, Patch(step)) in steps.into_iter().enumerate().take_while(|(number, _)| *number <= cut) {
            for (index, (at, data)) in step.into_iter().enumerate() {
                // Of the step that was cut off, any write may have been lost.
                if number < cut || lost >> (index % 64) & 1 == 0 {
                    put(&mut bytes, at, &data);
                }
            }
        }
        assert_sound(&bytes);
        let (old, new) = (qcow2::Disk::open(before.as_slice()).unwrap(), qcow2::Disk::open(bytes.as_slice()).unwrap());
        let read = |disk: &qcow2::Disk<&[u8]>, at: u64, len: usize| {
            let mut read = vec![0; len];
            disk.read_at(at, &mut read).unwrap();
            read
        };
        for (at, data) in &writes {
            // A write may reach into the next cluster: its parts show one by one.
            for (at, byte) in (*at..).zip(data) {
                let (was, is) = (read(&old, at, 1), read(&new, at, 1));
                prop_assert!(is == [*byte] || !whole && is == was, "byte {at} was {was:?} and is {is:?}");
            }
        }
        for (at, len) in spans {
            let untouched = |at: &u64| !writes.iter().any(|(from, data)| (*from..*from + data.len() as u64).contains(at));
            for at in (at..at + len as u64).filter(untouched) {
                prop_assert_eq!(read(&old, at, 1), read(&new, at, 1));
            }
        }
        // What was cut off is done again, over whatever it left.
        let again = patches(&bytes, &writes).unwrap();
        again.into_iter().flat_map(|patch| patch.0).for_each(|(at, data)| put(&mut bytes, at, &data));
        assert_sound(&bytes);
        let disk = qcow2::Disk::open(bytes.as_slice()).unwrap();
        for (at, data) in &writes {
            prop_assert_eq!(&read(&disk, *at, data.len()), data);
        }
    }
}

proptest! {
    #[test]
    fn a_damaged_overlay_never_panics(changes in prop::collection::vec((0usize..200, any::<u8>()), 1..8)) {
        let mut bytes = bytes_of(&file(&image(MIB, &[(0, 512), (500_000, 70_000)])));
        // A name behind the header, and its format as an extension.
        bytes[8..20].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 160, 0, 0, 0, 8]);
        bytes[104..120].copy_from_slice(b"\xE2\x79\x2A\xCA\0\0\0\x03raw\0\0\0\0\0");
        bytes[160..168].copy_from_slice(b"disk.img");
        prop_assert_eq!(qcow2::backing(&bytes.as_slice()).unwrap().unwrap().format.unwrap(), "raw");
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        let _ = qcow2::backing(&bytes.as_slice());
        if let Ok(disk) = qcow2::Overlay::open(bytes.as_slice(), [7u8; 100].as_slice(), 100) {
            for at in [0, 90, 499_999, disk.disk_len().saturating_sub(50)] {
                let _ = disk.read_at(at, &mut [0; 200]);
            }
        }
    }
}
