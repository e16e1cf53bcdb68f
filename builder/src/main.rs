//! Runs the `kscratch-image` program.
fn main() {}
