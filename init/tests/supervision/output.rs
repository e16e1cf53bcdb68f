//! What services say: kept in logs that are rotated, and shown on the console when they fail.
use std::collections::BTreeMap;
use std::fs;

use crate::scene::{Scene, shell, wait_until};

pub fn logs_are_rotated() {
    let mut scene = Scene::new();
    scene.start(vec![shell("a", "yes 123456789 | head -c 450000; echo end; exec sleep 1000")]);
    scene.started("a");
    wait_until("the end of the output", || scene.log("a.log").ends_with("end\n"));
    let sizes: BTreeMap<String, u64> = fs::read_dir(scene.folder.path().join("logs"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len()))
        .collect();
    assert_eq!(sizes.keys().collect::<Vec<_>>(), ["a.log", "a.log.1", "a.log.2"]);
    assert!(sizes.values().all(|size| *size <= 100_000), "{sizes:?}");
}

pub fn the_console_shows_what_a_service_said_last() {
    let mut scene = Scene::new();
    scene.start(vec![shell("a", "for i in $(seq 30); do echo line $i; done; echo broken >&2; exit 3")]);
    scene.line("service a: exited with status 3, again in 1 s");
    assert_eq!(scene.line("  a: "), "  a: line 12", "twenty lines are shown");
    scene.line("  a: broken");
    assert!(scene.log("a.log").starts_with("line 1\n"));
}

pub fn a_program_that_is_missing_is_named() {
    let mut scene = Scene::new();
    scene.start(vec![serde_json::json!({"name": "a", "program": "/no/such", "args": []})]);
    scene.line("service a: exited with status 127, again in 1 s");
    assert_eq!(scene.line("  a: "), "  a: kscratch-init: executing /no/such: No such file or directory (os error 2)");
}
