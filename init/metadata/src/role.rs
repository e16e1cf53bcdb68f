//! The shape of [`RoleMetadata`]: what a person may say about a machine, turned into types with every default filled in.
use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use crate::address::{Endpoint, Interface};
use crate::console::Console;
use crate::controlplane::ControlPlane;
use crate::disks::{Disk, Purpose};
use crate::install::Install;
use crate::links::Link;
use crate::logs::Logs;
use crate::secret::{self, Secret};
use crate::shutdown::Shutdown;
use crate::watchdog::Watchdog;

/// Pod addresses of all nodes, where the metadata names none.
pub const DEFAULT_POD_RANGE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16);
/// Service addresses, where the metadata names none.
pub const DEFAULT_SERVICE_RANGE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16);
/// DNS domain of services, where the metadata names none.
pub const DEFAULT_DNS_DOMAIN: &str = "cluster.local";
/// Open files per process under docker, where the metadata gives no number (the guide's `DOCKER_NOFILE`).
pub const DEFAULT_OPEN_FILES: u64 = 1_000_000;

/// What one machine is and how it is to be set up: the whole of a `role.toml`, checked, with defaults filled in.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RoleMetadata {
    /// Version of this format: 1.
    #[schemars(extend("const" = 1))]
    pub version: u32,
    /// What the machine is.
    pub role: Role,
    /// The cluster it belongs to; without one it stands alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Cluster>,
    /// A master's share of the control plane.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_plane: Option<ControlPlane>,
    /// The machine as a Kubernetes node.
    #[schemars(default)]
    pub node: Node,
    /// Its place on the network.
    #[schemars(default)]
    pub network: Network,
    /// dockerd's settings.
    #[schemars(default)]
    pub docker: Docker,
    /// How it proves to the cluster that it may join.
    #[schemars(default)]
    pub join: Join,
    /// Where it gets the time.
    #[schemars(default)]
    pub time: Time,
    /// What may be done at its console.
    #[schemars(default)]
    pub console: Console,
    /// How much time pods have when the machine stops or starts anew.
    #[schemars(default)]
    pub shutdown: Shutdown,
    /// What resets it where it hangs.
    #[schemars(default)]
    pub watchdog: Watchdog,
    /// Where its logs go, besides its own disk.
    #[schemars(default)]
    pub logs: Logs,
    /// Further fields of the KubeletConfiguration, as they are; fields that kscratch sets itself are refused.
    #[schemars(default)]
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub kubelet: serde_json::Map<String, serde_json::Value>,
    /// Disks besides the one that the machine runs from, and what is kept on them.
    #[schemars(default)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<Disk>,
    /// What the installer of an ISO image does unattended; without it, it writes to no disk.
    #[schemars(default)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub install: Option<Install>,
    /// Static pods besides those of the image.
    #[schemars(default)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<Manifest>,
}

/// What a machine is in its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Runs pods.
    Node,
    /// Runs the control plane.
    Master,
}

/// A cluster and its address ranges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct Cluster {
    /// Name, as it stands in kubeconfigs. Default `kubernetes`.
    pub name: String,
    /// API server as `HOST[:PORT]`, port 6443 by default. A node needs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub endpoint: Option<Endpoint>,
    /// Certificate of the cluster's CA, PEM. A node needs it: it is how the cluster proves itself. While a CA is replaced, several: the one that signs comes first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Addresses of all pods, cut into one /24 per node. Default 10.244.0.0/16.
    #[schemars(with = "String")]
    pub pod_range: Ipv4Net,
    /// Addresses of services. Default 10.96.0.0/16.
    #[schemars(with = "String")]
    pub service_range: Ipv4Net,
    /// Address of the cluster's DNS service. Default: the tenth of the service range.
    #[schemars(with = "String")]
    pub dns_address: Ipv4Addr,
    /// DNS domain of services. Default `cluster.local`.
    pub dns_domain: String,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            name: "kubernetes".to_owned(),
            endpoint: None,
            ca: None,
            pod_range: DEFAULT_POD_RANGE,
            service_range: DEFAULT_SERVICE_RANGE,
            dns_address: Self::default_dns_address(DEFAULT_SERVICE_RANGE),
            dns_domain: DEFAULT_DNS_DOMAIN.to_owned(),
        }
    }
}

impl Cluster {
    /// The tenth address of a service range, where by custom the DNS service is.
    pub fn default_dns_address(service_range: Ipv4Net) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(service_range.network()).saturating_add(10))
    }
}

/// The machine as a Kubernetes node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Node {
    /// Name (RFC 1123 subdomain). Default: the one that the node joined its cluster under, else what DHCP says, else one
    /// made of the machine's identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Addresses of this machine's pods (the guide's manual mode); without it, in a cluster, the control plane gives one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub pod_range: Option<Ipv4Net>,
    /// Labels with which the node registers.
    #[schemars(default)]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Taints with which the node registers, as `key[=value]:Effect`.
    #[schemars(default, with = "Vec<String>")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<Taint>,
}

/// Keeps pods away that do not tolerate it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Taint {
    /// Qualified name.
    pub key: String,
    /// May be empty.
    pub value: String,
    /// What happens to pods that do not tolerate it.
    pub effect: Effect,
}

impl fmt::Display for Taint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if !self.value.is_empty() {
            write!(f, "={}", self.value)?;
        }
        write!(f, ":{}", self.effect)
    }
}

impl Serialize for Taint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a taint does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// New pods do not come here.
    NoSchedule,
    /// New pods come here only if there is no other place.
    PreferNoSchedule,
    /// Pods that are here are sent away.
    NoExecute,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSchedule => "NoSchedule",
            Self::PreferNoSchedule => "PreferNoSchedule",
            Self::NoExecute => "NoExecute",
        })
    }
}

/// The machine's place on the network. By default: DHCP on every link with a carrier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct Network {
    /// The one link to use, by name or by hardware address. Default: every link with hardware behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub interface: Option<Interface>,
    /// A fixed address; without it, DHCP.
    #[serde(rename = "static", skip_serializing_if = "Option::is_none")]
    pub fixed: Option<Static>,
    /// MTU of the link in bytes, 576 to 65535. Default: what the link has.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 576, "maximum" = 65535))]
    pub mtu: Option<u32>,
    /// Name servers. Default: those that DHCP names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub dns_servers: Vec<Ipv4Addr>,
    /// Search domains. Default: those that DHCP names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// How pods of different nodes reach one another. Default `routed`.
    pub mode: Mode,
    /// With what kube-proxy leads connections from services to pods. Default `nftables`.
    pub proxy_mode: ProxyMode,
    /// Whether pods reach the world outside under the node's address. Default true; false where pod addresses are routed there.
    pub masquerade: bool,
    /// Several links, bonds, VLANs and bridges, by name, instead of `interface`, `static` and `mtu`. Other cards are left alone.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub links: BTreeMap<String, Link>,
}

impl Network {
    /// Whether nothing is said of links and addresses: then the kernel command line's word counts, and without that DHCP on every card.
    pub fn leaves_links_open(&self) -> bool {
        self.interface.is_none() && self.fixed.is_none() && self.mtu.is_none() && self.links.is_empty()
    }
}

impl Default for Network {
    fn default() -> Self {
        Self {
            interface: None,
            fixed: None,
            mtu: None,
            dns_servers: Vec::new(),
            search: Vec::new(),
            mode: Mode::Routed,
            proxy_mode: ProxyMode::Nftables,
            masquerade: true,
            links: BTreeMap::new(),
        }
    }
}

/// A fixed address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Static {
    /// Address with the prefix length of its network, e.g. `192.168.7.20/24`.
    #[schemars(with = "String")]
    pub address: Ipv4Net,
    /// Default gateway, inside that network.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub gateway: Option<Ipv4Addr>,
}

/// How pods of different nodes reach one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A route per node's pod range.
    Routed,
    /// VXLAN; costs 50 bytes of MTU.
    Overlay,
}

/// With what kube-proxy leads connections from services to pods (its `--proxy-mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProxyMode {
    /// An nftables table of its own; many services cost little.
    Nftables,
    /// Rules of iptables, for what expects to find them.
    Iptables,
}

impl ProxyMode {
    /// The word that role metadata and kube-proxy's configuration have for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }
}

/// dockerd's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct Docker {
    /// Registries without TLS, as `HOST[:PORT]` or a range of addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub insecure_registries: Vec<String>,
    /// Mirrors of the default registry, as http or https URLs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<String>,
    /// RLIMIT_NOFILE of containers, soft and hard. Default 1000000.
    #[schemars(extend("minimum" = 1024, "maximum" = 1_048_576))]
    pub open_files: u64,
}

impl Default for Docker {
    fn default() -> Self {
        Self { insecure_registries: Vec::new(), mirrors: Vec::new(), open_files: DEFAULT_OPEN_FILES }
    }
}

/// How a machine proves that it may join.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Join {
    /// Bootstrap token, `[a-z0-9]{6}.[a-z0-9]{16}`. Secret: it may stand in the secrets file instead.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "secret::expose_option")]
    #[schemars(with = "Option<String>", extend("pattern" = r"^[a-z0-9]{6}\.[a-z0-9]{16}$"))]
    pub token: Option<Secret>,
}

/// Where a machine gets the time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Time {
    /// NTP servers, names or addresses. Default: those that DHCP names; without any, the machine's own clock is taken as it is.
    #[schemars(default)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<String>,
}

/// A static pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Manifest {
    /// Name of the file without its ending (RFC 1123 subdomain).
    pub name: String,
    /// The pod, YAML or JSON.
    pub content: String,
}

impl RoleMetadata {
    /// What a machine is that nobody told anything: a node that stands alone, DHCP on every link.
    pub fn standalone() -> Self {
        Self {
            version: 1,
            role: Role::Node,
            cluster: None,
            control_plane: None,
            node: Node::default(),
            network: Network::default(),
            docker: Docker::default(),
            join: Join::default(),
            time: Time::default(),
            watchdog: Watchdog::default(),
            shutdown: Shutdown::default(),
            console: Console::default(),
            logs: Logs::default(),
            kubelet: serde_json::Map::new(),
            disks: Vec::new(),
            install: None,
            manifests: Vec::new(),
        }
    }

    /// Addresses of this machine's pods: the named range, or for a machine that stands alone the first /24 of the default pod
    /// range. `None` where the control plane will give one (automatic mode).
    pub fn node_pod_range(&self) -> Option<Ipv4Net> {
        match (self.node.pod_range, &self.cluster) {
            (Some(range), _) => Some(range),
            (None, Some(_)) => None,
            (None, None) => Some(Ipv4Net::new_assert(DEFAULT_POD_RANGE.network(), 24)),
        }
    }

    /// The disk that something has of its own.
    pub fn disk_for(&self, purpose: Purpose) -> Option<&Disk> {
        self.disks.iter().find(|disk| disk.purpose == purpose)
    }

    /// Addresses of all pods of the cluster; of a machine that stands alone, its own pods.
    pub fn pod_range(&self) -> Ipv4Net {
        match (&self.cluster, self.node_pod_range()) {
            (Some(cluster), _) => cluster.pod_range,
            (None, Some(range)) => range,
            (None, None) => DEFAULT_POD_RANGE,
        }
    }
}
