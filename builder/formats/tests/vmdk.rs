//! Holds VMDK layouts against qemu-img, and the reader against damage.
mod reference;

use kscratch_formats::bytes::ReadAt;
use kscratch_formats::image::{Data, Image};
use kscratch_formats::vmdk::{self, GRAIN, Layout};
use proptest::prelude::*;
use reference::packed::{self, image};
use reference::run;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The VMDK file as an image.
fn file(image: &Image<()>) -> Image<()> {
    let layout = vmdk::layout(image).unwrap();
    let descriptor = (Layout::DESCRIPTOR, layout.descriptor("disk.vmdk", [0xFF; 16]).unwrap());
    let metadata = layout.metadata.iter().map(|(at, data)| (*at, data.clone())).chain([descriptor]);
    packed::file(image, layout.len, metadata, GRAIN, |offset| layout.place(offset))
}

#[track_caller]
fn check(image: &Image<()>) {
    let disk = packed::same(image, &file(image), "vmdk", |file| vmdk::Disk::open(file).unwrap());
    assert_eq!(disk.disk_len(), image.len);
}

#[test]
fn qemu_reads_what_was_laid_out() {
    check(&image(64 * MIB, &[(0, 512), (MIB - 1, 2), (64 * MIB - 3, 3)]));
    check(&image(MIB, &[]));
    // More tables than one, holes of whole tables, and an end within a grain.
    check(&image(5 * GIB + 512, &[(4096, 200_000), (4 * GIB - 100, 300), (5 * GIB, 512)]));
}

#[test]
#[allow(clippy::disallowed_methods)]
fn what_cannot_be_is_refused() {
    assert_eq!(vmdk::layout(&image(2 << 40, &[])), Err(vmdk::Error::TooLarge(2 << 40)));
    assert_eq!(vmdk::layout(&image(100, &[])), Err(vmdk::Error::Uneven(100)));
    let layout = vmdk::layout(&image(MIB, &[])).unwrap();
    for name in ["a\"b", "a\nb", &"long".repeat(5000)] {
        assert_eq!(layout.descriptor(name, [0; 16]), Err(vmdk::Error::Name(name.to_owned())));
    }
    // All ones would mean that there is no content.
    let text = String::from_utf8(layout.descriptor("x", [0xFF; 16]).unwrap()).unwrap();
    assert!(text.contains("\nCID=fffffffe\n"), "{text}");
    for (option, want) in
        [("streamOptimized", "with compressed grains"), ("monolithicFlat", "whose descriptor is a file of its own")]
    {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.vmdk");
        let args = ["create", "-q", "-f", "vmdk", "-o", &format!("subformat={option}"), path.to_str().unwrap(), "8M"];
        run("qemu-img", "qemu-utils", &args);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.resize(bytes.len().max(4096), 0);
        let error = vmdk::Disk::open(bytes.as_slice()).map(|disk| disk.disk_len()).unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
    }
}

/// A small file in memory.
fn small() -> Vec<u8> {
    let file = file(&image(4 * MIB, &[(0, 600), (2 * MIB, 70_000)]));
    let mut bytes = vec![0; file.len as usize];
    for extent in file.extents {
        let Data::Bytes(data) = extent.data else { panic!("all is literal") };
        bytes[extent.offset as usize..][..data.len()].copy_from_slice(&data);
    }
    bytes
}

proptest! {
    #[test]
    fn damage_is_refused_or_read_and_never_more(at in 0..14_000_usize, with: u8, cut in 0..20_000_usize) {
        let mut bytes = small();
        bytes[at] = with;
        let mut buf = [0; 3000];
        for bytes in [&bytes[..], &bytes[..cut]] {
            if let Ok(disk) = vmdk::Disk::open(bytes) {
                for offset in [0, 2 * MIB - 100, 4 * MIB - 3000] {
                    drop(disk.read_at(offset, &mut buf));
                }
            }
        }
    }
}
