//! Turns any bytes into the members of a cpio archive or an error, never a panic.
#![no_main]
use kscratch_formats::cpio;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok((members, end)) = cpio::read(bytes) else { return };
    assert!(end <= bytes.len());
    for member in members {
        assert!(bytes.get(member.data).is_some());
    }
});
