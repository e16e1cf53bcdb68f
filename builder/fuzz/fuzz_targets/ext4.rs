//! Turns any bytes into the files of an ext4 filesystem or an error, never a panic.
#![no_main]
use kscratch_formats::ext4::Reader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(reader) = Reader::open(bytes) else { return };
    for found in reader.walk().unwrap_or_default().values() {
        drop(reader.read(found, 1 << 16));
    }
});
