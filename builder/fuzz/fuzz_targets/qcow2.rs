//! Turns any bytes into a disk or an error, never a panic; what may be written into it is what is read then.
#![no_main]
use kscratch_formats::bytes::ReadAt;
use kscratch_formats::qcow2::{Disk, Overlay, backing};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    drop(backing(&bytes));
    if let Ok(disk) = Overlay::open(bytes, [9; 70_000].as_slice(), 70_000) {
        drop(disk.read_at(disk.disk_len() / 2, &mut [0; 4096]));
        drop(disk.read_at(65_000, &mut [0; 9000]));
    }
    let Ok(disk) = Disk::open(bytes) else { return };
    let mut buf = [0; 4096];
    for at in [0, 65_000, disk.disk_len() / 2, disk.disk_len().saturating_sub(4096)] {
        drop(disk.read_at(at, &mut buf));
    }
    let writes = [(65_000, vec![5; 1000]), (disk.disk_len() / 2 + 70_000, vec![6; 10])];
    let Ok(patches) = disk.patches(&writes, bytes.len() as u64) else { return };
    let mut changed = bytes.to_vec();
    for (at, data) in patches.into_iter().flat_map(|patch| patch.0) {
        let end = at as usize + data.len();
        changed.resize(changed.len().max(end), 0);
        changed[at as usize..end].copy_from_slice(&data);
    }
    let disk = Disk::open(changed.as_slice()).expect("a file that opens still");
    for (at, data) in writes {
        let mut read = vec![0; data.len()];
        disk.read_at(at, &mut read).expect("bytes that were written");
        assert_eq!(read, data);
    }
});
