//! Plugs a network card into a running node, pulls it out and puts it back.
use std::fs;
use std::time::Duration;

use kscratch_qemu::{Card, Line, Link, Vm};
use kscratch_tests::bench::{BOOT, Bench, wait};
use kscratch_tests::{node_image, program};
use regex::Regex;

/// From a card's coming, or going, to init's last word of it.
const SOON: Duration = Duration::from_secs(60);

/// The card that comes has an address of its own, and carries a VLAN with another one.
const ROLE: &str = r#"
version = 1
role = "node"
[network.links.eth0]
dhcp4 = true
[network.links.late]
mac = "52:54:00:6b:73:50"
addresses = ["192.168.9.20/24"]
[network.links."late.7"]
vlan = { over = "late", id = 7 }
addresses = ["192.168.7.20/24"]
"#;

#[track_caller]
fn says(vm: &Vm, after: &Line, pattern: &str) -> Line {
    let pattern = Regex::new(pattern).unwrap();
    vm.wait_for_line_after(after, pattern, SOON).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_card_that_comes_late_is_taken_up_and_so_is_one_that_comes_back() {
    let folder = tempfile::tempdir_in(program::scratch()).unwrap();
    let role = folder.path().join("role.toml");
    fs::write(&role, ROLE).unwrap();
    let mut link = Link::new(folder.path());

    let bench = Bench::take();
    let overlay = bench.overlay(node_image::node());
    let mut machine = bench.node(&overlay).fw_cfg("opt/kscratch/role", &role);
    machine.card_slot = true;
    let mut vm = bench.start(&machine);
    wait(
        &vm,
        r"link late \(52:54:00:6b:73:50\) is not there; it is taken up when it comes \(the machine has eth0 ",
        BOOT,
    );
    wait(&vm, r"\] link eth0 has 10\.0\.2\.15/24 from 10\.0\.2\.2 for ", BOOT);
    let mut mark = wait(&vm, r"\] phase \d+ plan: ok \(", BOOT);
    for name in ["first", "again"] {
        let card = Card { plug: link.plug(name).unwrap(), mac: [0x52, 0x54, 0, 0x6b, 0x73, 0x50] };
        vm.plug_card(name, &card).unwrap_or_else(|error| panic!("{error}"));
        mark = says(&vm, &mark, r"\] link eth1 is there now$");
        let made = says(&vm, &mark, r"\] link late\.7 is made: VLAN 7 of eth1$");
        says(&vm, &mark, r"\] link eth1 has 192\.168\.9\.20/24$");
        says(&vm, &made, r"\] link late\.7 has 192\.168\.7\.20/24$");
        if name == "first" {
            vm.pull_card(name).unwrap_or_else(|error| panic!("{error}"));
            mark = says(&vm, &made, r"\] link eth1 is gone$");
            vm.wait_for_event("DEVICE_DELETED", SOON).unwrap_or_else(|error| panic!("{error}"));
        }
    }
    let text: Vec<String> = vm.lines().into_iter().map(|line| line.text).collect();
    assert!(!text.iter().any(|line| line.contains("taking up a network card")), "{}", text.join("\n"));
    vm.cut_power();
}
