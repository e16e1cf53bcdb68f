//! Plans a node: the container runtime as soon as there is metadata (`runtime`), and once addresses are known the phases `system`, `bridge`, `images`, `config` and `services`.
use std::collections::BTreeSet;

use ipnet::Ipv4Net;
use kscratch_metadata::{Mode, Role, RoleMetadata};
use serde_json::Value;

use super::{Phase, Plan, PlanError, Step, cni, docker, firewall, identity, kubelet, kubeproxy, links, services};
use crate::facts::Facts;

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

/// Plans what needs no network: containerd, which takes longer to start than everything else here takes.
#[must_use]
pub fn runtime(metadata: &RoleMetadata) -> Plan {
    let mut steps: Vec<Step> = RUNTIME_DIRECTORIES.into_iter().map(directory).collect();
    steps.push(text("/run/kscratch/containerd.toml", 0o644, docker::CONTAINERD.to_owned()));
    steps.push(Step::Service(services::containerd(metadata.docker.open_files)));
    Plan { phases: vec![phase("runtime", steps)] }
}

/// Plans everything after the network.
///
/// # Errors
/// Where metadata and machine do not go together; each error has a hint.
pub fn node(metadata: &RoleMetadata, facts: &Facts) -> Result<Plan, PlanError> {
    fitting_role(metadata, facts)?;
    no_overlap(metadata, facts)?;
    if metadata.cluster.is_some() && metadata.join.token.is_none() && !facts.joined {
        return Err(PlanError::NoToken);
    }
    let name = identity::name(metadata, facts);
    let address = identity::address(metadata, facts);
    let bridge = metadata.node_pod_range().map(|range| (range, bridge_mtu(metadata, facts)));
    let phases = vec![
        phase("system", system(&name)),
        phase("bridge", bridge_steps(metadata, bridge)),
        phase("images", vec![Step::SeedImages]),
        phase("config", config(metadata, facts, &name, address, bridge)?),
        phase(
            "services",
            services::list(metadata, facts, &name, address.map(|address| address.addr()))
                .into_iter()
                .map(Step::Service)
                .collect(),
        ),
    ];
    Ok(Plan { phases })
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
    match metadata.role {
        Role::Node => Ok(()),
        Role::Master => Err(PlanError::MasterComesNext),
    }
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
    for (link, facts) in &facts.links {
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
    let chosen = links::chosen(metadata, facts).unwrap_or_default();
    let link = metadata.network.mtu.or_else(|| {
        chosen
            .iter()
            .filter_map(|name| facts.links.get(name))
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
    Step::Directory { path: path.to_owned(), mode }
}

fn bridge_steps(metadata: &RoleMetadata, bridge: Option<(Ipv4Net, u32)>) -> Vec<Step> {
    // R10: an earlier docker's bridge would take addresses of its own.
    let mut steps = vec![Step::RemoveLink { link: "docker0".to_owned() }];
    let Some((range, mtu)) = bridge else {
        let text = "no cbr0: pods get no network until this node has a pod range; set node.pod_range to give it one (waiting \
                    for the control plane's is not in this version)";
        steps.push(Step::Note(text.to_owned()));
        return steps;
    };
    steps.push(Step::Bridge { link: "cbr0".to_owned(), address: cni::shares(range).bridge, mtu });
    steps.push(Step::Firewall { ruleset: firewall::ruleset(range, metadata.pod_range(), metadata.network.masquerade) });
    steps
}

fn config(
    metadata: &RoleMetadata,
    facts: &Facts,
    name: &str,
    address: Option<Ipv4Net>,
    bridge: Option<(Ipv4Net, u32)>,
) -> Result<Vec<Step>, PlanError> {
    let mut steps = vec![
        text("/run/kscratch/hostname", 0o644, format!("{name}\n")),
        text("/run/kscratch/hosts", 0o644, identity::hosts(name, address)),
        text("/run/kscratch/machine-id", 0o444, format!("{}\n", facts.machine_id)),
        text("/run/kscratch/resolv.conf", 0o644, identity::resolv_conf(metadata, facts)),
        json("/run/kscratch/daemon.json", 0o644, &docker::daemon(&metadata.docker, bridge)),
    ];
    if let Some((range, mtu)) = bridge {
        let path = "/run/kscratch/cni/net.d/10-kscratch.conflist";
        steps.push(json(path, 0o644, &cni::conflist(range, mtu)));
    }
    steps.push(json(kubelet::CONFIG, 0o644, &kubelet::config(metadata)));
    steps.extend(cluster_files(metadata, name));
    steps.extend(manifests(metadata, facts)?);
    Ok(steps)
}

fn cluster_files(metadata: &RoleMetadata, name: &str) -> Vec<Step> {
    let Some(cluster) = &metadata.cluster else {
        return Vec::new();
    };
    let mut steps = vec![json("/run/kscratch/kube-proxy.json", 0o644, &kubeproxy::config(cluster, name))];
    let Some(ca) = &cluster.ca else { return steps };
    steps.push(text(kubelet::CA, 0o644, ca.clone()));
    if let (Some(endpoint), Some(token)) = (&cluster.endpoint, &metadata.join.token) {
        steps.push(json(kubelet::BOOTSTRAP, 0o600, &kubelet::bootstrap(cluster, endpoint, ca, token)));
    }
    steps
}

/// The static pods of image and metadata, and the removal of all others. Private (R23): a pod's environment may hold secrets.
fn manifests(metadata: &RoleMetadata, facts: &Facts) -> Result<Vec<Step>, PlanError> {
    let directory = "/run/kscratch/manifests";
    let mut steps = Vec::new();
    let names: BTreeSet<&String> = facts.manifests.keys().collect();
    for (name, contents) in &facts.manifests {
        steps.push(Step::File { path: format!("{directory}/{name}"), contents: contents.clone(), mode: 0o600 });
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
    Step::File { path: path.to_owned(), contents: contents.into_bytes(), mode }
}

fn json(path: &str, mode: u32, value: &Value) -> Step {
    text(path, mode, format!("{value:#}\n"))
}
