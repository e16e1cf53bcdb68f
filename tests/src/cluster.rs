//! A [`Cluster`] is a whole one in QEMU that a test brings up, asks, harms and ends; a test that fails tells what its machines said.
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::api::Api;
use crate::dump::{self, is_ready};
use crate::node_image;
use crate::program::{Said, kscratch, kscratch_image};
use crate::step::step;

/// All machines until they are Ready, under emulation.
pub const BOOT: Duration = Duration::from_secs(45 * 60);
/// What follows from something else within seconds on machines that are not emulated.
pub const SOON: Duration = Duration::from_secs(10 * 60);
/// The ConfigMaps of the default namespace.
pub const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// The cluster's name, and its folder's.
const NAME: &str = "lab";
/// How many of a console's last lines a failed test tells.
const TAIL: &str = "60";

/// A cluster in QEMU.
#[derive(Debug)]
pub struct Cluster {
    folder: tempfile::TempDir,
    kubectl_lock: PathBuf,
    _turn: File,
}

/// The mode of kube-proxy in clusters of a network mode: with one cluster of each, both of both are seen.
pub fn proxy_mode(mode: &str) -> &'static str {
    if mode == "overlay" { "iptables" } else { "nftables" }
}

impl Cluster {
    /// Brings up masters and nodes, all with the probe in docker's store; `more` goes to `cluster up`.
    #[track_caller]
    pub fn up(mode: &str, masters: u8, nodes: u8, more: &[&str]) -> Cluster {
        Cluster::begun(mode, masters, nodes, &[&["--timeout", "2400"], more].concat(), 0)
    }

    /// The same machines, which are off and have never been on for longer than their firmware needs.
    #[track_caller]
    pub fn made(mode: &str, masters: u8, nodes: u8, more: &[&str]) -> Cluster {
        let more = [&["--timeout", "1", "--at-once"], more].concat();
        let cluster = Cluster::begun(mode, masters, nodes, &more, 1);
        let names =
            (1..=masters).map(|number| format!("m{number}")).chain((1..=nodes).map(|number| format!("n{number}")));
        let names: Vec<String> = names.collect();
        cluster.power("cut", &names.iter().map(String::as_str).collect::<Vec<_>>());
        cluster
    }

    #[track_caller]
    fn begun(mode: &str, masters: u8, nodes: u8, more: &[&str], code: i32) -> Cluster {
        let (master, node) = step("images", || (node_image::master_with_probe(), node_image::with_probe()));
        let lock = master.with_file_name("kscratch.lock");
        let folder = tempfile::tempdir().expect("making the cluster's folder");
        let cluster =
            Cluster { folder, kubectl_lock: lock, _turn: step("waiting for a turn", || node_image::turn("machine")) };
        // As `up` makes them itself, but for the modes, which an `up` after this one need not be told then.
        let endpoint: &[&str] = match masters {
            0 | 1 => &["--endpoint", "192.168.76.10:6443"],
            _ => &["--endpoint", "192.168.76.5:6443", "--virtual-endpoint"],
        };
        let modes = ["new", NAME, "--mode", mode, "--proxy-mode", proxy_mode(mode)];
        cluster.command(&[&modes, endpoint].concat()).succeeded();
        // Compiled, if it has to be, while no machine waits for it.
        cluster.kubectl(&["version", "--client"]).succeeded();
        let (masters, nodes) = (masters.to_string(), nodes.to_string());
        let (master, node) = (master.display().to_string(), node.display().to_string());
        let images = ["--image-master", &master, "--image-node", &node];
        // Debian 13's QEMU emulates a fifth faster than Debian 12's, which is what the tests' machine has.
        let counts = ["up", NAME, "--qemu", "unpacked", "--masters", &masters, "--nodes", &nodes];
        let said = step("up", || cluster.command(&[&counts[..], &images, more].concat()));
        assert_eq!(said.code, code, "it said:\n{}\n{}", said.stdout, said.stderr);
        cluster
    }

    /// Adds nodes until there are so many, or waits again until those that there are are Ready.
    #[track_caller]
    pub fn grow(&self, nodes: u8) {
        let (nodes, node) = (nodes.to_string(), node_image::with_probe().display().to_string());
        self.command(&["up", NAME, "--nodes", &nodes, "--image-node", &node, "--timeout", "1200"]).succeeded();
    }

    /// Waits until all machines are Ready again; those that are off are switched on.
    #[track_caller]
    pub fn settle(&self) {
        self.command(&["up", NAME, "--timeout", "2400"]).succeeded();
    }

    /// `kscratch-image cluster ARGS`.
    pub fn command(&self, args: &[&str]) -> Said {
        kscratch(self.folder.path(), ["cluster"].iter().chain(args), BOOT)
    }

    /// `kscratch-image cluster power ACTION lab MACHINES`.
    #[track_caller]
    pub fn power(&self, action: &str, machines: &[&str]) {
        self.command(&[&["power", action, NAME], machines].concat()).succeeded();
    }

    /// kubectl of the cluster's version, as its administrator.
    pub fn kubectl(&self, args: &[&str]) -> Said {
        let mut command = self.kubectl_command();
        command.args(args);
        crate::program::run(command, BOOT)
    }

    /// The same, to be started by the test.
    pub fn kubectl_command(&self) -> Command {
        let mut command = Command::new(kscratch_image());
        command.args(["cluster", "kubectl", "--lock"]).arg(&self.kubectl_lock).arg(NAME);
        command.current_dir(self.folder.path());
        command
    }

    /// A file in the cluster's folder.
    pub fn file(&self, path: &str) -> PathBuf {
        self.folder.path().join(NAME).join(path)
    }

    /// Saves what a failed test's machines can still tell.
    fn save(&self) {
        let (folder, machines, kubeconfig) = (dump::folder(), self.file("machines"), self.kubeconfig());
        let kubectl = || self.kubectl_command();
        let witnesses = dump::Witnesses { machines: &machines, kubeconfig: &kubeconfig, kubectl: &kubectl };
        // In a thread of its own: a second panic in this one would end the program, and leave the machines running.
        let saved = thread::scope(|scope| scope.spawn(|| witnesses.save(&folder)).join());
        let how = if saved.is_ok() { "is" } else { "is, but not all of it," };
        let _ = writeln!(std::io::stderr(), "what the machines had to say {how} in {}", folder.display());
    }

    fn kubeconfig(&self) -> PathBuf {
        self.file("machines/admin.kubeconfig")
    }

    /// Its API server, asked as its administrator.
    pub fn api(&self) -> Api {
        Api::of(&self.kubeconfig())
    }

    /// What a machine said so far.
    pub fn console(&self, machine: &str) -> String {
        fs::read_to_string(self.file(&format!("machines/{machine}/console.log"))).unwrap_or_default()
    }

    /// The port of this host that leads to a machine's port, as `--forward 0:MACHINE:PORT` asked for.
    #[track_caller]
    pub fn forwarded(&self, machine: &str, port: u16) -> u16 {
        let text = fs::read_to_string(self.file("machines/machines.json")).expect("reading the plan");
        let plan: Value = serde_json::from_str(&text).expect("reading the plan");
        let all = plan["forwards"].as_array().expect("a plan has forwards");
        let found = all.iter().find(|one| one["machine"] == machine && one["port"] == port);
        let host = found.and_then(|one| one["host"].as_u64()?.try_into().ok());
        host.unwrap_or_else(|| panic!("port {port} of {machine} is not forwarded: {all:?}"))
    }

    /// Makes objects, or changes them.
    #[track_caller]
    pub fn apply(&self, objects: &[Value]) {
        let file = self.folder.path().join("objects.json");
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        fs::write(&file, list.to_string()).expect("writing objects");
        // Without the schemas that kubectl would ask for: an API server that is short of processors takes minutes to write them down.
        let how = ["apply", "--server-side", "--force-conflicts", "--validate=ignore", "--request-timeout=120s", "-f"];
        let file = file.display().to_string();
        let end = Instant::now() + SOON;
        loop {
            let said = self.kubectl(&[&how[..], &[&file]].concat());
            // What was not done in time may be asked for again: it is the same wish.
            if said.code == 0 || !said.stderr.contains("imeout") || Instant::now() >= end {
                said.succeeded();
                return;
            }
        }
    }

    /// Makes a ConfigMap of the default namespace, which holds its own name, and gives the code of the answer.
    pub fn make_map(&self, name: &str) -> u16 {
        let map =
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { "name": name } });
        self.api().post(MAPS, &map.to_string()).0
    }

    /// Makes one, however often it takes; what was acknowledged to nobody may have been written all the same.
    #[track_caller]
    pub fn makes_map(&self, name: &str, bound: Duration) {
        let end = Instant::now() + bound;
        let mut last = self.make_map(name);
        while !matches!(last, 201 | 409) {
            assert!(Instant::now() < end, "{name} cannot be written in {} s: {last}", bound.as_secs());
            thread::sleep(Duration::from_secs(2));
            last = self.make_map(name);
        }
    }

    /// What the probe in a pod of the default namespace answers; asked again while nothing does.
    #[track_caller]
    pub fn ask(&self, pod: &str, target: &str) -> String {
        self.ask_for(pod, target, |_| true)
    }

    /// The same, until the answer is as wanted.
    #[track_caller]
    pub fn ask_for(&self, pod: &str, target: &str, wanted: impl Fn(&str) -> bool) -> String {
        let path = format!("/api/v1/namespaces/default/pods/{pod}:9999/proxy{target}");
        self.api().wait_for(&path, SOON, |(code, text)| *code == 200 && wanted(text)).1
    }

    /// Waits until a pod of the default namespace is Ready, and gives its address.
    #[track_caller]
    pub fn address_of(&self, pod: &str) -> String {
        let path = format!("/api/v1/namespaces/default/pods/{pod}");
        let read = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
        let (_, text) = self.api().wait_for(&path, SOON, |(code, text)| *code == 200 && is_ready(&read(text)));
        read(&text)["status"]["podIP"].as_str().unwrap_or_default().to_owned()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if thread::panicking() {
            self.save();
        }
        let mut command = Command::new(kscratch_image());
        command.args(["cluster", "down", NAME, "--cut"]).current_dir(self.folder.path());
        let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        if thread::panicking() {
            tell(&self.file("machines"));
        }
    }
}

/// The last words of every machine.
fn tell(machines: &Path) {
    let Ok(entries) = fs::read_dir(machines) else { return };
    for console in entries.flatten().map(|entry| entry.path().join("console.log")) {
        let tail = Command::new("tail").args(["-n", TAIL]).arg(&console).output();
        let said = tail.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        let _ = writeln!(std::io::stderr(), "{}:\n{said}", console.display());
    }
}

/// A pod of the default namespace that runs the probe on a node: port 9999 in its own network.
pub fn pod(name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "namespace": "default", "labels": { "app": name } },
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 1,
            "tolerations": [{ "operator": "Exists" }],
            "containers": [container(name)],
        },
    })
}

/// The probe as a container that serves.
pub fn container(name: &str) -> Value {
    json!({
        "name": name,
        "image": "kscratch-probe:test",
        "imagePullPolicy": "Never",
        // Who answers, where several may.
        "env": [{ "name": "POD", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }],
        "readinessProbe": { "tcpSocket": { "port": 9999 }, "periodSeconds": 3, "timeoutSeconds": 10 },
    })
}

/// A pod that sees its node: its network, its processes, its files.
pub fn eye(node: &str) -> Value {
    let mut eye = pod(&format!("eye-{node}"), node);
    eye["spec"]["hostNetwork"] = json!(true);
    eye["spec"]["hostPID"] = json!(true);
    eye["spec"]["containers"][0]["securityContext"] = json!({ "privileged": true });
    eye
}

/// A service of the default namespace in front of the pods with this label.
pub fn service(name: &str, app: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "selector": { "app": app }, "ports": [{ "port": 80, "targetPort": 9999 }] },
    })
}
