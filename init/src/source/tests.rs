//! Sources asked on machines made of folders, and the choice among their answers.
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, anyhow};
use base64::Engine;

use super::{Kind, Surroundings, Text, ask_all, choose, decode};
use crate::cmdline::CommandLine;
use crate::sntp::keeper::Adjust;
use crate::stage::block::Devices;
use crate::stage::block::tests::{ROOT, machine};
use crate::sys::{Mount, Ran, Recording, Sys};

fn text(place: &str) -> Result<Option<Text>> {
    Ok(Some(Text { place: place.into(), role: "version = 1".into(), secrets: None }))
}

#[test]
fn the_strongest_source_wins_and_the_others_are_told() {
    let choice = choose(vec![
        (Kind::CommandLine, Ok(None)),
        (Kind::FwCfg, text("opt/kscratch/role")),
        (Kind::Volume, Err(anyhow!("no such device"))),
        (Kind::Esp, text("/kscratch/role.toml on /dev/vda1")),
    ])
    .unwrap();
    assert_eq!(choice.winner.unwrap().0, Kind::FwCfg);
    assert_eq!(
        choice.lines,
        [
            "role metadata: QEMU's fw_cfg (opt/kscratch/role)",
            "role metadata: a labelled volume cannot be read, and need not be: no such device",
            "role metadata: the EFI system partition (/kscratch/role.toml on /dev/vda1) has some too, but QEMU's fw_cfg comes first",
        ]
    );
}

#[test]
fn a_stronger_source_that_cannot_be_read_is_no_reason_to_take_a_weaker_one() {
    let error = choose(vec![(Kind::CommandLine, Err(anyhow!("it is no base64"))), (Kind::Esp, text("x"))]).unwrap_err();
    assert_eq!(format!("{error:#}"), "reading role metadata from the kernel command line: it is no base64");
}

#[test]
fn no_metadata_is_no_error() {
    let choice = choose(vec![(Kind::CommandLine, Ok(None)), (Kind::Esp, Ok(None))]).unwrap();
    assert!(choice.winner.is_none() && choice.lines.is_empty());
}

#[test]
fn base64_of_every_sort() {
    for encoded in ["dmVyc2lvbiA9IDE=", "dmVyc2lvbiA9IDE", " dmVyc2lvbiA9IDE=\n"] {
        assert_eq!(decode(encoded).unwrap(), "version = 1");
    }
    let odd = base64::engine::general_purpose::URL_SAFE.encode("??>>~~");
    assert_eq!(decode(&odd).unwrap(), "??>>~~");
    assert_eq!(decode("/w==").unwrap_err().to_string(), "it is no UTF-8 text");
}

/// A kernel whose mounts copy a prepared folder: `sources/<device name>` appears at the target.
struct Volumes<'a> {
    folder: &'a Path,
    calls: Recording,
}

impl Sys for Volumes<'_> {
    fn mount(&self, mount: &Mount<'_>) -> std::io::Result<()> {
        self.calls.mount(mount)?;
        let name = Path::new(mount.source).file_name().unwrap();
        let status = Command::new("cp")
            .arg("-r")
            .arg(self.folder.join("sources").join(name).join("."))
            .arg(mount.target)
            .status()?;
        assert!(status.success());
        Ok(())
    }
    fn unmount(&self, target: &Path, lazily: bool) -> std::io::Result<()> {
        self.calls.unmount(target, lazily)
    }
    fn share(&self, target: &Path) -> std::io::Result<()> {
        self.calls.share(target)
    }
    fn move_mount(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        self.calls.move_mount(from, to)
    }
    fn remount_read_only(&self, target: &Path) -> std::io::Result<()> {
        self.calls.remount_read_only(target)
    }
    fn load_module(&self, file: &Path, parameters: &str) -> std::io::Result<()> {
        self.calls.load_module(file, parameters)
    }
    fn enter_root(&self, new_root: &Path) -> std::io::Result<()> {
        self.calls.enter_root(new_root)
    }
    fn set_host_name(&self, name: &str) -> std::io::Result<()> {
        self.calls.set_host_name(name)
    }
    fn set_clock(&self, seconds: i64) -> std::io::Result<()> {
        self.calls.set_clock(seconds)
    }
    fn adjust_clock(&self, adjust: &Adjust) -> std::io::Result<()> {
        self.calls.adjust_clock(adjust)
    }
    fn set_watchdog(&self, device: &std::fs::File, seconds: u32) -> std::io::Result<u32> {
        self.calls.set_watchdog(device, seconds)
    }
    fn resize_partition(&self, disk: &Path, number: u32, start: u64, length: u64) -> std::io::Result<()> {
        self.calls.resize_partition(disk, number, start, length)
    }
    fn add_partition(&self, disk: &Path, number: u32, start: u64, length: u64) -> std::io::Result<()> {
        self.calls.add_partition(disk, number, start, length)
    }
    fn resize_ext4(&self, mountpoint: &Path, blocks: u64) -> std::io::Result<()> {
        self.calls.resize_ext4(mountpoint, blocks)
    }
    fn loop_device(&self, file: &File) -> std::io::Result<(PathBuf, File)> {
        self.calls.loop_device(file)
    }
    fn run(&self, program: &Path, args: &[&str], stdin: &[u8]) -> std::io::Result<Ran> {
        self.calls.run(program, args, stdin)
    }
    fn set_timer_slack(&self, slack: std::time::Duration) -> std::io::Result<()> {
        self.calls.set_timer_slack(slack)
    }
    fn catch_ctrl_alt_del(&self) -> std::io::Result<()> {
        self.calls.catch_ctrl_alt_del()
    }
    fn signal_everyone(&self, signal: crate::sys::Everyone) -> std::io::Result<()> {
        self.calls.signal_everyone(signal)
    }
    fn sync(&self) {
        self.calls.sync();
    }
    fn power(&self, how: crate::sys::Power) -> std::io::Result<()> {
        self.calls.power(how)
    }
}

fn write(folder: &Path, path: &str, contents: &str) {
    let path = folder.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, contents).unwrap();
}

fn tool(program: &str, args: &[&str], path: &Path, megabytes: u64) {
    fs::File::create(path).unwrap().set_len(megabytes << 20).unwrap();
    let output = Command::new(program).args(args).arg(path).output();
    let output = output.unwrap_or_else(|_| panic!("{program} is needed: apt-get install dosfstools e2fsprogs"));
    assert!(output.status.success());
}

/// A machine with our disk (ESP with metadata) and a CIDATA stick.
fn full_machine(folder: &Path) -> Devices {
    let devices = machine(folder, 40);
    tool("mkfs.fat", &["-n", "KSCRATCHESP"], &devices.dev.join("vda1"), 8);
    tool("mke2fs", &["-q", "-t", "ext4", "-L", "kscratch-root"], &devices.dev.join("vda2"), 8);
    tool("mkfs.fat", &["-n", "CIDATA"], &devices.dev.join("sdb"), 8);
    write(folder, "sys/block/sdb/size", "16384\n");
    write(folder, "sources/vda1/kscratch/role.toml", "from = \"esp\"");
    write(folder, "sources/vda1/kscratch/secrets.toml", "token = 1");
    write(folder, "sources/sdb/role.toml", "from = \"stick\"");
    devices
}

#[test]
fn volumes_are_mounted_read_only_read_and_unmounted() {
    let folder = tempfile::tempdir().unwrap();
    let devices = full_machine(folder.path());
    let sys = Volumes { folder: folder.path(), calls: Recording::new() };
    let cmdline = CommandLine::parse(&format!("kscratch.root=PARTUUID={ROOT}"));
    let answers = ask_all(&Surroundings { sys: &sys, root: folder.path(), devices: &devices, cmdline: &cmdline });
    let found: Vec<(Kind, Text)> =
        answers.into_iter().filter_map(|(kind, answer)| Some((kind, answer.unwrap()?))).collect();
    let dev = devices.dev.display();
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].0, found[0].1.role.as_str()), (Kind::Volume, "from = \"stick\""));
    assert_eq!(found[0].1.place, format!("/role.toml on {dev}/sdb"));
    assert_eq!((found[1].0, found[1].1.secrets.as_deref()), (Kind::Esp, Some("token = 1")));
    assert_eq!(found[1].1.place, format!("/kscratch/role.toml on {dev}/vda1"));
    let calls: Vec<String> =
        sys.calls.calls().iter().map(|line| line.replace(folder.path().to_str().unwrap(), "R")).collect();
    assert_eq!(
        calls,
        [
            "mount R/dev/sdb R/run/kscratch/volume/sdb vfat readonly,nosuid,nodev,noexec",
            "unmount R/run/kscratch/volume/sdb lazily",
            "mount R/dev/vda1 R/run/kscratch/volume/vda1 vfat readonly,nosuid,nodev,noexec",
            "unmount R/run/kscratch/volume/vda1 lazily",
        ]
    );
}

#[test]
fn firmware_and_the_command_line_are_asked() {
    let folder = tempfile::tempdir().unwrap();
    let devices = machine(folder.path(), 40);
    write(folder.path(), "sys/firmware/qemu_fw_cfg/by_name/opt/kscratch/role/raw", "from = \"fw_cfg\"");
    let sys = Recording::new();
    let cmdline = CommandLine::parse("kscratch.role=dmVyc2lvbiA9IDE=");
    let answers = ask_all(&Surroundings { sys: &sys, root: folder.path(), devices: &devices, cmdline: &cmdline });
    let kinds: Vec<Kind> = answers.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [Kind::CommandLine, Kind::FwCfg, Kind::Smbios, Kind::Volume, Kind::Esp]);
    let roles: Vec<Option<String>> =
        answers.into_iter().map(|(_, answer)| answer.unwrap().map(|text| text.role)).collect();
    assert_eq!(roles, [Some("version = 1".into()), Some("from = \"fw_cfg\"".into()), None, None, None]);
}

#[test]
fn a_volume_that_cannot_be_mounted_is_an_error_and_not_no_metadata() {
    let folder = tempfile::tempdir().unwrap();
    let devices = full_machine(folder.path());
    let sys =
        Recording::new().failing(&format!("mount {}/vda1", devices.dev.display()), std::io::ErrorKind::InvalidData);
    let cmdline = CommandLine::parse(&format!("kscratch.root=PARTUUID={ROOT}"));
    let answers = ask_all(&Surroundings { sys: &sys, root: folder.path(), devices: &devices, cmdline: &cmdline });
    let error = choose(answers).unwrap_err();
    assert!(
        format!("{error:#}").starts_with("reading role metadata from the EFI system partition: mounting "),
        "{error:#}"
    );
}
