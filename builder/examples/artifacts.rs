//! The default spec becomes verified, unpacked packages in a cache folder, with counts and times: `cargo run --example artifacts -- CACHE`.
#![allow(clippy::print_stdout)]
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use kscratch_image::console::{Console, Verbosity, error_lines, human_bytes};
use kscratch_image::debian::keyring::Keyring;
use kscratch_image::debian::mirror::Mirrors;
use kscratch_image::http::Http;
use kscratch_image::spec::{ImageSpec, Role};
use kscratch_image::store::Store;
use kscratch_image::unpack::EntryKind;
use kscratch_image::{fetch, resolve, unpack};

fn run() -> Result<()> {
    let cache = std::env::args_os().nth(1).map(PathBuf::from).context("usage: artifacts CACHE")?;
    let console = Console::stderr(Verbosity::Verbose, None);
    let spec = ImageSpec::defaults()?;
    let store = Store::open(&cache)?;
    let _lock = store.lock(&console)?;
    let mirrors = Mirrors::find(&spec.debian, Path::new("/etc/apt"))?;
    let keyring = Keyring::find(spec.debian.keyring.as_deref())?;
    let http = Http::new()?;

    let start = Instant::now();
    let source =
        resolve::Source { mirrors: &mirrors, keyring: &keyring, http: &http, store: &store, now: resolve::now()? };
    let lock = resolve::lock(&spec, Role::Node, &source, Vec::new(), &console)?;
    println!("resolved {} artifacts in {:.2?}", lock.artifacts.len(), start.elapsed());
    lock.write(&cache.join("kscratch.lock"))?;

    let start = Instant::now();
    let (count, bytes) = fetch::all(&lock, &store, &mirrors, &http, &console)?;
    println!("fetched {count} artifacts, {}, in {:.2?}", human_bytes(bytes), start.elapsed());
    fetch::offline(&lock, &store)?;

    let start = Instant::now();
    let unpacked = unpack::all(&store, &lock, &console)?;
    let entries = unpacked.values().map(|package| package.entries.len()).sum::<usize>();
    let files = unpacked.values().flat_map(|package| package.entries.values());
    let kept: u64 = files.map(|entry| if let EntryKind::File(stored) = &entry.kind { stored.len } else { 0 }).sum();
    println!(
        "unpacked {} packages, {entries} entries, {} kept, in {:.2?}",
        unpacked.len(),
        human_bytes(kept),
        start.elapsed()
    );
    let start = Instant::now();
    unpack::all(&store, &lock, &console)?;
    println!("read the indices again in {:.2?}", start.elapsed());

    let missing = spec
        .programs
        .iter()
        .filter(|program| unpacked.get(&program.package).is_none_or(|package| package.get(&program.path).is_none()));
    for program in missing {
        println!("MISSING {} in {}", program.path, program.package);
    }
    Ok(())
}

fn main() {
    if let Err(error) = run() {
        println!("{}", error_lines(&error).join("\n"));
        std::process::exit(1);
    }
}
