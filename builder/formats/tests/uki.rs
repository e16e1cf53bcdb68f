//! UKIs and initramfs archives, held against systemd's own stub, objdump and cpio.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]
use std::fs;
use std::process::Command;

use kscratch_formats::cpio::{self, Member, MemberKind};
use kscratch_formats::uki;

const STUB: &str = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";

#[test]
fn sections_follow_those_of_the_stub_and_objdump_reads_them() {
    let stub = fs::read(STUB).expect("systemd's EFI stub is missing: apt-get install systemd-boot-efi");
    let kernel = vec![0x5a; 12_345];
    let parts: [(&str, &[u8]); 3] = [(".cmdline", b"console=ttyS0"), (".linux", &kernel), (".initrd", b"070701")];
    let file = uki::assemble(&stub, &parts).expect("assembles");
    let found = uki::sections(&file).expect("reads");
    for (name, bytes) in parts {
        assert_eq!(found[name], bytes, "{name}");
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("uki.efi");
    fs::write(&path, &file).expect("writes");
    let told =
        Command::new("objdump").arg("-h").arg(&path).output().expect("objdump is missing: apt-get install binutils");
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains(".initrd") && told.contains("00003039"), "{told}");
}

#[test]
fn cpio_lists_what_was_put_in() {
    let members = [
        Member { path: "dev", kind: MemberKind::Directory, mode: 0o755 },
        Member { path: "dev/console", kind: MemberKind::CharDevice { major: 5, minor: 1 }, mode: 0o600 },
        Member { path: "init", kind: MemberKind::File(b"\x7fELF!"), mode: 0o755 },
        Member { path: "lib", kind: MemberKind::Symlink("usr/lib"), mode: 0o777 },
    ];
    let bytes = cpio::archive(&members, 1_700_000_000).expect("archives");
    assert_eq!(
        bytes,
        cpio::archive(&members, 1_700_000_000).expect("archives"),
        "the same members give the same bytes"
    );
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("initramfs");
    fs::write(&path, &bytes).expect("writes");
    let input = fs::File::open(&path).expect("opens");
    let told = Command::new("cpio").args(["-tv", "--quiet"]).stdin(input).env("TZ", "UTC").output();
    let told = told.expect("cpio is missing: apt-get install cpio");
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    for want in ["drwxr-xr-x", "crw-------", "5,   1", "-rwxr-xr-x", "lib -> usr/lib", "2023"] {
        assert!(told.contains(want), "{want} is missing in\n{told}");
    }
}
