//! Turns any bytes into what is said to be on a disk, never a panic, and never anything that a terminal would obey.
#![no_main]
use kscratch_install::blockdevice::Contents;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let told = Contents::of(&bytes, bytes.len() as u64).to_string();
    assert!(!told.contains(char::is_control), "{told:?}");
});
