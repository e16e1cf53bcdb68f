//! A [`Plan`] says which machines a cluster in QEMU has: names, addresses, numbers, images and sizes.
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use kscratch_metadata::Purpose;
use kscratch_qemu::Gateway;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::spec::Role;

/// The version of machines.json that this program reads and writes.
const VERSION: u32 = 1;
/// Every cluster has the same network: no link is joined to another one.
const NETWORK: [u8; 3] = [192, 168, 76];
/// The address that masters share, where there are several.
pub const SHARED: Ipv4Addr = Ipv4Addr::new(NETWORK[0], NETWORK[1], NETWORK[2], 5);
/// The last number of the first master's address; the others follow.
const FIRST_MASTER: u8 = 10;
/// The last number of the first node's address.
const FIRST_NODE: u8 = 20;
/// etcd's advice: more members make it slower and no safer.
pub const MOST_MASTERS: u8 = 5;
/// Nodes' addresses end where those of DHCP begin.
pub const MOST_NODES: u8 = 80;
/// Processors of a machine whose plan does not say how many, and of a node that is emulated: what several of those do for one another is work of its own there,
/// a fifth of all that a node does.
const PROCESSORS: u32 = 2;
const EMULATED_NODE_PROCESSORS: u32 = 1;
/// Where the API server listens.
pub const API_PORT: u16 = 6443;

/// The machines of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// [`VERSION`].
    version: u32,
    /// The cluster's name.
    pub name: String,
    /// Whether machines reach this host and what is behind it.
    pub outside: bool,
    /// The address that the masters share, where they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<Ipv4Addr>,
    /// The machines, masters first.
    pub machines: Vec<PlannedMachine>,
    /// Ports of this host that lead to them.
    pub forwards: Vec<PlannedForward>,
}

/// One machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedMachine {
    /// Its name as a node.
    pub name: String,
    /// Whether it runs the control plane.
    pub master: bool,
    /// Its fixed address.
    pub address: Ipv4Addr,
    /// UUID in its SMBIOS tables, 32 hexadecimal digits.
    pub uuid: String,
    /// The image below its disk.
    pub image: Image,
    /// Size of its disk in bytes.
    pub disk_size: u64,
    /// Its disks besides that one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<PlannedDisk>,
    /// Memory in MiB.
    pub memory: u32,
    /// Processors, where somebody said how many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Whether time in it goes by its work, where it is emulated.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own_time: bool,
}

/// A disk besides the one that a machine runs from; blank at first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedDisk {
    /// What is kept on it.
    #[serde(rename = "for")]
    pub purpose: DiskPurpose,
    /// Its size in bytes.
    pub size: u64,
}

/// What may have a disk of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskPurpose {
    /// Docker's store.
    Docker,
    /// The data of a master's etcd.
    Etcd,
}

impl DiskPurpose {
    /// The word that role metadata have for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Docker => Purpose::Docker.word(),
            Self::Etcd => Purpose::Etcd.word(),
        }
    }
}

impl PlannedDisk {
    /// Its serial number, by which the machine's metadata tell it. Of those of virtio disks the guest sees twenty characters.
    pub fn serial(&self, machine: &str) -> String {
        format!("{}-{machine}", self.purpose.word())
    }

    /// Its file in the machine's folder.
    pub fn file(&self) -> String {
        format!("{}.img", self.purpose.word())
    }
}

/// The image below a disk, which holds only what differs from it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Its file, an absolute path.
    pub path: PathBuf,
    /// Its length in bytes when the disk was made.
    pub length: u64,
    /// When it was written to last before the disk was made: nanoseconds since 1970.
    pub written: i128,
}

/// A TCP port of 127.0.0.1 that leads to a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedForward {
    /// Port of this host.
    pub host: u16,
    /// The machine.
    pub machine: String,
    /// Its port.
    pub port: u16,
}

/// How every new machine is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Make {
    /// Image of masters; not asked for where there are none.
    pub master_image: Image,
    /// Image of nodes; not asked for where there are none.
    pub node_image: Image,
    /// Size of disks in bytes.
    pub disk_size: u64,
    /// Size in bytes of a further disk for docker's store, where there is to be one.
    pub docker_disk: Option<u64>,
    /// The same for etcd's data, on masters.
    pub etcd_disk: Option<u64>,
    /// Memory in MiB.
    pub memory: u32,
    /// Processors, where somebody said how many.
    pub cpus: Option<u32>,
    /// Whether time in them goes by this host's clock, where they are emulated.
    pub host_time: bool,
}

impl Make {
    /// The further disks of a new machine.
    fn disks(&self, master: bool) -> Vec<PlannedDisk> {
        let disks = [(DiskPurpose::Docker, self.docker_disk), (DiskPurpose::Etcd, self.etcd_disk.filter(|_| master))];
        disks.into_iter().filter_map(|(purpose, size)| Some(PlannedDisk { purpose, size: size? })).collect()
    }
}

impl Plan {
    /// A cluster without machines.
    pub fn empty(name: &str, outside: bool) -> Plan {
        Plan {
            version: VERSION,
            name: name.to_owned(),
            outside,
            shared: None,
            machines: Vec::new(),
            forwards: Vec::new(),
        }
    }

    /// Adds masters `m1`, `m2`, … and nodes `n1`, `n2`, … until there are so many. Machines that are there stay as they are.
    ///
    /// # Errors
    /// There would be fewer than there are, none, or more than have addresses; or another number of masters than at the beginning.
    pub fn grow(&mut self, masters: u8, nodes: u8, make: &Make) -> Result<()> {
        let (had_masters, had_nodes) = (self.count(true), self.count(false));
        if masters > MOST_MASTERS || nodes > MOST_NODES {
            bail!("a cluster in QEMU has at most {MOST_MASTERS} masters and {MOST_NODES} nodes");
        }
        if masters != 0 && masters.is_multiple_of(2) {
            bail!("etcd needs an odd number of members: {masters} masters survive no more than {} would", masters - 1);
        }
        if masters == 0 && nodes == 0 {
            bail!("a cluster without machines is none");
        }
        if !self.machines.is_empty() && masters != had_masters {
            bail!("the number of masters stays what it was at the beginning: {had_masters}");
        }
        if nodes < had_nodes {
            bail!("this cluster has {had_nodes} nodes already; `up` removes none");
        }
        for index in had_masters..masters {
            self.add("m", true, FIRST_MASTER, index, make);
        }
        for index in had_nodes..nodes {
            self.add("n", false, FIRST_NODE, index, make);
        }
        Ok(())
    }

    fn add(&mut self, letter: &str, master: bool, first: u8, index: u8, make: &Make) {
        let [a, b, c] = NETWORK;
        let name = format!("{letter}{}", index + 1);
        let uuid = uuid(&format!("kscratch machine {}/{name}", self.name));
        // Machines that wait for one another keep the same kind of time.
        let own_time = !make.host_time && self.machines.first().is_none_or(|machine| machine.own_time);
        let image = if master { &make.master_image } else { &make.node_image };
        self.machines.push(PlannedMachine {
            address: Ipv4Addr::new(a, b, c, first + index),
            name,
            master,
            uuid,
            image: image.clone(),
            disk_size: make.disk_size,
            disks: make.disks(master),
            memory: make.memory,
            cpus: make.cpus,
            own_time,
        });
    }

    /// Adds a forward, unless the same one is there. With host port 0, `free` names one.
    ///
    /// # Errors
    /// There is no such machine, the host's port leads elsewhere already, or there is no free one.
    pub fn forward(&mut self, mut wanted: PlannedForward, free: impl FnOnce() -> Result<u16>) -> Result<()> {
        self.machine(&wanted.machine)?;
        let same = |known: &PlannedForward| known.machine == wanted.machine && known.port == wanted.port;
        if self.forwards.iter().any(|known| same(known) && (wanted.host == 0 || wanted.host == known.host)) {
            return Ok(());
        }
        if wanted.host == 0 {
            wanted.host = free()?;
        }
        if let Some(known) = self.forwards.iter().find(|known| known.host == wanted.host) {
            bail!("port {} leads to port {} of {} already", known.host, known.port, known.machine);
        }
        self.forwards.push(wanted);
        Ok(())
    }

    /// How many masters, or nodes, there are.
    pub fn count(&self, master: bool) -> u8 {
        let count = self.machines.iter().filter(|machine| machine.master == master).count();
        u8::try_from(count).unwrap_or(u8::MAX)
    }

    /// The machine of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn machine(&self, name: &str) -> Result<&PlannedMachine> {
        self.machines.iter().find(|machine| machine.name == name).ok_or_else(|| {
            let names: Vec<_> = self.machines.iter().map(|machine| machine.name.as_str()).collect();
            anyhow!("the cluster {} has no machine {name}; it has {}", self.name, names.join(", "))
        })
    }

    /// The host's port that leads to the first master's API server, or to that of whichever master has the address that they share.
    pub fn api_port(&self) -> Option<u16> {
        let first = self.machines.iter().find(|machine| machine.master)?;
        let api = |forward: &&PlannedForward| forward.machine == first.name && forward.port == API_PORT;
        self.forwards.iter().find(api).map(|forward| forward.host)
    }

    /// The gateway of its network, with all forwards.
    pub fn gateway(&self) -> Gateway {
        let mut gateway = Gateway { outside: self.outside, ..Gateway::of(NETWORK) };
        let api = self.api_port();
        gateway.forwards = (self.forwards.iter())
            .filter_map(|forward| {
                let own = self.machine(&forward.machine).ok()?.address;
                // The gateway asks for the address by ARP, and heeds announcements: the way follows the address.
                let address = self.shared.filter(|_| Some(forward.host) == api).unwrap_or(own);
                Some(kscratch_qemu::gateway::MachineForward { host: forward.host, address, port: forward.port })
            })
            .collect();
        gateway
    }

    /// Reads machines.json; `None` where there is none.
    ///
    /// # Errors
    /// It cannot be read, or is of another version.
    pub fn read(path: &Path) -> Result<Option<Plan>> {
        let action = || format!("reading {}", path.display());
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.with_context(action)?,
        };
        let plan: Plan = serde_json::from_str(&text).with_context(action)?;
        if plan.version != VERSION {
            let what = format!("it has version {}, this program knows version {VERSION}", plan.version);
            return Err(anyhow!(what).context(action()));
        }
        let names: BTreeSet<_> = plan.machines.iter().map(|machine| &machine.name).collect();
        if names.len() != plan.machines.len() {
            return Err(anyhow!("two of its machines have the same name").context(action()));
        }
        // Names become folders.
        if let Some(odd) = names.iter().find(|name| !kscratch_metadata::is_node_name(name)) {
            return Err(anyhow!("{odd:?} is no name of a machine").context(action()));
        }
        Ok(Some(plan))
    }

    /// machines.json.
    ///
    /// # Errors
    /// A path is no text.
    pub fn text(&self) -> Result<String> {
        Ok(format!("{}\n", serde_json::to_string_pretty(self).context("writing the plan of the machines")?))
    }
}

impl Image {
    /// The image in a file as it is now.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn now(path: &Path) -> Result<Image> {
        let action = || format!("looking at the image {}", path.display());
        let path = path.canonicalize().with_context(action)?;
        let facts = path.metadata().with_context(action)?;
        let written = i128::from(facts.mtime()) * 1_000_000_000 + i128::from(facts.mtime_nsec());
        Ok(Image { length: facts.len(), written, path })
    }

    /// Refuses an image that was built or stamped anew: a disk over it would be half of one and half of the other.
    ///
    /// # Errors
    /// It is another one, or gone.
    pub fn check(&self) -> Result<()> {
        if Image::now(&self.path)? == *self {
            return Ok(());
        }
        bail!("{} was written to after the machine's disk was laid over it", self.path.display())
    }
}

impl PlannedMachine {
    /// How many processors it has, by the plan or by what is usual.
    pub fn processors(&self, accelerated: bool) -> u32 {
        let usual = if accelerated || self.master { PROCESSORS } else { EMULATED_NODE_PROCESSORS };
        self.cpus.unwrap_or(usual)
    }

    /// What it is built for.
    pub fn role(&self) -> Role {
        if self.master { Role::Master } else { Role::Node }
    }

    /// Hardware address of its card: locally administered, told by the address.
    pub fn mac(&self) -> [u8; 6] {
        [0x52, 0x54, 0x00, 0x6b, 0x73, self.address.octets()[3]]
    }

    /// [`PlannedMachine::mac`] as text.
    pub fn mac_text(&self) -> String {
        self.mac().map(|byte| format!("{byte:02x}")).join(":")
    }

    /// Serial number in its SMBIOS tables.
    pub fn serial(&self, cluster: &str) -> String {
        format!("kscratch-{cluster}-{}", self.name)
    }

    /// The UUID's bytes; `None` where a hand-written plan has none.
    pub fn uuid_bytes(&self) -> Option<[u8; 16]> {
        hex::decode(&self.uuid).ok()?.try_into().ok()
    }
}

/// A version-8 UUID of a text (RFC 9562, 5.8).
fn uuid(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    let mut bytes: [u8; 16] = std::array::from_fn(|index| digest[index]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    hex::encode(bytes)
}
