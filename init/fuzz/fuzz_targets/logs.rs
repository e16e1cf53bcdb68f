//! Any bytes as a record of the kernel's log, and as a service's log that is read in two pieces: both give the lines that the whole gives.
#![no_main]
use kscratch_agent::logs::{pieces::Pieces, records::record};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = record(bytes);
    let (mut whole, mut all) = (Pieces::default(), Vec::new());
    whole.feed(bytes, 0, &mut all);
    let middle = bytes.len() / 2;
    let (mut parts, mut found) = (Pieces::default(), Vec::new());
    parts.feed(&bytes[..middle], 0, &mut found);
    parts.feed(&bytes[middle..], middle as u64, &mut found);
    assert_eq!(found, all);
});
