//! Boots a metal image on disks and network cards that real machines have, by `kscratch-image run` and what it lets a tester choose.
use std::fs;
use std::path::Path;

use kscratch_tests::bench::Bench;
use kscratch_tests::program::tool;
use kscratch_tests::recorded::{self, says};
use kscratch_tests::{disk, node_image, program};
use regex::Regex;

/// Boots that image until the network is set up, and gives what the machine said.
#[track_caller]
fn boots(folder: &Path, image: &Path, more: &str) -> String {
    let image = image.to_str().unwrap();
    // Debian 12's QEMU has no igb.
    let args = [image, "--qemu", "unpacked", "--timeout", "200", "--cut-at", " plan: start"];
    let (said, console) = recorded::run(folder, &args.into_iter().chain(more.split(' ')).collect::<Vec<_>>());
    assert!(said.stderr.contains("the machine's power was cut after"), "{more}: {}", said.stderr);
    console
}

/// Two cards as one, with a VLAN and a bridge on it; and a bond of every mode, whose cards are not there.
const LINKS: &str = r#"
[network.links.eth0]
[network.links.second]
mac = "52:54:00:6b:73:02"
[network.links.bond0]
bond = { members = ["eth0", "second"], mode = "active-backup", primary = "second" }
dhcp4 = true
[network.links."bond0.7"]
vlan = { over = "bond0", id = 7 }
[network.links.br7]
bridge.members = ["bond0.7"]
addresses = ["192.168.7.20/24", "2001:db8:7::20/64"]
routes = [{ destination = "10.8.0.0/16", gateway = "192.168.7.1", metric = 50 }]
[network.links.none]
optional = true
[network.links.rr]
bond = { members = ["none"], mode = "balance-rr" }
"#;

/// Bonds without any card, by name, and what the console calls them.
const MODES: [(&str, &str, &str); 7] = [
    (
        "lacp",
        "mode = \"802.3ad\", miimon = 50, lacp_rate = \"fast\", hash_policy = \"layer3+4\"",
        "802.3ad, miimon 50, lacp rate fast, hash policy layer3+4",
    ),
    ("xor", "mode = \"balance-xor\", hash_policy = \"layer2+3\"", "balance-xor, miimon 100, hash policy layer2+3"),
    ("cast", "mode = \"broadcast\"", "broadcast, miimon 100"),
    ("tlb", "mode = \"balance-tlb\"", "balance-tlb, miimon 100"),
    ("alb", "mode = \"balance-alb\"", "balance-alb, miimon 100"),
    (
        "asks",
        "mode = \"active-backup\", arp_interval = 200, arp_targets = [\"10.0.2.2\", \"10.0.2.3\"]",
        "active-backup, arp interval 200, arp targets 10.0.2.2, 10.0.2.3",
    ),
    (
        "all-ask",
        "mode = \"broadcast\", arp_interval = 500, arp_targets = [\"10.0.2.2\"]",
        "broadcast, arp interval 500, arp targets 10.0.2.2",
    ),
];

/// Who a machine is whose state is on a disk of its own.
const MACHINE: &str = "0123456789abcdef0123456789abcdef";

/// Makes the disk `state.img`, which has only that machine's state.
#[track_caller]
fn state_alone(folder: &Path) {
    let (disk, state) = (folder.join("state.img"), folder.join("state"));
    fs::create_dir_all(state.join("lib/kscratch")).unwrap();
    fs::write(state.join("lib/kscratch/machine-id"), format!("{MACHINE}\n")).unwrap();
    fs::File::create(&disk).unwrap().set_len(1 << 30).unwrap();
    let table = ["-n1:1M:0", "-t1:4d21b016-b534-45c2-a9fb-5c16e091fd2d", "-c1:state", disk.to_str().unwrap()];
    tool("sgdisk", "gdisk", table).succeeded();
    let [disk, state] = [&disk, &state].map(|path| path.to_str().unwrap());
    let filesystem = ["-q", "-t", "ext4", "-b", "4096", "-L", "kscratch-state", "-E", "offset=1048576", "-d", state];
    tool("mke2fs", "e2fsprogs", filesystem.into_iter().chain([disk, "65536"])).succeeded();
}

#[test]
fn a_metal_image_boots_from_what_real_machines_have() {
    let _bench = Bench::take();
    let folder = tempfile::tempdir_in(program::scratch()).unwrap();
    let lease = r"link eth0 has 10\.0\.2\.15/24 from 10\.0\.2\.2 for ";

    // A disk without a place for state, which is on another one, a TPM, and a cable that is slow, late and bad, which DHCP has to bear.
    state_alone(folder.path());
    let console = boots(
        folder.path(),
        node_image::metal_without_state(),
        "--disk-model sata --disk state.img,model=nvme --nic e1000e --delay 30 --loss 20 --rate 2000 --tpm",
    );
    says(&console, r"\] root /dev/sda2 \(root-a, ");
    says(&console, r"\] state is /dev/nvme\dn1p1\r?\n");
    says(&console, &format!(r"\] machine {MACHINE}\r?\n"));
    // The firmware measured into it, and the kernel has it.
    says(&console, "efi: .*TPMEventLog=0x");
    says(&console, r"tpm_tis MSFT0101:00: 2\.0 TPM \(");
    says(&console, lease);
    // Virtual processors take no microcode; the kernel finds nothing wrong with what it was given.
    assert!(!Regex::new("microcode: .*(rror|nvalid|orrupt|ailed)").unwrap().is_match(&console), "{console}");

    // Of two disks, which have sectors of 4096 bytes, the right one, and a clock that is years ahead. The other one is blank, and becomes docker's.
    let disks =
        |serial: &str| format!("version = 1\nrole = \"node\"\n[[disks]]\nfor = \"docker\"\nserial = \"{serial}\"\n");
    let bond = |(name, options, _): &(&str, &str, &str)| {
        format!(
            "[network.links.c-{name}]\noptional = true\n[network.links.{name}]\nbond = {{ members = [\"c-{name}\"], {options} }}\n"
        )
    };
    let links: String = std::iter::once(LINKS.to_owned()).chain(MODES.iter().map(bond)).collect();
    fs::write(folder.path().join("extra.toml"), disks("EXTRA") + &links).unwrap();
    fs::write(folder.path().join("second.toml"), disks("SECOND")).unwrap();
    fs::File::create(folder.path().join("extra.img")).unwrap().set_len(1 << 30).unwrap();
    let extra = |model: &str| format!("--metadata extra.toml --disk extra.img,model={model},sector=4096,serial=EXTRA");
    let console = boots(
        folder.path(),
        node_image::metal_with_large_sectors(),
        &format!("--disk-model nvme --nic e1000 --nics 2 --clock 2031-01-01T00:00:00 {}", extra("nvme")),
    );
    says(&console, r"link bond0 is made: a bond of eth0, eth1, active-backup, miimon 100, primary eth1");
    says(&console, r"link bond0\.7 is made: VLAN 7 of bond0");
    says(&console, r"link br7 is made: a bridge of bond0\.7");
    says(&console, r"link br7 has 192\.168\.7\.20/24, 2001:db8:7::20/64");
    says(&console, r"link bond0 has 10\.0\.2\.15/24 from 10\.0\.2\.2 for ");
    says(&console, r"phase \d+ network: ok");
    for (name, _, what) in MODES {
        says(&console, &regex::escape(&format!("link {name} is made: a bond of nothing, {what}")));
    }
    says(&console, r"\] docker's disk is /dev/nvme\dn1p1, serial EXTRA, made anew");
    says(&console, r"\] root /dev/nvme\dn1p2 \(root-a, ");
    says(&console, "setting system clock to 2031-01-01T00:00:");

    // The same disk in another place, after a power cut. The image is VMware's sort of file, and then Microsoft's.
    let vmdk = node_image::metal_as("vmdk");
    let console = boots(folder.path(), &vmdk, &format!("--disk-model usb --nic rtl8139 {}", extra("usb")));
    says(&console, r"\] docker's disk on /dev/sd[ab]1 was not clean: its journal was replayed");
    says(&console, r"\] docker's disk is /dev/sd[ab]1, serial EXTRA\r?\n");
    says(&console, r"\] root /dev/sd[ab]2 \(root-a, ");
    // And one of its cards is not there.
    says(
        &console,
        r"link second \(52:54:00:6b:73:02\) is not there; it is taken up when it comes \(the machine has eth0 \(52:54:00:6b:73:01\)\)",
    );
    says(&console, r"link bond0 is made: a bond of eth0, active-backup, miimon 100");
    says(&console, r"link bond0 has 10\.0\.2\.15/24 from 10\.0\.2\.2 for ");

    // A file as the second disk, which the machine sees and leaves alone, though it is told to take it.
    let file = folder.path().join("second.img");
    fs::write(&file, vec![0xA5; 8 << 20]).unwrap();
    let second = format!("--metadata second.toml --disk {},model=megasas,serial=SECOND", file.display());
    let vhd = node_image::metal_as("vhd");
    let console = boots(folder.path(), &vhd, &format!("--disk-model scsi --nic igb {second}"));
    says(&console, r"docker's disk, sd[ab], is somebody else's: it holds something that is not known here");
    says(&console, r"\] root /dev/sd[ab]2 \(root-a, ");
    says(&console, lease);
    assert!(fs::read(&file).unwrap().iter().all(|byte| *byte == 0xA5), "a disk of somebody else was written to");
}

/// The largest boot file that a metal image may have: firmware reads all of it before anything else happens.
const BOOT_FILE: u64 = 100_000_000;

#[test]
fn a_metal_image_begins_with_microcode_and_has_the_firmware_that_its_drivers_name() {
    let image = node_image::metal();
    let folder = tempfile::tempdir_in(program::scratch()).unwrap();
    let partitions = disk::partitions(image);
    let esp = partitions.iter().find(|partition| partition.name == "esp").unwrap();
    let (place, uki) = (format!("{}@@{}", image.display(), esp.start), folder.path().join("uki.efi"));
    let args = ["-i", &place, "::/EFI/BOOT/BOOTX64.EFI"].map(AsRef::as_ref).into_iter().chain([uki.as_os_str()]);
    tool("mcopy", "mtools", args).succeeded();
    assert!(fs::metadata(&uki).unwrap().len() < BOOT_FILE, "the boot file is {:?}", fs::metadata(&uki));
    // What others read of it: the section, and in it first an archive that is not compressed.
    let initrd = folder.path().join("initrd");
    let section = format!(".initrd={}", initrd.display());
    // It writes the rest as well, and refuses /dev/null.
    let rest = folder.path().join("rest");
    let args = ["--dump-section", &section].map(AsRef::as_ref).into_iter().chain([uki.as_os_str(), rest.as_os_str()]);
    tool("objcopy", "binutils", args).succeeded();
    let listed = tool("sh", "dash", ["-c", &format!("cpio -it < {}", initrd.display())]).succeeded();
    let names: Vec<&str> = listed.stdout.lines().filter(|line| line.ends_with(".bin")).collect();
    assert_eq!(names, ["kernel/x86/microcode/AuthenticAMD.bin", "kernel/x86/microcode/GenuineIntel.bin"]);

    let told =
        program::kscratch(folder.path(), ["inspect".as_ref(), image.as_os_str(), "--files".as_ref()], program::SHORT);
    let told = told.succeeded().stdout;
    says(&told, r"kernel +\S+ \(.*\), initramfs .*, microcode \d");
    for want in ["rtl_nic/rtl8168h-2.fw", "tigon/tg3.bin", "bnx2/bnx2-mips-09-6.2.1b.fw", "intel/ice/ddp/ice.pkg"] {
        assert!(told.contains(&format!("/usr/lib/firmware/{want}")), "{want} is not in the image");
    }
    // Drivers that are not in the image bring nothing.
    assert!(!told.contains("/usr/lib/firmware/iwlwifi"), "there is firmware that nobody asks for");
}

#[test]
fn a_machine_that_cannot_be_is_refused_before_anything_is_started() {
    let folder = tempfile::tempdir_in(program::scratch()).unwrap();
    fs::write(folder.path().join("node.img"), "").unwrap();
    for (more, why) in [
        ("--disk-model floppy", "there is no disk model `floppy`; there are virtio, nvme, sata, scsi, megasas, usb"),
        ("--disk-model sata --sector-size 4096", "QEMU's SATA disks have sectors of 512 bytes"),
        ("--nic ne2000", "there is no network card model `ne2000`"),
        ("--disk none.img", "opening the disk none.img"),
        ("--cut-after 1 --cut-at x", "cannot be used with"),
    ] {
        let args: Vec<&str> = ["run", "node.img"].into_iter().chain(more.split(' ')).collect();
        let said = program::kscratch(folder.path(), args, program::SHORT);
        assert_ne!(said.code, 0, "{more}");
        assert!(said.stderr.contains(why), "{more}: {}", said.stderr);
    }
}
