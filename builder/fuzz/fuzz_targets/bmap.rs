//! Turns any text into a block map or an error, never a panic; what was read prints to a map that reads the same.
#![no_main]
use kscratch_formats::bmap::{BLOCK, BlockMap};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(map) = BlockMap::parse(text) else { return };
    if map.ranges.iter().all(|range| range.bytes.start % BLOCK == 0 && (range.bytes.end % BLOCK == 0 || range.bytes.end == map.image)) {
        assert_eq!(BlockMap::parse(&map.print()), Ok(map));
    }
});
