//! Holds qcow2 layouts against qemu-img, and the reader against damage.
mod reference;

use kscratch_formats::bytes::ReadAt;
use kscratch_formats::image::{Data, Extent, Image};
use kscratch_formats::qcow2::{self, CLUSTER};
use proptest::prelude::*;
use reference::{Disk, run, write};

fn image(len: u64, spans: &[(u64, usize)]) -> Image<()> {
    let extents =
        spans.iter().map(|(offset, len)| Extent { offset: *offset, data: Data::Bytes(vec![*len as u8 | 1; *len]) });
    Image { len, extents: extents.collect() }
}

/// The qcow2 file as an image: metadata, and every span where its clusters stand.
fn file(image: &Image<()>) -> Image<()> {
    let layout = qcow2::layout(image).unwrap();
    let bytes = |offset, bytes| Extent { offset, data: Data::Bytes(bytes) };
    let mut extents: Vec<_> = layout.metadata.iter().map(|(at, data)| bytes(*at, data.clone())).collect();
    for extent in &image.extents {
        let Data::Bytes(data) = &extent.data else { panic!("spans are literal") };
        let mut done = 0;
        while done < data.len() {
            let at = extent.offset + done as u64;
            let len = ((CLUSTER - at % CLUSTER) as usize).min(data.len() - done);
            let place = layout.place(at / CLUSTER * CLUSTER).unwrap() + at % CLUSTER;
            extents.push(bytes(place, data[done..done + len].to_vec()));
            done += len;
        }
    }
    extents.sort_by_key(|extent| extent.offset);
    Image { len: layout.len, extents }
}

#[track_caller]
fn check(image: &Image<()>) {
    let folder = tempfile::tempdir().unwrap();
    let (raw, packed) = (folder.path().join("disk.raw"), folder.path().join("disk.qcow2"));
    write(image, &raw, |()| Vec::new());
    write(&file(image), &packed, |()| Vec::new());
    let verdict = run("qemu-img", "qemu-utils", &["check", packed.to_str().unwrap()]);
    assert!(verdict.contains("No errors were found"), "{verdict}");
    let same = ["compare", "-f", "raw", "-F", "qcow2", raw.to_str().unwrap(), packed.to_str().unwrap()];
    run("qemu-img", "qemu-utils", &same);
    let disk = qcow2::Disk::open(Disk::open(&packed)).unwrap();
    let plain = Disk::open(&raw);
    assert_eq!(disk.disk_len(), image.len);
    for extent in &image.extents {
        let from = extent.offset.saturating_sub(100);
        let len = (extent.data.len() + 200).min(image.len - from) as usize;
        let (mut a, mut b) = (vec![0; len], vec![1; len]);
        plain.read_at(from, &mut a).unwrap();
        disk.read_at(from, &mut b).unwrap();
        assert!(a == b, "at {from}");
    }
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
    assert!(refusal(&header).contains("it has a backing file"));
}

proptest! {
    #[test]
    fn reading_a_damaged_file_never_panics(changes in prop::collection::vec((0usize..400_000, any::<u8>()), 1..40)) {
        let packed = file(&image(1 << 30, &[(0, 512), (1 << 20, 100)]));
        let mut bytes = vec![0; packed.len as usize];
        for extent in &packed.extents {
            let Data::Bytes(data) = &extent.data else { unreachable!() };
            bytes[extent.offset as usize..][..data.len()].copy_from_slice(data);
        }
        for (at, byte) in changes {
            let at = if at % 2 == 0 { at % 112 } else { at % bytes.len() };
            bytes[at] = byte;
        }
        if let Ok(disk) = qcow2::Disk::open(bytes.as_slice()) {
            let _ = disk.read_at(0, &mut vec![0; 70_000]);
            let _ = disk.read_at(1 << 20, &mut [0; 4096]);
        }
    }
}
