//! A [`Plan`] is what a machine will do, as data: named phases of steps, made from metadata and facts, compared in tests.
pub mod cluster;
mod clusterca;
mod cni;
mod controlplane;
mod display;
mod docker;
mod error;
mod firewall;
mod identity;
mod kubelet;
mod kubeproxy;
mod links;
mod logs;
mod membership;
mod phases;
mod rights;
mod services;
#[cfg(test)]
pub(crate) mod tests;

use std::net::IpAddr;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

pub use cluster::REMEMBERED_NODES;
pub use clusterca::{CLUSTER_CA, Change, PKI};
pub use controlplane::{ETCD_CA, ETCD_DATA_CA, ETCD_WAL, UPSTREAM};
pub use error::PlanError;
pub use identity::{is_fixed, uplink};
pub use links::{Made, links_of, network, superseded};
pub use membership::{CLIENT, PUT_ASIDE, REMEMBERED_NAME, put_aside};
pub use phases::{REMEMBERED_POD_RANGE, known_pods, known_range, node, pod_network, range_to_remember, runtime};
pub use rights::Rights;

/// Components of the control plane whose images a master's image must bring, as its release file names them.
pub fn control_plane_images() -> impl Iterator<Item = &'static str> {
    controlplane::Master::needed_images()
}

/// Phases in the order in which they are applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The phases.
    pub phases: Vec<Phase>,
}

/// A named part of the boot; its start, end and result go to the console and the boot record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phase {
    /// One word, e.g. `network`.
    pub name: &'static str,
    /// What is done, in order.
    pub steps: Vec<Step>,
}

/// One action. Applying it decides nothing. `Debug` and `Display` never show what a private file holds.
#[derive(Clone, PartialEq, Eq)]
pub enum Step {
    /// Tell the person at the console something; nothing is done.
    Note(String),
    /// Write `value` to `/proc/sys/<key>` (key with slashes).
    Sysctl {
        /// Path below `/proc/sys`, e.g. `net/ipv4/ip_forward`.
        key: String,
        /// What is written.
        value: String,
    },
    /// Set the kernel's host name.
    Hostname(String),
    /// Make a directory and its parents. Files directly in it that root left there become its owner's.
    Directory {
        /// Absolute path.
        path: String,
        /// Permission bits of the last one.
        mode: u32,
        /// User and group of the last one.
        owner: u32,
    },
    /// Write a whole file (temporary file, rename).
    File {
        /// Absolute path.
        path: String,
        /// Its contents.
        contents: Vec<u8>,
        /// Permission bits.
        mode: u32,
        /// User and group.
        owner: u32,
    },
    /// Have no certificate of the kubelet's be another cluster's, and remember which cluster they are of.
    ClusterCa {
        /// The cluster's CA, in PEM.
        ca: String,
        /// What becomes of the certificates.
        change: Change,
    },
    /// Have the kubelet's client certificate be one of this name, or none, and remember the name: in an order that a power cut cannot spoil.
    NodeName {
        /// The node's name.
        name: String,
        /// Whose certificate there is, where it is not this node's: it is put aside.
        left: Option<String>,
        /// Whether the one that this name had is taken back.
        returns: bool,
    },
    /// Remove every file below a directory that no `File` step of this plan writes (stale manifests).
    Prune {
        /// Absolute path of the directory.
        path: String,
    },
    /// Remove a certificate and its key where a power cut has left one of them without contents: who wrote them makes them anew.
    HalfPair {
        /// Absolute path of the certificate.
        certificate: String,
        /// And of the key.
        key: String,
    },
    /// Bring a link up, setting its MTU first where given.
    LinkUp {
        /// Name of the link.
        link: String,
        /// MTU in bytes.
        mtu: Option<u32>,
    },
    /// Make a bond, a VLAN or a bridge (or correct the one that is there), with those of its members that are there.
    MakeLink {
        /// Name of the link.
        link: String,
        /// What it is.
        made: Made,
    },
    /// Get and keep a DHCP lease on a link.
    Dhcp {
        /// Name of the link.
        link: String,
        /// Metric of the routes that it brings.
        metric: Option<u32>,
        /// Whether the boot does not wait for it.
        optional: bool,
    },
    /// Get and keep a DHCPv6 lease on a link.
    Dhcp6 {
        /// Name of the link.
        link: String,
        /// Whether the boot does not wait for it.
        optional: bool,
    },
    /// Wait for one of those leases of DHCP, of whichever link, although none of them is waited for by itself: the machine is planned with its address.
    AnyLease,
    /// Give a link fixed addresses.
    Addresses {
        /// Name of the link.
        link: String,
        /// Addresses with their prefix lengths.
        addresses: Vec<IpNet>,
        /// Whether it has no other IPv4 addresses than these.
        alone: bool,
    },
    /// Take an address from a link where it has it.
    RemoveAddress {
        /// Name of the link.
        link: String,
        /// Address with its prefix length.
        address: IpNet,
    },
    /// Set a route.
    Route {
        /// Where to, `0.0.0.0/0` for the default route.
        destination: IpNet,
        /// Through which neighbour; none for what is on the link itself.
        gateway: Option<IpAddr>,
        /// Name of the link; none where the gateway tells it.
        link: Option<String>,
        /// Smaller is preferred.
        metric: Option<u32>,
    },
    /// Remove a route where it is there.
    RemoveRoute {
        /// Where to.
        destination: IpNet,
        /// Through which neighbour.
        gateway: Option<IpAddr>,
        /// Name of the link.
        link: Option<String>,
        /// Its metric.
        metric: Option<u32>,
    },
    /// Remove a link where it exists (a stale `docker0`).
    RemoveLink {
        /// Name of the link.
        link: String,
    },
    /// Make a bridge (or correct the one that is there) with exactly this address, and bring it up.
    Bridge {
        /// Name of the bridge, `cbr0`.
        link: String,
        /// The node range's first address with the range's prefix length (R13).
        address: Ipv4Net,
        /// MTU in bytes.
        mtu: u32,
    },
    /// Load a whole nftables ruleset in one transaction (`nft -f -`).
    Firewall {
        /// The ruleset's text.
        ruleset: String,
    },
    /// Make certificates as a file (JSON) wants them: what is sound is kept (`kscratch-agent certificates`).
    Certificates {
        /// Absolute path of the file.
        wanted: String,
    },
    /// Make docker's store know the images that the root brings.
    SeedImages,
    /// Hand a service to the supervisor.
    Service(Service),
}

/// A supervised program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// One word, e.g. `dockerd`; names its cgroup and its log too.
    pub name: &'static str,
    /// Absolute path of the program.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: Vec<(String, String)>,
    /// Started once these are ready.
    pub after: Vec<&'static str>,
    /// When it counts as ready.
    pub ready: Ready,
    /// How long it may take to get ready before the console says so.
    pub ready_within: Duration,
    /// How long it may give no answer once it was ready before it is killed, and started again; none where what makes it ready says nothing of whether
    /// it still works.
    pub answers_within: Option<Duration>,
    /// How long it may take to stop after SIGTERM before SIGKILL.
    pub stop_within: Duration,
    /// `oom_score_adj` of the process.
    pub oom_score_adj: i32,
    /// RLIMIT_NOFILE, soft and hard.
    pub open_files: u64,
    /// Whether its children outlive it on a restart (dockerd's live-restore, containerd's shims): only the main process is
    /// signalled on stop, never the cgroup.
    pub leave_children: bool,
    /// What it may do; `None` for root with everything that root may.
    pub rights: Option<Rights>,
    /// What PID 1 opens for it as its standard input, whatever its own rights are; otherwise it reads nothing.
    pub reads: Option<Input>,
    /// Whether it is stopped before all others, which go on until it has ended.
    pub stops_first: bool,
    /// Whether its lines are few and for people: the console shows them as they come.
    pub tells: bool,
}

/// What a service reads that it may not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The kernel's log, from its first record that is left.
    KernelLog,
}

impl Input {
    /// Its file.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::KernelLog => "/dev/kmsg",
        }
    }
}

/// How readiness is found out: by asking, never by sleeping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ready {
    /// A unix socket accepts a connection.
    UnixSocket(String),
    /// An HTTP GET over a unix socket answers 200.
    UnixHttp {
        /// Path of the socket.
        socket: String,
        /// Path of the request.
        path: String,
    },
    /// A file is there: the service writes it, and a start of the service removes the one of the start before.
    File(String),
    /// An HTTP GET on the loopback address answers 200.
    Http {
        /// TCP port.
        port: u16,
        /// Path of the request.
        path: String,
    },
}
