//! Any bytes as a disk: reading its GPT must end in a table or an error, and a table must be growable or not, without a fault.
#![no_main]
use std::io::Cursor;

use kscratch_init::partition::Table;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|disk: &[u8]| {
    if let Ok(table) = Table::read(&mut Cursor::new(disk)) {
        for partition in &table.partitions {
            let _ = table.grow(partition.number, disk.len() as u64 * 4);
        }
    }
});
