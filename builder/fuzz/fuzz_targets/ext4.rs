//! Turns any bytes into the files of an ext4 filesystem or an error, never a panic; the same bytes as a journal inside a sound one, too.
#![no_main]
use std::sync::OnceLock;

use kscratch_formats::ext4::{BLOCK, Options, Reader, plan};
use kscratch_formats::image::Data;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    walk(bytes);
    static SOUND: OnceLock<(Vec<u8>, usize)> = OnceLock::new();
    let (sound, journal) = SOUND.get_or_init(sound);
    let mut image = sound.clone();
    // The journal's superblock stays as it is but for the bytes that say what to replay.
    let len = bytes.len().min(JOURNAL as usize * BLOCK as usize - 0x18);
    image[journal + 0x18..][..len].copy_from_slice(&bytes[..len]);
    walk(&image);
});

const JOURNAL: u32 = 1024;

/// A filesystem that says that its journal is to be replayed, and where that begins.
fn sound() -> (Vec<u8>, usize) {
    let options = Options {
        size: 8 << 20,
        label: "fuzz".to_owned(),
        uuid: [7; 16],
        hash_seed: [8; 16],
        inodes: None,
        journal_blocks: Some(JOURNAL),
        time: 0,
        grow_to: None,
    };
    let planned = plan::<u8>([], &options).expect("an empty filesystem");
    let mut image = vec![0; planned.len as usize];
    for extent in planned.extents {
        if let Data::Bytes(bytes) = extent.data {
            image[extent.offset as usize..][..bytes.len()].copy_from_slice(&bytes);
        }
    }
    // `s_feature_incompat`: recover; no `metadata_csum`, so that the superblock has no checksum.
    image[1024 + 0x60] |= 0x4;
    image[1024 + 0x65] &= !0x4;
    let magic = 0xC03B_3998_u32.to_be_bytes();
    let journal = (0..image.len()).step_by(BLOCK as usize).find(|at| image[*at..].starts_with(&magic));
    (image, journal.expect("a journal"))
}

fn walk(bytes: &[u8]) {
    let Ok(reader) = Reader::open(bytes) else { return };
    drop(reader.used_ranges());
    for found in reader.walk().unwrap_or_default().values() {
        drop(reader.read(found, 1 << 16));
    }
}
