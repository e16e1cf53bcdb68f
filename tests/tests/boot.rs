//! Boots the real image through UEFI and asserts from outside what a node must do: on its console, its ports and its disk.
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kscratch_qemu::{Overlay, Vm};
use kscratch_tests::bench::{BOOT, Bench, HELLO, SHUTDOWN, phases, switch_off, wait};
use kscratch_tests::logserver::LogServer;
use kscratch_tests::probe::{self, Probe};
use kscratch_tests::program::SHORT;
use kscratch_tests::{disk, http, https, node_image, program};
use regex::Regex;

/// Name under which init looks for role metadata in fw_cfg.
const FW_CFG_ROLE: &str = "opt/kscratch/role";

/// From the supervisor's notice of a death to the service's being ready again.
const RESTART: Duration = Duration::from_secs(4 * 60);

#[test]
fn a_node_boots_to_a_pod_stops_cleanly_and_comes_back_as_itself() {
    let bench = Bench::take();
    let overlay = bench.overlay(node_image::node());
    let machine = bench.node(&overlay);

    let mut vm = bench.start(&machine);
    assert_boots(&vm);
    let first = identity(&vm);
    answers_keys(&mut vm);
    switch_off(&mut vm);
    assert_clean(&bench, &overlay, &vm);

    let mut vm = bench.start(&machine);
    assert_boots(&vm);
    assert_eq!(identity(&vm), first, "the second boot is another machine");
    vm.cut_power();

    // A power cut loses nothing that makes the machine itself, and the next boot says what it found.
    let mut vm = bench.start(&machine);
    assert_boots(&vm);
    assert_eq!(identity(&vm), first, "the boot after a power cut is another machine");
    wait(&vm, r"\] the boot before this one, begun \S+, ended without a word, \d+ s or more after its start", BOOT);
    ends_by_a_word(&mut vm);
    assert_clean(&bench, &overlay, &vm);

    // The flight recorder has all three, by the disk alone.
    let boots = autopsy(&overlay);
    let ends: Vec<&serde_json::Value> = boots.iter().map(|boot| &boot["ended"]).collect();
    assert_eq!(ends, ["power off".into(), serde_json::Value::Null, "power off".into()].iter().collect::<Vec<_>>());
    for boot in &boots {
        let text = boot.to_string();
        let phases = boot["phases"].as_array().unwrap_or_else(|| panic!("{text}"));
        assert!(phases.len() >= 14 && phases[0]["name"] == "mounts", "{text}");
        assert!(["containerd", "dockerd", "cri-dockerd", "kubelet"].iter().all(|name| text.contains(name)), "{text}");
    }
}

/// Keys on the serial line show what there is to see, and nothing but a whole word ends the machine's run.
#[track_caller]
fn answers_keys(vm: &mut Vm) {
    let mut mark = vm.lines().pop().expect("the console is not empty");
    for (keys, answers) in [
        (
            "s",
            &[r"^kscratch-\S+: a node that stands alone +kscratch \S+, up ", r"^kubelet +ready +\d+ (s|min) +0$"][..],
        ),
        // What noise may be: a stop, an arrow, half a word, a byte of none.
        ("\x13\x1b[A\0reb\u{fffd}", &[]),
        ("l", &["^console: +the log of which service"]),
        ("1", &[r"^the last \d+ lines of containerd:$", r"^\| \S"]),
        ("r", &["^console: +to restart this machine type the word reboot and Enter"]),
        ("rebot", &["^console: +nothing was done"]),
    ] {
        vm.type_line(keys).unwrap_or_else(|error| panic!("{error}"));
        for answer in answers {
            let answer = Regex::new(answer).unwrap_or_else(|error| panic!("{error}"));
            mark = vm.wait_for_line_after(&mark, answer, SHORT).unwrap_or_else(|error| panic!("{keys:?}: {error}"));
        }
        // A person's pace: keys that come in one go belong together.
        std::thread::sleep(Duration::from_secs(2));
    }
    let long: Vec<String> =
        vm.lines().into_iter().map(|line| line.text).filter(|line| !line.starts_with('[')).collect();
    assert!(long.iter().skip_while(|line| !line.starts_with("kscratch-")).all(|line| line.len() <= 80), "{long:#?}");
}

/// The console's way to switch a machine off.
#[track_caller]
fn ends_by_a_word(vm: &mut Vm) {
    let mark = vm.lines().pop().expect("the console is not empty");
    vm.type_line("p").unwrap_or_else(|error| panic!("{error}"));
    let asked =
        vm.wait_for_line_after(&mark, "type the word poweroff", SHORT).unwrap_or_else(|error| panic!("{error}"));
    vm.type_line("poweroff").unwrap_or_else(|error| panic!("{error}"));
    let stops = Regex::new(r"\] stopping: asked for at the console$").unwrap_or_else(|error| panic!("{error}"));
    vm.wait_for_line_after(&asked, stops, SHORT).unwrap_or_else(|error| panic!("{error}"));
    let status = vm.wait_for_exit(SHUTDOWN).unwrap_or_else(|error| panic!("{error}"));
    assert!(status.success(), "QEMU ended with {status}: {}", vm.stderr());
}

/// What `kscratch-image autopsy` reads off a disk: boots, the oldest first.
#[track_caller]
fn autopsy(overlay: &Overlay) -> Vec<serde_json::Value> {
    let disk = overlay.path().display().to_string();
    let said =
        program::kscratch(&program::scratch(), ["autopsy", &disk, "--all", "--json", "--log"], SHORT).succeeded();
    let boots: Vec<serde_json::Value> =
        serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {}", said.stdout));
    // They are counted from the last one back.
    let numbers: Vec<Option<u64>> = boots.iter().map(|boot| boot["number"].as_u64()).collect();
    assert!(numbers.is_sorted_by(|one, other| one > other), "{numbers:?}");
    boots
}

/// Phases in order and none failed, services ready in order, the image's pod answering.
#[track_caller]
fn assert_boots(vm: &Vm) {
    for service in ["containerd", "dockerd", "cri-dockerd", "kubelet"] {
        wait(vm, &format!(r"service {service}: ready \("), BOOT);
    }
    let port = vm.forwarded(HELLO).expect("the pod's port is forwarded");
    http::wait_for(port, "/", BOOT, |_| true);

    let told = phases(&vm.lines());
    assert!(!told.is_empty(), "the console tells of no phase");
    let mut open = None;
    let mut last = 0;
    for phase in &told {
        assert_ne!(phase.event, "failed", "{phase:?}");
        if phase.event == "start" {
            assert_eq!(open, None, "{phase:?} starts before another ended");
            assert!(phase.number > last, "{phase:?} comes after phase {last}");
            last = phase.number;
            open = Some((phase.number, phase.name.clone()));
        } else {
            assert_eq!(open.take(), Some((phase.number, phase.name.clone())), "{phase:?} ends what did not start");
        }
    }
    let text: Vec<String> = vm.lines().into_iter().map(|line| line.text).collect();
    let place = |what: &str| text.iter().position(|line| line.contains(what));
    // What takes longest is begun first: the runtime gets ready while the network does.
    assert!(place("service containerd: started") < place("] phase 14 services: start"), "{}", text.join("\n"));
    // The kernel always tells of this mount, and would cut init's lines in two.
    assert_eq!(place("EXT4-fs (vda5): mounted filesystem"), None, "{}", text.join("\n"));
    wait(vm, r"\] init's own share: \d+\.\d+ s ", BOOT);
    let names: Vec<&str> = told.iter().map(|phase| phase.name.as_str()).collect();
    assert!(names.contains(&"network"), "there is no phase `network`: {names:?}");
}

/// The machine id that the console tells.
#[track_caller]
fn identity(vm: &Vm) -> String {
    let line = wait(vm, r"\] machine [0-9a-f]{32}$", BOOT);
    let form = Regex::new("[0-9a-f]{32}").unwrap();
    form.find(&line.text).unwrap().as_str().to_owned()
}

/// The machine said that it went down in order, and its filesystems agree.
#[track_caller]
fn assert_clean(bench: &Bench, overlay: &Overlay, vm: &Vm) {
    let text: Vec<String> = vm.lines().into_iter().map(|line| line.text).collect();
    let complaint = Regex::new(r"\] (unmounting|making / read-only)|does not die|killing it").unwrap();
    let complaints: Vec<&String> = text.iter().filter(|line| complaint.is_match(line)).collect();
    assert!(complaints.is_empty(), "the way down was not clean: {complaints:?}");
    assert!(text.iter().any(|line| line.ends_with("] power off")), "no ordered end:\n{}", text.join("\n"));
    let folder = tempfile::tempdir_in(program::scratch()).unwrap();
    let raw = folder.path().join("disk");
    overlay.to_raw(&bench.tools, &raw).unwrap();
    // The disk has grown: the backup table is at its new end, and sgdisk finds it there.
    for partition in disk::partitions(&raw) {
        let file = folder.path().join(&partition.name);
        match partition.name.as_str() {
            "state" => {
                assert!(partition.len > 4 << 30, "state has not grown: {partition:?}");
                disk::extract(&raw, &partition, &file);
                disk::check_ext4(&file);
            }
            "root-a" => {
                disk::extract(&raw, &partition, &file);
                disk::check_ext4(&file);
            }
            "esp" => {
                disk::extract(&raw, &partition, &file);
                disk::check_fat(&file);
            }
            _ => {}
        }
    }
}

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

#[test]
fn bad_metadata_is_told_and_makes_no_half_of_a_node() {
    let bench = Bench::take();
    let folder = tempfile::tempdir().unwrap();
    let role = folder.path().join("role.toml");
    fs::write(&role, "version = 1\nrole = \"node\"\n\n[node]\npod_range = \"10.244.3.0/99\"\n").unwrap();
    let overlay = bench.overlay(node_image::node());
    let mut vm = bench.start(&bench.node(&overlay).fw_cfg(FW_CFG_ROLE, &role));
    wait(&vm, r"pod_range", BOOT);
    wait(&vm, r"hint: ", BOOT);
    // Nothing is started on the word of metadata that is not understood: not even after a while.
    let silence = vm.wait_for_line(Regex::new(r"service kubelet: (started|ready)").unwrap(), Duration::from_secs(20));
    assert!(silence.is_err(), "kubelet was started: {silence:?}");
    let text: Vec<String> = vm.lines().into_iter().map(|line| line.text).collect();
    let place = Regex::new(r":5:\d+: node\.pod_range").unwrap();
    assert!(text.iter().any(|line| place.is_match(line)), "the line is not told:\n{}", text.join("\n"));
    assert!(!text.iter().any(|line| line.contains("Kernel panic")), "PID 1 ended:\n{}", text.join("\n"));
    // It still goes down in order.
    switch_off(&mut vm);
}

/// This host, as a machine on QEMU's user network sees it.
const HOST: &str = "10.0.2.2";

#[test]
fn metadata_comes_by_https_from_a_server_that_proves_itself() {
    let bench = Bench::take();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    https::certificate(folder, "known", HOST);
    https::certificate(folder, "stranger", HOST);
    let server = https::Server::start(folder, "known", 0);
    let url = format!("https://{HOST}:{}/role.toml", server.port);
    // The image knows this authority, and no other.
    let own = folder.join("own/etc/ssl/certs");
    fs::create_dir_all(&own).unwrap();
    fs::copy(folder.join("known.crt"), own.join("ca-certificates.crt")).unwrap();
    let config = folder.join("image.toml");
    let text = format!(
        "version = 1\ndrop = [\"/etc/ssl/certs/ca-certificates.crt\"]\n[overlays]\nfolders = [\"own\"]\n\
         [kernel]\ncmdline = [\"panic=10\", \"kscratch.metadata={url}\"]\n"
    );
    fs::write(&config, text).unwrap();
    fs::copy(node_image::node().with_file_name("kscratch.lock"), folder.join("kscratch.lock")).unwrap();
    let image = folder.join("node.img");
    node_image::build(folder, &image, Some(&config), &[]).succeeded();
    let overlay = bench.overlay(&image);
    let machine = bench.node(&overlay);
    let mac = machine.mac.map(|byte| format!("{byte:02x}")).join(":");
    let role = format!("version = 1\nrole = \"node\"\n[[machines]]\nmac = \"{mac}\"\nnode.name = \"told-2\"\n");
    https::page(folder, "role.toml", &role);

    let mut vm = bench.start(&machine);
    wait(&vm, &format!(r"role metadata: the URL of the kernel command line \({}\)", regex::escape(&url)), BOOT);
    wait(&vm, r"this machine is machines\[0\] of 1, told-2, by mac", BOOT);
    wait(&vm, r"phase \d+ metadata: ok", BOOT);
    vm.cut_power();
    let port = server.port;
    drop(server);

    let _stranger = https::Server::start(folder, "stranger", port);
    let mut vm = bench.start(&machine);
    wait(&vm, r"phase \d+ metadata: failed: fetching .* invalid peer certificate", BOOT);
    wait(&vm, r"hint: ", BOOT);
    vm.cut_power();
}

#[test]
fn run_boots_an_image_directly_and_ends_it_in_time() {
    let bench = Bench::take();
    let image = node_image::node();
    let before = fs::metadata(image).unwrap().modified().unwrap();
    let said = run(image, &["--direct", "--timeout", "45", "--forward", "0:8080"]);
    assert_eq!(said.code, 124, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("Linux version"), "the serial line is not on the output:\n{}", said.stdout);
    assert!(Regex::new(r"phase \d+ ").unwrap().is_match(&said.stdout), "init was not reached:\n{}", said.stdout);
    assert!(said.stderr.contains("leads to port 8080 of the guest"), "{}", said.stderr);
    assert_eq!(fs::metadata(image).unwrap().modified().unwrap(), before, "the image was changed");
    drop(bench);
}

fn run(image: &Path, more: &[&str]) -> program::Said {
    let mut command = Command::new(program::kscratch_image());
    command.arg("run").arg(image).args(more).current_dir(program::scratch());
    program::run(command, Duration::from_secs(180))
}
