//! Any bytes as the answer of a time server, to the question that it answers or to another one.
#![no_main]
use std::time::Duration;

use kscratch_init::sntp::packet::read;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let cookie = bytes.get(24..32).and_then(|origin| origin.try_into().ok()).map_or(0, u64::from_be_bytes);
    let _ = read(bytes, !cookie);
    if let Ok(answer) = read(bytes, cookie) {
        let _ = answer.against(1_795_000_000_000_000_000, Duration::from_millis(100), 1_795_000_000);
    }
});
