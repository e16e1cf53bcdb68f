//! Turns any bytes into the boots of a flight recorder and their stories, never a panic, and never anything that a terminal would obey.
#![no_main]
use kscratch_image::autopsy::{Autopsy, Which};
use kscratch_image::console::is_obeyed;
use kscratch_recorder::{BLOCK, Ring};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    told(bytes);
    // No fuzzer finds a checksum: the same bytes as blocks that are sound.
    let mut sound = bytes.to_vec();
    sound.resize(bytes.len().next_multiple_of(BLOCK), 0);
    for (block, place) in sound.chunks_exact_mut(BLOCK).zip(0_u64..) {
        block[..8].copy_from_slice(b"KSFLIGH\x01");
        block[8..16].copy_from_slice(&place.to_le_bytes());
        block[36..40].fill(0);
        let sum = crc32fast::hash(block);
        block[36..40].copy_from_slice(&sum.to_le_bytes());
    }
    told(&sound);
});

fn told(partition: &[u8]) {
    let autopsy = Autopsy::of(Ring::read(partition));
    for which in [Which::Last, Which::All] {
        let text = autopsy.text(which, true).unwrap();
        let obeyed = |char: char| is_obeyed(char) && char != '\n';
        assert!(!text.contains(obeyed), "{text:?}");
        let json = autopsy.json(which, true).unwrap();
        assert!(!json.contains(obeyed), "{json:?}");
    }
}
