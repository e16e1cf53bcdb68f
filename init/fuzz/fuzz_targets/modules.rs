//! Any text as kmod's files, and any name to look up in them.
#![no_main]
use kscratch_init::kmod::Modules;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str, &str, &str)| {
    let (dep, alias, softdep, wanted) = input;
    let _ = Modules::parse(dep, alias, softdep, dep).find(wanted);
});
