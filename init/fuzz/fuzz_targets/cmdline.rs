//! Any bytes as a kernel command line, its network on a machine with one card.
#![no_main]
use kscratch_init::cmdline::CommandLine;
use kscratch_metadata::Mac;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let line = CommandLine::parse(&String::from_utf8_lossy(bytes));
    let _ = line.network.network(&[("eth0", Mac([0x52, 0x54, 0, 0, 0, 1]))], &mut Vec::new());
});
