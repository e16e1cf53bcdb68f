//! Feeds arbitrary bytes to the reader of certificates; what it reads comes back the same from its own PEM.
#![no_main]

use kscratch_pki::{Certificate, Key};
use libfuzzer_sys::fuzz_target;
use pem::Pem;

fuzz_target!(|bytes: &[u8]| {
    let _ = Key::parse(&pem::encode(&Pem::new("PRIVATE KEY", bytes)));
    if let Ok(certificate) = Certificate::parse(&pem::encode(&Pem::new("CERTIFICATE", bytes))) {
        assert_eq!(Certificate::parse(&certificate.pem()).as_ref(), Ok(&certificate));
        let _ = certificate.signed_by(&certificate);
    }
});
