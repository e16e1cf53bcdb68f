//! Turns any bytes into a disk or an error, never a panic.
#![no_main]
use kscratch_formats::bytes::ReadAt;
use kscratch_formats::qcow2::Disk;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(disk) = Disk::open(bytes) else { return };
    let mut buf = [0; 4096];
    for at in [0, 65_000, disk.disk_len() / 2, disk.disk_len().saturating_sub(4096)] {
        drop(disk.read_at(at, &mut buf));
    }
});
