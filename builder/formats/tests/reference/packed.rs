//! Puts the spans of a disk where a packed format has them, and holds its file and its reader against qemu-img.
use kscratch_formats::bytes::ReadAt;
use kscratch_formats::image::{Data, Extent, Image};

use super::{Disk, run, write};

/// A disk with a few spans of bytes, each full of its own length.
pub fn image(len: u64, spans: &[(u64, usize)]) -> Image<()> {
    let extents =
        spans.iter().map(|(offset, len)| Extent { offset: *offset, data: Data::Bytes(vec![*len as u8 | 1; *len]) });
    Image { len, extents: extents.collect() }
}

/// The packed file as an image: its `metadata`, and every span where its units stand.
pub fn file(
    image: &Image<()>,
    len: u64,
    metadata: impl IntoIterator<Item = (u64, Vec<u8>)>,
    unit: u64,
    place: impl Fn(u64) -> Option<u64>,
) -> Image<()> {
    let bytes = |(offset, bytes)| Extent { offset, data: Data::Bytes(bytes) };
    let mut extents: Vec<_> = metadata.into_iter().map(bytes).collect();
    for extent in &image.extents {
        let Data::Bytes(data) = &extent.data else { panic!("spans are literal") };
        let mut done = 0;
        while done < data.len() {
            let at = extent.offset + done as u64;
            let len = ((unit - at % unit) as usize).min(data.len() - done);
            let place = place(at / unit * unit).unwrap() + at % unit;
            extents.push(bytes((place, data[done..done + len].to_vec())));
            done += len;
        }
    }
    extents.sort_by_key(|extent| extent.offset);
    Image { len, extents }
}

/// qemu-img finds the packed file free of errors and the same disk as the image; so does our reader, which is given back.
#[track_caller]
pub fn same<D: ReadAt>(image: &Image<()>, packed: &Image<()>, format: &str, open: impl Fn(Disk) -> D) -> D {
    let folder = tempfile::tempdir().unwrap();
    let (raw, path) = (folder.path().join("disk.raw"), folder.path().join("disk.packed"));
    write(image, &raw, |()| Vec::new());
    write(packed, &path, |()| Vec::new());
    let file = path.to_str().unwrap();
    let verdict = run("qemu-img", "qemu-utils", &["check", "-f", format, file]);
    assert!(verdict.contains("No errors were found"), "{verdict}");
    run("qemu-img", "qemu-utils", &["compare", "-f", "raw", "-F", format, raw.to_str().unwrap(), file]);
    let (disk, plain) = (open(Disk::open(&path)), Disk::open(&raw));
    for extent in &image.extents {
        let from = extent.offset.saturating_sub(100);
        let len = (extent.data.len() + 200).min(image.len - from) as usize;
        let (mut a, mut b) = (vec![0; len], vec![1; len]);
        plain.read_at(from, &mut a).unwrap();
        disk.read_at(from, &mut b).unwrap();
        assert!(a == b, "at {from}");
    }
    disk
}
