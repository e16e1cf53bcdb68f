//! What `inspect`, `run` and `kubeconfig` say of an image that is missing or is none.
use std::fs;

use expect_test::expect;
use kscratch_tests::program::{SHORT, kscratch};

use crate::check_refusal;

#[test]
fn run_without_an_image_builds_one_first() {
    let folder = tempfile::tempdir().unwrap();
    // A cache that cannot be made ends the build at once; that it began is what counts.
    let said = kscratch(folder.path(), ["run", "--cache", "/dev/null/cache"], SHORT);
    assert_eq!(said.code, 1);
    assert!(said.stderr.starts_with("there is no kscratch-node.img here yet: building it\nerror: "), "{}", said.stderr);
    // Where there is one, it is taken.
    fs::write(folder.path().join("kscratch-node.img"), [0x28, 0xb5, 0x2f, 0xfd]).unwrap();
    let said = kscratch(folder.path(), ["run", "--cache", "/dev/null/cache"], SHORT);
    assert!(said.stderr.starts_with("error: booting kscratch-node.img\n"), "{}", said.stderr);
}

#[test]
fn bad_images_are_refused() {
    let text = [("text.img", "this is no disk\n")];
    check_refusal(
        &[],
        &["inspect", "none.img"],
        1,
        &expect![[r#"
        error: opening none.img
          because: No such file or directory (os error 2)
    "#]],
    );
    check_refusal(
        &text,
        &["inspect", "text.img"],
        1,
        &expect![[r#"
        error: opening text.img
          because: it is 16 bytes long, too short for a disk
    "#]],
    );
    check_refusal(
        &text,
        &["run", "text.img", "--direct"],
        1,
        &expect![[r#"
        error: taking kernel and initramfs out of text.img
          because: reading the partition table
          because: reading the primary partition table: failed to fill whole buffer
    "#]],
    );
    // The cache that is named is the one that is used: a file is none.
    check_refusal(
        &text,
        &["run", "text.img", "--cache", "text.img"],
        1,
        &expect![[r#"
        error: making the folder text.img/store/sha256
          because: Not a directory (os error 20)
    "#]],
    );
    check_refusal(
        &[],
        &["run", "none.img"],
        1,
        &expect![[r#"
        error: opening the image none.img
          because: No such file or directory (os error 2)
    "#]],
    );
}

#[test]
fn a_kubeconfig_comes_from_a_machines_disk_alone() {
    check_refusal(
        &[],
        &["kubeconfig", "none.qcow2"],
        1,
        &expect![[r#"
            error: reading the cluster on none.qcow2
              because: opening none.qcow2
              because: No such file or directory (os error 2)
        "#]],
    );
    let text = "no disk ".repeat(1000);
    check_refusal(
        &[("text", &text)],
        &["kubeconfig", "text"],
        1,
        &expect![[r#"
            error: reading the cluster on text
              because: reading the primary partition table: there is no `EFI PART` signature
            hint: FILE is the whole disk of a machine that has run, such as what `kscratch-image run --overlay` keeps
        "#]],
    );
    // A file that is there is not touched, and that is told first.
    check_refusal(
        &[("admin.kubeconfig", "mine")],
        &["kubeconfig", "none.qcow2"],
        1,
        &expect![[r#"
            error: admin.kubeconfig is there already
            hint: --force replaces it, --output FILE names another
        "#]],
    );
    check_refusal(
        &[],
        &["kubeconfig", "none.qcow2", "--server", "https://a"],
        1,
        &expect![[r#"
            error: --server: "https://a" has a scheme
            hint: write HOST or HOST:PORT, such as 192.168.7.10:6443
        "#]],
    );
}
