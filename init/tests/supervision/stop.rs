//! The end of it all: who asks for it, in which order services stop, and what becomes of one that does not.
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use crate::scene::{Scene, alive, own_program, shell, wait_until, with};

pub fn services_stop_in_reverse_order() {
    let mut scene = Scene::new();
    let socket = |name: &str| scene.path(name);
    let (a, b) = (socket("a.sock"), socket("b.sock"));
    let serve = |name: &str, path: &str, after: &[&str]| serde_json::json!({"name": name, "program": own_program(), "args": ["serve-unix", path], "socket": path, "after": after});
    scene.start(vec![
        serve("a", &a, &[]),
        serve("b", &b, &["a"]),
        with(shell("c", "exec sleep 1000"), serde_json::json!({"after": ["b"]})),
    ]);
    scene.started("c");
    scene.signal(rustix::process::Signal::TERM);
    let (status, lines) = scene.end();
    assert_eq!(status, 0);
    let words: Vec<&str> = lines.iter().map(|line| line.split(" (").next().unwrap()).collect();
    assert_eq!(words, ["stopping: SIGTERM", "service c: stopped", "service b: stopped", "service a: stopped"]);
}

pub fn who_ignores_sigterm_is_killed() {
    let mut scene = Scene::new();
    let marker = scene.path("marker");
    let script = format!("trap '' TERM; touch {marker}; while :; do sleep 1; done");
    scene.start(vec![with(shell("a", &script), serde_json::json!({"stop_within": 1}))]);
    let pid = scene.started("a");
    wait_until("the trap", || Path::new(&marker).exists());
    scene.signal(rustix::process::Signal::TERM);
    scene.line("service a: still there after 1 s, killing it");
    scene.line("service a: stopped");
    assert_eq!(scene.end().0, 0);
    assert!(!alive(pid));
}

pub fn the_power_button_ends_the_loop() {
    let mut scene = Scene::new();
    scene.start(vec![shell("a", "exec sleep 1000")]);
    scene.started("a");
    // A FIFO stands for the device; it appears while the loop runs, as a button's driver would make it. It is open for both sides
    // before: without a writer it would read as an unplugged device.
    let (fifo, device) = (scene.path("fifo"), scene.path("input/event3"));
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let mut button = File::options().read(true).write(true).open(&fifo).unwrap();
    fs::hard_link(&fifo, &device).unwrap();
    let mut press = vec![0; 16];
    press.extend([1, 0, 116, 0, 1, 0, 0, 0]);
    button.write_all(&press).unwrap();
    scene.line("stopping: power button");
    assert_eq!(scene.end().0, 0);
}
