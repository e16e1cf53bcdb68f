//! A [`Probe`] looks at a running node through a test pod, as `src/bin/kscratch-probe.rs` describes.
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kscratch_qemu::Vm;
use serde_json::Value;

use crate::http;
use crate::program;

/// Port on which the probe listens on the node.
pub const PORT: u16 = 9999;

/// The static pod, as it stands in role metadata.
pub const MANIFEST: &str = r#"
[[manifests]]
name = "probe"
content = '''
apiVersion: v1
kind: Pod
metadata:
  name: probe
  namespace: kube-system
spec:
  hostNetwork: true
  hostPID: true
  priorityClassName: system-node-critical
  containers:
  - name: probe
    image: kscratch-probe:test
    imagePullPolicy: Never
    securityContext:
      privileged: true
'''
"#;

/// Compiles the probe statically: its image has no libc.
pub fn compile(folder: &Path) -> PathBuf {
    let program = folder.join("kscratch-probe");
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc
        .args(["--edition", "2024", "-O", "-C", "target-feature=+crt-static", "-C", "strip=symbols", "-o"])
        .arg(&program)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin/kscratch-probe.rs"))
        .current_dir(program::workspace());
    program::run(rustc, Duration::from_secs(300)).succeeded();
    program
}

/// A process of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its name (`comm`, 15 bytes at most).
    pub name: String,
    /// Its arguments, joined by spaces.
    pub command: String,
}

/// Speaks with the probe of one machine.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    port: u16,
}

impl Probe {
    /// Waits until the probe's pod answers.
    #[track_caller]
    pub fn of(vm: &Vm, bound: Duration) -> Probe {
        let port = vm.forwarded(PORT).expect("the machine forwards the probe's port");
        http::wait_for(port, "/processes", bound, |_| true);
        Probe { port }
    }

    /// A file of the node.
    #[track_caller]
    pub fn read(self, path: &str) -> String {
        self.ask(&format!("/read?path={path}"))
    }

    /// The processes of the node.
    #[track_caller]
    pub fn processes(self) -> Vec<Process> {
        let line = |line: &str| {
            let mut words = line.splitn(3, ' ');
            let (pid, name) = (words.next()?.parse().ok()?, words.next()?.to_owned());
            Some(Process { pid, name, command: words.next().unwrap_or_default().to_owned() })
        };
        self.ask("/processes").lines().filter_map(line).collect()
    }

    /// The one process of this name.
    #[track_caller]
    pub fn process(self, name: &str) -> Process {
        let mut all = self.processes();
        all.retain(|process| process.name == name);
        assert_eq!(all.len(), 1, "processes named {name}: {all:?}");
        all.remove(0)
    }

    /// Ends a process with SIGKILL.
    #[track_caller]
    pub fn kill(self, process: &Process) {
        self.ask(&format!("/kill?pid={}", process.pid));
    }

    /// Writes a file of the probe's own, `/proc` and `/sys` among them.
    #[track_caller]
    pub fn write(self, path: &str, text: &str) {
        self.ask(&format!("/write?path={path}&text={text}"));
    }

    /// Has the kernel panic (Documentation/admin-guide/sysrq.rst). There is no answer to wait for.
    #[track_caller]
    pub fn crash(self) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("connecting to the probe");
        let request = "GET /write?path=/proc/sysrq-trigger&text=c HTTP/1.0\r\n\r\n";
        stream.write_all(request.as_bytes()).expect("asking the probe");
    }

    /// What a port of the node's loopback address answers.
    #[track_caller]
    pub fn http(self, port: u16, path: &str) -> String {
        self.ask(&format!("/http?port={port}&path={path}"))
    }

    /// What docker's API answers.
    #[track_caller]
    pub fn docker(self, path: &str) -> Value {
        let answer = self.ask(&format!("/unix?socket=/run/docker.sock&path={path}"));
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("docker's answer to {path}: {error}: {answer}"))
    }

    /// Waits until an answer is as wanted; asks again while docker or kubelet are away.
    #[track_caller]
    pub fn wait_for(self, target: &str, bound: Duration, wanted: impl Fn(&str) -> bool) -> String {
        http::wait_for(self.port, target, bound, wanted)
    }

    #[track_caller]
    fn ask(self, target: &str) -> String {
        // One more time where a connection broke: the user network of an emulated machine loses one now and then.
        let answer = http::get(self.port, target).or_else(|_| http::get(self.port, target));
        match answer {
            Ok((200, body)) => body,
            other => panic!("the probe's answer to {target}: {other:?}"),
        }
    }
}
