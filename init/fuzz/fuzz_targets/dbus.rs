//! Any bytes as what a client of the inhibitor sends: their length, and what they call.
#![no_main]
use kscratch_init::inhibitor::wire;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = wire::length(bytes);
    let _ = wire::call(bytes);
});
