//! The arguments of the commands of `kscratch-image cluster` that deal with machines in QEMU.
use std::net::Ipv4Addr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::run::tools::Qemu;

use super::cluster::{ClusterArgs, MERGED, Mode, ProxyMode};
use crate::vmcluster::place::DEFAULT_NAME;

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
    /// Have DHCP give other addresses from now on
    Dhcp(DhcpArgs),
    /// End all machines
    Down(DownArgs),
    /// Keep machines: what `up` starts in the background
    #[command(hide = true)]
    Keep(KeepArgs),
}

/// Which cluster's machines: those of the only one that has any where none is named.
#[derive(Debug, Clone, Args)]
pub struct HereArgs {
    /// Name of the cluster [default: the only one with machines in the folder]
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Folder that holds the cluster's folder
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub folder: PathBuf,
}

/// `cluster up`.
#[derive(Debug, Args)]
#[command(after_help = MERGED)]
pub struct UpArgs {
    /// Name of the cluster
    #[arg(value_name = "NAME", default_value = DEFAULT_NAME)]
    pub name: String,
    /// Folder that holds the cluster's folder
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub folder: PathBuf,
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
    /// Processors of a new machine [default: 2, and 1 for nodes that are emulated]
    #[arg(long, value_name = "N")]
    pub cpus: Option<u32>,
    /// Time in a new machine that is emulated goes by this host's clock, also while it has no processor [default: by its work, so that nothing times out for
    /// that, or as in the machines that are there]
    #[arg(long)]
    pub host_time: bool,
    /// Switch nodes on beside masters that are emulated [default: once these are Ready, so that they have the processors]
    #[arg(long)]
    pub at_once: bool,
    /// Size of a new machine's disk, e.g. 8GiB
    #[arg(long, default_value = "8GiB", value_name = "SIZE")]
    pub disk_size: String,
    /// A new machine has a further disk of this size for docker's store, e.g. 20GiB
    #[arg(long, value_name = "SIZE")]
    pub docker_disk: Option<String>,
    /// A new master has a further disk of this size for etcd's data, e.g. 4GiB
    #[arg(long, value_name = "SIZE")]
    pub etcd_disk: Option<String>,
    /// Image of new nodes [default: kscratch-node.img, which is built where there is none]
    #[arg(long, value_name = "FILE")]
    pub image_node: Option<PathBuf>,
    /// Image of new masters [default: kscratch-master.img, which is built where there is none]
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
    /// Put the cluster into your kubeconfig: of $KUBECONFIG's files the first that is there, else the last; without it ~/.kube/config
    #[arg(long)]
    pub merge_kubeconfig: bool,
    /// Name of context, cluster and user there [default: the cluster's]
    #[arg(long, value_name = "OTHER", requires = "merge_kubeconfig")]
    pub context: Option<String>,
    /// Folder for downloads, and for Debian's QEMU where it is unpacked [default: the user's cache folder]
    #[arg(long, value_name = "DIR", env = "KSCRATCH_CACHE")]
    pub cache: Option<PathBuf>,
    /// Which QEMU [default: the one that is installed, if it is 8.1 or newer and there is OVMF]
    #[arg(long, value_enum, env = "KSCRATCH_QEMU")]
    pub qemu: Option<Qemu>,
}

/// `cluster status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The cluster.
    #[command(flatten)]
    pub cluster: HereArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `cluster logs`.
#[derive(Debug, Args)]
// One argument is the machine, two are cluster and machine.
#[command(allow_missing_positional = true)]
pub struct LogsArgs {
    /// The cluster.
    #[command(flatten)]
    pub cluster: HereArgs,
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
#[command(after_help = "NAME cannot be left out here: of several words the first could be a cluster or a machine.")]
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
// One argument is the machine, two are cluster and machine.
#[command(allow_missing_positional = true)]
pub struct CableArgs {
    /// The cluster.
    #[command(flatten)]
    pub cluster: HereArgs,
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
    /// No more than so many kilobits a second come through, each way [default: as many as this machine can]
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "KBIT")]
    pub rate: u32,
}

/// `cluster dhcp`.
#[derive(Debug, Args)]
#[command(
    after_help = "A machine whose address is of DHCP asks for it again when it boots, when its cable is put back, and after half a day. Connections through this machine's ports break."
)]
pub struct DhcpArgs {
    /// The cluster.
    #[command(flatten)]
    pub cluster: HereArgs,
    /// The first of the sixteen addresses that are given away from now on, until the machines are down [at first: 192.168.76.100]
    #[arg(long, value_name = "ADDRESS")]
    pub first: Ipv4Addr,
}

/// `cluster down`.
#[derive(Debug, Args)]
pub struct DownArgs {
    /// The cluster.
    #[command(flatten)]
    pub cluster: HereArgs,
    /// Cut the power instead of pressing power buttons
    #[arg(long)]
    pub cut: bool,
    /// Remove their disks and everything else of them too, and what --merge-kubeconfig put into your kubeconfig; the cluster's identity stays
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
    /// As of `up`
    #[arg(long, value_enum, env = "KSCRATCH_QEMU")]
    pub qemu: Option<Qemu>,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::MachinesCommand;
    use crate::cli::cluster::ClusterCommand;
    use crate::cli::{Cli, Command};

    fn parse(line: &str) -> Result<MachinesCommand, clap::Error> {
        let Command::Cluster(command) = Cli::try_parse_from(line.split_whitespace())?.command else {
            panic!("{line} is no command of `cluster`");
        };
        match *command {
            ClusterCommand::Machines(command) => Ok(command),
            other => panic!("{other:?}"),
        }
    }

    /// The names of cluster and machines that a line gives.
    #[track_caller]
    fn check(line: &str, cluster: Option<&str>, machines: &[&str]) {
        let (name, given) = match parse(line).unwrap() {
            MachinesCommand::Up(args) => (Some(args.name), Vec::new()),
            MachinesCommand::Status(args) => (args.cluster.name, Vec::new()),
            MachinesCommand::Dhcp(args) => (args.cluster.name, Vec::new()),
            MachinesCommand::Down(args) => (args.cluster.name, Vec::new()),
            MachinesCommand::Logs(args) => (args.cluster.name, vec![args.machine]),
            MachinesCommand::Cable(args) => (args.cluster.name, vec![args.machine]),
            MachinesCommand::Power(args) => (Some(args.cluster.name), args.machines),
            MachinesCommand::Keep(_) => panic!("nobody types it"),
        };
        assert_eq!(
            (name.as_deref(), given.iter().map(String::as_str).collect::<Vec<_>>()),
            (cluster, machines.to_vec())
        );
    }

    #[test]
    fn a_cluster_comes_up_without_a_name() {
        let MachinesCommand::Up(args) = parse("kscratch-image cluster up --masters 1 --nodes 2").unwrap() else {
            panic!("it is another command");
        };
        assert_eq!((args.name.as_str(), args.masters, args.nodes), ("lab", Some(1), Some(2)));
    }

    #[test]
    fn a_name_may_be_left_out_where_nothing_has_to_be_guessed() {
        check("kscratch-image cluster up", Some("lab"), &[]);
        check("kscratch-image cluster up blue --nodes 3", Some("blue"), &[]);
        check("kscratch-image cluster status --json", None, &[]);
        check("kscratch-image cluster status blue", Some("blue"), &[]);
        check("kscratch-image cluster down --delete", None, &[]);
        check("kscratch-image cluster logs n1 --follow", None, &["n1"]);
        check("kscratch-image cluster logs blue n1 --tail 3", Some("blue"), &["n1"]);
        check("kscratch-image cluster cable n1 --down", None, &["n1"]);
        check("kscratch-image cluster cable --loss 100 blue n1", Some("blue"), &["n1"]);
        check("kscratch-image cluster power cut blue n1 n2", Some("blue"), &["n1", "n2"]);
        check("kscratch-image cluster dhcp --first 192.168.76.120", None, &[]);
    }

    #[test]
    fn what_could_be_either_is_refused() {
        for line in ["power cut n1", "logs", "cable", "logs blue n1 n2", "dhcp", "dhcp --first n1"] {
            let said = parse(&format!("kscratch-image cluster {line}")).unwrap_err();
            assert_eq!(said.exit_code(), 2, "{line}: {said}");
        }
    }
}
