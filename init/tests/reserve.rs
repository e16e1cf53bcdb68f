//! Fills a filesystem, and looks what becomes of the piece of state that is kept back for that.
//!
//! The test runs itself again below `unshare`, which needs root. Needs iproute2 and util-linux.
#[path = "../agent/tests/namespace/mod.rs"]
mod namespace;

use std::fs::{self, File};
use std::path::Path;

use kscratch_init::apply::disk::reserve;
use namespace::run;
use rustix::fs::{FallocateFlags, fallocate, statvfs};

#[test]
fn it_is_given_away_when_state_is_full_and_made_again_when_it_is_not() {
    namespace::of_its_own("it_is_given_away_when_state_is_full_and_made_again_when_it_is_not", fills_and_empties);
}

fn fills_and_empties() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let var = root.join("var");
    fs::create_dir(&var).unwrap();
    run(&format!("mount -t tmpfs -o size=1g tmpfs {}", var.display()));
    fs::create_dir_all(var.join("lib/kscratch")).unwrap();
    let kept = || fs::metadata(var.join("lib/kscratch/reserve")).ok().map(|file| file.len() >> 20);

    reserve::give_away_if_full(root, &reserve::STATE).unwrap();
    assert_eq!(kept(), None, "none is made before state has its size");
    // As the power left it that went in the middle of it.
    fs::write(var.join("lib/kscratch/reserve"), "").unwrap();
    reserve::give_away_if_full(root, &reserve::STATE).unwrap();
    reserve::keep(root, &reserve::STATE).unwrap();
    assert_eq!(kept(), Some(32));
    reserve::give_away_if_full(root, &reserve::STATE).unwrap();
    assert_eq!(kept(), Some(32), "there is room");

    let hog = var.join("hog");
    fill(&hog, available(&var));
    let error = fs::write(var.join("etcd"), [1; 4096]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    reserve::keep(root, &reserve::STATE).unwrap();
    assert_eq!(kept(), Some(32), "who runs gives nothing away: what fills state would have it at once");
    reserve::give_away_if_full(root, &reserve::STATE).unwrap();
    assert_eq!(kept(), None);
    fs::write(var.join("etcd"), [1; 4096]).unwrap();
    reserve::keep(root, &reserve::STATE).unwrap();
    assert_eq!(kept(), None, "there is no room for it yet");

    fs::remove_file(hog).unwrap();
    reserve::keep(root, &reserve::STATE).unwrap();
    assert_eq!(kept(), Some(32));
}

fn available(var: &Path) -> u64 {
    let space = statvfs(var).unwrap();
    space.f_bavail * space.f_frsize
}

fn fill(hog: &Path, size: u64) {
    fallocate(File::create(hog).unwrap(), FallocateFlags::empty(), 0, size).unwrap();
}
