//! Starts the part of kscratch-init that the kernel, the switch of roots or a `modprobe` call asks for.
fn main() {}
