//! Feeds arbitrary texts to the parser; what it accepts has to come back the same from its own TOML.
#![no_main]

use kscratch_metadata::{parse, parse_with_secrets, to_toml};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|texts: (&str, &str)| {
    let (text, secrets) = texts;
    let _ = parse_with_secrets(text, secrets);
    if let Ok(metadata) = parse(text) {
        let written = to_toml(&metadata).expect("what was parsed can be written");
        assert_eq!(parse(&written).as_ref(), Ok(&metadata), "{written}");
    }
});
