//! Any text becomes a lock that prints and reads back as it was, or an error.
#![no_main]
use kscratch_image::lock::Lock;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(lock) = Lock::parse(text) {
        let printed = lock.print().expect("a lock that prints");
        assert_eq!(Lock::parse(&printed).expect("a lock that reads back"), lock);
    }
});
