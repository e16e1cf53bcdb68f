//! [`Facts`] are what was found on this machine and in this image: the half of a plan's input that is not metadata.
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// Everything a plan may depend on besides the metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Links with hardware behind them, by name, in the kernel's order of names.
    pub links: BTreeMap<String, Link>,
    /// Bonds, VLANs and bridges that are there, by name, but for those of pods.
    pub made: BTreeMap<String, Link>,
    /// `/usr/share/kscratch/release.json` of the root.
    pub release: Release,
    /// Names and bytes of the image's own static manifests (`/usr/share/kscratch/manifests`).
    pub manifests: BTreeMap<String, Vec<u8>>,
    /// 32 hex digits, kept on state from the first boot on.
    pub machine_id: String,
    /// What each link's lease says of names.
    pub leased: BTreeMap<String, Names>,
    /// The same of its DHCPv6 lease.
    pub leased6: BTreeMap<String, Names6>,
    /// Name servers known to the machine already (from DHCP), in order.
    pub dns_servers: Vec<Ipv4Addr>,
    /// Search domain known from DHCP.
    pub dns_search: Vec<String>,
    /// Host name that DHCP suggests.
    pub dhcp_hostname: Option<String>,
    /// Total memory in bytes.
    pub memory: u64,
    /// Whether `/var` outlives this run: it is the state partition, and not memory.
    pub lasting: bool,
    /// Whether an earlier boot joined the cluster: the kubelet has a client certificate of its own.
    pub joined: bool,
    /// The CA of etcd's data, where there are data, in PEM.
    pub etcd_ca: Option<String>,
    /// The partition that etcd's data are on, by its GUID, where that is not mounted.
    pub etcd_disk: Option<String>,
    /// The CA of the cluster that it was a node of last, in PEM.
    pub cluster_ca: Option<String>,
    /// The name that its kubelet was started with last, which is that of the certificate.
    pub node_name: Option<String>,
    /// Names that it joined under before that; their certificates are put aside.
    pub put_aside: BTreeSet<String>,
    /// What is put aside of another cluster.
    pub aside: Aside,
    /// This machine's pods as the cluster gave them at an earlier boot.
    pub pod_range: Option<GivenRange>,
}

impl Facts {
    /// A link by its name.
    #[must_use]
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.get(name).or_else(|| self.made.get(name))
    }

    /// Takes what leases say of names for the machine's: every server once, and the search domains of the first.
    pub fn take_names<'n>(&mut self, leases: impl Iterator<Item = &'n Names>) {
        (self.dns_servers, self.dns_search) = (Vec::new(), Vec::new());
        for (index, names) in leases.enumerate() {
            if index == 0 {
                self.dns_search.clone_from(&names.search);
            }
            for server in &names.servers {
                if !self.dns_servers.contains(server) {
                    self.dns_servers.push(*server);
                }
            }
        }
    }

    /// What DHCPv6 leases say of names: every server once, and the search domains of the first.
    #[must_use]
    pub fn names6(&self) -> Names6 {
        let mut all = Names6::default();
        for names in self.leased6.values() {
            if all.search.is_empty() {
                all.search.clone_from(&names.search);
            }
            for server in &names.servers {
                if !all.servers.contains(server) {
                    all.servers.push(*server);
                }
            }
        }
        all
    }

    /// Name servers, as lines of resolv.conf(5), of a machine that has no plan of its files yet and no pods: those that it was told, and those of its
    /// leases.
    #[must_use]
    pub fn name_server_lines(&self, told: &[Ipv4Addr]) -> String {
        let mut text = String::new();
        for server in told.iter().chain(&self.dns_servers) {
            let _ = writeln!(text, "nameserver {server}");
        }
        for server in self.names6().servers {
            let _ = writeln!(text, "nameserver {server}");
        }
        text
    }

    /// A link by its name, to be changed.
    pub fn link_mut(&mut self, name: &str) -> Option<&mut Link> {
        self.links.get_mut(name).or_else(|| self.made.get_mut(name))
    }
}

/// What a lease says of names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Name servers, in order.
    pub servers: Vec<Ipv4Addr>,
    /// Search domains.
    pub search: Vec<String>,
}

/// What a DHCPv6 lease says of names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names6 {
    /// Name servers, in order.
    pub servers: Vec<Ipv6Addr>,
    /// Search domains.
    pub search: Vec<String>,
}

/// The kubelet's certificates of another cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Aside {
    /// That cluster's CA, in PEM.
    pub cluster_ca: Option<String>,
    /// Whether the machine joined it.
    pub joined: bool,
    /// Names that it joined it under before.
    pub put_aside: BTreeSet<String>,
}

/// A range of pods that the cluster gave, and to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenRange {
    /// The range.
    pub range: Ipv4Net,
    /// Name of the Node; an earlier version did not write it down.
    pub node: Option<String>,
}

/// One link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Hardware address; of a card the one that it came with, also while it is a bond's.
    pub mac: [u8; 6],
    /// MTU in bytes.
    pub mtu: u32,
    /// IPv4 addresses that it has now.
    pub addresses: Vec<Ipv4Net>,
    /// Whether the default route goes through it; of several, the one that is preferred.
    pub default_route: bool,
}

/// Versions and names of the image that was booted (written by the builder).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Kubernetes version without `v`, e.g. `1.37.2`.
    pub kubernetes: String,
    /// cri-dockerd version, e.g. `0.4.3`.
    pub cri_dockerd: String,
    /// Version of Debian's docker.io package.
    pub docker: String,
    /// Kernel release, e.g. `6.12.48+deb13-cloud-amd64`.
    pub kernel: String,
    /// Version of kscratch.
    pub kscratch: String,
    /// Role that the image was built for: `node` or `master`.
    pub role: String,
    /// Reference of the pause image in the docker store seed.
    pub pause_image: String,
    /// References of the control plane's images by component; a node's image has none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, String>,
}
