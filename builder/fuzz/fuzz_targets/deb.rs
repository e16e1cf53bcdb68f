//! Any bytes become an unpacked package, or an error: never a panic, and never a folder in the store that is not whole.
#![no_main]
use kscratch_image::store::Store;
use kscratch_image::unpack::{self, Unpacked};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let cache = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(cache.path()).expect("a store");
    let digest = store.add_bytes(bytes).expect("bytes in the store");
    let unpacked = unpack::one(&store, &digest).ok();
    assert_eq!(Unpacked::load(&store, &digest).expect("an index that reads"), unpacked);
    for path in unpacked.iter().flat_map(|unpacked| unpacked.entries.keys()) {
        assert!(
            path.starts_with('/') && path.split('/').skip(1).all(|part| !matches!(part, "" | "." | "..")),
            "{path:?}"
        );
    }
});
