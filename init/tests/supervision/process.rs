//! The process under test: turns what a case wrote into the event loop over its services, and plays those that a shell cannot.
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use kscratch_init::plan::{Input, Ready, Service};
use kscratch_init::run::eventloop::{Options, run};
use kscratch_init::run::inbox::{self, Message, Sender};
use kscratch_init::run::logs::Rotation;
use kscratch_init::run::spawn::Spawner;
use kscratch_init::stage::beside;
use kscratch_init::supervise::{Ending, Reason};
use kscratch_init::sys::{Linux, Sys as _};

use crate::{PATIENCE, say};

/// Runs the loop over what a case wrote into a folder; ends with 0 for power off and 10 for a reboot.
pub fn run_loop(folder: &Path) -> ExitCode {
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
        boot: path("boot").map(|boot| boot.display().to_string()),
        containers: path("containers").into_iter().collect(),
        input: Some(folder.join("input")),
        reap_orphans: std::process::id() == 1,
        inbox: (!late.is_empty()).then_some(inbox),
        begun: Some(kscratch_init::log::monotonic()),
        say: Box::new(say),
        show: Box::new(|_| {}),
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
        sender.send(Message::Service(Box::new(service)));
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
        answers_within: value["answers_within"].as_u64().map(Duration::from_secs),
        stop_within: Duration::from_secs(value["stop_within"].as_u64().unwrap_or(20)),
        oom_score_adj: 123,
        open_files: 77,
        leave_children: value["leave_children"].as_bool().unwrap_or(false),
        rights: text("rights").map(|text| text.parse().unwrap()),
        reads: (value["reads"] == "kernel log").then_some(Input::KernelLog),
        stops_first: false,
        tells: false,
    }
}

pub fn serve_unix(path: &str) -> ExitCode {
    let _ = fs::remove_file(path);
    UnixListener::bind(path).unwrap().incoming().for_each(drop);
    ExitCode::SUCCESS
}

/// The second answer is the first good one.
pub fn serve_http(port: &str) -> ExitCode {
    let listener = std::net::TcpListener::bind(format!("127.0.0.1:{port}")).unwrap();
    for (number, stream) in listener.incoming().flatten().enumerate() {
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        let status = if number == 0 { "503 Service Unavailable" } else { "200 OK" };
        let _ = (&stream).write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes());
    }
    ExitCode::SUCCESS
}
