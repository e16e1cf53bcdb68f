//! The command line of `kscratch-image`, as clap sees it; man pages, completions and `--help` are made from here.
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

pub use crate::image::Form as Format;
use crate::run::tools::Qemu;
use crate::spec::{Flavour, SectorSize};

pub mod cluster;
pub mod machines;
pub mod node;

use cluster::ClusterCommand;
use node::NodeCommand;

/// Build, look into, stamp and run bootable Kubernetes node images.
#[derive(Debug, Parser)]
#[command(name = "kscratch-image", version, propagate_version = true, max_term_width = 100)]
#[command(
    after_help = "Start with:\n  kscratch-image run\nwhich builds a node's image, kscratch-node.img, where there is none, and boots it."
)]
pub struct Cli {
    /// What is told, and how.
    #[command(flatten)]
    pub output: OutputOptions,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct OutputOptions {
    /// Say more: once for each step's details, twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Say nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// When to use colour
    #[arg(long, global = true, value_enum, default_value_t = ColorChoice::Auto, value_name = "WHEN")]
    pub color: ColorChoice,
}

/// When to use colour and moving progress bars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build a disk image
    Build(BuildArgs),
    /// Resolve image.toml to kscratch.lock: every artifact with version, origin, size and digest
    Lock(LockArgs),
    /// Print the default image.toml, commented; with --config, the settings as they would be used
    Config(SpecArgs),
    /// Tell what is in an image: partitions, filesystems, files, versions, role metadata
    Inspect(InspectArgs),
    /// Put role metadata on the ESP of a finished image
    Stamp(StampArgs),
    /// Write an image onto a disk: only what is used, checked on the way and read back; the disk boots once all of it is right
    Flash(FlashArgs),
    /// List this machine's disks with what is on them, and why each is or is not to be flashed
    Devices(DevicesArgs),
    /// Tell from a machine's disk what its last boots said: how far each came, what failed, how it ended
    Autopsy(AutopsyArgs),
    /// Wipe the state of a machine that is off, on its disk: its next boot makes it anew, and it is a new machine
    Reset(ResetArgs),
    /// Boot an image in QEMU; the image itself stays as it was
    Run(RunArgs),
    /// A cluster: its identity, what its machines are given of it, and machines in QEMU
    #[command(subcommand)]
    Cluster(Box<ClusterCommand>),
    /// A machine of a running cluster, by way of its API server: how it is, its logs, start anew, power off
    #[command(subcommand)]
    Node(NodeCommand),
    /// Make a kubeconfig for the cluster that a master without metadata began by itself, from that machine's disk
    Kubeconfig(KubeconfigArgs),
    /// Tell which declaration brought a file into the image, and from which package
    Why(WhyArgs),
    /// Print the JSON Schema of the role metadata
    Schema,
    /// Print a completion script for a shell
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write the man pages into a folder
    Man {
        /// Where the pages go
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}

/// The role an image is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Runs pods: docker, kubelet, kube-proxy
    Node,
    /// Runs the control plane too: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, CoreDNS
    Master,
}

impl Role {
    /// The word that metadata and folders use.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Node => "node",
            Role::Master => "master",
        }
    }
}

/// Where the settings come from.
#[derive(Debug, Clone, Default, Args)]
pub struct SpecArgs {
    /// Settings that differ from the defaults (see `kscratch-image config`) [default: image.toml in this folder, but for `config`]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Which machines it is for [default: cloud, unless the settings say otherwise]
    #[arg(long, value_enum)]
    pub flavour: Option<Flavour>,
    /// Kubernetes: a version such as 1.37.2, or an official server tarball or its folder
    #[arg(long, value_name = "VERSION|FILE")]
    pub kubernetes: Option<String>,
    /// Debian mirror, instead of the one in this machine's apt configuration
    #[arg(long, value_name = "URL")]
    pub debian_mirror: Option<String>,
    /// Folder for downloads, unpacked packages and compiled programs [default: the user's cache folder]
    #[arg(long, value_name = "DIR", env = "KSCRATCH_CACHE")]
    pub cache: Option<PathBuf>,
    /// Use no network; fail, naming the artifact, where something is missing
    #[arg(long)]
    pub offline: bool,
    /// The lock file [default: kscratch.lock beside the config, or in this folder]
    #[arg(long, value_name = "FILE")]
    pub lock: Option<PathBuf>,
}

/// `build`.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// What the machine will be
    #[arg(long, value_enum)]
    pub role: Role,
    /// The settings.
    #[command(flatten)]
    pub spec: SpecArgs,
    /// File to write, or folder for pxe [default: kscratch-ROLE with the form's ending, .img for raw, -pxe for pxe]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The form of the file
    #[arg(long, value_enum, default_value_t = Format::Raw)]
    pub format: Format,
    /// Bytes of the disk's sectors, 512 or 4096: the image boots from disks with just these [default: 512, unless the settings say otherwise]
    #[arg(long, value_name = "BYTES")]
    pub sector_size: Option<SectorSize>,
    /// For pxe: where the folder will be served, http://SERVER/FOLDER/, for the UKI of UEFI HTTP boot; iPXE finds out by itself from its releases of 2024 on
    #[arg(long, value_name = "URL")]
    pub root_url: Option<String>,
    /// Take exactly what kscratch.lock says; fail where it is missing or does not match the settings
    #[arg(long)]
    pub locked: bool,
    /// Role metadata to put on the ESP (can be done later with `stamp`)
    #[arg(long, value_name = "FILE")]
    pub metadata: Option<PathBuf>,
}

impl BuildArgs {
    /// `build --role node` with no other option than the cache.
    pub fn node(cache: Option<PathBuf>) -> BuildArgs {
        BuildArgs {
            role: Role::Node,
            spec: SpecArgs { cache, ..SpecArgs::default() },
            output: None,
            format: Format::Raw,
            sector_size: None,
            root_url: None,
            locked: false,
            metadata: None,
        }
    }
}

/// `lock`.
#[derive(Debug, Args)]
pub struct LockArgs {
    /// The settings.
    #[command(flatten)]
    pub spec: SpecArgs,
    /// Whom the lock is for; a master's is good for nodes too [default: as the lock that there is, otherwise node]
    #[arg(long, value_enum)]
    pub role: Option<Role>,
    /// Resolve only these artifacts anew and keep the others [default: all]
    #[arg(long, value_name = "NAME")]
    pub update: Vec<String>,
}

/// `inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The image: raw, raw.zst, qcow2, vmdk or vhd
    #[arg(value_name = "FILE")]
    pub image: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// List every file with its digest
    #[arg(long)]
    pub files: bool,
}

/// `stamp`.
#[derive(Debug, Args)]
pub struct StampArgs {
    /// The image: raw, qcow2 or vhd
    #[arg(value_name = "FILE")]
    pub image: PathBuf,
    /// The role metadata, one machine's or a rack's
    #[arg(long, value_name = "FILE")]
    pub metadata: PathBuf,
    /// Secrets that stand in a file of their own
    #[arg(long, value_name = "FILE")]
    pub secrets: Option<PathBuf>,
}

/// `flash`.
#[derive(Debug, Args)]
#[command(
    after_help = "The disk must be mounted nowhere and be in nobody's use. --override takes what the refusal names, and that alone:\n  \
    mounted:PLACE  held:DEVICE  partition:NAME  exists:FILE\n\
    A disk that this machine runs from, one that is too small and one that is read-only are refused whatever is said.\n\
    Stopped by Ctrl-C or SIGTERM it ends with 130 or 143; a disk that was begun has no partition table then, and nothing boots from it."
)]
pub struct FlashArgs {
    /// The image: raw, raw.zst, qcow2, vmdk or vhd
    #[arg(value_name = "FILE")]
    pub image: PathBuf,
    /// The disk, or a file to be made
    #[arg(long, value_name = "DEVICE")]
    pub to: PathBuf,
    /// The disk's serial number (its path where it has none): says that this disk is meant [default: asked for on the terminal]
    #[arg(long, value_name = "SERIAL")]
    pub serial: Option<String>,
    /// Role metadata to put on it, one machine's or a rack's
    #[arg(long, value_name = "FILE")]
    pub metadata: Option<PathBuf>,
    /// Secrets that stand in a file of their own
    #[arg(long, value_name = "FILE", requires = "metadata")]
    pub secrets: Option<PathBuf>,
    /// The image's block map (bmap 2.0) [default: the one beside the image, else one is made by reading all of it]
    #[arg(long, value_name = "FILE")]
    pub map: Option<PathBuf>,
    /// A refusal that does not count, as it names itself (repeatable)
    #[arg(long = "override", value_name = "WHAT")]
    pub overrides: Vec<String>,
    /// Look at everything, tell what would be overwritten, and write nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `reset`.
#[derive(Debug, Args)]
#[command(
    after_help = "The disk must be mounted nowhere and in nobody's use, and nothing overrides that. --override takes what the refusal names, and that alone:\n  \
    etcd:NAME (a master's share of etcd, which is lost)  holds:WHAT (what is on the partition, and is no state)\n\
    What is wiped is the first MiB of the state partition: the next boot finds it blank. The rest is overwritten only as it is needed, and can be read off the disk until then.\n\
    Role metadata, the flight recorder and the disks of [[disks]] stay as they are. Who the machine is goes too: `node reset --keep-identity` of a running machine keeps that."
)]
pub struct ResetArgs {
    /// The machine's disk: a raw, qcow2 or vhd file, or a block device
    #[arg(value_name = "FILE|DEVICE")]
    pub disk: PathBuf,
    /// The disk's serial number (its path where it has none): says that this disk is meant [default: asked for on the terminal]
    #[arg(long, value_name = "SERIAL")]
    pub serial: Option<String>,
    /// Say that this file is meant; a device is named by --serial
    #[arg(long, conflicts_with = "serial")]
    pub yes: bool,
    /// A refusal that does not count, as it names itself (repeatable)
    #[arg(long = "override", value_name = "WHAT")]
    pub overrides: Vec<String>,
    /// Look at everything, tell what would be wiped, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Refused with words: whoever knows it of `node reset` looks for it here
    #[arg(long, hide = true)]
    pub keep_identity: bool,
}

/// `devices`.
#[derive(Debug, Args)]
pub struct DevicesArgs {
    /// The image that is to go onto one of them: those that are too small for it are told
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// Those without a medium too
    #[arg(long)]
    pub all: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `autopsy`.
#[derive(Debug, Args)]
pub struct AutopsyArgs {
    /// The machine's disk: a raw, raw.zst or qcow2 image, what `run --overlay` keeps, or a block device; it is only read
    #[arg(value_name = "FILE")]
    pub disk: PathBuf,
    /// Tell this boot: 1 is the last one, 2 the one before it [default: the last one, and a line for each before it]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub boot: Option<u32>,
    /// Tell every boot in full, the oldest first
    #[arg(long, conflicts_with = "boot")]
    pub all: bool,
    /// Print every entry that is kept of those that are told in full
    #[arg(long)]
    pub log: bool,
    /// Print JSON: an array of every boot, the oldest first, or of the one that --boot names
    #[arg(long)]
    pub json: bool,
}

/// `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The image: raw, qcow2, vmdk or vhd [default: kscratch-node.img, which is built where there is none]
    #[arg(value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// Boot kernel and initramfs directly, without firmware
    #[arg(long)]
    pub direct: bool,
    /// Memory in MiB
    #[arg(long, default_value_t = 2048, value_name = "MIB")]
    pub memory: u32,
    /// Processors
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub cpus: u32,
    /// Forward a port of this machine to the guest (repeatable) [default: 8080:8080]
    #[arg(long, value_name = "HOST:GUEST")]
    pub forward: Vec<String>,
    /// Role metadata for this run, handed over by firmware (fw_cfg)
    #[arg(long, value_name = "FILE")]
    pub metadata: Option<PathBuf>,
    /// Size of the disk that the guest sees, e.g. 8GiB [default: 8GiB, or that of the overlay that it goes on from]
    #[arg(long, value_name = "SIZE")]
    pub disk_size: Option<String>,
    /// End the machine after this many seconds
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// Keep what the machine writes in this qcow2 file, and go on from it next time
    #[arg(long, value_name = "FILE")]
    pub overlay: Option<PathBuf>,
    /// Append all that the machine says on its serial line to this file
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// How the disk is reached: virtio, nvme, sata, scsi, usb, cd (read-only), or megasas, which the firmware does not boot from
    #[arg(long, value_name = "MODEL", default_value = "virtio", help_heading = "Hardware")]
    pub disk_model: String,
    /// Bytes of the disk's sectors: 512 or 4096 [default: those that the image is made for]
    #[arg(long, value_name = "BYTES", help_heading = "Hardware")]
    pub sector_size: Option<String>,
    /// A further disk: a file that is written to, or a size for one that is empty and goes with the machine (repeatable)
    #[arg(long, value_name = "FILE|SIZE[,model=MODEL][,sector=BYTES][,serial=TEXT]", help_heading = "Hardware")]
    pub disk: Vec<String>,
    /// The network card: virtio, e1000e, igb, e1000, rtl8139
    #[arg(long, value_name = "MODEL", default_value = "virtio", help_heading = "Hardware")]
    pub nic: String,
    /// How many of these cards it has, each on a network of its own; ports are forwarded to the first
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8), help_heading = "Hardware")]
    pub nics: u8,
    /// The machine has a watchdog, which resets it where it hangs
    #[arg(long, help_heading = "Hardware")]
    pub watchdog: bool,
    /// The machine has a TPM 2.0 (by swtpm), whose memory is kept in a folder beside --overlay, or goes with the machine
    #[arg(long, help_heading = "Hardware")]
    pub tpm: bool,
    /// What the machine's clock says at start, in UTC, e.g. 2031-01-01T00:00:00 [default: this machine's time]
    #[arg(long, value_name = "TIME", help_heading = "Hardware")]
    pub clock: Option<String>,
    /// The network's cable is not plugged in
    #[arg(long, help_heading = "Faults")]
    pub unplugged: bool,
    /// So many of a thousand frames are lost
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, help_heading = "Faults", value_parser = clap::value_parser!(u16).range(..=1000))]
    pub loss: u16,
    /// Frames come through so many milliseconds later
    #[arg(long, value_name = "MS", default_value_t = 0, hide_default_value = true, help_heading = "Faults", value_parser = clap::value_parser!(u64).range(..=60_000))]
    pub delay: u64,
    /// No more than so many kilobits a second come through, each way
    #[arg(long, value_name = "KBIT", default_value_t = 0, hide_default_value = true, help_heading = "Faults")]
    pub rate: u32,
    /// Cut the power after this many seconds: what the machine has not flushed is lost
    #[arg(long, value_name = "SECONDS", help_heading = "Faults")]
    pub cut_after: Option<u64>,
    /// Cut the power when the machine says a line with this in it, e.g. "service kubelet: ready"
    #[arg(long, value_name = "TEXT", help_heading = "Faults", conflicts_with = "cut_after")]
    pub cut_at: Option<String>,
    /// Folder that keeps Debian's QEMU where it is unpacked [default: the user's cache folder]
    #[arg(long, value_name = "DIR", env = "KSCRATCH_CACHE")]
    pub cache: Option<PathBuf>,
    /// Which QEMU [default: the one that is installed, if it is 8.1 or newer and there is OVMF]
    #[arg(long, value_enum, env = "KSCRATCH_QEMU")]
    pub qemu: Option<Qemu>,
}

/// `kubeconfig`.
#[derive(Debug, Args)]
pub struct KubeconfigArgs {
    /// The machine's disk: a raw or qcow2 image, what `run --overlay` keeps, or a block device; it is only read
    #[arg(value_name = "FILE")]
    pub disk: PathBuf,
    /// Where the API server is reached [default: the machine's address, as its disk tells it]
    #[arg(long, value_name = "HOST[:PORT]")]
    pub server: Option<String>,
    /// File to write
    #[arg(short, long, value_name = "FILE", default_value = crate::cluster::folder::ADMIN)]
    pub output: PathBuf,
    /// Replace the file where it is there already
    #[arg(long)]
    pub force: bool,
}

/// `why`.
#[derive(Debug, Args)]
pub struct WhyArgs {
    /// Absolute path in the root tree, e.g. /usr/lib/x86_64-linux-gnu/libc.so.6
    #[arg(value_name = "PATH")]
    pub path: String,
    /// The role
    #[arg(long, value_enum, default_value_t = Role::Node)]
    pub role: Role,
    /// The settings.
    #[command(flatten)]
    pub spec: SpecArgs,
}
