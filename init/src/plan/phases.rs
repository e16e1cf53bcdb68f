//! Plans a node: the container runtime as soon as there is metadata (`runtime`), and once addresses are known the phases `system`, `bridge`, `images`, `config`, `pods` and `services`.
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use kscratch_metadata::{Mode, Purpose, Role, RoleMetadata, share_a_key};
use serde_json::Value;

use super::cluster::{self, Place};
use super::clusterca::{self, Change};
use super::controlplane::{self, Master};
use super::membership::Membership;
use super::{Phase, Plan, PlanError, Step, cni, docker, firewall, identity, kubelet, links, logs, services};
use crate::facts::{Facts, GivenRange};

/// Where docker remembers its networks (libnetwork, datastore: local-kv.db).
const DOCKER_NETWORKS: &str = "/var/lib/docker/network/files";

/// Sysctls that the kubelet checks with `protectKernelDefaults` (R17), forwarding (R3), and what lets bridged pod traffic meet
/// kube-proxy's rules.
const SYSCTLS: [(&str, &str); 9] = [
    ("kernel/keys/root_maxbytes", "25000000"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("net/bridge/bridge-nf-call-ip6tables", "1"),
    ("net/bridge/bridge-nf-call-iptables", "1"),
    ("net/ipv4/ip_forward", "1"),
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
];

/// Directories that containerd and the services' logs need, with their permissions.
const RUNTIME_DIRECTORIES: [(&str, u32); 3] =
    [("/run/kscratch", 0o755), ("/var/lib/containerd", 0o700), ("/var/log/kscratch", 0o755)];

/// Directories that the other services expect.
const DIRECTORIES: [(&str, u32); 10] = [
    ("/run/kscratch/cni/net.d", 0o755),
    ("/run/kscratch/manifests", 0o700),
    ("/var/lib/cni", 0o755),
    ("/var/lib/cri-dockerd", 0o700),
    ("/var/lib/docker", 0o710),
    ("/var/lib/kubelet", 0o750),
    ("/var/lib/kubelet/volumeplugins", 0o755),
    ("/var/lib/kubernetes", 0o755),
    ("/var/log/containers", 0o755),
    ("/var/log/pods", 0o755),
];

/// Bytes that VXLAN puts before each packet (RFC 7348, section 5: outer Ethernet, IPv4, UDP and VXLAN headers).
const VXLAN: u32 = 50;
/// Ethernet's MTU, for a machine without any link.
const ETHERNET_MTU: u32 = 1500;

/// The pods' network, as cri-dockerd finds it.
const CNI_NETWORK: &str = "/run/kscratch/cni/net.d/10-kscratch.conflist";
/// The pod range that the cluster gave, for the next boot. On state.
pub const REMEMBERED_POD_RANGE: &str = "/var/lib/kscratch/pod-range";

/// Plans what needs no network: containerd, which takes longer to start than everything else here takes, and what sends logs away, which so tells of
/// a boot that comes no further.
#[must_use]
pub fn runtime(metadata: &RoleMetadata) -> Plan {
    let mut steps: Vec<Step> = RUNTIME_DIRECTORIES.into_iter().map(directory).collect();
    steps.push(text("/run/kscratch/containerd.toml", 0o644, docker::CONTAINERD.to_owned()));
    steps.push(Step::Service(services::containerd(metadata.docker.open_files)));
    let logs = logs::steps(&metadata.logs).map(|steps| phase("logs", steps));
    Plan { phases: [phase("runtime", steps)].into_iter().chain(logs).collect() }
}

/// Plans everything after the network.
///
/// # Errors
/// Where metadata and machine do not go together; each error has a hint.
pub fn node(metadata: &RoleMetadata, facts: &Facts) -> Result<Plan, PlanError> {
    fitting_role(metadata, facts)?;
    no_overlap(metadata, facts)?;
    let name = identity::name(metadata, facts);
    let membership = Membership::of(metadata, facts, &name)?;
    let uplink = identity::uplink(metadata, facts);
    let address = uplink.as_ref().map(|(_, address)| address.addr());
    let (range, mtu) = (known_range(metadata, facts), bridge_mtu(metadata, facts));
    let place =
        Place { name: &name, uplink: uplink.as_ref().map(|(link, address)| (link.as_str(), address.addr())), mtu };
    let master = master(metadata, facts, &name, place.uplink)?;
    let mut phases = vec![
        phase("system", system(&name)),
        phase("bridge", bridge_steps(metadata, range, mtu)),
        phase("images", vec![Step::SeedImages]),
    ];
    let bridge = range.map(|range| (range, mtu));
    let mut config = config(metadata, facts, &name, uplink.as_ref().map(|(_, address)| *address), bridge);
    config.extend(cluster::files(metadata, facts, &place, membership.as_ref()));
    config.extend(master.iter().flat_map(|master| controlplane::files(master, MANIFESTS)));
    if metadata.disk_for(Purpose::Etcd).is_some() {
        config.extend(master.iter().map(controlplane::data_ca));
    }
    if master.as_ref().is_some_and(|master| master.upstream.is_empty()) {
        let text = "this master has no DNS server: pods find names of the cluster alone, and none outside (network.dns_servers)";
        config.push(Step::Note(text.to_owned()));
    }
    config.extend(manifests(metadata, facts, master.as_ref())?);
    phases.push(phase("config", config));
    // Apart from the other files: where the bridge or its rules fail it is left out, and services start nevertheless.
    phases.extend(bridge.map(|(range, mtu)| phase("pods", vec![cni_network(range, mtu)])));
    if master.is_some() {
        let wanted = controlplane::CERTIFICATES.to_owned();
        phases.push(phase("certificates", vec![Step::Certificates { wanted }]));
    }
    let services = services::list(metadata, facts, &name, address);
    phases.push(phase("services", services.into_iter().map(Step::Service).collect()));
    Ok(Plan { phases })
}

/// Plans the pods' network of a machine whose range the cluster gave, beside services that run already: the bridge, the rules, the CNI
/// network that makes the node ready, and the range to be known at the next boot. Docker's own containers get it then too. The second phase is for when
/// all of the first is done: kubelet starts pods with it, which would send with their own addresses where nothing masquerades.
#[must_use]
pub fn pod_network(metadata: &RoleMetadata, facts: &Facts, range: Ipv4Net) -> Plan {
    let remembered = text(REMEMBERED_POD_RANGE, 0o644, range_to_remember(metadata, facts, range));
    let Plan { mut phases } = known_pods(metadata, facts, range);
    phases.iter_mut().filter(|phase| phase.name == "pods").for_each(|phase| phase.steps.insert(0, remembered.clone()));
    Plan { phases }
}

/// The same for a range that was known at boot, where the phases `bridge` or `pods` have failed.
#[must_use]
pub fn known_pods(metadata: &RoleMetadata, facts: &Facts, range: Ipv4Net) -> Plan {
    let mtu = bridge_mtu(metadata, facts);
    let pods = phase("pods", vec![cni_network(range, mtu)]);
    Plan { phases: vec![phase("pod-network", bridge_of(metadata, range, mtu)), pods] }
}

/// This machine's pods, as far as known before the cluster is asked: from the metadata, or from an earlier boot under the same name
/// in the same cluster.
#[must_use]
pub fn known_range(metadata: &RoleMetadata, facts: &Facts) -> Option<Ipv4Net> {
    let name = identity::name(metadata, facts);
    let own = |given: &&GivenRange| given.node.as_ref().is_none_or(|node| *node == name);
    let remembered = facts.pod_range.as_ref().filter(own).map(|given| given.range);
    let remembered = remembered.filter(|_| clusterca::change(metadata, facts) == Change::None);
    metadata.node_pod_range().or(remembered.filter(|range| metadata.pod_range().contains(range)))
}

/// How state remembers a range that the cluster gave: it is this Node's, and not that of another name.
#[must_use]
pub fn range_to_remember(metadata: &RoleMetadata, facts: &Facts, range: Ipv4Net) -> String {
    format!("{range} {}\n", identity::name(metadata, facts))
}

/// What the control plane is planned from. A master without an address has none; it is told by the network's phase.
fn master<'a>(
    metadata: &'a RoleMetadata,
    facts: &'a Facts,
    name: &'a str,
    uplink: Option<(&'a str, Ipv4Addr)>,
) -> Result<Option<Master<'a>>, PlanError> {
    if metadata.role == Role::Node {
        return Ok(None);
    }
    if !facts.lasting {
        return Err(PlanError::NoState);
    }
    if let (None, Some(partition)) = (metadata.disk_for(Purpose::Etcd), &facts.etcd_disk) {
        return Err(PlanError::EtcdElsewhere { partition: partition.clone() });
    }
    let images = &facts.release.images;
    if let Some(component) = Master::needed_images().find(|name| !images.contains_key(*name)) {
        return Err(PlanError::NoImage { component });
    }
    let upstream = identity::name_servers(metadata, facts).copied().collect();
    let own = uplink.unwrap_or(("lo", Ipv4Addr::LOCALHOST));
    let master = Master::of(metadata, &facts.release, name, own, upstream).ok_or(PlanError::NoIdentity)?;
    if facts.etcd_ca.as_ref().and_then(|ca| share_a_key(ca, &master.secrets.etcd_ca)) == Some(false) {
        return Err(PlanError::EtcdOfAnotherCluster);
    }
    match (master.control_plane.etcd.members.get(name), uplink) {
        (Some(listed), Some((_, own))) if *listed != own => {
            Err(PlanError::OtherMember { name: name.to_owned(), listed: *listed, own })
        }
        (_, uplink) => Ok(uplink.map(|_| master)),
    }
}

fn phase(name: &'static str, steps: Vec<Step>) -> Phase {
    Phase { name, steps }
}

fn fitting_role(metadata: &RoleMetadata, facts: &Facts) -> Result<(), PlanError> {
    let role = match metadata.role {
        Role::Node => "node",
        Role::Master => "master",
    };
    if facts.release.role != role {
        return Err(PlanError::WrongRole { metadata: role, image: facts.release.role.clone() });
    }
    Ok(())
}

/// R1: the parser has compared the ranges that the metadata names; what DHCP gave is known only here.
fn no_overlap(metadata: &RoleMetadata, facts: &Facts) -> Result<(), PlanError> {
    let mut ranges: Vec<(&'static str, Ipv4Net)> = Vec::new();
    match &metadata.cluster {
        Some(cluster) => {
            ranges.push(("cluster.pod_range", cluster.pod_range));
            ranges.push(("cluster.service_range", cluster.service_range));
        }
        None => ranges.push(("node.pod_range", metadata.pod_range())),
    }
    for (link, facts) in facts.links.iter().chain(&facts.made) {
        for address in &facts.addresses {
            for (name, range) in &ranges {
                if range.contains(&address.network()) || address.contains(&range.network()) {
                    return Err(PlanError::Overlap { name, range: *range, address: *address, link: link.clone() });
                }
            }
        }
    }
    Ok(())
}

/// What fits through the narrowest link in use, less what the overlay adds.
fn bridge_mtu(metadata: &RoleMetadata, facts: &Facts) -> u32 {
    let chosen = links::chosen(metadata, facts);
    let link = metadata.network.mtu.or_else(|| {
        chosen
            .iter()
            .filter_map(|name| facts.link(name))
            .filter(|link| !link.addresses.is_empty())
            .map(|link| link.mtu)
            .min()
    });
    let mtu = link.unwrap_or(ETHERNET_MTU);
    match metadata.network.mode {
        Mode::Routed => mtu,
        Mode::Overlay => mtu.saturating_sub(VXLAN),
    }
}

fn system(name: &str) -> Vec<Step> {
    let mut steps: Vec<Step> =
        SYSCTLS.into_iter().map(|(key, value)| Step::Sysctl { key: key.to_owned(), value: value.to_owned() }).collect();
    steps.push(Step::Hostname(name.to_owned()));
    steps.extend(DIRECTORIES.into_iter().map(directory));
    steps
}

fn directory((path, mode): (&str, u32)) -> Step {
    Step::Directory { path: path.to_owned(), mode, owner: 0 }
}

fn bridge_steps(metadata: &RoleMetadata, range: Option<Ipv4Net>, mtu: u32) -> Vec<Step> {
    // R10: an earlier docker's bridge would take addresses of its own.
    let mut steps = vec![Step::RemoveLink { link: "docker0".to_owned() }];
    // And its networks, which nobody needs who is not running: one of cbr0 that it finds no bridge for, in a boot that has no range yet, is given up by half
    // of docker alone, and keeps docker from starting in every boot after that ("networks have same bridge name").
    steps.push(Step::Prune { path: DOCKER_NETWORKS.to_owned() });
    match range {
        Some(range) => {
            steps.push(Step::Note(format!("pods of this node: {range}")));
            steps.extend(bridge_of(metadata, range, mtu));
        }
        None => {
            let text = "no cbr0 yet: the control plane will give this node its pod range";
            steps.push(Step::Note(text.to_owned()));
            steps.push(firewall_of(metadata, None));
        }
    }
    steps
}

fn bridge_of(metadata: &RoleMetadata, range: Ipv4Net, mtu: u32) -> Vec<Step> {
    let bridge = Step::Bridge { link: "cbr0".to_owned(), address: cni::shares(range).bridge, mtu };
    vec![bridge, firewall_of(metadata, Some(range))]
}

fn firewall_of(metadata: &RoleMetadata, range: Option<Ipv4Net>) -> Step {
    Step::Firewall { ruleset: firewall::ruleset(range, metadata.pod_range(), metadata.network.masquerade) }
}

fn cni_network(range: Ipv4Net, mtu: u32) -> Step {
    json(CNI_NETWORK, 0o644, &cni::conflist(range, mtu))
}

fn config(
    metadata: &RoleMetadata,
    facts: &Facts,
    name: &str,
    address: Option<Ipv4Net>,
    bridge: Option<(Ipv4Net, u32)>,
) -> Vec<Step> {
    let mut steps = vec![
        text("/run/kscratch/hostname", 0o644, format!("{name}\n")),
        text("/run/kscratch/hosts", 0o644, identity::hosts(name, address)),
        text("/run/kscratch/machine-id", 0o444, format!("{}\n", facts.machine_id)),
        text("/run/kscratch/resolv.conf", 0o644, identity::resolv_conf(metadata, facts)),
        json("/run/kscratch/daemon.json", 0o644, &docker::daemon(&metadata.docker, bridge)),
    ];
    steps.push(json(kubelet::CONFIG, 0o644, &kubelet::config(metadata)));
    if metadata.shutdown.grace_seconds > 0 {
        let (path, owner) = (services::INHIBITOR.to_owned(), services::INHIBITOR_USER);
        steps.push(Step::Directory { path, mode: 0o700, owner });
    }
    // Where it has no cluster to sign one for it, kubelet makes its serving certificate itself and does not wait for the disk. With empty files it
    // would never start again.
    let [certificate, key] = ["crt", "key"].map(|kind| format!("/var/lib/kubelet/pki/kubelet.{kind}"));
    steps.push(Step::HalfPair { certificate, key });
    steps
}

/// Where the kubelet looks for static pods.
const MANIFESTS: &str = "/run/kscratch/manifests";

/// The static pods of image and metadata, and the removal of all others. Private (R23): a pod's environment may hold secrets.
fn manifests(metadata: &RoleMetadata, facts: &Facts, master: Option<&Master<'_>>) -> Result<Vec<Step>, PlanError> {
    let directory = MANIFESTS;
    let mut steps: Vec<Step> = master.map(|master| controlplane::manifests(master, directory)).unwrap_or_default();
    let names: BTreeSet<&String> = facts.manifests.keys().collect();
    for (name, contents) in &facts.manifests {
        steps.push(Step::File {
            path: format!("{directory}/{name}"),
            contents: contents.clone(),
            mode: 0o600,
            owner: 0,
        });
    }
    for manifest in &metadata.manifests {
        // JSON is YAML too; the kubelet looks into the file, not at its ending.
        let name = format!("{}.yaml", manifest.name);
        if names.contains(&name) {
            return Err(PlanError::TwoManifests { name });
        }
        steps.push(text(&format!("{directory}/{name}"), 0o600, manifest.content.clone()));
    }
    steps.push(Step::Prune { path: directory.to_owned() });
    Ok(steps)
}

fn text(path: &str, mode: u32, contents: String) -> Step {
    Step::File { path: path.to_owned(), contents: contents.into_bytes(), mode, owner: 0 }
}

fn json(path: &str, mode: u32, value: &Value) -> Step {
    text(path, mode, format!("{value:#}\n"))
}
