//! Feeds arbitrary bytes, as they are and as a PEM block, to the reader of certificate requests.
#![no_main]

use kscratch_pki::Request;
use libfuzzer_sys::fuzz_target;
use pem::Pem;

fuzz_target!(|bytes: &[u8]| {
    let _ = Request::parse(&String::from_utf8_lossy(bytes));
    let _ = Request::parse(&pem::encode(&Pem::new("CERTIFICATE REQUEST", bytes)));
});
