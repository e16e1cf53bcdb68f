//! The arguments of `kscratch-image node`.
use std::path::PathBuf;

use clap::{Args, Subcommand};

/// The commands of a machine of a running cluster.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Tell how it is: Ready or why not, addresses, versions, what it uses
    Status(StatusArgs),
    /// Print a service's log, or the names of all logs
    Logs(LogsArgs),
    /// Have it start anew, its pods ended in order
    #[command(after_help = TOLD)]
    Reboot(EndArgs),
    /// Have it power off, its pods ended in order
    #[command(after_help = TOLD)]
    Shutdown(EndArgs),
    /// Have it start anew with its state wiped: images, volumes, logs, and who it is; not for masters
    #[command(after_help = WIPED)]
    Reset(ResetArgs),
}

/// How a machine is told.
const TOLD: &str = "An annotation of the Node tells the machine, for this boot alone: who may change Nodes, or their status (`nodes/status`), may do it. With kubectl it is
`kubectl annotate node NODE kscratch/reboot-requested=BOOT` (or kscratch/shutdown-requested), BOOT being its status.nodeInfo.bootID.";

/// What a reset does.
const WIPED: &str = "The next boot wipes state before anything reads it; a power cut on the way is no harm. Without its identity the machine joins as a \
new one, by the token of its metadata, which must be good then, and once the cluster has not heard of the Node for a while.";

/// Which machine.
#[derive(Debug, Clone, Args)]
pub struct NodeArgs {
    /// Name of the node
    #[arg(value_name = "NODE")]
    pub name: String,
    /// The way to the cluster, and who you are there; its current context counts
    #[arg(long, value_name = "FILE", env = "KUBECONFIG")]
    pub kubeconfig: PathBuf,
}

/// `node status`.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 it is Ready; 1 it is not, or it could not be asked.")]
pub struct StatusArgs {
    /// The machine.
    #[command(flatten)]
    pub node: NodeArgs,
    /// Print JSON: the Node object, and the kubelet's figures of the machine
    #[arg(long)]
    pub json: bool,
}

/// `node logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The machine.
    #[command(flatten)]
    pub node: NodeArgs,
    /// A service (kubelet, dockerd, ...), or a file below /var/log [default: list the services' logs]
    #[arg(value_name = "LOG")]
    pub log: Option<String>,
    /// Print so many lines of its last 8 MiB [default: its last 64 KiB]
    #[arg(long, value_name = "N", requires = "log")]
    pub tail: Option<u64>,
    /// Go on printing what is added
    #[arg(short, long, requires = "log")]
    pub follow: bool,
}

/// `node reboot` and `node shutdown`.
#[derive(Debug, Args)]
pub struct EndArgs {
    /// The machine.
    #[command(flatten)]
    pub node: NodeArgs,
    /// Wait until it is back and Ready, or off
    #[arg(long)]
    pub wait: bool,
    /// How many seconds to wait at most
    #[arg(long, value_name = "SECONDS", default_value_t = 600, requires = "wait")]
    pub timeout: u64,
}

/// `node reset`.
#[derive(Debug, Args)]
pub struct ResetArgs {
    /// The machine, and whether to wait.
    #[command(flatten)]
    pub end: EndArgs,
    /// Keep who it is: machine id, name, and the certificate that it has in the cluster
    #[arg(long)]
    pub keep_identity: bool,
    /// Say that all else of its state is to go
    #[arg(long, required = true)]
    pub yes: bool,
}
