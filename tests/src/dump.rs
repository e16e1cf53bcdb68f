//! Saves what the machines of a failed test can still tell before their power is cut: consoles, and the cluster's words about itself.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::api::Api;
use crate::program;

/// How long one question may take. A cluster that is well answers within seconds; one that is not must not hold up the test's end.
const EACH: Duration = Duration::from_secs(15);
/// No question is asked after this.
const ALL: Duration = Duration::from_secs(150);
/// Pods that are not Ready and are described; where more are, they have the same reason.
const DESCRIBED: usize = 8;
/// Where a machine's services have their logs.
const LOGS: &str = "/var/log/kscratch";
/// How much of the end of each log is kept, in bytes.
const TAIL: u32 = 64 << 10;

/// The folder for the failed test in this thread: the same one at every run, so that old ones do not pile up.
pub fn folder() -> PathBuf {
    let program = std::env::args().next().unwrap_or_default();
    let thread = std::thread::current();
    program::scratch().join("failed").join(name(Path::new(&program), thread.name().unwrap_or_default()))
}

/// `cluster.a_routed_cluster`, of the program `cluster-0123456789abcdef` that cargo made.
fn name(program: &Path, thread: &str) -> String {
    let stem = program.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let program = stem.rsplit_once('-').map_or(stem.as_str(), |(name, _)| name);
    format!("{program}.{}", thread.replace("::", "."))
}

/// Who is asked.
pub struct Witnesses<'a> {
    /// The folder with a folder for each machine.
    pub machines: &'a Path,
    /// The administrator's; there is none as long as the first `up` has not made it.
    pub kubeconfig: &'a Path,
    /// Gives a kubectl that only lacks its arguments.
    pub kubectl: &'a (dyn Fn() -> Command + Sync),
}

impl Witnesses<'_> {
    /// Writes all that they say into a folder, which is emptied first.
    pub fn save(&self, folder: &Path) {
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder).expect("making the folder of what a failed test leaves");
        self.consoles(folder);
        if !self.kubeconfig.is_file() {
            return;
        }
        let api = Api::of(self.kubeconfig).within(EACH);
        let (code, text) = api.get("/readyz?verbose");
        keep(&folder.join("readyz.txt"), &format!("status {code}\n{text}"));
        if code == 0 {
            return;
        }
        Asking { witnesses: self, api, folder, end: Instant::now() + ALL }.all();
        // What they said meanwhile.
        self.consoles(folder);
    }

    fn consoles(&self, folder: &Path) {
        for machine in fs::read_dir(self.machines).into_iter().flatten().flatten() {
            let to = folder.join(format!("{}.console.log", machine.file_name().display()));
            // Not every entry is a machine's folder.
            let _ = fs::copy(machine.path().join("console.log"), to);
        }
    }
}

/// A cluster that answers, asked until time is up.
struct Asking<'a> {
    witnesses: &'a Witnesses<'a>,
    api: Api,
    folder: &'a Path,
    end: Instant,
}

impl Asking<'_> {
    fn all(&self) {
        self.kubectl("nodes-and-pods.txt", &["get", "nodes,pods", "-A", "-o", "wide"]);
        self.kubectl("events.txt", &["get", "events", "-A", "--sort-by=.lastTimestamp"]);
        let pods = pods(&self.get("/api/v1/pods"));
        for pod in pods.iter().filter(|pod| !pod.well).take(DESCRIBED) {
            let arguments = ["describe", "pod", "-n", &pod.namespace, &pod.name];
            self.kubectl(&format!("{}.{}.txt", pod.namespace, pod.name), &arguments);
        }
        for pod in pods.iter().filter(|pod| pod.controls) {
            let arguments = ["logs", "-n", &pod.namespace, &pod.name, "--tail=400"];
            self.kubectl(&format!("{}.log", pod.name), &arguments);
        }
        for pod in pods.iter().filter(|pod| pod.well) {
            if let Some(machine) = pod.name.strip_prefix("eye-") {
                self.services(&pod.name, machine);
            }
        }
    }

    fn late(&self) -> bool {
        Instant::now() >= self.end
    }

    fn kubectl(&self, file: &str, arguments: &[&str]) {
        if self.late() {
            return;
        }
        let mut command = (self.witnesses.kubectl)();
        command.args(arguments).arg("--request-timeout=10s");
        let (_, said) = program::attempt(command, EACH);
        keep(&self.folder.join(file), &(said.stdout + &said.stderr));
    }

    /// An answer's text, whatever its status; nothing when time is up.
    fn get(&self, path: &str) -> String {
        if self.late() { String::new() } else { self.api.get(path).1 }
    }

    /// The ends of the logs of a machine's services, through the eye on it.
    fn services(&self, eye: &str, machine: &str) {
        let ask = |target: &str| self.get(&format!("/api/v1/namespaces/default/pods/{eye}:9999/proxy{target}"));
        let listed = ask(&format!("/list?path={LOGS}"));
        for name in listed.lines().filter(|name| name.ends_with(".log") && !name.contains('/')) {
            let text = ask(&format!("/tail?path={LOGS}/{name}&bytes={TAIL}"));
            keep(&self.folder.join(format!("{machine}.{name}")), &text);
        }
    }
}

/// A file of the dump; the rest of it is worth having also where this one cannot be written.
fn keep(file: &Path, text: &str) {
    let _ = fs::write(file, text);
}

/// What is looked at of a pod.
#[derive(Debug, PartialEq, Eq)]
struct Pod {
    namespace: String,
    name: String,
    /// Ready, or ended as it should.
    well: bool,
    /// A part of the control plane.
    controls: bool,
}

/// The pods of a list, as an API server writes it.
fn pods(list: &str) -> Vec<Pod> {
    let list: Value = serde_json::from_str(list).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let pod = |pod: &Value| Pod {
        namespace: text(&pod["metadata"]["namespace"]),
        name: text(&pod["metadata"]["name"]),
        well: pod["status"]["phase"] == "Succeeded" || is_ready(pod),
        controls: pod["metadata"]["labels"]["tier"] == "control-plane",
    };
    list["items"].as_array().into_iter().flatten().map(pod).collect()
}

/// Whether an object, a Pod or a Node, has the condition `Ready`.
pub fn is_ready(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::TcpListener;
    use std::path::Path;
    use std::process::Command;
    use std::time::Instant;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::{ALL, Pod, Witnesses, name, pods};
    use crate::https;

    #[test]
    fn a_folder_is_named_by_the_test() {
        for (program, thread, want) in [
            ("/target/debug/deps/cluster-0123456789abcdef", "a_routed_cluster", "cluster.a_routed_cluster"),
            ("faults-0123456789abcdef", "power::cut", "faults.power.cut"),
            ("cluster", "main", "cluster.main"),
        ] {
            assert_eq!(name(Path::new(program), thread), want);
        }
    }

    #[test]
    fn pods_are_read_of_a_list() {
        let list = r#"{"items": [
            {"metadata": {"namespace": "kube-system", "name": "etcd-m1", "labels": {"tier": "control-plane"}},
             "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}},
            {"metadata": {"namespace": "default", "name": "once"}, "status": {"phase": "Succeeded", "conditions": [{"type": "Ready", "status": "False"}]}},
            {"metadata": {"namespace": "default", "name": "waits"}, "status": {"phase": "Pending"}}]}"#;
        let pod = |namespace: &str, name: &str, well, controls| Pod {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            well,
            controls,
        };
        let want = [
            pod("kube-system", "etcd-m1", true, true),
            pod("default", "once", true, false),
            pod("default", "waits", false, false),
        ];
        assert_eq!(pods(list), want);
        for nothing in ["", "{}", r#"{"items": {}}"#, "upstream connect error"] {
            assert_eq!(pods(nothing), []);
        }
    }

    #[test]
    fn an_api_server_that_is_gone_holds_up_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let [machines, kubeconfig, to] =
            ["machines", "admin.kubeconfig", "failed"].map(|name| folder.path().join(name));
        fs::create_dir_all(machines.join("m1")).unwrap();
        fs::write(machines.join("m1/console.log"), "last words\n").unwrap();
        fs::write(machines.join("machines.json"), "{}").unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(to.join("m9.console.log"), "of an earlier run").unwrap();
        // A port that nobody has any more.
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        https::certificate(folder.path(), "own", "127.0.0.1");
        let encoded = |name: &str| STANDARD.encode(fs::read(folder.path().join(name)).unwrap());
        let (certificate, key) = (encoded("own.crt"), encoded("own.key"));
        let text = format!(
            "server: https://127.0.0.1:{port}\ncertificate-authority-data: {certificate}\nclient-certificate-data: {certificate}\nclient-key-data: {key}\n"
        );
        fs::write(&kubeconfig, text).unwrap();
        let begun = Instant::now();
        let kubectl = || -> Command { panic!("nobody answers: kubectl need not be asked") };
        Witnesses { machines: &machines, kubeconfig: &kubeconfig, kubectl: &kubectl }.save(&to);
        assert!(begun.elapsed() < ALL / 2);
        assert_eq!(fs::read_to_string(to.join("m1.console.log")).unwrap(), "last words\n");
        let answer = fs::read_to_string(to.join("readyz.txt")).unwrap();
        assert!(answer.starts_with("status 0\ncurl: (7) "), "{answer}");
        assert_eq!(fs::read_dir(&to).unwrap().count(), 2, "what an earlier run left is still there");
    }
}
