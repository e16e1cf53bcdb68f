//! What outlives its parent: orphans that PID 1 reaps, children of runtimes, and containers, which end between their users and their runtime.
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::scene::{Scene, kill, own_program, shell, wait_until, with};

pub fn as_pid_1_orphans_are_reaped() {
    let mut scene = Scene::new();
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child", "--"]).arg(own_program());
    // Twenty-one grandchildren lose their parent and end later, the first by a signal that has no name; then the service itself is asked who is left.
    let script = "sh -c 'sh -c \"sleep 0.1; kill -35 \\$\\$\" &'; for i in $(seq 20); do sh -c 'sleep 0.2 &' ; done; sleep 0.6; cat /proc/[0-9]*/stat > $0 2>/dev/null; echo end; exec sleep 1000";
    let list = scene.path("list");
    scene.start_by(
        command,
        vec![with(serde_json::json!({"name": "a"}), serde_json::json!({"args": ["-c", script, list]}))],
    );
    let pid = scene.started("a");
    wait_until("the end of the output", || scene.log("a.log").ends_with("end\n"));
    let left = fs::read_to_string(&list).unwrap();
    assert!(!left.contains(") Z "), "zombies are left:\n{left}");
    assert!(left.starts_with("1 ("), "the loop is PID 1");
    // From inside, where the pid of the console's line means something: the service's own end is told as such, not as an orphan's.
    let unshare = scene.child.as_ref().unwrap().id();
    let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).unwrap();
    let init: i32 = children.trim().parse().unwrap();
    let inside = Command::new("nsenter")
        .args(["--pid", "--mount", "--target", &init.to_string(), "kill", "-9", &pid.to_string()])
        .status();
    assert!(inside.expect("running nsenter (apt-get install util-linux)").success());
    scene.line("service a: was ended by signal 9, again in 1 s");
    scene.started("a");
    kill(init, rustix::process::Signal::INT);
    assert_eq!(scene.end().0, 10);
}

pub fn cgroups_hold_services_and_containers_end_between() {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let root =
        mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).and_then(|line| line.split(' ').nth(1));
    let root = Path::new(root.expect("no cgroup2 is mounted: mount -t cgroup2 cgroup2 /sys/fs/cgroup"));
    let mut scene = Scene::new();
    let folder = root.join(format!("kscratch-test-{}", std::process::id()));
    fs::create_dir_all(folder.join("containers/pod/box"))
        .expect("making a cgroup: run the tests as root, where cgroup2 is writable");
    scene.cgroup = Some(folder.clone());
    let (socket, marker) = (scene.path("r.sock"), scene.path("marker"));
    // The runtime starts a child that is to outlive it; the user of the runtime leaves one that is not.
    let runtime = format!("sleep 2001 & exec {} serve-unix {socket}", own_program());
    scene.start(vec![
        with(shell("runtime", &runtime), serde_json::json!({"socket": socket, "leave_children": true})),
        with(shell("a", "sleep 2002 & exec sleep 1000"), serde_json::json!({"after": ["runtime"]})),
    ]);
    let runtime = scene.started("runtime");
    let a = scene.started("a");
    let members = |name: &str| -> Vec<i32> {
        let text = fs::read_to_string(folder.join(name).join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    };
    wait_until("both processes of a", || members("services/a").len() == 2);
    assert!(members("services/a").contains(&a) && members("services/runtime").contains(&runtime));

    kill(a, rustix::process::Signal::KILL);
    scene.line("service a: was ended by signal 9");
    let a_again = scene.started("a");
    assert!(
        !members("services/a")
            .iter()
            .any(|pid| *pid != a_again && command_line(*pid).contains("2002") && *pid < a_again),
        "what a left is gone"
    );

    kill(runtime, rustix::process::Signal::KILL);
    scene.line("service runtime: was ended by signal 9");
    let runtime_again = scene.started("runtime");
    let kept = members("services/runtime").into_iter().filter(|pid| *pid < runtime_again).collect::<Vec<_>>();
    assert_eq!(kept.len(), 1, "the runtime's child outlives it");

    // Of a cgroup of threads nobody can be told which processes it has; nobody else goes without a word for that.
    fs::create_dir_all(folder.join("containers/odd/threads")).unwrap();
    fs::write(folder.join("containers/odd/threads/cgroup.type"), "threaded").unwrap();
    // A container: it takes note of SIGTERM and goes.
    let script = format!("trap 'echo terminated > {marker}; exit' TERM; echo > {marker}; while :; do sleep 1; done");
    let mut container = Command::new("sh").args(["-c", &script]).spawn().unwrap();
    fs::write(folder.join("containers/pod/box/cgroup.procs"), container.id().to_string()).unwrap();
    wait_until("the container", || Path::new(&marker).exists());
    scene.line("service runtime: ready");
    let reaper = std::thread::spawn(move || container.wait());
    scene.signal(rustix::process::Signal::TERM);
    let (status, lines) = scene.end();
    reaper.join().unwrap().unwrap();
    assert_eq!(status, 0);
    assert_eq!(fs::read_to_string(&marker).unwrap(), "terminated\n");
    let words: Vec<&str> = lines.iter().map(|line| line.split(" (").next().unwrap()).collect();
    assert_eq!(words, ["stopping: SIGTERM", "service a: stopped", "service runtime: stopped"]);
    for part in ["services/a", "services/runtime", "containers/pod/box"] {
        wait_until(part, || members(part).is_empty());
    }
}

fn command_line(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}
