//! Turns a finished image into a running machine: `kscratch-image run FILE`.
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use kscratch_qemu::toolset::Program;
use kscratch_qemu::{
    Accelerator, CardModel, Condition, Disk, DiskModel, Firmware, Forward, Machine, Overlay, Serial, Toolset, Tpm, Vm,
};
use nix::sys::signal::Signal;

use crate::console::{Console, Hint};
use crate::signals;
use crate::spec::ByteSize;

mod direct;
mod faults;
pub mod hardware;
mod interrupt;
mod kept;
mod refused;
pub mod tools;

pub use faults::Cut;
use faults::{Cable, Heard};
use hardware::MoreDisk;
pub use interrupt::Interrupt;
use refused::hinted;

/// How often it is looked whether the machine has said something, or has ended.
const LOOK: Duration = Duration::from_millis(100);

/// Name under which init looks for role metadata in QEMU's fw_cfg.
pub const FW_CFG_ROLE: &str = "opt/kscratch/role";

/// The port that is forwarded where nobody names one: the one of the image's own web server pod.
const DEFAULT_FORWARD: PortForward = PortForward { host: 8080, guest: 8080 };

/// First bytes of a Zstandard frame (RFC 8878, 3.1.1).
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// What `run` is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The image, raw or qcow2; it stays as it was.
    pub image: PathBuf,
    /// Whether kernel and initramfs are started directly, without firmware.
    pub direct: bool,
    /// Memory in MiB.
    pub memory: u32,
    /// Number of processors.
    pub cpus: u32,
    /// Forwarded ports; empty for 8080 alone.
    pub forwards: Vec<PortForward>,
    /// Role metadata for this run.
    pub metadata: Option<PathBuf>,
    /// Size of the disk that the guest sees.
    pub disk_size: Option<ByteSize>,
    /// When the machine is ended, however far it is.
    pub timeout: Option<Duration>,
    /// A qcow2 file that keeps what the machine writes; gone on from where it is there already. What a TPM remembers is kept beside it, and what the image was.
    pub overlay: Option<PathBuf>,
    /// How the disk is reached, and the bytes of its sectors; those that the image is made for where `None`.
    pub disk: (DiskModel, Option<u32>),
    /// Further disks.
    pub disks: Vec<MoreDisk>,
    /// What the network card is.
    pub card: CardModel,
    /// How many of them there are, one at least.
    pub cards: u8,
    /// Whether it has a watchdog, which resets it where it hangs.
    pub watchdog: bool,
    /// What the machine's clock says at start, in UTC; this machine's time where `None`.
    pub clock: Option<String>,
    /// How well the network's cable works.
    pub cable: Condition,
    /// When the power goes.
    pub cut: Option<Cut>,
    /// A file to which all that the machine says on its serial line is appended.
    pub record: Option<PathBuf>,
}

/// A port of this machine that leads to one of the guest, written `HOST:GUEST`; host port 0 is any free one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortForward {
    /// Port of 127.0.0.1 on this machine.
    pub host: u16,
    /// Port of the guest.
    pub guest: u16,
}

impl FromStr for PortForward {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("the forward `{text}` is not HOST:GUEST, two port numbers such as `8080:80`");
        let (host, guest) = text.split_once(':').ok_or_else(form)?;
        let host = host.parse().map_err(|_| form())?;
        match guest.parse().map_err(|_| form())? {
            0 => Err(format!("the forward `{text}` leads to port 0, which no program can listen on")),
            guest => Ok(PortForward { host, guest }),
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The machine switched itself off, or the person ended it with Ctrl-A x.
    Off,
    /// Time was up.
    TimedOut,
    /// Its power was cut, as wanted.
    Cut,
    /// A signal ended it.
    Signalled(Signal),
    /// QEMU itself failed.
    Failed(ExitStatus),
}

impl Outcome {
    /// What the program ends with: as timeout(1), 124 tells that time was up; as in shells, 128 and its number that a signal came.
    pub fn exit_code(self) -> u8 {
        match self {
            Outcome::Off | Outcome::Cut => 0,
            Outcome::TimedOut => 124,
            Outcome::Signalled(signal) => signals::exit_status(signal),
            Outcome::Failed(_) => 1,
        }
    }
}

/// Refuses what cannot be booted, before QEMU is fetched for it.
///
/// # Errors
/// There is no such image, it is compressed, the overlay is none over it, or the metadata is wrong.
pub fn check(options: &Options) -> Result<()> {
    refuse_compressed(&options.image)?;
    hardware::image_disk(&options.image, options.disk)?;
    if let Some(overlay) = &options.overlay {
        kept::check(overlay, &options.image, options.disk_size)?;
    }
    hardware::check(&options.disks)?;
    options.metadata.as_deref().map_or(Ok(()), check_metadata)
}

/// Boots a [`check`]ed image with its serial line on the terminal and returns when the machine has ended. [`tools::find_or_unpack`] gives `tools`,
/// and [`tools::swtpm`] what a TPM takes.
///
/// # Errors
/// The image is none that QEMU can boot, a port is taken.
pub fn run(
    options: &Options,
    tools: &Toolset,
    swtpm: Option<&Program>,
    interrupt: &Interrupt,
    console: &Console,
) -> Result<Outcome> {
    interrupt.begin();
    let overlay = match &options.overlay {
        Some(path) => kept::lay(tools, path, &options.image, options.disk_size),
        None => {
            Overlay::create(tools, &options.image, Some(options.disk_size.unwrap_or(kept::DISK).0)).map_err(Into::into)
        }
    }
    .with_context(|| format!("laying a copy-on-write disk over {}", options.image.display()))?;
    // Holds the unpacked kernel and initramfs until the machine has ended.
    let (_unpacked, firmware) = firmware(options, tools)?;
    // Disks that begin empty, sockets of the cable, and what the machine says.
    let folder = tempfile::tempdir().context("making a folder for the machine")?;
    let mut machine = machine(options, hardware::image_disk(&options.image, options.disk)?, firmware, &overlay);
    machine.disks.extend(hardware::disks(&options.disks, folder.path())?);
    let booting = || format!("booting {}", options.image.display());
    // A carrier is all that an unplugged cable takes.
    let bad = Condition { up: true, ..options.cable } != Condition::default();
    let cable = if bad {
        let (on_cable, cable) =
            Cable::lay(machine, options.cable, tools, folder.path()).map_err(hinted).with_context(booting)?;
        machine = on_cable;
        Some(cable)
    } else {
        None
    };
    if options.record.is_some() || matches!(options.cut, Some(Cut::At(_))) {
        machine.console_file = Some(options.record.clone().unwrap_or_else(|| folder.path().join("record")));
    }
    // Declared before the machine, and so gone after it.
    let tpm = swtpm.map(|swtpm| tpm(swtpm, options, tools, folder.path())).transpose()?;
    machine.tpm = tpm.as_ref().map(|tpm| tpm.socket().to_owned());
    let heard = machine.console_file.as_deref().map(Heard::from_now).transpose()?;
    if let Some(signal) = interrupt.signal() {
        return Ok(Outcome::Signalled(signal));
    }
    let mut vm = Vm::start(tools, &machine).map_err(|error| hinted(error.into())).with_context(booting)?;
    if !options.cable.up {
        let pulled = if bad { vm.set_carrier(0, false) } else { vm.set_user_carrier(false) };
        pulled.context("pulling the network's cable")?;
    }
    let forwards = cable.as_ref().map_or_else(|| vm.forwards().to_vec(), Cable::forwards);
    announce(options, &vm, &forwards, console);
    watch(options, vm, heard, interrupt, console)
}

fn firmware(options: &Options, tools: &Toolset) -> Result<(Option<tempfile::TempDir>, Firmware)> {
    if !options.direct {
        return Ok((None, Firmware::Uefi));
    }
    let folder = tempfile::tempdir().context("making a folder for kernel and initramfs")?;
    let firmware = direct::unpack(tools, &options.image, folder.path())
        .with_context(|| format!("taking kernel and initramfs out of {}", options.image.display()))?;
    Ok((Some(folder), firmware))
}

/// A TPM that remembers for as long as the disk does.
fn tpm(swtpm: &Program, options: &Options, tools: &Toolset, folder: &Path) -> Result<Tpm> {
    let state = match &options.overlay {
        Some(overlay) => tpm_beside(overlay),
        None => folder.join("tpm-state"),
    };
    Tpm::start(swtpm, tools.setpriv.as_deref(), &state, folder).context("giving the machine a TPM")
}

/// `m.qcow2.tpm`, the folder beside `m.qcow2`.
fn tpm_beside(overlay: &Path) -> PathBuf {
    let mut name = overlay.as_os_str().to_owned();
    name.push(".tpm");
    name.into()
}

fn machine(options: &Options, (model, sector): (DiskModel, u32), firmware: Firmware, overlay: &Overlay) -> Machine {
    let mut machine = Machine::new(firmware).disk(Disk { sector, ..Disk::from(overlay).model(model) });
    machine.card_model = options.card;
    machine.more_user_cards = options.cards.saturating_sub(1);
    machine.clock.clone_from(&options.clock);
    machine.watchdog = options.watchdog;
    machine.memory = options.memory;
    machine.cpus = options.cpus;
    machine.accelerator = Accelerator::Auto;
    machine.serial = Serial::Terminal;
    machine.reboots = true;
    let default = [DEFAULT_FORWARD];
    let forwards = if options.forwards.is_empty() { &default[..] } else { &options.forwards };
    for forward in forwards {
        machine = machine.forward(Forward { host: forward.host, guest: forward.guest });
    }
    match &options.metadata {
        Some(metadata) => machine.fw_cfg(FW_CFG_ROLE, metadata),
        None => machine,
    }
}

fn announce(options: &Options, vm: &Vm, forwards: &[Forward], console: &Console) {
    let how = if vm.accelerated() { "KVM" } else { "software emulation: KVM boots no kernel here, expect a minute" };
    console.say(format!("booting {} ({how})", options.image.display()));
    for forward in forwards {
        console.say(format!("127.0.0.1:{} leads to port {} of the guest", forward.host, forward.guest));
    }
    if let Some(overlay) = &options.overlay {
        console.say(format!("what it writes is kept in {}", overlay.display()));
    }
    console
        .say("Ctrl-A x ends it at once, Ctrl-A c leads to QEMU's monitor (system_powerdown presses the power button)");
}

fn watch(
    options: &Options,
    mut vm: Vm,
    mut heard: Option<Heard>,
    interrupt: &Interrupt,
    console: &Console,
) -> Result<Outcome> {
    let seconds = |time: Duration| time.as_secs();
    loop {
        let age = vm.age();
        if let Ok(status) = vm.wait_for_exit(LOOK) {
            if status.success() {
                return Ok(Outcome::Off);
            }
            console.warn(format!("QEMU ended with {status}: {}", vm.stderr()));
            return Ok(Outcome::Failed(status));
        }
        if let Some(signal) = interrupt.signal() {
            vm.quit();
            console.warn(format!("the machine was ended by {signal}"));
            return Ok(Outcome::Signalled(signal));
        }
        let cut = match (&options.cut, &mut heard) {
            (Some(Cut::After(time)), _) => age >= *time,
            (Some(Cut::At(text)), Some(heard)) => heard.says(text)?,
            _ => false,
        };
        if cut {
            vm.cut_power();
            console.say(format!("the machine's power was cut after {} seconds", seconds(age)));
            return Ok(Outcome::Cut);
        }
        if let Some(bound) = options.timeout.filter(|bound| age >= *bound) {
            vm.quit();
            console.warn(format!("the machine was ended after {} seconds", seconds(bound)));
            return Ok(Outcome::TimedOut);
        }
    }
}

/// Refuses an image that a machine cannot read anywhere in.
pub(crate) fn refuse_compressed(image: &Path) -> Result<()> {
    use std::io::Read;
    let mut magic = Vec::new();
    std::fs::File::open(image)
        .and_then(|file| file.take(4).read_to_end(&mut magic))
        .with_context(|| format!("opening the image {}", image.display()))?;
    if magic != ZSTD_MAGIC {
        return Ok(());
    }
    let file = image.display();
    Err(anyhow!("{file} is compressed with Zstandard, and a machine needs a disk it can read anywhere"))
        .context(Hint(format!("zstd -d {file}")))
        .context(format!("booting {file}"))
}

/// The same parser as init's: what it refuses would stop the boot a minute later.
fn check_metadata(path: &Path) -> Result<()> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("reading the role metadata {}", path.display()))?;
    kscratch_metadata::read(&text, None)
        .map(drop)
        .with_context(|| format!("reading the role metadata {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: Result<(u16, u16), &str>) {
        match (text.parse::<PortForward>(), want) {
            (Ok(forward), Ok(want)) => assert_eq!((forward.host, forward.guest), want),
            (Err(error), Err(want)) => assert!(error.contains(want), "{error}"),
            (got, want) => panic!("{text}: got {got:?}, want {want:?}"),
        }
    }

    #[test]
    fn a_forward_is_two_ports() {
        check("8080:80", Ok((8080, 80)));
        check("0:6443", Ok((0, 6443)));
        check("8080", Err("is not HOST:GUEST"));
        check("8080:0", Err("leads to port 0"));
        check("70000:80", Err("is not HOST:GUEST"));
        check("a:b", Err("is not HOST:GUEST"));
        check(":", Err("is not HOST:GUEST"));
    }

    #[test]
    fn a_compressed_image_is_refused_with_the_command_that_helps() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("node.img.zst");
        std::fs::write(&image, [&ZSTD_MAGIC[..], b"rest"].concat()).unwrap();
        let lines = crate::console::error_lines(&refuse_compressed(&image).unwrap_err()).join("\n");
        assert!(lines.contains("hint: zstd -d ") && lines.starts_with("error: booting "), "{lines}");
        let missing = refuse_compressed(&folder.path().join("none")).unwrap_err().to_string();
        assert!(missing.starts_with("opening the image "), "{missing}");
    }

    #[test]
    fn a_tpm_remembers_beside_the_overlay() {
        assert_eq!(tpm_beside(Path::new("/m/a.qcow2")), Path::new("/m/a.qcow2.tpm"));
        assert_eq!(tpm_beside(Path::new("m")), Path::new("m.tpm"));
    }

    #[test]
    fn an_end_becomes_an_exit_code() {
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(Outcome::Off.exit_code(), 0);
        assert_eq!(Outcome::TimedOut.exit_code(), 124);
        assert_eq!(Outcome::Signalled(Signal::SIGTERM).exit_code(), 143);
        assert_eq!(Outcome::Failed(ExitStatus::from_raw(256)).exit_code(), 1);
    }
}
