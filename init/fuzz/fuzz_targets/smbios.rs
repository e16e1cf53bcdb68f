//! Any bytes as the firmware's SMBIOS tables.
#![no_main]
use kscratch_init::source::smbios::oem_strings;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|tables: &[u8]| {
    let _ = oem_strings(tables);
});
