//! Starts real machines with a tiny guest of our own and holds the harness to what it promises.
mod guest;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kscratch_qemu::{Accelerator, Disk, DiskFormat, Error, Firmware, Forward, Link, Machine, Overlay, Toolset, Vm};
use serde_json::json;

const BOUND: Duration = Duration::from_secs(30);

struct Bench {
    tools: Toolset,
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Bench { tools: Toolset::find().unwrap(), folder: tempfile::tempdir().unwrap() }
    }

    fn machine(&self) -> Machine {
        let kernel = guest::write(self.folder.path());
        let mut machine = Machine::new(Firmware::Direct { kernel, initramfs: None, cmdline: String::new() });
        machine.accelerator = Accelerator::Emulation;
        machine.memory = 64;
        machine.cpus = 1;
        machine
    }

    fn start(&self) -> Vm {
        Vm::start(&self.tools, &self.machine()).unwrap()
    }
}

#[test]
fn a_guest_is_heard_answers_and_switches_off() {
    let mut vm = Bench::new().start();
    let up = vm.wait_for_line("guest: up", BOUND).unwrap();
    vm.type_line("x").unwrap();
    let heard = vm.wait_for_line_after(&up, "guest: heard", BOUND).unwrap();
    assert!(up.at <= heard.at && heard.at <= vm.age());
    vm.type_line("x").unwrap();
    vm.wait_for_line_after(&heard, "guest: heard", BOUND).unwrap();
    vm.type_line("o").unwrap();
    assert!(vm.wait_for_exit(BOUND).unwrap().success());
    assert_eq!(vm.lines().last().unwrap().text, "guest: off");
    let shutdown = vm.wait_for_event("SHUTDOWN", BOUND).unwrap();
    assert_eq!(shutdown.data, json!({ "guest": true, "reason": "guest-shutdown" }));
    let error = vm.power_button().unwrap_err().to_string();
    assert!(error.contains("exit status: 0") && error.contains("guest: off"), "{error}");
    assert!(matches!(vm.wait_for_line("guest: nothing", BOUND), Err(Error::Ended { .. })));
}

#[test]
fn the_power_button_reaches_the_guest() {
    let mut vm = Bench::new().start();
    vm.wait_for_line("guest: up", BOUND).unwrap();
    vm.power_button().unwrap();
    vm.wait_for_line("guest: button", BOUND).unwrap();
    assert!(vm.wait_for_exit(BOUND).unwrap().success());
}

#[test]
fn a_reset_ends_the_machine_or_starts_it_again() {
    let bench = Bench::new();
    let mut once = bench.start();
    once.wait_for_line("guest: up", BOUND).unwrap();
    once.type_line("r").unwrap();
    assert!(once.wait_for_exit(BOUND).unwrap().success());

    let mut machine = bench.machine();
    machine.reboots = true;
    let mut again = Vm::start(&bench.tools, &machine).unwrap();
    let first = again.wait_for_line("guest: up", BOUND).unwrap();
    again.type_line("r").unwrap();
    let second = again.wait_for_line_after(&first, "guest: up", BOUND).unwrap();
    again.reset().unwrap();
    again.wait_for_line_after(&second, "guest: up", BOUND).unwrap();
    again.wait_for_event("RESET", BOUND).unwrap();
    assert!(again.quit().unwrap().success());
}

#[test]
fn a_panic_and_a_silence_end_a_wait_with_the_consoles_tail() {
    let mut vm = Bench::new().start();
    vm.wait_for_line("guest: up", BOUND).unwrap();
    let before = Instant::now();
    let error = vm.wait_for_line("guest: silence", Duration::from_millis(200)).unwrap_err();
    assert!(before.elapsed() < Duration::from_secs(5));
    let text = error.to_string();
    assert!(matches!(error, Error::Timeout { .. }) && text.contains("guest: up") && text.contains("200ms"), "{text}");
    vm.type_line("p").unwrap();
    let error = vm.wait_for_line("guest: silence", BOUND).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Panicked { .. }) && text.contains("not syncing: asked to"), "{text}");
}

#[test]
fn a_pause_and_keys_are_told_over_qmp() {
    let mut vm = Bench::new().start();
    vm.pause().unwrap();
    vm.wait_for_event("STOP", BOUND).unwrap();
    assert_eq!(vm.execute("query-status", json!({})).unwrap()["status"], "paused");
    vm.resume().unwrap();
    vm.wait_for_event("RESUME", BOUND).unwrap();
    vm.press(&["ctrl", "alt", "delete"]).unwrap();
    let error = vm.press(&["hyperspace"]).unwrap_err().to_string();
    assert!(error.starts_with("QEMU refused `send-key`: GenericError: ") && error.contains("hyperspace"), "{error}");
}

#[test]
fn a_screen_is_shown_in_a_file() {
    let bench = Bench::new();
    let file = bench.folder.path().join("screen.png");
    let mut blind = bench.start();
    assert!(matches!(blind.screenshot(&file), Err(Error::Refused { .. })));
    let mut machine = bench.machine();
    machine.screen = true;
    let mut vm = Vm::start(&bench.tools, &machine).unwrap();
    vm.screenshot(&file).unwrap();
    // PNG, 5.2: its signature.
    assert!(fs::read(&file).unwrap().starts_with(b"\x89PNG\r\n\x1a\n"));
}

#[test]
fn two_machines_get_two_ports() {
    let bench = Bench::new();
    let machine = bench.machine().forward(Forward::to(8080)).forward(Forward::to(6443));
    let (one, two) = (Vm::start(&bench.tools, &machine).unwrap(), Vm::start(&bench.tools, &machine).unwrap());
    let mut ports: Vec<u16> =
        [8080, 6443].iter().flat_map(|guest| [one.forwarded(*guest), two.forwarded(*guest)]).flatten().collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 4, "{ports:?}");
    assert!(!ports.contains(&0));
    // A port that a machine has is refused to the next one, by name.
    let taken = bench.machine().forward(Forward { host: ports[0], guest: 80 });
    let error = Vm::start(&bench.tools, &taken).unwrap_err().to_string();
    assert!(error.contains(&ports[0].to_string()) && error.contains("QEMU said"), "{error}");
}

#[test]
fn a_power_cut_ends_the_machine_at_once_and_a_drop_leaves_nothing() {
    let bench = Bench::new();
    let mut vm = bench.start();
    let process = format!("/proc/{}", vm.pid());
    assert!(Path::new(&process).exists());
    vm.cut_power();
    assert!(!Path::new(&process).exists());
    let vm = bench.start();
    let process = format!("/proc/{}", vm.pid());
    assert!(Path::new(&process).exists());
    drop(vm);
    assert!(!Path::new(&process).exists());
}

#[test]
fn a_machine_does_not_outlive_a_killed_program() {
    // What it cannot tidy up goes with this folder.
    let folder = tempfile::tempdir().unwrap();
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "holds_a_machine_until_it_is_killed"])
        .env("TMPDIR", folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    // The test runner may have begun the line with the test's name.
    let pid = lines.map_while(Result::ok).find_map(|line| line.split_once("machine ").map(|(_, pid)| pid.to_owned()));
    let process = format!("/proc/{}", pid.expect("the holder says which process its machine is"));
    assert!(Path::new(&process).exists());
    holder.kill().unwrap();
    holder.wait().unwrap();
    let deadline = Instant::now() + BOUND;
    // Its new parent may take a moment to reap it: a zombie has ended too.
    while fs::read_to_string(format!("{process}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(Instant::now() < deadline, "{process} is still there");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "the test of a killed program starts and kills this one"]
#[expect(clippy::print_stdout, reason = "its output is how the other test learns the process number")]
fn holds_a_machine_until_it_is_killed() {
    let bench = Bench::new();
    let vm = bench.start();
    println!("\nmachine {}", vm.pid());
    std::thread::sleep(BOUND);
}

#[test]
fn what_qemu_complains_about_is_in_the_error() {
    let bench = Bench::new();
    let machine = bench.machine().disk(Disk::new("/nowhere/disk.img", DiskFormat::Raw));
    let error = Vm::start(&bench.tools, &machine).unwrap_err().to_string();
    assert!(error.contains("the machine `kscratch` ended") && error.contains("/nowhere/disk.img"), "{error}");
}

#[test]
fn qemu_takes_every_part_of_a_machine() {
    let bench = Bench::new();
    let image = bench.folder.path().join("a,b.img");
    fs::write(&image, vec![0; 1 << 20]).unwrap();
    let second = bench.folder.path().join("second.img");
    fs::copy(&image, &second).unwrap();
    let third = bench.folder.path().join("third.img");
    fs::copy(&image, &third).unwrap();
    let overlay = Overlay::create(&bench.tools, &image, Some(2 << 20)).unwrap();
    let mut machine = bench
        .machine()
        .named("name, with a comma")
        .disk(Disk::from(&overlay))
        .disk(Disk { throwaway: true, ..Disk::new(&image, DiskFormat::Raw) })
        .disk(Disk::read_only(&third))
        .fw_cfg("opt/org.kscratch/test", &image);
    machine.oem_strings = vec!["kscratch=a,b".to_owned()];
    machine.clock = Some("2027-01-01T00:00:00".to_owned());
    machine.isolated = true;
    let mut vm = Vm::start(&bench.tools, &machine).unwrap();
    vm.wait_for_line("guest: up", BOUND).unwrap();
    let blocks = vm.execute("query-block", json!({})).unwrap();
    let size = |index: usize| blocks[index]["inserted"]["image"]["virtual-size"].as_u64();
    assert_eq!((size(0), size(1)), (Some(2 << 20), Some(1 << 20)), "{blocks}");
}

#[test]
fn a_machine_on_a_link_keeps_its_console_and_its_number() {
    let bench = Bench::new();
    let mut link = Link::new(bench.folder.path());
    let mut machine = bench.machine().on_link(link.plug("n1").unwrap(), [0x52, 0x54, 0, 0, 0, 0x14]);
    machine.serial_number = Some("rack 1, left".to_owned());
    machine.uuid = Some([7; 16]);
    let (console, run) = (bench.folder.path().join("con,sole"), bench.folder.path().join("run"));
    fs::create_dir(&run).unwrap();
    (machine.console_file, machine.folder) = (Some(console.clone()), Some(run.clone()));
    for times in 1..=2 {
        let mut vm = Vm::start(&bench.tools, &machine).unwrap();
        vm.wait_for_line("guest: up", BOUND).unwrap();
        assert!(run.join("qmp").exists());
        let uuid = vm.execute("query-uuid", json!({})).unwrap();
        assert_eq!(uuid["UUID"], "07070707-0707-0707-0707-070707070707");
        assert!(vm.latest(|line| line.text.contains("up").then_some(line.number)).is_some());
        vm.type_line("o").unwrap();
        vm.wait_for_exit(BOUND).unwrap();
        let said = String::from_utf8_lossy(&fs::read(&console).unwrap()).matches("guest: up").count();
        assert_eq!(said, times, "a second run's lines stand behind the first one's");
    }
}

#[test]
fn the_accelerator_that_was_found_boots_the_guest() {
    let bench = Bench::new();
    let mut machine = bench.machine();
    machine.accelerator = Accelerator::Auto;
    let vm = Vm::start(&bench.tools, &machine).unwrap();
    vm.wait_for_line("guest: up", BOUND).unwrap();
}

#[test]
fn the_uefi_firmware_is_heard() {
    let bench = Bench::new();
    let blank = bench.folder.path().join("blank.img");
    fs::write(&blank, vec![0; 1 << 20]).unwrap();
    let mut machine = Machine::new(Firmware::Uefi).disk(Disk::new(&blank, DiskFormat::Raw));
    machine.accelerator = Accelerator::Emulation;
    machine.memory = 256;
    let vm = Vm::start(&bench.tools, &machine).unwrap();
    vm.wait_for_line("BdsDxe: failed to load Boot0001", Duration::from_secs(60)).unwrap();
}
