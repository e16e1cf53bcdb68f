//! Feeds arbitrary racks and machines to the selection; whatever one machine is given is what the builder's reading has in that entry.
#![no_main]

use kscratch_metadata::{Document, Identity, Mac, read, select, select_with_secrets};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str, [u8; 6], &str, &str)| {
    let (text, secrets, mac, serial, uuid) = input;
    let identity = Identity::new([Mac(mac)], serial, uuid);
    let _ = select_with_secrets(text, secrets, &identity);
    let _ = read(text, Some(secrets));
    let (selected, document) = (select(text, &identity), read(text, None));
    match (selected, document) {
        (Ok(selected), Ok(Document::Machine(metadata))) => assert_eq!(selected.metadata, *metadata),
        (Ok(selected), Ok(Document::Rack(entries))) => {
            assert!(entries.iter().any(|entry| entry.metadata == selected.metadata), "{text}");
        }
        // Another entry is unsound, or this machine is in none.
        _ => {}
    }
});
