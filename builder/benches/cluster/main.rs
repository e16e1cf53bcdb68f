//! Prints when a master and a node get how far, on new disks and on the same disks again, and what they need of memory then.
#![allow(clippy::print_stdout)]
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kscratch_image::vmcluster::api::{Access, Api};
use serde_json::Value;

use crate::measure::node::{Node, kscratch_image};
use crate::measure::program::{self, BOUND};

#[path = "../measure/mod.rs"]
mod measure;

/// The cluster's name.
const NAME: &str = "bench";
/// From power on to everything running, under emulation and with nothing beside it.
const BOOT: Duration = Duration::from_secs(25 * 60);
/// Between two questions: rare enough not to be what is measured.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the machines are left alone before their memory is looked at.
const CALM: Duration = Duration::from_secs(90);

fn main() -> Result<()> {
    measure::title("cluster: one master and one node, software emulation, 2 processors and 2 GiB each; one round");
    let node = Node::built()?;
    let master = node.master()?;
    let folder = tempfile::tempdir_in(&node.folder)?;
    let machines = Machines { folder: folder.path() };
    let images = [master.display().to_string(), node.image.display().to_string()];
    let up = ["up", NAME, "--masters", "1", "--nodes", "1", "--image-master", &images[0], "--image-node", &images[1]];
    // Switched on and no more: this program looks itself how far they are.
    machines.command(&[&up[..], &["--timeout", "1"]].concat(), false)?;
    let done = machines.boots("first boot");
    let done = done.and_then(|()| {
        machines.memory()?;
        machines.command(&["power", "off", NAME, "m1", "n1"], true)?;
        machines.command(&["power", "on", NAME, "m1", "n1"], true)?;
        machines.boots("second boot, of the same disks")
    });
    machines.command(&["down", NAME, "--cut"], true)?;
    done
}

struct Machines<'a> {
    folder: &'a Path,
}

/// What is waited for, and how it is found out.
type Mark = (&'static str, fn(&Api, &Path) -> bool);

impl Machines<'_> {
    fn command(&self, args: &[&str], succeeds: bool) -> Result<()> {
        let mut command = Command::new(kscratch_image());
        command.args(["cluster"]).args(args).args(["--quiet"]).current_dir(self.folder);
        match program::run(command, BOUND) {
            Err(error) if succeeds => Err(error),
            _ => Ok(()),
        }
    }

    fn api(&self) -> Result<Api> {
        let text = fs::read_to_string(self.folder.join(NAME).join("machines/admin.kubeconfig"))?;
        Api::of(&Access::parse(&text)?)
    }

    /// Tells when each mark is reached, since power on.
    fn boots(&self, what: &str) -> Result<()> {
        let marks: [Mark; 6] = [
            ("the node's kubelet is up, by its console", |_, folder| says(folder, "n1", "service kubelet: ready (")),
            ("the API server is ready", |api, _| api.get("/readyz").is_ok_and(|(status, _)| status == 200)),
            ("the master is Ready", |api, _| ready(api, "m1")),
            ("the node is Ready", |api, _| ready(api, "n1")),
            ("the cluster's DNS is available", |api, _| dns(api)),
            ("all pods of the system are Ready", |api, _| pods(api)),
        ];
        let (api, begun) = (self.api()?, Instant::now());
        // Of the boot that is measured alone.
        let consoles = self.folder.join(NAME).join("machines");
        println!("--- {what}");
        let mut left: Vec<Mark> = marks.to_vec();
        while !left.is_empty() {
            ensure!(begun.elapsed() < BOOT, "after {} s it is not so that {}", BOOT.as_secs(), left[0].0);
            left.retain(|(name, reached)| {
                let reached = reached(&api, &consoles);
                if reached {
                    measure::time(name, begun.elapsed());
                }
                !reached
            });
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// What the kubelets say of memory once everything has been calm for a while: of the machine and its pods (`/stats/summary`), and of
    /// the services whose cgroups they look at (`/metrics/cadvisor`).
    fn memory(&self) -> Result<()> {
        thread::sleep(CALM);
        let api = self.api()?;
        for node in ["m1", "n1"] {
            let get = |what: &str| -> Result<Vec<u8>> {
                let (status, text) = api.get(&format!("/api/v1/nodes/{node}/proxy/{what}"))?;
                ensure!(status == 200, "asking {node} for {what}: the status is {status}");
                Ok(text)
            };
            let summary: Value =
                serde_json::from_slice(&get("stats/summary")?).context("reading the kubelet's summary")?;
            let bytes = |memory: &Value| memory["workingSetBytes"].as_u64().unwrap_or(0);
            let whole = bytes(&summary["node"]["memory"]);
            println!("{node}: {} MiB in use, without caches that can be dropped", whole >> 20);
            let row = |name: &str, bytes: u64| println!("  {name:<56} {:>6} MiB", bytes >> 20);
            let services = services(&String::from_utf8_lossy(&get("metrics/cadvisor")?));
            let pods: Vec<(&str, u64)> = summary["pods"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|pod| (pod["podRef"]["name"].as_str().unwrap_or_default(), bytes(&pod["memory"])))
                .collect();
            services.iter().for_each(|(name, bytes)| row(&format!("service {name}"), *bytes));
            pods.iter().for_each(|(name, bytes)| row(&format!("pod {name}"), *bytes));
            let told: u64 = services.values().chain(pods.iter().map(|(_, bytes)| bytes)).sum();
            row("the kernel, PID 1, and the services that are not told", whole.saturating_sub(told));
        }
        Ok(())
    }
}

/// Bytes in use of every service of init's that the kubelet looks at: its own, and those that `--runtime-cgroups` names. Lines are as
/// Prometheus has them: `container_memory_working_set_bytes{container="",id="/kscratch/kubelet",…} 6.1e+07 1795538416000`.
fn services(metrics: &str) -> BTreeMap<String, u64> {
    let of_memory = metrics.lines().filter_map(|line| line.strip_prefix("container_memory_working_set_bytes{"));
    let service = |line: &str| {
        let (labels, value) = line.split_once("} ")?;
        let id = labels.split_once("id=\"/kscratch/")?.1.split_once('"')?.0;
        Some((id.to_owned(), value.split(' ').next()?.parse::<f64>().ok()? as u64))
    };
    of_memory.filter_map(service).filter(|(id, _)| !id.contains('/')).collect()
}

/// Whether the last boot's part of a console has a line like this.
fn says(consoles: &Path, machine: &str, words: &str) -> bool {
    let text = fs::read_to_string(consoles.join(machine).join("console.log")).unwrap_or_default();
    text.rsplit("Linux version").next().is_some_and(|boot| boot.contains(words))
}

fn object(api: &Api, path: &str) -> Option<Value> {
    let (status, text) = api.get(path).ok()?;
    (status == 200).then(|| serde_json::from_slice(&text).ok())?
}

/// Whether a condition of an object's status is True; one of an earlier boot does not count once the control plane knows better.
fn condition(object: &Value, kind: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|one| one["type"] == kind && one["status"] == "True"))
}

fn ready(api: &Api, node: &str) -> bool {
    object(api, &format!("/api/v1/nodes/{node}")).is_some_and(|node| condition(&node, "Ready"))
}

fn dns(api: &Api) -> bool {
    let deployment = object(api, "/apis/apps/v1/namespaces/kube-system/deployments/coredns");
    deployment.is_some_and(|deployment| deployment["status"]["availableReplicas"] == 2)
}

fn pods(api: &Api) -> bool {
    let list = object(api, "/api/v1/namespaces/kube-system/pods").unwrap_or_default();
    // Four of the control plane, two of the DNS, and the node's own.
    list["items"].as_array().is_some_and(|pods| pods.len() >= 7 && pods.iter().all(|pod| condition(pod, "Ready")))
}
