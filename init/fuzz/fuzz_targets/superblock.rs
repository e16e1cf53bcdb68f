//! Any bytes as the start of a volume.
#![no_main]
use kscratch_init::superblock::recognise;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|start: &[u8]| {
    let _ = recognise(start);
});
