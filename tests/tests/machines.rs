//! Holds `kscratch-image cluster up` and what comes after it to their promises, with real machines that stand alone and with bad input.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use expect_test::{Expect, expect, expect_file};
use kscratch_tests::program::{SHORT, Said, kscratch, kscratch_image, run};
use kscratch_tests::{http, node_image};
use serde_json::Value;

/// Two machines boot beside each other under emulation, while other tests may run.
const BOOT: Duration = Duration::from_secs(10 * 60);

struct Cluster {
    folder: tempfile::TempDir,
}

impl Cluster {
    fn cluster(&self, args: &[&str]) -> Said {
        kscratch(self.folder.path(), ["cluster"].iter().chain(args), BOOT)
    }

    fn machines(&self, file: &str) -> PathBuf {
        self.folder.path().join("pair/machines").join(file)
    }

    fn status(&self, machine: &str) -> Value {
        let said = self.cluster(&["status", "pair", "--json"]).succeeded();
        let rows: Vec<Value> = serde_json::from_str(&said.stdout).unwrap();
        rows.into_iter().find(|row| row["name"] == machine).unwrap_or_else(|| panic!("{machine}: {}", said.stdout))
    }

    fn port(&self, machine: &str, port: u16) -> u16 {
        let plan: Value = serde_json::from_str(&fs::read_to_string(self.machines("machines.json")).unwrap()).unwrap();
        let forwards = plan["forwards"].as_array().unwrap();
        let forward = forwards.iter().find(|forward| forward["machine"] == machine && forward["port"] == port);
        u16::try_from(forward.unwrap()["host"].as_u64().unwrap()).unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A failed test leaves no machines behind; where they are down already there is nothing to end.
        let mut command = Command::new(kscratch_image());
        command.args(["cluster", "down", "pair", "--cut"]).current_dir(self.folder.path());
        let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// A pod on n1 that is started anew whenever n2 does not answer its node's kubelet; its page says how long it has been up.
const WATCHER: &str = r#"version = 1
role = "node"

[node]
name = "n1"

[network]
interface = "52:54:00:6b:73:14"

[network.static]
address = "192.168.76.20/24"
gateway = "192.168.76.2"

[[manifests]]
name = "watcher"
content = '''
apiVersion: v1
kind: Pod
metadata:
  name: watcher
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: hello
      image: kscratch.local/hello:0.1.0
      ports:
        - containerPort: 8080
          hostPort: 8081
      livenessProbe:
        httpGet:
          host: 192.168.76.21
          port: 8080
        initialDelaySeconds: 5
        periodSeconds: 2
        timeoutSeconds: 5
        failureThreshold: 4
'''
"#;

/// `hello from watcher-n1 at 10.244.0.3, up 12 s`
fn up_for(page: &str) -> Option<u64> {
    page.split(", up ").nth(1)?.split(' ').next()?.parse().ok()
}

#[test]
fn two_machines_come_up_reach_each_other_and_survive_what_is_done_to_them() {
    let cluster = Cluster { folder: tempfile::tempdir().unwrap() };
    let image = node_image::node().display().to_string();
    fs::create_dir_all(cluster.machines("n1")).unwrap();
    fs::write(cluster.machines("n1/role.toml"), WATCHER).unwrap();
    // There is a processor for each, so that neither needs a time of its own, which takes longer.
    let up =
        ["up", "pair", "--host-time", "--masters", "0", "--nodes", "2", "--image-node", &image, "--memory", "1024"];
    let forwards = ["--forward", "0:n1:8080", "--forward", "0:n1:8081", "--forward", "0:n2:8080", "--timeout", "500"];
    let said = cluster.cluster(&[&up[..], &forwards].concat()).succeeded();
    assert!(said.stderr.contains("all machines of pair are ready"), "{}", said.stderr);

    // This host reaches both, and n1 reaches n2: its pod lives longer than the probes would let it otherwise.
    http::wait_for(cluster.port("n2", 8080), "/", BOOT, |page| page.starts_with("hello from hello-n2"));
    let watcher = cluster.port("n1", 8081);
    http::wait_for(watcher, "/", BOOT, |page| up_for(page).is_some_and(|seconds| seconds > 20));
    cluster.cluster(&["cable", "pair", "n2", "--down"]).succeeded();
    assert_eq!(cluster.status("n2")["cable"], "cable down");
    http::wait_for(watcher, "/", BOOT, |page| up_for(page).is_some_and(|seconds| seconds < 15));
    cluster.cluster(&["cable", "pair", "n2", "--delay", "20"]).succeeded();
    http::wait_for(watcher, "/", BOOT, |page| up_for(page).is_some_and(|seconds| seconds > 25));

    // Another gateway takes the old one's place, with the same ports of this host.
    let said = cluster.cluster(&["dhcp", "pair", "--first", "192.168.76.20"]);
    assert_eq!(said.code, 1);
    let range =
        "DHCP gives 16 addresses, of which the first may be from 192.168.76.100 to 192.168.76.239, not 192.168.76.20";
    assert!(said.stderr.contains(range), "{}", said.stderr);
    cluster.cluster(&["dhcp", "pair", "--first", "192.168.76.239"]).succeeded();
    http::wait_for(watcher, "/", BOOT, |page| up_for(page).is_some_and(|seconds| seconds > 25));

    cluster.cluster(&["power", "cut", "pair", "n2"]).succeeded();
    let cut = cluster.status("n2");
    assert_eq!((&cut["on"], &cut["phase"]), (&Value::from(false), &Value::from("off: its power was cut")));
    cluster.cluster(&["power", "on", "pair", "n2", "--clock", "2031-05-05T00:00:00"]).succeeded();
    // As it goes on, so it does with one more.
    let said = cluster.cluster(&["up", "pair", "--nodes", "3", "--image-node", &image, "--memory", "1024"]).succeeded();
    assert!(said.stderr.contains("all machines of pair are ready"), "{}", said.stderr);
    let console = cluster.cluster(&["logs", "pair", "n2"]).succeeded().stdout;
    assert_eq!(console.matches("kscratch 0.1.0 in the initramfs").count(), 2, "every start is kept");
    assert!(console.contains("setting system clock to 2031-05-05"), "{console}");

    cluster.cluster(&["power", "off", "pair", "n3"]).succeeded();
    assert_eq!(cluster.status("n3")["phase"], "off");
    let pids: Vec<String> = ["n1", "n2"].map(|name| cluster.status(name)["pid"].to_string()).to_vec();
    cluster.cluster(&["down", "pair"]).succeeded();
    gone(&pids);
    let said = cluster.cluster(&["status", "pair"]);
    assert_eq!((said.code, said.stdout.as_str()), (1, ""));
    cluster.cluster(&["down", "pair", "--delete"]).succeeded();
    assert!(!cluster.machines("").exists());
}

/// QEMU processes that have ended; one that is not reaped yet has ended too.
#[track_caller]
fn gone(pids: &[String]) {
    let deadline = Instant::now() + SHORT;
    let lives = |pid: &String| {
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        state.contains("(kscratch-vm)") && !state.contains(") Z ")
    };
    while pids.iter().any(lives) {
        assert!(Instant::now() < deadline, "{pids:?} still run");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn machines_do_not_outlive_their_keeper_or_whom_they_belong_to() {
    let cluster = Cluster { folder: tempfile::tempdir().unwrap() };
    let blank = cluster.folder.path().join("blank.img");
    fs::write(&blank, vec![0; 1 << 20]).unwrap();
    let up = ["up", "pair", "--masters", "0", "--nodes", "1", "--image-node", "blank.img", "--memory", "256"];
    let said = cluster.cluster(&[&up[..], &["--timeout", "1", "--disk-size", "2MiB"]].concat());
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("because: not all machines are Ready within 1 s\nn1: "), "{}", said.stderr);
    // What failed can be looked at.
    let pid = cluster.status("n1")["pid"].to_string();
    let log = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let keeper = log.split(' ').nth(3).unwrap().to_owned();
    run(
        {
            let mut command = Command::new("kill");
            command.args(["-KILL", &keeper]);
            command
        },
        SHORT,
    );
    gone(&[pid]);

    let mut command = Command::new(kscratch_image());
    command.args(["cluster"]).args(up).args(["--foreground"]).current_dir(cluster.folder.path());
    let mut attached = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + SHORT;
    let pid = loop {
        let said = cluster.cluster(&["status", "pair", "--json"]);
        let pid = serde_json::from_str::<Value>(&said.stdout).ok().and_then(|rows| rows[0]["pid"].as_u64());
        if let Some(pid) = pid {
            break pid.to_string();
        }
        assert!(Instant::now() < deadline, "{}", said.stderr);
        thread::sleep(Duration::from_millis(50));
    };
    attached.kill().unwrap();
    attached.wait().unwrap();
    gone(&[pid]);

    fs::write(&blank, vec![1; 1 << 20]).unwrap();
    let said = cluster.cluster(&["up", "pair"]);
    assert!(
        said.stderr.contains("blank.img was written to after the machine's disk was laid over it"),
        "{}",
        said.stderr
    );
    assert!(said.stderr.ends_with("cluster down pair --delete, then up, makes the machines anew\n"), "{}", said.stderr);
}

#[test]
fn help_reads_well() {
    for command in ["up", "status", "logs", "power", "cable", "dhcp", "down"] {
        let folder = tempfile::tempdir().unwrap();
        let said = kscratch(folder.path(), ["cluster", command, "--help"], SHORT).succeeded();
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/help/cluster-{command}.txt"));
        expect_file![file].assert_eq(&said.stdout);
        assert_eq!(said.stderr, "");
    }
}

#[track_caller]
fn check_refusal(args: &[&str], code: i32, want: &Expect) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("node.img"), [0; 512]).unwrap();
    let said = kscratch(folder.path(), ["cluster"].iter().chain(args), SHORT);
    want.assert_eq(&said.stderr);
    assert_eq!((said.code, said.stdout.as_str()), (code, ""), "{}", said.stderr);
}

#[test]
fn bad_arguments_are_refused() {
    let up = ["up", "pair", "--image-node", "node.img", "--image-master", "node.img"];
    let with = |more: &[&'static str]| [&up[..], more].concat();
    check_refusal(
        &["status", "pair"],
        1,
        &expect![[r#"
        error: the machines of pair are not up
        hint: kscratch-image cluster up pair
    "#]],
    );
    check_refusal(
        &["down", "pair"],
        1,
        &expect![[r#"
        error: the machines of pair are not up
        hint: kscratch-image cluster up pair
    "#]],
    );
    check_refusal(
        &["down", "pair", "--delete"],
        1,
        &expect![[r#"
        error: there are no machines in pair/machines
    "#]],
    );
    check_refusal(
        &["logs", "pair", "n1"],
        1,
        &expect![[r#"
        error: the machines of pair are not up
        hint: kscratch-image cluster up pair
    "#]],
    );
    check_refusal(
        &["power", "off", "pair", "n1", "--clock", "2030-01-01T00:00:00"],
        1,
        &expect![[r#"
        error: --clock is for machines that are switched on
        hint: kscratch-image cluster power on NAME MACHINE --clock TIME
    "#]],
    );
    check_refusal(
        &["cable", "pair", "n1", "--loss", "1001"],
        2,
        &expect![[r#"
        error: invalid value '1001' for '--loss <N>': 1001 is not in 0..=1000

        For more information, try '--help'.
    "#]],
    );
    check_refusal(
        &["up", "Pair"],
        1,
        &expect![[r#"
        error: "Pair" is no name of a cluster
        hint: use lower case letters, digits, `-` and `.`; --folder DIR names the folder that holds the cluster's
    "#]],
    );
    check_refusal(
        &with(&["--masters", "2"]),
        1,
        &expect![[r#"
        error: planning the machines of pair
          because: etcd needs an odd number of members: 2 masters survive no more than 1 would
    "#]],
    );
    check_refusal(
        &with(&["--masters", "0", "--nodes", "0"]),
        1,
        &expect![[r#"
        error: planning the machines of pair
          because: a cluster without machines is none
    "#]],
    );
    check_refusal(
        &with(&["--masters", "0", "--forward", "80:n1"]),
        1,
        &expect![[r#"
        error: the forward `80:n1` is not HOST:MACHINE:PORT, such as `8080:n1:80`
    "#]],
    );
    check_refusal(
        &with(&["--masters", "0", "--forward", "80:n7:80"]),
        1,
        &expect![[r#"
        error: planning the machines of pair
          because: the cluster pair has no machine n7; it has n1, n2
    "#]],
    );
    check_refusal(
        &["up", "pair", "--image-node", "none.img", "--masters", "0"],
        1,
        &expect![[r#"
        error: opening the image none.img
          because: No such file or directory (os error 2)
    "#]],
    );
}
