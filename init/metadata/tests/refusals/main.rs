//! Tables of metadata texts and the exact words with which each is refused.
mod cluster;
mod daemons;
mod dhcp6;
mod disks;
mod links;
mod network;
mod node;
mod secrets;
mod syntax;

use expect_test::Expect;
use kscratch_metadata::parse;

/// A text that begins with the two lines that every file needs: line 3 is the first of the row.
#[track_caller]
fn check(body: &str, want: Expect) {
    let text = format!("version = 1\nrole = \"node\"\n{body}");
    match parse(&text) {
        Ok(metadata) => want.assert_eq(&format!("accepted: {metadata:?}")),
        Err(errors) => want.assert_eq(&errors.to_string()),
    }
}

#[track_caller]
fn check_whole(text: &str, want: Expect) {
    want.assert_eq(&parse(text).unwrap_err().to_string());
}

const CA: &str = include_str!("../ca.pem");

/// A cluster section that has what a node needs, and whatever else a row adds.
fn cluster(more: &str) -> String {
    format!("[cluster]\nendpoint = \"10.0.0.1\"\nca = '''{CA}'''\n{more}")
}
