//! Turns small real programs into supervised services, in a process of its own and as PID 1 of a PID namespace, and watches from outside.
//!
//! This file is its own `main`: the event loop reads signals from a signalfd, which needs a process whose every thread blocks them, and
//! the threads of the usual test harness do not. `cargo test --test supervision WORD` runs the cases whose name contains WORD.
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use kscratch_init::plan::{Ready, Service};
use kscratch_init::run::eventloop::{Options, run};
use kscratch_init::run::inbox::{self, Message, Sender};
use kscratch_init::run::logs::Rotation;
use kscratch_init::run::spawn::Spawner;
use kscratch_init::stage::beside;
use kscratch_init::supervise::{Ending, Reason};
use kscratch_init::sys::{Linux, Sys as _};

/// Nothing here takes longer, on a machine that has other things to do as well.
const PATIENCE: Duration = Duration::from_secs(30);

type Case = (&'static str, fn());
const CASES: [Case; 15] = [
    ("a_killed_service_is_started_again", a_killed_service_is_started_again),
    ("readiness_over_a_unix_socket_and_http", readiness_over_a_unix_socket_and_http),
    ("logs_are_rotated", logs_are_rotated),
    ("the_console_shows_what_a_service_said_last", the_console_shows_what_a_service_said_last),
    ("a_service_gets_what_its_definition_says", a_service_gets_what_its_definition_says),
    ("a_service_has_no_more_rights_than_it_is_given", a_service_has_no_more_rights_than_it_is_given),
    ("without_its_rights_a_service_is_not_started", without_its_rights_a_service_is_not_started),
    ("a_program_that_is_missing_is_named", a_program_that_is_missing_is_named),
    ("services_stop_in_reverse_order", services_stop_in_reverse_order),
    ("who_ignores_sigterm_is_killed", who_ignores_sigterm_is_killed),
    ("the_power_button_ends_the_loop", the_power_button_ends_the_loop),
    ("as_pid_1_orphans_are_reaped", as_pid_1_orphans_are_reaped),
    ("the_boot_goes_on_beside_the_loop", the_boot_goes_on_beside_the_loop),
    ("who_watches_is_told_each_time", who_watches_is_told_each_time),
    ("cgroups_hold_services_and_containers_end_between", cgroups_hold_services_and_containers_end_between),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("loop") => run_loop(Path::new(&args[1])),
        Some("serve-unix") => serve_unix(&args[1]),
        Some("serve-http") => serve_http(&args[1]),
        // cargo and its kin ask for lists and pass flags of the usual harness.
        Some("--list") => {
            CASES.iter().for_each(|(name, _)| say(&format!("{name}: test")));
            ExitCode::SUCCESS
        }
        _ => run_cases(&args),
    }
}

fn run_cases(args: &[String]) -> ExitCode {
    let words: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let mut failed = 0;
    for (name, case) in CASES {
        if !words.is_empty() && !words.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        let good = std::panic::catch_unwind(case).is_ok();
        failed += u8::from(!good);
        say(&format!("test {name} ... {}", if good { "ok" } else { "FAILED" }));
    }
    if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

// ---- The process under test ----

/// Runs the loop over what a case wrote into a folder; ends with 0 for power off and 10 for a reboot.
fn run_loop(folder: &Path) -> ExitCode {
    let text = fs::read_to_string(folder.join("scene.json")).unwrap();
    let scene: serde_json::Value = serde_json::from_str(&text).unwrap();
    let path = |key: &str| scene[key].as_str().map(PathBuf::from);
    let services = scene["services"].as_array().unwrap().iter().map(read_service).collect();
    let late: Vec<Service> = scene["late"].as_array().into_iter().flatten().map(read_service).collect();
    let (sender, inbox) = inbox::pair().unwrap();
    let options = Options {
        spawner: Spawner { trampoline: PathBuf::from(env!("CARGO_BIN_EXE_kscratch-init")), cgroups: path("cgroups") },
        logs: folder.join("logs"),
        rotation: Rotation { size: 100_000, kept: 2 },
        containers: path("containers").into_iter().collect(),
        input: Some(folder.join("input")),
        reap_orphans: std::process::id() == 1,
        inbox: (!late.is_empty()).then_some(inbox),
        begun: Some(kscratch_init::log::monotonic()),
        say: Box::new(say),
    };
    if !late.is_empty() {
        beside::start("phases", move || phases(late, &sender)).unwrap();
    }
    match run(services, options).unwrap() {
        Ending::PowerOff => ExitCode::SUCCESS,
        Ending::Reboot => ExitCode::from(10),
    }
}

/// What a boot does beside the loop: programs of its own run to their end, and services are handed over one by one.
fn phases(late: Vec<Service>, sender: &Sender) {
    for service in late {
        for _ in 0..50 {
            let ran = Linux.run(Path::new("/bin/sh"), &["-c", "echo said; exit 7"], b"").unwrap();
            assert_eq!((ran.status, ran.text.as_str()), (Some(7), "said\n"));
        }
        say("fifty programs ended as they should");
        if let Ready::File(_) = service.ready {
            sender.send(watcher(service.name, sender.clone()));
        }
        sender.send(Message::Service(service));
    }
    sender.send(Message::Booted);
}

/// Says when a service is ready, and ends it all the second time.
fn watcher(name: &'static str, sender: Sender) -> Message {
    let mut times = 0;
    let told = move || {
        times += 1;
        say(&format!("told {times} times"));
        if times == 2 {
            sender.send(Message::Stop(Reason::PodRange));
        }
    };
    Message::Watch { name, told: Box::new(told) }
}

fn read_service(value: &serde_json::Value) -> Service {
    let text = |key: &str| value[key].as_str().map(str::to_owned);
    let leak = |text: &serde_json::Value| -> &'static str { String::from(text.as_str().unwrap()).leak() };
    let ready = match (text("socket"), value["port"].as_u64()) {
        _ if value["file"].is_string() => Ready::File(text("file").unwrap()),
        (Some(socket), _) => Ready::UnixSocket(socket),
        (None, Some(port)) => Ready::Http { port: port as u16, path: "/healthz".into() },
        (None, None) => Ready::UnixSocket("/nowhere".into()),
    };
    Service {
        name: leak(&value["name"]),
        program: text("program").unwrap_or_else(|| "/bin/sh".into()),
        args: value["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap().to_owned()).collect(),
        env: vec![("GREETING".into(), "hello".into()), ("PATH".into(), "/usr/bin:/bin".into())],
        after: value["after"].as_array().into_iter().flatten().map(leak).collect(),
        ready,
        ready_within: PATIENCE,
        stop_within: Duration::from_secs(value["stop_within"].as_u64().unwrap_or(20)),
        oom_score_adj: 123,
        open_files: 77,
        leave_children: value["leave_children"].as_bool().unwrap_or(false),
        rights: text("rights").map(|text| text.parse().unwrap()),
        tells: false,
    }
}

fn serve_unix(path: &str) -> ExitCode {
    let _ = fs::remove_file(path);
    UnixListener::bind(path).unwrap().incoming().for_each(drop);
    ExitCode::SUCCESS
}

/// The second answer is the first good one.
fn serve_http(port: &str) -> ExitCode {
    let listener = std::net::TcpListener::bind(format!("127.0.0.1:{port}")).unwrap();
    for (number, stream) in listener.incoming().flatten().enumerate() {
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        let status = if number == 0 { "503 Service Unavailable" } else { "200 OK" };
        let _ = (&stream).write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes());
    }
    ExitCode::SUCCESS
}

// ---- The scene around it ----

struct Scene {
    folder: tempfile::TempDir,
    /// cgroup folder of this case, where it has one.
    cgroup: Option<PathBuf>,
    child: Option<Child>,
    lines: Receiver<String>,
    seen: Vec<String>,
}

/// A service as JSON. `script` is for `sh -c`.
fn shell(name: &str, script: &str) -> serde_json::Value {
    serde_json::json!({"name": name, "args": ["-c", script]})
}

fn with(mut service: serde_json::Value, more: serde_json::Value) -> serde_json::Value {
    for (key, value) in more.as_object().unwrap() {
        service[key] = value.clone();
    }
    service
}

fn own_program() -> String {
    std::env::current_exe().unwrap().to_str().unwrap().to_owned()
}

impl Scene {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), cgroup: None, child: None, lines: channel().1, seen: Vec::new() }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn start(&mut self, services: Vec<serde_json::Value>) {
        self.start_by(Command::new(own_program()), services);
    }

    fn start_by(&mut self, command: Command, services: Vec<serde_json::Value>) {
        self.start_with_late(command, services, Vec::new());
    }

    /// `late` are services that come while the loop runs.
    fn start_with_late(
        &mut self,
        mut command: Command,
        services: Vec<serde_json::Value>,
        late: Vec<serde_json::Value>,
    ) {
        let part = |name: &str| self.cgroup.as_ref().map(|folder| folder.join(name));
        let scene = serde_json::json!({"services": services, "late": late, "cgroups": part("services"), "containers": part("containers")});
        fs::write(self.folder.path().join("scene.json"), scene.to_string()).unwrap();
        let mut child = command.arg("loop").arg(self.folder.path()).stdout(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        self.child = Some(child);
        self.lines = lines;
    }

    /// Waits for a line of the console that begins so, and gives it.
    #[track_caller]
    fn line(&mut self, start: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.starts_with(start) {
                        return line;
                    }
                }
                Err(error) => {
                    let why = if error == RecvTimeoutError::Timeout { "did not come in time" } else { "never came" };
                    panic!("the line {start:?} {why}; there were:\n{}", self.seen.join("\n"));
                }
            }
        }
    }

    #[track_caller]
    fn started(&mut self, name: &str) -> i32 {
        let line = self.line(&format!("service {name}: started pid "));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    fn signal(&self, signal: rustix::process::Signal) {
        kill(self.child.as_ref().unwrap().id() as i32, signal);
    }

    /// Waits for the loop's end and gives its exit status and the lines that were left.
    #[track_caller]
    fn end(&mut self) -> (i32, Vec<String>) {
        let end = Instant::now() + PATIENCE;
        let mut left = Vec::new();
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => left.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("the loop does not end:\n{}\n{}", self.seen.join("\n"), left.join("\n"))
                }
            }
        }
        (self.child.take().unwrap().wait().unwrap().code().unwrap_or(-1), left)
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join("logs").join(name)).unwrap_or_default()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // In order, so that no service outlives its case.
            kill(child.id() as i32, rustix::process::Signal::TERM);
            wait_until_or(PATIENCE, || !matches!(child.try_wait(), Ok(None)));
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(folder) = &self.cgroup {
            let _ = fs::write(folder.join("cgroup.kill"), "1");
            for part in [
                "services/a",
                "services/b",
                "services/runtime",
                "services",
                "containers/pod/box",
                "containers/pod",
                "containers",
                "",
            ] {
                let part = folder.join(part);
                wait_until_or(PATIENCE, || !part.exists() || fs::remove_dir(&part).is_ok());
            }
        }
    }
}

fn kill(pid: i32, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
}

fn alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn wait_until_or(within: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + within;
    while !done() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

#[track_caller]
fn wait_until(what: &str, done: impl FnMut() -> bool) {
    assert!(wait_until_or(PATIENCE, done), "{what} did not come in time");
}

// ---- The cases ----

fn a_killed_service_is_started_again() {
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

fn readiness_over_a_unix_socket_and_http() {
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

fn logs_are_rotated() {
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

fn the_console_shows_what_a_service_said_last() {
    let mut scene = Scene::new();
    scene.start(vec![shell("a", "for i in $(seq 30); do echo line $i; done; echo broken >&2; exit 3")]);
    scene.line("service a: exited with status 3, again in 1 s");
    assert_eq!(scene.line("  a: "), "  a: line 12", "twenty lines are shown");
    scene.line("  a: broken");
    assert!(scene.log("a.log").starts_with("line 1\n"));
}

fn a_service_gets_what_its_definition_says() {
    let mut scene = Scene::new();
    let script = "cat; cat /proc/self/oom_score_adj; ulimit -n; ulimit -Hn; pwd; env | grep -v ^_= | grep -v ^PWD | sort; \
                  read pid comm state ppid group session rest < /proc/self/stat; [ $$ = $session ] && echo own session; \
                  grep ^SigBlk /proc/self/status; echo end; exec sleep 1000";
    scene.start(vec![shell("a", script)]);
    scene.started("a");
    wait_until("the end of the output", || scene.log("a.log").ends_with("end\n"));
    let want = "123\n77\n77\n/\nGREETING=hello\nPATH=/usr/bin:/bin\nown session\nSigBlk:\t0000000000000000\nend\n";
    assert_eq!(scene.log("a.log"), want);
}

/// Changing user and capabilities needs root.
fn a_service_has_no_more_rights_than_it_is_given() {
    assert!(rustix::process::geteuid().is_root(), "giving up rights needs root: run the tests as root");
    let script = "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs)' /proc/self/status; echo end; exec sleep 1000";
    let capabilities =
        |bits: &str| ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|set| format!("{set}:\t{bits}\n")).concat();
    for (rights, user, bits) in [
        ("905:NET_ADMIN", "905", "0000000000001000"),
        ("0:CHOWN,DAC_READ_SEARCH", "0", "0000000000000005"),
        ("906:", "906", "0000000000000000"),
    ] {
        let mut scene = Scene::new();
        scene.start(vec![with(shell("a", script), serde_json::json!({ "rights": rights }))]);
        scene.started("a");
        wait_until("the end of the output", || scene.log("a.log").ends_with("end\n"));
        let all = format!("{user}\t{user}\t{user}\t{user}");
        let want = format!("Uid:\t{all}\nGid:\t{all}\nGroups:\t \n{}NoNewPrivs:\t1\nend\n", capabilities(bits));
        assert_eq!(scene.log("a.log"), want, "{rights}");
        scene.signal(rustix::process::Signal::TERM);
        assert_eq!(scene.end().0, 0, "{rights}: it is stopped all the same");
    }
}

fn without_its_rights_a_service_is_not_started() {
    let tried = |rights: &str| {
        // Root without the capability to take others away.
        let output = Command::new("setpriv")
            .args(["--bounding-set", "-setpcap", env!("CARGO_BIN_EXE_kscratch-init"), "exec-service", "", "500", "77"])
            .args([rights, "/bin/echo", "started"])
            .output()
            .expect("running setpriv (apt-get install util-linux)");
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code(), said)
    };
    assert_eq!(tried("root"), (Some(0), "started\n".to_owned()));
    let words = "kscratch-init: giving up rights; the service is not started with more than it should have: dropping the capabilities that it \
                 shall not have: Operation not permitted (os error 1)\n";
    assert_eq!(tried("905:NET_ADMIN"), (Some(127), words.to_owned()));
    let words = "kscratch-init: reading its rights: \"ALL\" is no capability\n";
    assert_eq!(tried("0:ALL"), (Some(127), words.to_owned()));
}

fn a_program_that_is_missing_is_named() {
    let mut scene = Scene::new();
    scene.start(vec![serde_json::json!({"name": "a", "program": "/no/such", "args": []})]);
    scene.line("service a: exited with status 127, again in 1 s");
    assert_eq!(scene.line("  a: "), "  a: kscratch-init: executing /no/such: No such file or directory (os error 2)");
}

fn services_stop_in_reverse_order() {
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

fn who_ignores_sigterm_is_killed() {
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

fn the_power_button_ends_the_loop() {
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

fn as_pid_1_orphans_are_reaped() {
    let mut scene = Scene::new();
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child", "--"]).arg(own_program());
    // Twenty grandchildren lose their parent and end later; then the service itself is asked who is left.
    let script = "for i in $(seq 20); do sh -c 'sleep 0.2 &' ; done; sleep 0.6; cat /proc/[0-9]*/stat > $0 2>/dev/null; echo end; exec sleep 1000";
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

fn the_boot_goes_on_beside_the_loop() {
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

fn who_watches_is_told_each_time() {
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

fn cgroups_hold_services_and_containers_end_between() {
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
