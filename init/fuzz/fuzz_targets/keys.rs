//! Any bytes as keys at the console: nothing but a whole word ends the machine's run.
#![no_main]
use std::time::Duration;

use kscratch_init::console::keys::{Action, Allowed, Keys};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (mut keys, mut now) = (Keys::default(), Duration::ZERO);
    // A pause before each key.
    for pair in bytes.chunks_exact(2) {
        now += Duration::from_millis(20 * u64::from(pair[0]));
        let (next, action) = keys.press(pair[1], now, Allowed::All);
        keys = next;
        if let Action::End(_) = action {
            let typed: Vec<u8> = bytes.iter().skip(1).step_by(2).map(u8::to_ascii_lowercase).collect();
            let has = |word: &[u8]| word.iter().all(|letter| typed.contains(letter));
            assert!(has(b"reboot") || has(b"poweroff"));
        }
    }
});
