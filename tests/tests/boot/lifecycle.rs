//! A node boots to a pod, is switched off and cut, and is itself again each time.
use std::time::Duration;

use kscratch_qemu::Vm;
use kscratch_tests::bench::{BOOT, Bench, HELLO, SHUTDOWN, phases, switch_off, wait};
use kscratch_tests::program::SHORT;
use kscratch_tests::{http, node_image};
use regex::Regex;

use super::{assert_clean, autopsy};

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
    assert!(place("service containerd: started") < place(" services: start"), "{}", text.join("\n"));
    // The kernel always tells of this mount, and would cut init's lines in two.
    assert_eq!(place("EXT4-fs (vda5): mounted filesystem"), None, "{}", text.join("\n"));
    // An emulated processor is spared switches, and only that.
    let spared = place("the processors are emulated in software: ").is_some();
    assert_eq!(spared, !vm.accelerated(), "{}", text.join("\n"));
    assert_eq!(place("this machine is slower for it"), None, "{}", text.join("\n"));
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
