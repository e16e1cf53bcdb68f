//! Turns any bytes into a disk or an error, never a panic: as a VMDK file, and as one with a VHD's footer.
#![no_main]
use kscratch_formats::bytes::ReadAt;
use kscratch_formats::{vhd, vmdk};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    drop(vhd::disk_len(bytes, bytes.len() as u64));
    let Ok(disk) = vmdk::Disk::open(bytes) else { return };
    let mut buf = [0; 4096];
    for at in [0, 65_000, disk.disk_len() / 2, disk.disk_len().saturating_sub(4096)] {
        drop(disk.read_at(at, &mut buf));
    }
});
