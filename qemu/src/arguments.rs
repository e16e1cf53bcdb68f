//! Turns a [`Machine`] and the place of its files into QEMU's arguments.
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::hardware::{CardModel, DiskModel};
use crate::machine::{Accelerator, Disk, Firmware, Machine, Serial};

/// Files that one run of a machine needs besides what the machine names.
#[derive(Debug, Clone)]
pub struct RunFiles {
    /// Unix socket on which QEMU serves QMP.
    pub qmp: PathBuf,
    /// OVMF's code and this run's copy of its variables, where the firmware is UEFI.
    pub uefi: Option<(PathBuf, PathBuf)>,
    /// Folders with QEMU's own data, where they are not the built-in ones.
    pub data: Vec<PathBuf>,
}

/// The emulated processor has all that QEMU can emulate, but for what only costs there: a fifth level of page tables is walked at every miss of its TLB, and
/// with fast strings the kernel copies byte by byte, which no emulation does at once. A node's boot takes a tenth less of the host's processors.
const EMULATED: &str = "max,la57=off,erms=off,fsrm=off";

/// Each instruction takes two nanoseconds (docs/devel/tcg-icount.rst). That is less than it takes to emulate one, so that a guest that works has a
/// fast processor and a slow clock: 66 s of its own for a boot that takes the host 220.
const OWN_TIME: &str = "shift=1,sleep=on";

/// The balloon's name, by which QMP finds it.
pub(crate) const BALLOON: &str = "balloon0";

/// QEMU's name for the slot of cards that come later: the root complex itself takes none while the machine runs.
pub(crate) const CARD_SLOT: &str = "slot0";

/// QEMU's name for the card on the user-mode network.
pub(crate) const USER_CARD: &str = "net0";

/// QEMU's arguments. `kvm` is the answer to [`Accelerator::Auto`].
pub fn qemu(machine: &Machine, files: &RunFiles, kvm: bool) -> Vec<OsString> {
    let mut args = Arguments(Vec::new());
    // Nothing that a configuration file or QEMU's defaults would add: the machine is what is described, on every host.
    args.flag("-no-user-config").flag("-nodefaults");
    for data in &files.data {
        args.option("-L", data.as_os_str().to_owned());
    }
    args.option("-name", format!("{},process=kscratch-vm", doubled(&machine.name)));
    args.option("-machine", "q35,smm=off,vmport=off,graphics=off");
    let kvm = match machine.accelerator {
        Accelerator::Auto => kvm,
        Accelerator::Kvm => true,
        Accelerator::Emulation => false,
    };
    let own_time = machine.own_time && !kvm;
    // Instructions are counted by one thread alone.
    let emulation = if own_time { "tcg,thread=single" } else { "tcg,thread=multi" };
    args.option("-accel", if kvm { "kvm" } else { emulation });
    if own_time {
        args.option("-icount", OWN_TIME);
    }
    args.option("-cpu", if kvm { "host" } else { EMULATED });
    args.option("-m", machine.memory.to_string());
    args.option("-smp", machine.cpus.to_string());
    args.option("-display", "none");
    // Only what has a number is booted from: an image that does not boot says so at once and not after minutes of network boot.
    args.option("-boot", "strict=on");
    args.option("-device", "virtio-rng-pci");
    args.option("-qmp", joined("unix:", &files.qmp, ",server=on,wait=off"));
    serial(&mut args, machine);
    firmware(&mut args, &machine.firmware, files);
    disks(&mut args, &machine.disks);
    network(&mut args, machine);
    if machine.screen {
        // UEFI has a driver for it, and needs no ROM.
        args.option("-device", "VGA,romfile=");
    }
    if machine.tells_memory {
        args.option("-device", format!("virtio-balloon-pci,id={BALLOON}"));
    }
    if machine.watchdog {
        args.option("-device", "i6300esb").option("-action", "watchdog=reset");
    }
    if let Some(socket) = &machine.tpm {
        args.option("-chardev", joined("socket,id=tpm0,path=", socket, ""));
        args.option("-tpmdev", "emulator,id=tpm0,chardev=tpm0").option("-device", "tpm-tis,tpmdev=tpm0");
    }
    for entry in &machine.fw_cfg {
        args.option("-fw_cfg", joined(&format!("name={},file=", doubled(&entry.name)), &entry.file, ""));
    }
    system(&mut args, machine);
    for text in &machine.oem_strings {
        args.option("-smbios", format!("type=11,value={}", doubled(text)));
    }
    args.option("-rtc", format!("base={}", machine.clock.as_deref().unwrap_or("utc")));
    if !machine.reboots {
        args.flag("-no-reboot");
    }
    args.0
}

fn serial(args: &mut Arguments, machine: &Machine) {
    let mut console = OsString::from(match machine.serial {
        Serial::Watched => "stdio,id=serial0,signal=off",
        Serial::Terminal => "stdio,id=serial0,signal=off,mux=on",
    });
    if let Some(file) = &machine.console_file {
        console.push(joined(",logappend=on,logfile=", file, ""));
    }
    args.option("-chardev", console).option("-serial", "chardev:serial0");
    if machine.serial == Serial::Terminal {
        args.option("-mon", "chardev=serial0,mode=readline");
    }
}

fn firmware(args: &mut Arguments, firmware: &Firmware, files: &RunFiles) {
    match (firmware, &files.uefi) {
        (Firmware::Uefi, Some((code, variables))) => {
            args.option("-drive", joined("if=pflash,unit=0,format=raw,readonly=on,file=", code, ""));
            args.option("-drive", joined("if=pflash,unit=1,format=raw,file=", variables, ""));
        }
        (Firmware::Uefi, None) => {}
        (Firmware::Direct { kernel, initramfs, cmdline }, _) => {
            args.option("-kernel", kernel.as_os_str().to_owned());
            if let Some(initramfs) = initramfs {
                args.option("-initrd", initramfs.as_os_str().to_owned());
            }
            args.option("-append", cmdline);
        }
    }
}

fn disks(args: &mut Arguments, disks: &[Disk]) {
    for model in DiskModel::ALL {
        if let Some((device, id)) = model.controller().filter(|_| disks.iter().any(|disk| disk.model == model)) {
            args.option("-device", format!("{device},id={id}"));
        }
    }
    let mut sata = 0..;
    for (index, disk) in disks.iter().enumerate() {
        drive(args, index, disk);
        let bus = match disk.model.controller() {
            Some((_, id)) => format!("bus={id}.0,"),
            // A port of the chipset's controller has room for one.
            None if matches!(disk.model, DiskModel::Sata | DiskModel::Cd) => {
                format!("bus=ide.{},", sata.next().unwrap_or_default())
            }
            None => String::new(),
        };
        let serial = disk.serial.as_deref().map_or_else(|| format!("disk{index}"), doubled);
        // Boot index 0 is what QEMU itself gives to a kernel that it boots directly.
        let (device, boot) = (disk.model.device(), index + 1);
        let mut options =
            format!("{device},{bus}id={},drive=disk{index},serial={serial},bootindex={boot}", disk_device(index));
        if disk.sector != 512 {
            let sector = disk.sector;
            options.push_str(&format!(",logical_block_size={sector},physical_block_size={sector}"));
        }
        if disk.model == DiskModel::Usb {
            options.push_str(",removable=on");
        }
        args.option("-device", options);
    }
}

/// QEMU's name for the device of a disk, counted from 0.
pub(crate) fn disk_device(index: usize) -> String {
    format!("disk{index}-device")
}

fn drive(args: &mut Arguments, index: usize, disk: &Disk) {
    // The default cache mode is kept on purpose: the guest's flushes reach the file, so that a power cut loses what a real one would.
    let mut options = format!("if=none,id=disk{index},format={},discard=unmap,detect-zeroes=unmap", disk.format.name());
    if disk.read_only || disk.model == DiskModel::Cd {
        options.push_str(",readonly=on");
    }
    if disk.throwaway {
        options.push_str(",snapshot=on");
    }
    options.push_str(",file=");
    args.option("-drive", joined(&options, &disk.path, ""));
}

/// SMBIOS type 1, "System Information" (DMTF DSP0134, 7.2).
fn system(args: &mut Arguments, machine: &Machine) {
    let mut options = "type=1".to_owned();
    if let Some(serial) = &machine.serial_number {
        options.push_str(&format!(",serial={}", doubled(serial)));
    }
    if let Some(uuid) = machine.uuid {
        options.push_str(&format!(",uuid={}", dashed(uuid)));
    }
    if options != "type=1" {
        args.option("-smbios", options);
    }
}

fn network(args: &mut Arguments, machine: &Machine) {
    if machine.user_network {
        user_network(args, machine);
    }
    for (index, link) in machine.cards.iter().enumerate() {
        let id = card_on_link(index);
        args.option("-netdev", stream(&id, &link.plug));
        card(args, machine.card_model, &id, link.mac, None);
    }
    for number in 1..=machine.more_user_cards {
        let id = format!("net{number}");
        let restricted = if machine.isolated { ",restrict=on" } else { "" };
        args.option("-netdev", format!("user,id={id}{restricted}"));
        let mut mac = machine.mac;
        mac[5] = mac[5].wrapping_add(number);
        card(args, machine.card_model, &id, mac, None);
    }
    if machine.card_slot {
        args.option("-device", format!("pcie-root-port,id={CARD_SLOT},chassis=1"));
    }
}

/// QEMU's name for a card on a virtual link, counted from 0.
pub fn card_on_link(index: usize) -> String {
    format!("link{index}")
}

/// The host's end of a card on a virtual link.
pub fn stream(id: &str, plug: &Path) -> OsString {
    joined(&format!("stream,id={id},server=off,addr.type=unix,addr.path="), plug, "")
}

fn user_network(args: &mut Arguments, machine: &Machine) {
    let mut options = format!("user,id={USER_CARD}");
    if machine.isolated {
        options.push_str(",restrict=on");
    }
    for forward in &machine.forwards {
        options.push_str(&format!(",hostfwd=tcp:127.0.0.1:{}-:{}", forward.host, forward.guest));
    }
    if let Some(tap) = &machine.tap {
        options = format!("tap,id={USER_CARD},ifname={},script=no,downscript=no", doubled(tap));
    }
    args.option("-netdev", options);
    let boot = machine.boots_from_network.then_some(machine.disks.len() + 1);
    card(args, machine.card_model, USER_CARD, machine.mac, boot);
}

fn card(args: &mut Arguments, model: CardModel, id: &str, mac: [u8; 6], boot: Option<usize>) {
    let mac = colons(mac);
    // Without `romfile=` QEMU would look for a network boot ROM, which a minimal installation does not have.
    let boot = boot.map(|index| format!(",bootindex={index}")).unwrap_or_default();
    args.option("-device", format!("{},netdev={id},mac={mac},romfile={boot}", model.device()));
}

/// A hardware address as people write it.
pub(crate) fn colons(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

struct Arguments(Vec<OsString>);

impl Arguments {
    fn flag(&mut self, flag: &str) -> &mut Self {
        self.0.push(flag.into());
        self
    }

    fn option(&mut self, flag: &str, value: impl Into<OsString>) -> &mut Self {
        self.0.push(flag.into());
        self.0.push(value.into());
        self
    }
}

/// RFC 9562, 4.
fn dashed(uuid: [u8; 16]) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let [a, b, c, d, e] = [&uuid[..4], &uuid[4..6], &uuid[6..8], &uuid[8..10], &uuid[10..]].map(hex);
    format!("{a}-{b}-{c}-{d}-{e}")
}

/// QEMU's option parser ends a value at a comma; a doubled comma stands for one.
fn doubled(value: &str) -> String {
    value.replace(',', ",,")
}

/// A path inside an option: its commas are doubled.
pub fn joined(before: &str, path: &Path, after: &str) -> OsString {
    let mut bytes = before.as_bytes().to_vec();
    for byte in path.as_os_str().as_bytes() {
        bytes.push(*byte);
        if *byte == b',' {
            bytes.push(b',');
        }
    }
    bytes.extend_from_slice(after.as_bytes());
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{DiskFormat, Forward};

    #[track_caller]
    fn check(machine: &Machine, kvm: bool, want: &[&str], not: &[&str]) {
        let files = RunFiles {
            qmp: "/run/a,b/qmp".into(),
            uefi: Some(("/fw/code.fd".into(), "/run/vars.fd".into())),
            data: Vec::new(),
        };
        let args: Vec<String> =
            qemu(machine, &files, kvm).into_iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
        let line = args.join(" ");
        for part in want {
            assert!(line.contains(part), "`{part}` is not in: {line}");
        }
        for part in not {
            assert!(!line.contains(part), "`{part}` is in: {line}");
        }
    }

    #[test]
    fn every_part_of_a_machine_becomes_an_argument() {
        let direct =
            || Machine::new(Firmware::Direct { kernel: "/k".into(), initramfs: None, cmdline: "panic=-1".into() });
        check(
            &Machine::new(Firmware::Uefi),
            false,
            &[
                "-accel tcg,thread=multi",
                "-cpu max,la57=off,erms=off,fsrm=off",
                "pflash,unit=0,format=raw,readonly=on,file=/fw/code.fd",
                "-no-reboot",
            ],
            &["-kernel", "hostfwd", "-smbios"],
        );
        check(&direct(), true, &["-kernel /k", "-append panic=-1", "-accel kvm", "-cpu host"], &["-initrd", "pflash"]);
        let mut own_time = Machine::new(Firmware::Uefi);
        own_time.own_time = true;
        check(&own_time, false, &["-accel tcg,thread=single -icount shift=1,sleep=on"], &[]);
        check(&own_time, true, &["-accel kvm"], &["-icount"]);
        check(&direct(), true, &["unix:/run/a,,b/qmp,server=on,wait=off"], &[]);
        check(
            &direct().disk(Disk::new("/a,b.qcow2", DiskFormat::Qcow2)).disk(Disk::read_only("/v.img")),
            false,
            &[
                "format=qcow2,discard=unmap,detect-zeroes=unmap,file=/a,,b.qcow2",
                "virtio-blk-pci,id=disk0-device,drive=disk0,serial=disk0,bootindex=1",
                "format=raw,discard=unmap,detect-zeroes=unmap,readonly=on,file=/v.img",
            ],
            &["snapshot=on"],
        );
        check(
            &direct().forward(Forward::to(8080)).forward(Forward { host: 6443, guest: 443 }),
            false,
            &["user,id=net0,hostfwd=tcp:127.0.0.1:0-:8080,hostfwd=tcp:127.0.0.1:6443-:443", "mac=52:54:00:6b:73:01"],
            &["restrict", "balloon", "VGA", "i6300esb", "-action", "pcie-root-port", "tpm"],
        );
        check(
            &direct().fw_cfg("opt/x", "/role.toml"),
            false,
            &["-fw_cfg name=opt/x,file=/role.toml", "-rtc base=utc", "stdio,id=serial0,signal=off"],
            &["mux=on", "-mon"],
        );
        let mut linked = direct().on_link("/l,k/n1.plug", [0x52, 0x54, 0, 0, 0, 0x14]);
        linked.serial_number = Some("rack 1,2".to_owned());
        linked.uuid = Some(std::array::from_fn(|index| u8::try_from(index).unwrap()));
        linked.console_file = Some("/log,s/console".into());
        check(
            &linked,
            false,
            &[
                "-netdev stream,id=link0,server=off,addr.type=unix,addr.path=/l,,k/n1.plug",
                "virtio-net-pci,netdev=link0,mac=52:54:00:00:00:14,romfile=",
                "-smbios type=1,serial=rack 1,,2,uuid=00010203-0405-0607-0809-0a0b0c0d0e0f",
                "stdio,id=serial0,signal=off,logappend=on,logfile=/log,,s/console",
            ],
            &["user,id=net0", "netdev=net0"],
        );
        linked.more_user_cards = 1;
        let second = "netdev=link0,mac=52:54:00:00:00:14,romfile= -netdev user,id=net1 -device virtio-net-pci,netdev=net1,mac=52:54:00:6b:73:02,romfile=";
        check(&linked, false, &[second], &["netdev=net0"]);
        linked.user_network = true;
        check(&linked, false, &["netdev=net0,mac=52:54:00:6b:73:01", "netdev=link0,mac=52:54:00:00:00:14"], &[]);
        let mut other = direct();
        other.oem_strings = vec!["a=1,2".to_owned()];
        other.clock = Some("2027-01-01T00:00:00".to_owned());
        other.serial = Serial::Terminal;
        other.reboots = true;
        other.isolated = true;
        other.tells_memory = true;
        other.screen = true;
        (other.watchdog, other.card_slot, other.tpm) = (true, true, Some("/t,m/tpm".into()));
        check(
            &other,
            false,
            &[
                "type=11,value=a=1,,2",
                "base=2027-01-01T00:00:00",
                "-chardev stdio,id=serial0,signal=off,mux=on -serial chardev:serial0 -mon chardev=serial0,mode=readline",
                "restrict=on",
                "virtio-balloon-pci,id=balloon0",
                "-device VGA,romfile=",
                "-device i6300esb -action watchdog=reset",
                "-device pcie-root-port,id=slot0,chassis=1",
                "-chardev socket,id=tpm0,path=/t,,m/tpm -tpmdev emulator,id=tpm0,chardev=tpm0 -device tpm-tis,tpmdev=tpm0",
            ],
            &["-no-reboot", "logfile"],
        );
    }

    #[test]
    fn disks_and_cards_are_of_a_model() {
        let disk = |model| Disk::new("/d", DiskFormat::Raw).model(model);
        let large = Disk { sector: 4096, serial: Some("S,1".to_owned()), ..disk(DiskModel::Nvme) };
        let mut machine = Machine::new(Firmware::Uefi).disk(large);
        for model in
            [DiskModel::Sata, DiskModel::Usb, DiskModel::Sata, DiskModel::Scsi, DiskModel::Megasas, DiskModel::Usb]
        {
            machine = machine.disk(disk(model));
        }
        machine.card_model = CardModel::E1000e;
        machine.more_user_cards = 1;
        check(
            &machine,
            false,
            &[
                "-device virtio-scsi-pci,id=scsi -device megasas,id=megasas -device qemu-xhci,id=usb -drive ",
                "nvme,id=disk0-device,drive=disk0,serial=S,,1,bootindex=1,logical_block_size=4096,physical_block_size=4096",
                "ide-hd,bus=ide.0,id=disk1-device,drive=disk1,serial=disk1,bootindex=2",
                "usb-storage,bus=usb.0,id=disk2-device,drive=disk2,serial=disk2,bootindex=3,removable=on",
                "ide-hd,bus=ide.1,id=disk3-device",
                "scsi-hd,bus=scsi.0,id=disk4-device",
                "scsi-hd,bus=megasas.0,id=disk5-device",
                "e1000e,netdev=net0,mac=52:54:00:6b:73:01,romfile= -netdev user,id=net1 -device e1000e,netdev=net1,mac=52:54:00:6b:73:02,romfile=",
            ],
            &["virtio-net", "virtio-blk"],
        );
    }
}
