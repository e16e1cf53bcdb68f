//! Snapshots of what `kscratch-image` says: its help, and its answer to every bad input; `UPDATE_EXPECT=1` writes them anew.
mod arguments;
mod build;
mod cluster;
mod images;
mod texts;

use std::fs;

use expect_test::Expect;
use kscratch_tests::program::{SHORT, Said, kscratch};

/// Runs in a fresh folder with these files, on a machine without a cache, and gives what was said with the folder's path taken out.
fn said(files: &[(&str, &str)], args: &[&str]) -> Said {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let cache = folder.path().join("cache");
    let args = args.iter().map(|arg| arg.replace("CACHE", &cache.display().to_string()));
    let mut said = kscratch(folder.path(), args, SHORT);
    let path = folder.path().display().to_string();
    said.stdout = said.stdout.replace(&path, "DIR");
    said.stderr = said.stderr.replace(&path, "DIR");
    said
}

#[track_caller]
fn check_refusal(files: &[(&str, &str)], args: &[&str], code: i32, want: &Expect) {
    let said = said(files, args);
    want.assert_eq(&said.stderr);
    assert_eq!((said.code, said.stdout.as_str()), (code, ""), "{}", said.stderr);
}
