//! Looks at the memory of every machine of a cluster from a pod there, and prints it by process.
use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use kscratch_image::vmcluster::api::Api;
use serde_json::{Value, json};

use crate::images::{PROGRAM, REFERENCE};
use crate::machines::NAMES;

/// The pods.
const PODS: &str = "/api/v1/namespaces/default/pods";
/// From the pod's making to its end, half a minute of which it waits by itself.
const LOOK: Duration = Duration::from_secs(5 * 60);
/// Between two questions whether it has ended.
const PAUSE: Duration = Duration::from_secs(3);
/// What the kernel itself has and does not give back for the asking (proc_meminfo(5)); its threads' stacks are of `VmallocUsed`.
const KERNEL: [&str; 4] = ["SUnreclaim", "VmallocUsed", "PageTables", "Percpu"];

/// Tells the memory of every machine.
///
/// # Errors
/// A pod does not come to its end, or says something else than is expected.
pub fn tell(api: &Api) -> Result<()> {
    println!("--- memory of machines that have nothing to do, in MiB");
    println!("in use: MemTotal less MemAvailable, as a machine's kernel says");
    println!(
        "Pss: pages of files and of memory that are mapped; of those that several processes map, each has its part (smaps_rollup)"
    );
    println!("anonymous: what of it is no file's, and so cannot be dropped");
    println!("`{PROGRAM}`, which looks, is a pod, and so is among the processes with one pause and one shim");
    for machine in NAMES {
        let look = Look::parse(&looked(api, machine).with_context(|| format!("looking at the memory of {machine}"))?);
        print(machine, &look?);
    }
    Ok(())
}

/// Runs the program on a machine, and gives what it says.
fn looked(api: &Api, machine: &str) -> Result<String> {
    post(api, PODS, &pod(machine))?;
    let (path, deadline) = (format!("{PODS}/{PROGRAM}-{machine}"), Instant::now() + LOOK);
    loop {
        // The server may be late once; what it says then counts.
        let answer = api.get(&path).ok().filter(|(status, _)| *status == 200);
        let pod: Value = answer.and_then(|(_, text)| serde_json::from_slice(&text).ok()).unwrap_or_default();
        match pod["status"]["phase"].as_str() {
            Some("Succeeded") => break,
            Some("Failed") => bail!("the pod failed: {}", pod["status"]),
            _ => ensure!(Instant::now() < deadline, "after {} s the pod is at {}", LOOK.as_secs(), pod["status"]),
        }
        thread::sleep(PAUSE);
    }
    let (status, text) = api.get(&format!("{path}/log"))?;
    let text = String::from_utf8_lossy(&text).into_owned();
    ensure!(status == 200, "asking for the pod's log, the status is {status}: {text}");
    Ok(text)
}

/// A pod with the machine's processes before it, at the place that it is given, whatever that is tainted with.
fn pod(machine: &str) -> Value {
    json!({
        "metadata": { "name": format!("{PROGRAM}-{machine}") },
        "spec": {
            "nodeName": machine,
            "hostPID": true,
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "tolerations": [{ "operator": "Exists" }],
            "containers": [{
                "name": PROGRAM,
                "image": REFERENCE,
                "imagePullPolicy": "Never",
                // The smaps_rollup of other users' processes is for those who may trace them.
                "securityContext": { "privileged": true },
            }],
        },
    })
}

fn post(api: &Api, path: &str, object: &Value) -> Result<()> {
    // An answer may come too late, and then the object is there (409): nobody else makes one of this name.
    let (status, text) = api.post(path, object).or_else(|_| api.post(path, object))?;
    ensure!(
        [201, 409].contains(&status),
        "posting to {path}, the status is {status}: {}",
        String::from_utf8_lossy(&text)
    );
    Ok(())
}

/// What the program said, in kB.
struct Look {
    machine: BTreeMap<String, u64>,
    /// Of processes of one name: how many, their Pss, and the anonymous part of it.
    processes: BTreeMap<String, [u64; 3]>,
}

impl Look {
    fn parse(text: &str) -> Result<Look> {
        let mut look = Look { machine: BTreeMap::new(), processes: BTreeMap::new() };
        let mut process: Option<String> = None;
        for line in text.lines() {
            if let Some(named) = line.strip_prefix("process ") {
                let name = name(named.split_once(' ').map_or("", |(_, command)| command));
                look.processes.entry(name.clone()).or_default()[0] += 1;
                process = Some(name);
                continue;
            }
            // What is not in kB, as the range of addresses that a smaps_rollup begins with, is not asked for.
            let Some((key, kilobytes)) = kilobytes(line) else { continue };
            match (&process, key) {
                (None, key) => drop(look.machine.insert(key.to_owned(), kilobytes)),
                (Some(name), "Pss") => look.processes.entry(name.clone()).or_default()[1] += kilobytes,
                (Some(name), "Pss_Anon") => look.processes.entry(name.clone()).or_default()[2] += kilobytes,
                _ => {}
            }
        }
        ensure!(look.machine.contains_key("MemAvailable") && look.processes.len() > 1, "the program said: {text}");
        Ok(look)
    }

    fn of_machine(&self, key: &str) -> u64 {
        self.machine.get(key).copied().unwrap_or_default()
    }
}

/// `Pss:                1024 kB`.
fn kilobytes(line: &str) -> Option<(&str, u64)> {
    let (key, value) = line.split_once(':')?;
    Some((key, value.strip_suffix(" kB")?.trim().parse().ok()?))
}

/// A program's name, and the verb of ours that has several.
fn name(command: &str) -> String {
    let mut words = command.split(' ');
    let program = words.next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
    let verb = words.next().filter(|_| program.ends_with("agent"));
    verb.map_or(program.to_owned(), |verb| format!("{program} {verb}"))
}

fn print(machine: &str, look: &Look) {
    let mebibytes = |kilobytes: u64| kilobytes as f64 / 1024.0;
    let total = look.of_machine("MemTotal");
    let used = total.saturating_sub(look.of_machine("MemAvailable"));
    println!("{machine}: {:.0} in use of {:.0}", mebibytes(used), mebibytes(total));
    println!("  {:<40} {:>9} {:>9} {:>9}", "", "processes", "Pss", "anonymous");
    let mut rows: Vec<_> = look.processes.iter().collect();
    rows.sort_by_key(|(_, [_, pss, _])| std::cmp::Reverse(*pss));
    let row = |name: &str, [count, pss, anonymous]: [u64; 3]| {
        println!("  {name:<40} {count:>9} {:>9.1} {:>9.1}", mebibytes(pss), mebibytes(anonymous));
    };
    rows.iter().for_each(|(name, sums)| row(name, **sums));
    let together = rows.iter().fold([0; 3], |sum, (_, own)| [sum[0] + own[0], sum[1] + own[1], sum[2] + own[2]]);
    row("all processes", together);
    let kernel: u64 = KERNEL.iter().map(|key| look.of_machine(key)).sum();
    let rest = [
        ("files in memory (tmpfs, Shmem)", look.of_machine("Shmem")),
        ("the kernel's own, as far as it tells", kernel),
    ];
    rest.iter().for_each(|(name, kilobytes)| println!("  {name:<60} {:>9.1}", mebibytes(*kilobytes)));
    println!("  the kernel's own: {}", KERNEL.join(", "));
}
