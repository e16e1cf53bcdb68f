//! The arguments of `kscratch-image cluster`.
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};

use super::Role;
use super::machines::MachinesCommand;

/// The commands of a cluster's identity.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Make a cluster's identity: the folder NAME with settings, authorities, keys, a join token and kubeconfigs
    New(NewArgs),
    /// Write the role metadata of a machine, with just the secrets that its role needs
    Metadata(Box<MetadataArgs>),
    /// Tokens with which machines may join
    #[command(subcommand)]
    Token(TokenCommand),
    /// Make the kubeconfigs anew, good for a year
    Kubeconfig(RenewArgs),
    /// Hold a cluster's folder, and the images of its machines, against a table of rules, and ask its endpoint
    Check(CheckArgs),
    /// Run kubectl as the cluster's administrator: `cluster kubectl lab get nodes`
    Kubectl(KubectlArgs),
    /// Its machines in QEMU.
    #[command(flatten)]
    Machines(MachinesCommand),
}

/// Which cluster.
#[derive(Debug, Clone, Args)]
pub struct ClusterArgs {
    /// Name of the cluster
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Folder that holds the cluster's folder
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub folder: PathBuf,
}

/// `cluster kubeconfig`.
#[derive(Debug, Args)]
#[command(after_help = MERGED)]
pub struct RenewArgs {
    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Put the administrator's into your kubeconfig too: of $KUBECONFIG's files the first that is there, else the last; without it ~/.kube/config
    #[arg(long)]
    pub merge: bool,
    /// Name of context, cluster and user there [default: the cluster's]
    #[arg(long, value_name = "OTHER", requires = "merge")]
    pub context: Option<String>,
}

/// `cluster check`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 all rules hold; 1 one is broken; 3 none is known to be broken, but not all could be checked (`could not check`)."
)]
pub struct CheckArgs {
    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// A finished image for its machines (repeatable): is every image inside that its manifests name, and do their versions of
    /// Kubernetes fit one another and the API server
    #[arg(long, value_name = "FILE")]
    pub image: Vec<PathBuf>,
}

/// What happens to a user's own kubeconfig.
pub(super) const MERGED: &str = "In your kubeconfig everything else stays (comments do not, as when kubectl writes it), an entry of \
that name that is not this cluster's is refused, and the current context stays where there is one. Of several files in $KUBECONFIG this goes for all. A symbolic link is followed. \
`cluster down NAME --delete` takes out again what was put there.";

/// `cluster kubectl`.
#[derive(Debug, Args)]
#[command(after_help = "NAME cannot be left out here: the first word could be a cluster or one of kubectl's commands.")]
pub struct KubectlArgs {
    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Lock that names the version; where there is none, the kubectl that is installed is taken
    #[arg(long, value_name = "FILE", default_value = "kscratch.lock")]
    pub lock: PathBuf,
    /// Folder for downloads and what is compiled [default: the user's cache folder]
    #[arg(long, value_name = "DIR", env = "KSCRATCH_CACHE")]
    pub cache: Option<PathBuf>,
    /// What kubectl is told
    #[arg(value_name = "ARGS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<OsString>,
}

/// How pods of different nodes reach one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// A route per node; the nodes are on one link
    Routed,
    /// VXLAN; wherever the nodes reach one another
    Overlay,
}

impl Mode {
    /// The word that role metadata has for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Routed => "routed",
            Self::Overlay => "overlay",
        }
    }
}

/// With what kube-proxy leads connections from services to pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProxyMode {
    /// A table of its own; many services cost little
    Nftables,
    /// Rules of iptables, for what expects to find them
    Iptables,
}

impl ProxyMode {
    /// The word that role metadata has for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }
}

/// `cluster new`.
#[derive(Debug, Args)]
pub struct NewArgs {
    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Where its API server is reached: a master's address, or a name or address that leads to the masters
    #[arg(long, value_name = "HOST[:PORT]")]
    pub endpoint: String,
    /// The endpoint is an address that no machine has: the masters share it, and one that is alive answers there
    #[arg(long)]
    pub virtual_endpoint: bool,
    /// Addresses of all pods, cut into one /24 per node
    #[arg(long, value_name = "RANGE", default_value_t = kscratch_metadata::DEFAULT_POD_RANGE.to_string())]
    pub pod_range: String,
    /// Addresses of services
    #[arg(long, value_name = "RANGE", default_value_t = kscratch_metadata::DEFAULT_SERVICE_RANGE.to_string())]
    pub service_range: String,
    /// DNS domain of services
    #[arg(long, value_name = "DOMAIN", default_value = kscratch_metadata::DEFAULT_DNS_DOMAIN)]
    pub dns_domain: String,
    /// How pods of different nodes reach one another
    #[arg(long, value_enum, default_value_t = Mode::Routed)]
    pub mode: Mode,
    /// With what kube-proxy leads connections from services to pods
    #[arg(long, value_enum, default_value_t = ProxyMode::Nftables)]
    pub proxy_mode: ProxyMode,
    /// A time server of all its machines, by name or address (repeatable) [default: those that DHCP names]
    #[arg(long, value_name = "HOST")]
    pub time_server: Vec<String>,
    /// Kubernetes version of its images, for `cluster check` [default: the one that kscratch.lock names, where there is one]
    #[arg(long, value_name = "VERSION")]
    pub kubernetes: Option<String>,
    /// How long the first join token is good: 24h, 30d, never, ...
    #[arg(long, value_name = "TIME", default_value = "30d")]
    pub token_expires: String,
}

/// `cluster metadata`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("which").required(true).args(["node", "all"])))]
pub struct MetadataArgs {
    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Name of the machine as a node
    #[arg(long, value_name = "NODE", requires = "role")]
    pub node: Option<String>,
    /// What the machine is
    #[arg(long, value_enum)]
    pub role: Option<Role>,
    /// Its fixed address with the prefix length of its network [default: DHCP]
    #[arg(long, value_name = "ADDRESS/PREFIX")]
    pub address: Option<String>,
    /// Its default gateway
    #[arg(long, value_name = "IP")]
    pub gateway: Option<String>,
    /// The one link that it uses [default: every link]
    #[arg(long, value_name = "NAME|MAC")]
    pub interface: Option<String>,
    /// A name server (repeatable) [default: those that DHCP names]
    #[arg(long, value_name = "IP")]
    pub dns_server: Vec<String>,
    /// A time server, by name or address (repeatable) [default: those of cluster.toml, or those that DHCP names]
    #[arg(long, value_name = "HOST")]
    pub time_server: Vec<String>,
    /// MTU of its link in bytes [default: what the link has]
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<u32>,
    /// Its pods reach the world outside under their own addresses, which are routed there, and not under the node's
    #[arg(long)]
    pub no_masquerade: bool,
    /// A mirror of docker's default registry (repeatable)
    #[arg(long, value_name = "URL")]
    pub docker_mirror: Vec<String>,
    /// A registry without TLS (repeatable)
    #[arg(long, value_name = "HOST[:PORT]|RANGE")]
    pub insecure_registry: Vec<String>,
    /// A disk of its own for docker's store or etcd's data (repeatable), told by `serial`, `wwn` or `path`: docker:serial=S3Z8NB0K
    #[arg(long, value_name = "FOR:KEY=VALUE[,...]")]
    pub disk: Vec<String>,
    /// Addresses of its pods [default: the control plane gives them]
    #[arg(long, value_name = "RANGE")]
    pub pod_range: Option<String>,
    /// A label of the node (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// A taint of the node (repeatable)
    #[arg(long, value_name = "KEY[=VALUE]:EFFECT")]
    pub taint: Vec<String>,
    /// Master: run ordinary pods too
    #[arg(long)]
    pub schedule_pods: bool,
    /// Master: a further name or address of the API server (repeatable)
    #[arg(long, value_name = "HOST")]
    pub api_name: Vec<String>,
    /// Master: one of the masters that begin the cluster, or live, this one among them (repeatable) [default: this one alone, which none can join]
    #[arg(long, value_name = "NODE=IP")]
    pub etcd_member: Vec<String>,
    /// Master: join the masters that live, which --etcd-member names, and never begin a cluster
    #[arg(long)]
    pub join_control_plane: bool,
    /// Write the metadata of every machine in this list into the folder that --output names, and rack.toml: one file for all nodes that
    /// the list tells by mac, serial or uuid
    #[arg(
        long,
        value_name = "FILE",
        requires = "output",
        conflicts_with_all = [
            "role", "address", "gateway", "interface", "dns_server", "time_server", "mtu", "no_masquerade", "docker_mirror",
            "insecure_registry", "pod_range", "label", "taint", "schedule_pods",
            "api_name", "etcd_member", "join_control_plane", "secrets",
        ]
    )]
    pub all: Option<PathBuf>,
    /// File to write; with --all, the folder [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Write the secrets into a file of their own
    #[arg(long, value_name = "FILE", requires = "output")]
    pub secrets: Option<PathBuf>,
}

/// `cluster token`.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it
    Create(TokenCreateArgs),
    /// Print all tokens with their ends
    List(ClusterArgs),
}

/// `cluster token create`.
#[derive(Debug, Args)]
pub struct TokenCreateArgs {
    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// How long it is good: 90m, 24h, 30d, never
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub expires: String,
    /// Print the Secret that a running cluster knows it by, for `kubectl apply -f -`
    #[arg(long)]
    pub manifest: bool,
}
