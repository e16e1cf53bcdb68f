//! The arguments of the commands of `kscratch-image cluster` that deal with machines in QEMU.
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::cluster::{ClusterArgs, Mode, ProxyMode};

/// The commands of a cluster's machines in QEMU.
#[derive(Debug, Subcommand)]
pub enum MachinesCommand {
    /// Boot a whole cluster in QEMU on a private network and wait until all its nodes are Ready
    Up(UpArgs),
    /// Tell how the machines in QEMU are
    Status(StatusArgs),
    /// Print what a machine said on its serial line
    Logs(LogsArgs),
    /// Switch machines off and on
    Power(PowerArgs),
    /// Pull a machine's network cable, or make it a bad one; without options, a good one
    Cable(CableArgs),
    /// End all machines
    Down(DownArgs),
    /// Keep machines: what `up` starts in the background
    #[command(hide = true)]
    Keep(KeepArgs),
}

/// `cluster up`.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Masters: 1, 3 or 5; 0 for nodes that stand alone [default: 1, or those that are there]
    #[arg(long, value_name = "N")]
    pub masters: Option<u8>,
    /// Nodes; more than are there adds some [default: 2, or those that are there]
    #[arg(long, value_name = "N")]
    pub nodes: Option<u8>,
    /// How pods of different nodes reach one another [default: routed, or as the cluster was made]
    #[arg(long, value_enum)]
    pub mode: Option<Mode>,
    /// With what kube-proxy leads connections from services to pods [default: nftables, or as the cluster was made]
    #[arg(long, value_enum)]
    pub proxy_mode: Option<ProxyMode>,
    /// Memory of a new machine in MiB
    #[arg(long, default_value_t = 2048, value_name = "MIB")]
    pub memory: u32,
    /// Processors of a new machine
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub cpus: u32,
    /// Size of a new machine's disk, e.g. 8GiB
    #[arg(long, default_value = "8GiB", value_name = "SIZE")]
    pub disk_size: String,
    /// Image of nodes [default: kscratch-node.img, which is built where there is none]
    #[arg(long, value_name = "FILE")]
    pub image_node: Option<PathBuf>,
    /// Image of masters [default: kscratch-master.img, which is built where there is none]
    #[arg(long, value_name = "FILE")]
    pub image_master: Option<PathBuf>,
    /// Port of this machine that leads to the API server [default: any free one]
    #[arg(long, default_value_t = 0, value_name = "PORT", hide_default_value = true)]
    pub api_port: u16,
    /// Forward a port of this machine to one of the cluster's (repeatable), e.g. 8080:n1:80
    #[arg(long, value_name = "HOST:MACHINE:PORT")]
    pub forward: Vec<String>,
    /// Let the machines reach what this machine reaches
    #[arg(long)]
    pub outside: bool,
    /// How long it may take until all nodes are Ready
    #[arg(long, default_value_t = 1800, value_name = "SECONDS")]
    pub timeout: u64,
    /// Stay, and end the machines with this program
    #[arg(long)]
    pub foreground: bool,
    /// Folder for downloads, and for Debian's QEMU where none is installed [default: the user's cache folder]
    #[arg(long, value_name = "DIR", env = "KSCRATCH_CACHE")]
    pub cache: Option<PathBuf>,
}

/// `cluster status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `cluster logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// The machine
    #[arg(value_name = "MACHINE")]
    pub machine: String,
    /// Go on with what it says from now on
    #[arg(long)]
    pub follow: bool,
    /// The last lines only
    #[arg(long, value_name = "N", conflicts_with = "follow")]
    pub tail: Option<usize>,
}

/// What is done with a machine's power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PowerAction {
    /// Press the power button and wait for the end
    Off,
    /// Cut the power: what was not written is lost
    Cut,
    /// Switch on
    On,
    /// Press the reset button
    Reset,
}

/// `cluster power`.
#[derive(Debug, Args)]
pub struct PowerArgs {
    /// What to do
    #[arg(value_enum)]
    pub action: PowerAction,
    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// The machines
    #[arg(value_name = "MACHINE", required = true)]
    pub machines: Vec<String>,
    /// With `on`: what the machine's clock says then, in UTC, e.g. 2030-01-01T00:00:00 [default: this machine's time]
    #[arg(long, value_name = "TIME")]
    pub clock: Option<String>,
}

/// `cluster cable`.
#[derive(Debug, Args)]
pub struct CableArgs {
    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// The machine
    #[arg(value_name = "MACHINE")]
    pub machine: String,
    /// Nothing comes through
    #[arg(long)]
    pub down: bool,
    /// So many of a thousand frames are lost
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u16).range(..=1000))]
    pub loss: u16,
    /// Frames come through so many milliseconds later
    #[arg(long, default_value_t = 0, value_name = "MS", value_parser = clap::value_parser!(u64).range(..=60_000))]
    pub delay: u64,
}

/// `cluster down`.
#[derive(Debug, Args)]
pub struct DownArgs {
    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Cut the power instead of pressing power buttons
    #[arg(long)]
    pub cut: bool,
    /// Remove their disks and everything else of them too; the cluster's identity stays
    #[arg(long)]
    pub delete: bool,
}

/// `cluster keep`.
#[derive(Debug, Args)]
pub struct KeepArgs {
    /// The machines' folder
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// As of `up`
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
}
