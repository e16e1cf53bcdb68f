//! The part of the gate that is no test of its own: format and lints, so that `cargo test --workspace` is the whole of it.
use std::path::Path;
use std::time::Duration;

use kscratch_tests::program::{self, Said};

const BOUND: Duration = Duration::from_secs(30 * 60);

fn cargo(component: &str, args: &[&str]) -> Said {
    let mut cargo = program::cargo();
    cargo.args(args);
    let said = program::run(cargo, BOUND);
    let missing = said.stderr.contains("no such command") || said.stderr.contains("is not installed");
    assert!(!missing, "this test needs {component}: rustup component add {component}\n{}", said.stderr);
    said
}

#[test]
fn the_code_is_formatted() {
    let said = cargo("rustfmt", &["fmt", "--all", "--check"]);
    assert_eq!(said.code, 0, "cargo fmt --all would change:\n{}{}", said.stdout, said.stderr);
}

#[test]
fn the_lints_are_silent() {
    let said = cargo(
        "clippy",
        &["clippy", "--workspace", "--all-targets", "--all-features", "--quiet", "--", "-D", "warnings"],
    );
    assert_eq!(said.code, 0, "clippy says:\n{}", said.stderr);
}

/// The rule of the house: a file tells one story, and its first line says which.
#[test]
fn every_file_opens_with_one_sentence() {
    let mut wrong = Vec::new();
    visit(program::workspace(), &mut |path, text| {
        let first = text.lines().next().unwrap_or_default();
        if !first.starts_with("//! ") {
            wrong.push(format!("{}: its first line is `{first}`", path.display()));
        }
    });
    assert!(wrong.is_empty(), "files that do not open with a `//!` sentence:\n{}", wrong.join("\n"));
}

fn visit(folder: &Path, check: &mut impl FnMut(&Path, &str)) {
    let mut entries: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                visit(&path, check);
            }
        } else if name.ends_with(".rs") {
            check(&path, &std::fs::read_to_string(&path).unwrap());
        }
    }
}
