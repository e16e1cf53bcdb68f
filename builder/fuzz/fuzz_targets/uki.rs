//! Turns any bytes into the sections of a PE file or an error, never a panic; sections are added if it is one.
#![no_main]
use kscratch_formats::uki;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    drop(uki::sections(bytes));
    drop(uki::assemble(bytes, &[(".linux", b"kernel")]));
});
