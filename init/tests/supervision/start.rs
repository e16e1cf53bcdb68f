//! Services that start: again after a death, when what they stand on is ready, and while the boot goes on beside the loop.
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::scene::{Scene, alive, kill, own_program, shell, wait_until, with};

pub fn a_killed_service_is_started_again() {
    let mut scene = Scene::new();
    scene.start(vec![serde_json::json!({"name": "a", "program": "/bin/sleep", "args": ["1000"]})]);
    let first = scene.started("a");
    kill(first, rustix::process::Signal::KILL);
    scene.line("service a: was ended by signal 9, again in 1 s");
    let dead = Instant::now();
    let second = scene.started("a");
    assert!(dead.elapsed() > Duration::from_millis(900), "after {:?}", dead.elapsed());
    assert_ne!(first, second);
    scene.signal(rustix::process::Signal::TERM);
    assert_eq!(scene.end().0, 0);
    assert!(!alive(second));
}

pub fn readiness_over_a_unix_socket_and_http() {
    let mut scene = Scene::new();
    let socket = scene.path("a.sock");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    scene.start(vec![
        serde_json::json!({"name": "b", "program": own_program(), "args": ["serve-http", port.to_string()], "port": port, "after": ["a"]}),
        serde_json::json!({"name": "a", "program": own_program(), "args": ["serve-unix", socket], "socket": socket}),
    ]);
    for start in ["service a: started", "service a: ready (", "service b: started", "service b: ready ("] {
        scene.line(start);
    }
    scene.signal(rustix::process::Signal::INT);
    assert_eq!(scene.end().0, 10, "ctrl-alt-del reboots");
}

pub fn a_service_that_hangs_is_started_again() {
    let mut scene = Scene::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    scene.start(vec![serde_json::json!({
        "name": "a", "program": own_program(), "args": ["serve-http", port.to_string()], "port": port, "answers_within": 3,
    })]);
    let first = scene.started("a");
    scene.line("service a: ready (");
    // The kernel goes on taking connections for it.
    kill(first, rustix::process::Signal::STOP);
    for start in [
        "service a: has not answered for 3 s: no answer in 5 s",
        "service a: was ended by signal 9",
        "service a: started",
        "service a: ready (",
    ] {
        scene.line(start);
    }
    scene.signal(rustix::process::Signal::TERM);
    assert_eq!(scene.end().0, 0);
}

pub fn the_boot_goes_on_beside_the_loop() {
    let mut scene = Scene::new();
    let (first, second) = (scene.path("a.sock"), scene.path("b.sock"));
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child", "--"]).arg(own_program());
    let serving = |name: &str, socket: &str, after: &[&str]| serde_json::json!({"name": name, "program": own_program(), "args": ["serve-unix", socket], "socket": socket, "after": after});
    // Orphans end all the while: the loop reaps them, and never what the other thread waits for.
    let orphans = shell("orphans", "while true; do sh -c 'sleep 0.01 &'; done");
    let late = vec![serving("a", &first, &[]), serving("b", &second, &["a"])];
    scene.start_with_late(command, vec![with(orphans, serde_json::json!({"socket": first}))], late);
    for start in [
        "service orphans: started",
        "fifty programs ended as they should",
        "service a: started",
        "fifty programs ended as they should",
        "service b: started",
        "init's own share: ",
    ] {
        scene.line(start);
    }
}

pub fn who_watches_is_told_each_time() {
    let mut scene = Scene::new();
    let (file, wait) = (scene.path("ready"), scene.path("wait"));
    // The file of an earlier start counts for nothing.
    fs::write(&file, "").unwrap();
    let script = format!("until [ -e {wait} ]; do sleep 0.01; done; echo > {file}; sleep 60");
    let late = vec![with(shell("a", &script), serde_json::json!({"file": file}))];
    scene.start_with_late(Command::new(own_program()), Vec::new(), late);
    let pid = scene.started("a");
    wait_until("the old file is gone", || !Path::new(&file).exists());
    fs::write(wait, "").unwrap();
    scene.line("told 1 times");
    kill(pid, rustix::process::Signal::KILL);
    scene.line("told 2 times");
    let (status, lines) = scene.end();
    assert_eq!(status, 10);
    assert!(lines.iter().any(|line| line.contains("the node has another pod range now")), "{lines:?}");
}
