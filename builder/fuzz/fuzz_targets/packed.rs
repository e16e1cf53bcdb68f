//! Reads a packed disk of arbitrary bytes, as an installer does of its medium.
#![no_main]

use kscratch_formats::bytes::ReadAt;
use kscratch_install::packed::Packed;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(packed) = Packed::open(data, data.len() as u64) else { return };
    let mut piece = vec![0; 1 << 16];
    for range in packed.map().ranges.iter().take(4) {
        let _ = packed.read_at(range.bytes.start, &mut piece);
    }
});
