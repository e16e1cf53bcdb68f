//! Any bytes become packages to choose from, or an error.
#![no_main]
use kscratch_image::debian::packages::Packages;
use kscratch_image::lock::Archive;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    drop(Packages::default().add(bytes, Archive::Main));
});
