//! A node does what its metadata say, heals what dies, and tells what ended it.
use std::fs;
use std::time::Duration;

use kscratch_qemu::Vm;
use kscratch_tests::bench::{BOOT, Bench, HELLO, switch_off, wait};
use kscratch_tests::logserver::LogServer;
use kscratch_tests::probe::{self, Probe};
use kscratch_tests::program::SHORT;
use kscratch_tests::{http, node_image};
use regex::Regex;

use super::{FW_CFG_ROLE, HOST, assert_clean, autopsy};

/// From the supervisor's notice of a death to the service's being ready again.
const RESTART: Duration = Duration::from_secs(4 * 60);

#[test]
fn a_node_with_metadata_is_set_up_as_told_and_heals() {
    let bench = Bench::take();
    let folder = tempfile::tempdir().unwrap();
    let role = folder.path().join("role.toml");
    let overlay = bench.overlay(node_image::with_probe());
    let mut machine = bench.node(&overlay).fw_cfg(FW_CFG_ROLE, &role);
    // The firmware forgets what it was given to keep when QEMU ends.
    machine.reboots = true;
    machine.watchdog = true;
    let mac = machine.mac.map(|byte| format!("{byte:02x}")).join(":");
    let logs = LogServer::start();
    // One file for two machines, of which this is the second.
    let text = format!(
        "version = 1\nrole = \"node\"\n\n[logs]\nto = [\"tcp://{HOST}:{}\"]\n[watchdog]\ntimeout = 30\n[docker]\ninsecure_registries = [\"registry.test:5000\"]\n{}\n\
         [[machines]]\nmac = \"52:54:00:00:00:01\"\nnode = {{ name = \"other\", pod_range = \"10.244.2.0/24\" }}\n\n\
         [[machines]]\nmac = \"{mac}\"\nnode = {{ name = \"told-1\", pod_range = \"10.244.3.0/24\" }}\n",
        logs.port,
        format_args!("{}{SLOW}", probe::MANIFEST)
    );
    fs::write(&role, text).unwrap();
    let mut vm = bench.start(&machine);
    wait(&vm, &format!(r"this machine is machines\[1\] of 2, told-1, by mac {mac}$"), BOOT);
    wait(&vm, r"service kubelet: ready \(", BOOT);
    wait(&vm, r"\] the watchdog \(i6300ESB timer\) resets this machine 30 s after it was fed last$", BOOT);
    let probe = Probe::of(&vm, BOOT);

    assert_set_up(probe);
    let boot = assert_logs_are_sent(&logs, probe);
    let hello = container(probe, "hello");
    heals(&vm, probe, "dockerd");
    assert_eq!(container(probe, "hello"), hello, "the pod did not outlive dockerd");
    heals(&vm, probe, "kubelet");
    assert_eq!(container(probe, "hello"), hello, "the pod did not outlive kubelet");
    http::wait_for(vm.forwarded(HELLO).unwrap(), "/", BOOT, |_| true);
    leaves_last_words(&vm, probe);
    // From where it had stopped: what the kernel told nobody but the firmware is not in it, but the boot that followed is.
    let next = logs.wait_for("init", "phase 01 mounts: start", BOOT);
    assert!(next["boot"] != boot && next["host"] == "told-1", "{next}");
    // Once more after the boot that followed: all of its pods are to be there.
    let probe = Probe::of(&vm, BOOT);
    probe.wait_for("/processes", BOOT, |all| all.lines().filter(|line| line.contains("kscratch-probe")).count() >= 2);
    switch_off(&mut vm);
    assert_pods_ended_in_order(&vm);
    assert_clean(&bench, &overlay, &vm);
    let boots = autopsy(&overlay);
    assert_eq!(boots.len(), 2, "{boots:?}");
    let found = &boots[0]["found_by_next"];
    assert!(found.to_string().contains("sysrq triggered crash"), "{}", boots[0]);
    assert!(found.to_string().contains("its watchdog (i6300ESB timer)"), "{}", boots[0]);
    assert_eq!(boots[0]["ended"], serde_json::Value::Null);
    assert_eq!(boots[1]["ended"], "power off");
}

/// Lines of kernel, init and services arrive, from the first on, sent by somebody without rights; gives the boot that they are of.
#[track_caller]
fn assert_logs_are_sent(logs: &LogServer, probe: Probe) -> serde_json::Value {
    let kernel = logs.wait_for("kernel", "Linux version ", SHORT);
    assert!(kernel["host"] == "told-1" && kernel["severity"] == "notice", "{kernel}");
    let init = logs.wait_for("init", "phase 01 mounts: start", SHORT);
    assert_eq!(init["boot"], kernel["boot"]);
    let kubelet = logs.wait_for("kubelet", "", SHORT);
    assert_eq!(kubelet["boot"], kernel["boot"], "{kubelet}");
    let sender = probe.process("agent");
    assert!(sender.command.starts_with("/usr/lib/kscratch/agent logs "), "{sender:?}");
    let status = probe.read(&format!("/proc/{}/status", sender.pid));
    assert!(
        status.contains("Uid:\t908\t908\t908\t908\n") && status.contains("CapBnd:\t0000000000000000\n"),
        "{status}"
    );
    kernel["boot"].clone()
}

/// A pod that wants five seconds before it is told to end, and would be ended at once otherwise.
const SLOW: &str = r#"
[[manifests]]
name = "slow"
content = '''
apiVersion: v1
kind: Pod
metadata:
  name: slow
spec:
  hostPID: true
  terminationGracePeriodSeconds: 15
  containers:
  - name: slow
    image: kscratch-probe:test
    imagePullPolicy: Never
    lifecycle:
      preStop:
        sleep:
          seconds: 5
'''
"#;

/// The kubelet was given its time, took what the slow pod's hook needs, and no more than that and what an emulated machine does with it.
#[track_caller]
fn assert_pods_ended_in_order(vm: &Vm) {
    let text: Vec<String> = vm.lines().into_iter().map(|line| line.text).collect();
    let place = |what: &str| {
        let found = text.iter().rposition(|line| line.contains(what));
        found.unwrap_or_else(|| panic!("there is no {what:?}:\n{}", text.join("\n")))
    };
    let done = place("inhibitor: the kubelet is done with its pods (");
    assert!(place("] stopping: power button") < place("inhibitor: the kubelet ends its pods, in 30 s at most"));
    assert!(
        done < place("service kubelet: stopped")
            && place("service kubelet: stopped") < place("service dockerd: stopped")
    );
    let seconds: f64 = text[done].rsplit_once('(').unwrap().1.trim_end_matches(" s)").parse().unwrap();
    assert!((5.0..32.0).contains(&seconds), "the pods took {seconds} s");
}

/// A kernel that panics and hangs then is reset by the watchdog; it leaves its last words with the firmware, and the next boot tells both.
#[track_caller]
fn leaves_last_words(vm: &Vm, probe: Probe) {
    let mark = vm.lines().pop().expect("the console is not empty");
    let after = |mark: &kscratch_qemu::Line, pattern: &str| {
        let pattern = Regex::new(pattern).unwrap();
        vm.wait_for_line_after(mark, pattern, BOOT).unwrap_or_else(|error| panic!("{error}"))
    };
    // It would start anew by itself, as its command line says.
    probe.write("/proc/sys/kernel/panic", "0");
    probe.crash();
    let panicked = after(&mark, "Kernel panic - not syncing: sysrq triggered crash");
    // A kernel that hangs for good says it twice.
    let panicked = after(&panicked, r"\[ end Kernel panic - not syncing: sysrq triggered crash \]");
    let told = after(&panicked, r"\] the kernel left last words of an earlier boot: ");
    assert!(told.text.contains("sysrq triggered crash"), "{}", told.text);
    after(&panicked, r"\] before this boot the machine was reset by its watchdog \(i6300ESB timer\)$");
    after(&told, r"service kubelet: ready \(");
}

/// What the metadata said is what the node does.
#[track_caller]
fn assert_set_up(probe: Probe) {
    let addresses = probe.read("/proc/net/fib_trie");
    assert!(addresses.contains("10.244.3.1"), "cbr0's address is not in:\n{addresses}");
    assert_eq!(probe.read("/run/kscratch/hostname").trim(), "told-1");

    let info = probe.docker("/info");
    for (key, want) in [("CgroupDriver", "cgroupfs"), ("CgroupVersion", "2"), ("Driver", "overlay2")] {
        assert_eq!(info[key], want, "docker's {key}: {info}");
    }
    assert_eq!(info["LiveRestoreEnabled"], true, "{info}");
    assert_eq!(info["RegistryConfig"]["IndexConfigs"]["registry.test:5000"]["Secure"], false, "{info}");
    // What stands on the screen, as the kernel keeps it: the machine has one, if nobody sees it.
    let screen = probe.wait_for("/read?path=/dev/vcs1", SHORT, |text| text.contains("all services are ready"));
    assert!(
        screen.starts_with("told-1: a node that stands alone ") && screen.contains("---- log ---- keys: "),
        "{screen}"
    );
    let docker = probe.docker("/networks/bridge");
    assert_eq!(docker["Options"]["com.docker.network.bridge.name"], "cbr0", "{docker}");
    assert_eq!(docker["Options"]["com.docker.network.bridge.enable_ip_masquerade"], "false", "{docker}");
    let dockerd = probe.process("dockerd");
    let limits = probe.read(&format!("/proc/{}/limits", dockerd.pid));
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap_or_default();
    assert!(files.split_whitespace().filter(|word| *word == "1000000").count() == 2, "{limits}");

    assert_eq!(probe.http(10248, "/healthz"), "ok");
    let kubelet = probe.process("kubelet");
    assert!(!kubelet.command.contains("--anonymous"), "{}", kubelet.command);
    for key in ["net/ipv4/ip_forward", "vm/overcommit_memory", "net/bridge/bridge-nf-call-iptables"] {
        assert_eq!(probe.read(&format!("/proc/sys/{key}")).trim(), "1", "{key}");
    }
    // Nothing listens that need not (R3): a kubelet without a cluster has nobody who may ask it, and no read-only port in any case.
    for port in [10250, 10255, 2375] {
        assert!(!listens(probe, port), "port {port} listens:\n{}", probe.read("/proc/1/net/tcp"));
    }
    assert!(listens(probe, 10248), "{}", probe.read("/proc/1/net/tcp"));
}

/// Whether a TCP port listens, by the kernel's tables (state 0A).
#[track_caller]
fn listens(probe: Probe, port: u16) -> bool {
    let listening = |line: &str| line.contains(&format!(":{port:04X} ")) && line.contains(" 0A ");
    ["/proc/1/net/tcp", "/proc/1/net/tcp6"].iter().any(|table| probe.read(table).lines().any(listening))
}

/// Id and start time of the one running container of this name in a pod.
#[track_caller]
fn container(probe: Probe, name: &str) -> (String, String) {
    let socket = "/unix?socket=/run/docker.sock&path=";
    let filter = format!("%7B%22label%22:%5B%22io.kubernetes.container.name={name}%22%5D%7D");
    let listed =
        probe.wait_for(&format!("{socket}/containers/json?filters={filter}"), RESTART, |body| body.contains("Id"));
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let containers = listed.as_array().unwrap();
    assert_eq!(containers.len(), 1, "running containers named {name}: {listed}");
    let id = containers[0]["Id"].as_str().unwrap().to_owned();
    let state = probe.docker(&format!("/containers/{id}/json"));
    (id, state["State"]["StartedAt"].as_str().unwrap().to_owned())
}

/// Ends a service's process from outside and waits until the supervisor has it ready again.
#[track_caller]
fn heals(vm: &Vm, probe: Probe, service: &str) {
    let before = probe.process(service);
    let mark = vm.lines().pop().expect("the console is not empty");
    probe.kill(&before);
    let after = |pattern: &str| {
        let pattern = Regex::new(pattern).unwrap();
        vm.wait_for_line_after(&mark, pattern, RESTART).unwrap_or_else(|error| panic!("{error}"))
    };
    after(&format!("service {service}: (exited with status|was ended by signal)"));
    after(&format!(r"service {service}: ready \("));
    assert_ne!(probe.process(service).pid, before.pid, "{service} was not started anew");
}
