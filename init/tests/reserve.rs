//! Fills a filesystem, and looks what becomes of the piece of state that is kept back for that.
//!
//! The test runs itself again below `unshare --mount`, which needs root. Needs util-linux.
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use kscratch_init::apply::disk::reserve;
use rustix::fs::{FallocateFlags, fallocate, statvfs};

#[test]
fn it_is_given_away_when_state_is_full_and_made_again_when_it_is_not() {
    let name = "it_is_given_away_when_state_is_full_and_made_again_when_it_is_not";
    if std::env::var("KSCRATCH_TEST_NAMESPACE").is_ok_and(|value| value == name) {
        return body();
    }
    assert!(rustix::process::geteuid().is_root(), "mounts need root: run the tests as root");
    let output = Command::new("unshare")
        .args(["--mount", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env("KSCRATCH_TEST_NAMESPACE", name)
        .output()
        .expect("running unshare (apt-get install util-linux)");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "in the namespace:\n{text}");
    assert!(text.contains("1 passed"), "the test did not run in the namespace:\n{text}");
}

fn body() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let var = root.join("var");
    fs::create_dir(&var).unwrap();
    let mount = ["-t", "tmpfs", "-o", "size=1g", "tmpfs"];
    assert!(Command::new("mount").args(mount).arg(&var).status().unwrap().success());
    fs::create_dir_all(var.join("lib/kscratch")).unwrap();
    let kept = || fs::metadata(var.join("lib/kscratch/reserve")).ok().map(|file| file.len() >> 20);

    reserve::give_away_if_full(root).unwrap();
    assert_eq!(kept(), None, "none is made before state has its size");
    // As the power left it that went in the middle of it.
    fs::write(var.join("lib/kscratch/reserve"), "").unwrap();
    reserve::give_away_if_full(root).unwrap();
    reserve::keep(root).unwrap();
    assert_eq!(kept(), Some(32));
    reserve::give_away_if_full(root).unwrap();
    assert_eq!(kept(), Some(32), "there is room");

    let hog = var.join("hog");
    fill(&hog, available(&var));
    let error = fs::write(var.join("etcd"), [1; 4096]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    reserve::keep(root).unwrap();
    assert_eq!(kept(), Some(32), "who runs gives nothing away: what fills state would have it at once");
    reserve::give_away_if_full(root).unwrap();
    assert_eq!(kept(), None);
    fs::write(var.join("etcd"), [1; 4096]).unwrap();
    reserve::keep(root).unwrap();
    assert_eq!(kept(), None, "there is no room for it yet");

    fs::remove_file(hog).unwrap();
    reserve::keep(root).unwrap();
    assert_eq!(kept(), Some(32));
}

fn available(var: &Path) -> u64 {
    let space = statvfs(var).unwrap();
    space.f_bavail * space.f_frsize
}

fn fill(hog: &Path, size: u64) {
    fallocate(File::create(hog).unwrap(), FallocateFlags::empty(), 0, size).unwrap();
}
