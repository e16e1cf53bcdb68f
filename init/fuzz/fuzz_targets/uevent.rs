//! Any bytes as a datagram of the kernel's uevent socket.
#![no_main]
use kscratch_init::uevent::Uevent;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagram: &[u8]| {
    let _ = Uevent::parse(datagram);
});
