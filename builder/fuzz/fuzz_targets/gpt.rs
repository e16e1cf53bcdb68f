//! Turns any bytes into a partition table or an error, never a panic.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    drop(kscratch_formats::gpt::read(bytes, bytes.len() as u64));
});
