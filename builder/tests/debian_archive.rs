//! The default spec and the mirror of this machine's apt configuration: what is declared is there, and verified all the way.
use std::path::Path;

use kscratch_image::console::Console;
use kscratch_image::debian::keyring::Keyring;
use kscratch_image::debian::mirror::Mirrors;
use kscratch_image::http::Http;
use kscratch_image::spec::{ImageSpec, Role};
use kscratch_image::store::Store;
use kscratch_image::{fetch, resolve, unpack};

/// Packages beyond this are left out, so that the test costs some 15 MB and seconds.
const SMALL: u64 = 2 << 20;

#[test]
fn the_default_packages_are_in_the_machines_mirror() {
    let cache = tempfile::tempdir().unwrap();
    let (store, http, console) = (Store::open(cache.path()).unwrap(), Http::new().unwrap(), Console::silent());
    let spec = ImageSpec::defaults().unwrap();
    let mirrors = Mirrors::find(&spec.debian, Path::new("/etc/apt")).unwrap_or_else(|error| {
        panic!("this test needs a Debian mirror in the machine's apt configuration: {error:#}")
    });
    // The keys in the program, which a machine that is no Debian uses, must do as well as the machine's.
    let mut locks = Vec::new();
    for keyring in [Keyring::find(None).unwrap(), Keyring::embedded().unwrap()] {
        let source = resolve::Source {
            mirrors: &mirrors,
            keyring: &keyring,
            http: &http,
            store: &store,
            now: resolve::now().unwrap(),
        };
        locks.push(
            resolve::lock(&spec, Role::Node, &source, Vec::new(), &console)
                .unwrap_or_else(|error| panic!("resolving: {error:#}")),
        );
    }
    let mut lock = locks.swap_remove(0);
    assert_eq!(lock, locks.swap_remove(0));
    lock.matches(&spec, Role::Node).unwrap();
    lock.kernel().unwrap();
    assert!(lock.get("libc6").is_some() && lock.get("docker.io").is_some());
    assert!(lock.get("adduser").is_none(), "only libraries are followed");

    lock.artifacts.retain(|artifact| artifact.size.is_some_and(|size| size < SMALL));
    fetch::all(&lock, &store, &mirrors, &http, &console).unwrap_or_else(|error| panic!("fetching: {error:#}"));
    fetch::offline(&lock, &store).unwrap();
    let unpacked = unpack::all(&store, &lock, &console).unwrap_or_else(|error| panic!("unpacking: {error:#}"));
    let mut looked_at = 0;
    for program in &spec.programs {
        let Some(package) = unpacked.get(&program.package) else { continue };
        assert!(package.get(&program.path).is_some(), "{} is not in {}", program.path, program.package);
        looked_at += 1;
    }
    assert!(looked_at > 10, "{looked_at} programs are in small packages");
    for (package, path) in
        spec.files.iter().map(|file| (&file.package, &file.path)).chain([(&spec.boot.stub_package, &spec.boot.stub)])
    {
        let glob = globset::GlobBuilder::new(path).literal_separator(true).build().unwrap().compile_matcher();
        assert!(
            unpacked[package].entries.keys().any(|path| glob.is_match(path)),
            "{path} matches nothing in {package}"
        );
    }
}
