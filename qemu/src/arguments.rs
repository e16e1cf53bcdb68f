//! Turns a [`Machine`] and the place of its files into QEMU's arguments.
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

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
    args.option("-accel", if kvm { "kvm" } else { "tcg,thread=multi" });
    args.option("-cpu", if kvm { "host" } else { "max" });
    args.option("-m", machine.memory.to_string());
    args.option("-smp", machine.cpus.to_string());
    args.option("-display", "none");
    // Only disks are booted from: an image that does not boot says so at once and not after minutes of network boot.
    args.option("-boot", "strict=on");
    args.option("-device", "virtio-rng-pci");
    args.option("-qmp", joined("unix:", &files.qmp, ",server=on,wait=off"));
    serial(&mut args, machine.serial);
    firmware(&mut args, &machine.firmware, files);
    for (index, disk) in machine.disks.iter().enumerate() {
        drive(&mut args, index, disk);
    }
    network(&mut args, machine);
    for entry in &machine.fw_cfg {
        args.option("-fw_cfg", joined(&format!("name={},file=", doubled(&entry.name)), &entry.file, ""));
    }
    for text in &machine.oem_strings {
        args.option("-smbios", format!("type=11,value={}", doubled(text)));
    }
    args.option("-rtc", format!("base={}", machine.clock.as_deref().unwrap_or("utc")));
    if !machine.reboots {
        args.flag("-no-reboot");
    }
    args.0
}

fn serial(args: &mut Arguments, serial: Serial) {
    match serial {
        Serial::Watched => {
            args.option("-chardev", "stdio,id=serial0,signal=off");
            args.option("-serial", "chardev:serial0");
        }
        Serial::Terminal => {
            args.option("-serial", "mon:stdio");
        }
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

fn drive(args: &mut Arguments, index: usize, disk: &Disk) {
    // The default cache mode is kept on purpose: the guest's flushes reach the file, so that a power cut loses what a real one would.
    let mut options = format!("if=none,id=disk{index},format={},discard=unmap,detect-zeroes=unmap", disk.format.name());
    if disk.read_only {
        options.push_str(",readonly=on");
    }
    if disk.throwaway {
        options.push_str(",snapshot=on");
    }
    options.push_str(",file=");
    args.option("-drive", joined(&options, &disk.path, ""));
    // Boot index 0 is what QEMU itself gives to a kernel that it boots directly.
    args.option("-device", format!("virtio-blk-pci,drive=disk{index},serial=disk{index},bootindex={}", index + 1));
}

fn network(args: &mut Arguments, machine: &Machine) {
    let mut options = "user,id=net0".to_owned();
    if machine.isolated {
        options.push_str(",restrict=on");
    }
    for forward in &machine.forwards {
        options.push_str(&format!(",hostfwd=tcp:127.0.0.1:{}-:{}", forward.host, forward.guest));
    }
    args.option("-netdev", options);
    let mac = machine.mac.map(|byte| format!("{byte:02x}")).join(":");
    // Without `romfile=` QEMU would look for a network boot ROM, which a minimal installation does not have.
    args.option("-device", format!("virtio-net-pci,netdev=net0,mac={mac},romfile="));
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

/// QEMU's option parser ends a value at a comma; a doubled comma stands for one.
fn doubled(value: &str) -> String {
    value.replace(',', ",,")
}

fn joined(before: &str, path: &Path, after: &str) -> OsString {
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
                "-cpu max",
                "pflash,unit=0,format=raw,readonly=on,file=/fw/code.fd",
                "-no-reboot",
            ],
            &["-kernel", "hostfwd", "-smbios"],
        );
        check(&direct(), true, &["-kernel /k", "-append panic=-1", "-accel kvm", "-cpu host"], &["-initrd", "pflash"]);
        check(&direct(), true, &["unix:/run/a,,b/qmp,server=on,wait=off"], &[]);
        check(
            &direct().disk(Disk::new("/a,b.qcow2", DiskFormat::Qcow2)).disk(Disk::read_only("/v.img")),
            false,
            &[
                "format=qcow2,discard=unmap,detect-zeroes=unmap,file=/a,,b.qcow2",
                "drive=disk0,serial=disk0,bootindex=1",
                "format=raw,discard=unmap,detect-zeroes=unmap,readonly=on,file=/v.img",
            ],
            &["snapshot=on"],
        );
        check(
            &direct().forward(Forward::to(8080)).forward(Forward { host: 6443, guest: 443 }),
            false,
            &["user,id=net0,hostfwd=tcp:127.0.0.1:0-:8080,hostfwd=tcp:127.0.0.1:6443-:443", "mac=52:54:00:6b:73:01"],
            &["restrict"],
        );
        check(
            &direct().fw_cfg("opt/x", "/role.toml"),
            false,
            &["-fw_cfg name=opt/x,file=/role.toml", "-rtc base=utc", "stdio,id=serial0,signal=off"],
            &["mon:stdio"],
        );
        let mut other = direct();
        other.oem_strings = vec!["a=1,2".to_owned()];
        other.clock = Some("2027-01-01T00:00:00".to_owned());
        other.serial = Serial::Terminal;
        other.reboots = true;
        other.isolated = true;
        check(
            &other,
            false,
            &["type=11,value=a=1,,2", "base=2027-01-01T00:00:00", "-serial mon:stdio", "restrict=on"],
            &["-no-reboot", "-chardev"],
        );
    }
}
