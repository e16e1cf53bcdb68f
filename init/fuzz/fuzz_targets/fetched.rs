//! Any bytes as the head of a server's answer, and as a file of Zstandard frames: reading them ends in what they say or an error, without a fault.
#![no_main]
use std::io::Cursor;

use kscratch_init::http::Head;
use kscratch_init::seekable;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = Head::parse(bytes);
    let _ = seekable::read(&mut Cursor::new(bytes));
});
