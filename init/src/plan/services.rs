//! Lists the supervised programs in the order of their needs, with the arguments that the metadata makes.
use std::net::Ipv4Addr;
use std::time::Duration;

use kscratch_metadata::{Role, RoleMetadata};
use rustix::thread::CapabilitySet;

use super::{Input, Ready, Rights, Service, cluster, kubelet, kubeproxy};
use crate::apply::certificates::AGENT;
use crate::facts::Facts;
use crate::inhibitor;

/// The kernel spares these processes until nothing else is left (kubelet's own choice for itself, `qos.KubeletOOMScoreAdj`).
const SPARED: i32 = -999;
/// kubelet's `maxOpenFiles`; enough for everything else here.
const OPEN_FILES: u64 = 1_000_000;

/// What the agents read.
pub(super) const IDENTITIES: &str = "/run/kscratch/identities.json";
pub(super) const ROUTES: &str = "/run/kscratch/routes.json";
pub(super) const ADDRESS: &str = "/run/kscratch/address.json";
/// Where the kubelet finds what stands in for systemd-logind, and the folder of that, which is its own.
pub(super) const INHIBITOR: &str = "/run/kscratch/inhibitor";
/// User and group of the service `inhibitor`.
pub(super) const INHIBITOR_USER: u32 = 907;
/// Our own program, which is PID 1 too.
const INIT: &str = "/usr/lib/kscratch/init";
const STEWARD: &str = "/run/kscratch/steward.json";
/// What `logs` reads, its authorities, the folder of what it writes at first, and the one of what it remembers.
pub(super) const LOGS: &str = "/run/kscratch/logs.json";
pub(super) const LOGS_CA: &str = "/run/kscratch/logs-ca.crt";
pub(super) const LOGS_CERTIFICATE: &str = "/run/kscratch/logs-client.crt";
pub(super) const LOGS_KEY: &str = "/run/kscratch/logs-client.key";
pub(super) const LOGS_RUN: &str = "/run/kscratch/logs";
pub(super) const LOGS_STATE: &str = "/var/lib/kscratch/logs";
/// User and group of the service `logs`.
pub(super) const LOGS_USER: u32 = 908;
/// What they write once they have done their work the first time.
pub(super) const IDENTITIES_READY: &str = "/run/kscratch/ready/identities";
pub(super) const ADDRESS_READY: &str = "/run/kscratch/address/ready";
pub(super) const STEWARD_READY: &str = "/run/kscratch/ready/steward";

/// Writes what root's programs read, and reads the kubelet's key: root, to whom those files belong. It gives `routes` its key (`CHOWN`), and
/// looks later whether that is still sound (`DAC_READ_SEARCH`).
const IDENTITIES_RIGHTS: Rights =
    Rights { user: 0, capabilities: CapabilitySet::CHOWN.union(CapabilitySet::DAC_READ_SEARCH) };
/// Reads the authorities' keys, which are root's, and keeps certificates in the directories of the control plane's users: it gets in there
/// (`DAC_OVERRIDE`), gives files away (`CHOWN`) and puts their modes right (`FOWNER`).
const STEWARD_RIGHTS: Rights = Rights {
    user: 0,
    capabilities: CapabilitySet::CHOWN.union(CapabilitySet::DAC_OVERRIDE).union(CapabilitySet::FOWNER),
};
/// Changes routes and the overlay's device, and has files of its own.
const ROUTES_RIGHTS: Rights = Rights { user: cluster::ROUTES_USER, capabilities: CapabilitySet::NET_ADMIN };
/// A socket in its own folder is all that it has.
const INHIBITOR_RIGHTS: Rights = Rights { user: INHIBITOR_USER, capabilities: CapabilitySet::empty() };
/// Puts an address on the link, and tells the neighbours in frames of its own.
const ADDRESS_RIGHTS: Rights =
    Rights { user: cluster::ADDRESS_USER, capabilities: CapabilitySet::NET_ADMIN.union(CapabilitySet::NET_RAW) };

/// Writes rules of nft or iptables, forgets connections by netlink, and sets what root's own files in /proc/sys and /sys hold.
const KUBE_PROXY_RIGHTS: Rights =
    Rights { user: 0, capabilities: CapabilitySet::NET_ADMIN.union(CapabilitySet::NET_RAW) };

/// Reads services' logs, which anybody may, and the kernel's, which PID 1 opens for it: with a capability for that (`SYSLOG`) it could empty it, too.
const LOGS_RIGHTS: Rights = Rights { user: LOGS_USER, capabilities: CapabilitySet::empty() };

/// A control plane takes minutes to come up on a slow machine, and a node may be there long before its masters.
const CLUSTER_READY_WITHIN: Duration = Duration::from_secs(300);

/// The services of a node called `name` but [`containerd`]; agents and kube-proxy only where there is a cluster.
pub(super) fn list(metadata: &RoleMetadata, facts: &Facts, name: &str, address: Option<Ipv4Addr>) -> Vec<Service> {
    let mut services: Vec<Service> = inhibitor(metadata).into_iter().collect();
    services.extend([
        dockerd(metadata.docker.open_files),
        cri_dockerd(&facts.release.pause_image),
        kubelet_service(metadata, name, address),
    ]);
    if metadata.cluster.is_some() {
        // By then the API server answers, and both have their certificates.
        let first = match metadata.role {
            Role::Master => agent("steward", STEWARD, STEWARD_READY, "kubelet", STEWARD_RIGHTS),
            Role::Node => agent("identities", IDENTITIES, IDENTITIES_READY, "kubelet", IDENTITIES_RIGHTS),
        };
        let after = first.name;
        services.push(first);
        if address.is_some() {
            // A master's certificate for it is there already, and old routes must not wait for an API server.
            let after = if metadata.role == Role::Master { "kubelet" } else { after };
            services.push(agent("routes", ROUTES, cluster::POD_RANGE, after, ROUTES_RIGHTS));
        }
        let shared = metadata.control_plane.as_ref().and_then(|control_plane| control_plane.virtual_address);
        if address.is_some() && shared.is_some() {
            // The steward has given it its rights. It gives the address back by this machine's API server, which the kubelet ends with its pods.
            let keeper = agent("address", ADDRESS, ADDRESS_READY, after, ADDRESS_RIGHTS);
            services.push(Service { stops_first: true, ..keeper });
        }
        services.push(kube_proxy(after));
    }
    services
}

/// How long a service that has to answer may be silent: a machine without memory or with a slow disk has bad minutes, and pods go on meanwhile.
const HANGS: Duration = Duration::from_secs(5 * 60);

/// What all services have in common.
fn service(name: &'static str, program: &str, ready: Ready, after: &[&'static str]) -> Service {
    Service {
        name,
        program: program.to_owned(),
        args: Vec::new(),
        env: vec![("PATH".to_owned(), "/usr/sbin:/usr/bin".to_owned())],
        after: after.to_vec(),
        ready,
        ready_within: Duration::from_secs(60),
        answers_within: None,
        stop_within: Duration::from_secs(10),
        oom_score_adj: SPARED,
        open_files: OPEN_FILES,
        leave_children: false,
        rights: None,
        reads: None,
        stops_first: false,
        tells: false,
    }
}

pub(super) fn containerd(open_files: u64) -> Service {
    let socket = "/run/containerd/containerd.sock".to_owned();
    Service {
        args: vec!["--config=/run/kscratch/containerd.toml".to_owned()],
        open_files,
        // The shims hold the containers.
        leave_children: true,
        ..service("containerd", "/usr/bin/containerd", Ready::UnixSocket(socket), &[])
    }
}

fn dockerd(open_files: u64) -> Service {
    let ready = Ready::UnixHttp { socket: "/run/docker.sock".to_owned(), path: "/_ping".to_owned() };
    Service {
        args: vec!["--config-file=/run/kscratch/daemon.json".to_owned()],
        open_files,
        answers_within: Some(HANGS),
        // dockerd gives its containers 15 seconds (`shutdown-timeout`) where live-restore does not keep them.
        stop_within: Duration::from_secs(20),
        leave_children: true,
        ..service("dockerd", "/usr/sbin/dockerd", ready, &["containerd"])
    }
}

fn cri_dockerd(pause_image: &str) -> Service {
    let ready = Ready::UnixSocket("/run/cri-dockerd.sock".to_owned());
    Service {
        args: [
            "--container-runtime-endpoint=unix:///run/cri-dockerd.sock",
            "--docker-endpoint=unix:///run/docker.sock",
            "--cri-dockerd-root-directory=/var/lib/cri-dockerd",
            "--network-plugin=cni",
            "--cni-conf-dir=/run/kscratch/cni/net.d",
            "--cni-bin-dir=/opt/cni/bin",
            "--cni-cache-dir=/var/lib/cni/cache",
            // exec and attach pass through the kubelet, which asks on the loopback address; by default it listens on all.
            "--streaming-bind-addr=127.0.0.1",
        ]
        .into_iter()
        .map(str::to_owned)
        .chain([format!("--pod-infra-container-image={pause_image}")])
        .collect(),
        ..service("cri-dockerd", "/usr/bin/cri-dockerd", ready, &["dockerd"])
    }
}

/// Sends away what services, kernel and init say. Nobody waits for it, and where memory is short it goes before what it tells of.
pub(super) fn logs() -> Service {
    let ready = Ready::File(format!("{LOGS_RUN}/ready"));
    Service {
        args: vec!["logs".to_owned(), LOGS.to_owned()],
        oom_score_adj: 0,
        open_files: 1024,
        rights: Some(LOGS_RIGHTS),
        reads: Some(Input::KernelLog),
        tells: true,
        ..service("logs", AGENT, ready, &[])
    }
}

/// Gives pods their grace when the machine stops; none where they are to have none.
fn inhibitor(metadata: &RoleMetadata) -> Option<Service> {
    let seconds = metadata.shutdown.grace_seconds;
    // What the kubelet says last of its pods is still on its way to the API server when they are gone: two requests for each of them.
    let linger = if metadata.cluster.is_some() { 5 } else { 0 };
    let socket = format!("{INHIBITOR}/bus");
    (seconds > 0).then(|| Service {
        args: vec![inhibitor::VERB.to_owned(), socket.clone(), seconds.to_string(), linger.to_string()],
        // It ends by itself before that.
        stop_within: Duration::from_secs(u64::from(seconds) + 10),
        rights: Some(INHIBITOR_RIGHTS),
        stops_first: true,
        tells: true,
        ..service("inhibitor", INIT, Ready::UnixSocket(socket), &[])
    })
}

fn kubelet_service(metadata: &RoleMetadata, name: &str, address: Option<Ipv4Addr>) -> Service {
    let mut args = vec![
        format!("--config={}", kubelet::CONFIG),
        format!("--hostname-override={name}"),
        "--root-dir=/var/lib/kubelet".to_owned(),
    ];
    args.extend(address.map(|address| format!("--node-ip={address}")));
    // Without a kubeconfig the kubelet stands alone (`standaloneMode` in cmd/kubelet/app/server.go).
    if metadata.cluster.is_some() {
        args.push(format!("--kubeconfig={}", kubelet::KUBECONFIG));
        if metadata.role == Role::Node && metadata.join.token.is_some() {
            args.push(format!("--bootstrap-kubeconfig={}", kubelet::BOOTSTRAP));
        }
        let labels = &metadata.node.labels;
        if !labels.is_empty() {
            let pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            args.push(format!("--node-labels={}", pairs.join(",")));
        }
    }
    let ready = Ready::Http { port: 10248, path: "/healthz".to_owned() };
    let mut kubelet = Service {
        args,
        ready_within: Duration::from_secs(120),
        answers_within: Some(HANGS),
        ..service("kubelet", "/usr/bin/kubelet", ready, &["cri-dockerd"])
    };
    if metadata.shutdown.grace_seconds > 0 {
        // It looks for logind once, at its start. Nobody else is to take this for the system's bus: dockerd would look for firewalld there.
        kubelet.after.push("inhibitor");
        kubelet.env.push(("DBUS_SYSTEM_BUS_ADDRESS".to_owned(), format!("unix:path={INHIBITOR}/bus")));
    }
    kubelet
}

/// One of the agent's verbs as a service.
fn agent(name: &'static str, file: &str, ready: &str, after: &'static str, rights: Rights) -> Service {
    Service {
        args: vec![name.to_owned(), file.to_owned()],
        ready_within: CLUSTER_READY_WITHIN,
        rights: Some(rights),
        tells: true,
        ..service(name, AGENT, Ready::File(ready.to_owned()), &[after])
    }
}

fn kube_proxy(after: &'static str) -> Service {
    let ready = Ready::Http { port: 10256, path: "/healthz".to_owned() };
    Service {
        args: vec![format!("--config={}", kubeproxy::CONFIG)],
        rights: Some(KUBE_PROXY_RIGHTS),
        ..service("kube-proxy", "/usr/bin/kube-proxy", ready, &[after])
    }
}
