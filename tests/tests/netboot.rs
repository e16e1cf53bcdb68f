//! Boots machines without a disk from a web server (`build --format pxe`), by iPXE and by firmware alone, and looks into the folder that this writes.
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use kscratch_namespace::run;
use kscratch_qemu::{Card, Firmware, Forward, Line, Link, Machine};
use kscratch_tests::bench::{BOOT, Bench, HELLO, phases, wait};
use kscratch_tests::fileserver::{Fault, FileServer};
use kscratch_tests::program::tool;
use kscratch_tests::{disk, http, node_image, program};
use sha2::{Digest, Sha256};

const ROOT: &str = "root.ext4.zst";
/// A fatal error stays on the console for a minute before the machine starts anew.
const ANEW: Duration = Duration::from_secs(2 * 60);

/// The folder that firmware boots from at [`Network::SERVER`], written once.
fn served() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = program::scratch().join("httpboot");
        node_image::netboot(&folder, &format!("http://{}/", Network::SERVER));
        folder
    })
}

/// With the drivers and firmware of real machines; the other flavour is the UKI's below.
#[test]
fn a_machine_without_a_disk_boots_from_a_web_server() {
    let folder = tempfile::tempdir_in(program::scratch()).unwrap();
    let served = folder.path().join("pxe");
    let server = FileServer::start(&served, ROOT, &[Fault::Busy, Fault::BreaksOff]);
    node_image::netboot_of_metal(&served, &server.url());
    let role = folder.path().join("role.toml");
    fs::write(&role, "version = 1\nrole = \"node\"\n[node]\nname = \"diskless\"\n").unwrap();

    let bench = Bench::take();
    // A release of 2019, which does not tell its scripts where they come from.
    let kernel = PathBuf::from("/boot/ipxe.lkrn");
    assert!(kernel.exists(), "there is no iPXE: apt-get install ipxe");
    let firmware =
        Firmware::Direct { kernel, initramfs: None, cmdline: format!("dhcp && chain {}boot.ipxe", server.url()) };
    let mut machine =
        Machine::new(firmware).named("netboot").forward(Forward::to(HELLO)).fw_cfg("opt/kscratch/role", &role);
    machine.memory = 2048;
    let mut vm = bench.start(&machine);

    let root = format!(r"\] root {}root\.ext4\.zst", regex::escape(&server.url()));
    // Each trouble is one line that says what to do, and is got over.
    wait(
        &vm,
        &format!(r"{root}: the server has a fault of its own \(it answers 503\): look at its log; again in 2 s$"),
        BOOT,
    );
    wait(
        &vm,
        &format!(r"{root}: the transfer broke off after \d+ of \d+ MiB: look at the cable, .*; again in 4 s$"),
        BOOT,
    );
    wait(&vm, &format!(r"{root} \(\d+ MiB, its digest is right\) unpacked in \d+\.\d+ s and mounted read-only$"), BOOT);
    // What such a machine is without a disk of ours.
    wait(&vm, r"\] state is in memory, and lost at the next boot: no disk has a partition of the type ", BOOT);
    wait(&vm, r"\] role metadata: QEMU's fw_cfg \(opt/kscratch/role\)$", BOOT);
    wait(&vm, r"service kubelet: ready \(", BOOT);
    let port = vm.forwarded(HELLO).expect("the port is forwarded");
    http::wait_for(port, "/", BOOT, |body| body.contains("diskless"));
    let failed: Vec<_> = phases(&vm.lines()).into_iter().filter(|phase| phase.event == "failed").collect();
    assert!(failed.is_empty(), "{failed:?}");
    vm.cut_power();
    assert_eq!(server.requests(), ["boot.ipxe", "vmlinuz", "initramfs", ROOT, ROOT, ROOT]);
}

/// The other end of a machine's TAP device, with a DHCP server that tells UEFI what to boot. It ends with the value.
struct Network(Child);

impl Network {
    const TAP: &str = "machine";
    const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 9, 0, 1), 80);

    /// Makes the device, in a network namespace of the test's own.
    fn make() {
        for line in
            ["link set lo up", "tuntap add machine mode tap", "addr add 10.9.0.1/24 dev machine", "link set machine up"]
        {
            run(&format!("ip {line}"));
        }
    }

    fn serve(folder: &Path, url: &str) -> Network {
        let leases = format!("--dhcp-leasefile={}", folder.join("leases").display());
        let boot = format!("--dhcp-boot=tag:http,{url}");
        let mut dnsmasq = Command::new("dnsmasq");
        dnsmasq.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-hosts",
            "--no-resolv",
            "--no-ping",
            "--port=0",
            "--user=root",
        ]);
        dnsmasq.args([
            "--log-facility=-",
            "--interface=machine",
            "--bind-interfaces",
            "--dhcp-range=10.9.0.50,10.9.0.60,1h",
        ]);
        // UEFI takes an offer for HTTP boot only where the server says that it is one (UEFI specification 2.10, 24.7.3).
        dnsmasq.args([
            "--dhcp-vendorclass=set:http,HTTPClient",
            "--dhcp-option-force=tag:http,60,HTTPClient",
            &boot,
            &leases,
        ]);
        Network(dnsmasq.stdin(Stdio::null()).spawn().expect("starting dnsmasq (apt-get install dnsmasq-base)"))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn firmware_alone_boots_the_uki_of_a_web_server() {
    // Here, where it may be that something has to be fetched for it: in there nothing but the machine is to be reached.
    served();
    kscratch_namespace::of_its_own("firmware_alone_boots_the_uki_of_a_web_server", boots_the_uki);
}

fn boots_the_uki() {
    let folder = tempfile::tempdir_in(program::scratch()).unwrap();
    let bench = Bench::take();
    Network::make();
    let server = FileServer::at(Network::SERVER, &program::scratch().join("httpboot"), ROOT, &[]);
    let _network = Network::serve(folder.path(), &format!("{}kscratch.efi", server.url()));

    let mut machine = Machine::new(Firmware::Uefi).named("httpboot");
    machine.memory = 2048;
    (machine.tap, machine.boots_from_network) = (Some(Network::TAP.to_owned()), true);
    // OVMF would try PXE first, for a minute.
    let no = folder.path().join("no");
    fs::write(&no, "no").unwrap();
    for version in [4, 6] {
        machine = machine.fw_cfg(&format!("opt/org.tianocore/IPv{version}PXESupport"), &no);
    }
    let mut vm = bench.start(&machine);
    let root = format!(r"\] root {}root\.ext4\.zst", regex::escape(&server.url()));
    wait(&vm, &format!(r"{root} \(\d+ MiB, its digest is right\) unpacked in \d+\.\d+ s and mounted read-only$"), BOOT);
    wait(&vm, r"\] phase \d+ plan: ok \(", BOOT);
    vm.cut_power();
    assert_eq!(server.requests(), ["kscratch.efi", "kscratch.efi", ROOT]);
}

/// Started as iPXE would start it, with the root of this server and further words on the command line.
fn direct(server: &FileServer, name: &str, memory: u32, words: &str) -> Machine {
    let script = fs::read_to_string(served().join("boot.ipxe")).unwrap();
    let line = script.lines().find_map(|line| line.strip_prefix("kernel vmlinuz initrd=initramfs "));
    let cmdline = line.expect("the script has a kernel").replace("${base}", &server.url()).replace("${words}", words);
    let [kernel, initramfs] = ["vmlinuz", "initramfs"].map(|name| served().join(name));
    let mut machine = Machine::new(Firmware::Direct { kernel, initramfs: Some(initramfs), cmdline }).named(name);
    machine.memory = memory;
    machine
}

#[test]
fn a_root_with_another_digest_or_without_room_does_not_run() {
    let folder = tempfile::tempdir_in(program::scratch()).unwrap();
    let mut bytes = fs::read(served().join(ROOT)).unwrap();
    // A single bit: nothing but the digest is sure to find it.
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(folder.path().join(ROOT), &bytes).unwrap();
    let found = hex::encode(Sha256::digest(&bytes));
    let server = FileServer::start(folder.path(), ROOT, &[]);

    let bench = Bench::take();
    let other = bench.start(&direct(&server, "another-root", 2048, ""));
    let trouble = regex::escape(&format!(
        "root {}{ROOT}: what the server sent is not the root of this kernel (its SHA-256 is {found}), and nothing of it is used: put kernel, initramfs and root of one build onto it",
        server.url()
    ));
    wait(&other, &format!(r"\] {trouble}; again in 2 s$"), BOOT);
    wait(&other, &format!(r"\] boot failed: {trouble}$"), BOOT);
    wait(&other, "hint: read the lines above; the machine starts anew in 60 s$", BOOT);

    // While that one idles: it has memory for a kernel, and not for a root.
    let mut small = bench.start(&direct(&server, "too-small", 512, ""));
    let trouble = r"the machine has too little memory: its root takes \d+ MiB and what runs on it 256 at the least, and \d+ of \d+ are free; give it \d+ MiB or more";
    wait(&small, &format!(r"\] boot failed: {trouble}$"), BOOT);
    wait(&small, "hint: read the lines above; the machine starts anew in 60 s$", BOOT);
    small.cut_power();
    // Others may have the processors while nothing but a minute is waited for.
    drop(bench);

    // QEMU ends where the machine starts anew.
    let status = other.wait_for_exit(ANEW).unwrap_or_else(|error| panic!("{error}"));
    assert!(status.success(), "QEMU ended with {status}: {}", other.stderr());
    for machine in [&other, &small] {
        let ran = |line: &&Line| line.text.contains("unpacked") || line.text.contains("] phase ");
        assert_eq!(machine.lines().iter().find(ran), None);
    }
    // A wrong digest is tried once more, and without room nobody is asked.
    assert_eq!(server.requests(), [ROOT, ROOT]);
}

/// Both cards have carriers, and the one that is preferred leads to nobody.
#[test]
fn a_bond_asks_which_of_its_cards_leads_anywhere() {
    let folder = tempfile::tempdir_in(program::scratch()).unwrap();
    let mut nobody = Link::new(folder.path());
    let plug = nobody.plug("machine").unwrap();
    // The second attempt plans the network again, which finds the bond as it should be: the kernel says of it what it was told.
    let server = FileServer::start(served(), ROOT, &[Fault::Busy]);

    let bench = Bench::take();
    let bond = "bond=bond0:eth0,eth1:mode=active-backup,primary=eth1,arp_interval=200,arp_ip_target=10.0.2.2;10.0.2.3 ip=bond0:dhcp";
    let mut machine = direct(&server, "bond", 2048, bond);
    machine.cards.push(Card { plug, mac: [0x52, 0x54, 0, 0x6b, 0x73, 0x40] });
    let mut vm = bench.start(&machine);
    let made = "link bond0 is made: ";
    let what = "a bond of eth0, eth1, active-backup, arp interval 200, arp targets 10.0.2.2, 10.0.2.3, primary eth1";
    wait(&vm, &format!("{}$", regex::escape(&format!("{made}{what}"))), BOOT);
    wait(&vm, r"\] link bond0 has 10\.0\.2\.15/24 from 10\.0\.2\.2 for ", BOOT);
    let busy = wait(&vm, r"; again in 2 s$", BOOT);
    vm.wait_for_line_after(&busy, "root: fetching ", BOOT).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(vm.lines().iter().filter(|line| line.text.contains(made)).count(), 1);
    vm.cut_power();
}

#[test]
fn the_folder_is_what_its_manifest_says_and_its_root_that_of_disks() {
    let folder = tempfile::tempdir_in(program::scratch()).unwrap();
    let [one, other] = ["one", "other"].map(|name| folder.path().join(name));
    for served in [&one, &other] {
        node_image::netboot(served, "http://192.168.7.1/kscratch");
    }
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.path().join("one.manifest.json")).unwrap()).unwrap();
    let files = manifest["folder"].as_object().unwrap();
    let mut names: Vec<String> =
        one.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["boot.ipxe", "initramfs", "kscratch.efi", ROOT, "vmlinuz"]);
    assert_eq!(files.keys().collect::<Vec<_>>(), names.iter().collect::<Vec<_>>());
    for name in &names {
        let bytes = fs::read(one.join(name)).unwrap();
        assert_eq!(files[name]["sha256"], hex::encode(Sha256::digest(&bytes)), "{name}");
        assert!(bytes == fs::read(other.join(name)).unwrap(), "{name} differs from build to build");
    }

    // The root is what disks of that lock have, byte for byte.
    let root = folder.path().join("root");
    let args = ["-d", "-q", "--sparse", "-o"].map(AsRef::as_ref).into_iter();
    tool("zstd", "zstd", args.chain([root.as_os_str(), one.join(ROOT).as_os_str()])).succeeded();
    let image = node_image::node();
    let partitions = disk::partitions(image);
    let slot = partitions.iter().find(|partition| partition.name == "root-a").unwrap();
    let (root, image) = (File::open(&root).unwrap(), File::open(image).unwrap());
    let (mut ours, mut theirs) = (vec![0; 4 << 20], vec![0; 4 << 20]);
    assert_eq!(root.metadata().unwrap().len(), slot.len);
    for at in (0..slot.len).step_by(4 << 20) {
        root.read_exact_at(&mut ours, at).unwrap();
        image.read_exact_at(&mut theirs, slot.start + at).unwrap();
        assert!(ours == theirs, "the root differs from a disk's in the 4 MiB from byte {at} on");
    }

    // Script and UKI say where the root is, and its digest.
    let sha256 = format!("kscratch.root.sha256={} ", files[ROOT]["sha256"].as_str().unwrap());
    let script = fs::read_to_string(one.join("boot.ipxe")).unwrap();
    assert!(script.contains(&format!("kscratch.root=${{base}}{ROOT} {sha256}")), "{script}");
    let (uki, rest, section) = (one.join("kscratch.efi"), folder.path().join("rest"), folder.path().join("cmdline"));
    let dump = format!(".cmdline={}", section.display());
    let args = ["--dump-section", &dump].map(AsRef::as_ref).into_iter().chain([uki.as_os_str(), rest.as_os_str()]);
    tool("objcopy", "binutils", args).succeeded();
    let cmdline = fs::read_to_string(section).unwrap();
    assert!(cmdline.starts_with(&format!("kscratch.root=http://192.168.7.1/kscratch/{ROOT} {sha256}")), "{cmdline}");
}
