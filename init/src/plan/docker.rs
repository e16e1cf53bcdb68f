//! Renders the configuration of containerd and dockerd (R11).
use ipnet::Ipv4Net;
use kscratch_metadata::Docker;
use serde_json::{Value, json};

use super::cni;

/// containerd's config.toml, version 2. Plugins that this machine has no use for are left out: each costs memory and start time.
/// The `opt` plugin would write below /opt, which is read-only.
pub(super) const CONTAINERD: &str = r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = -999
disabled_plugins = [
  "io.containerd.grpc.v1.cri",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
  address = "/run/containerd/containerd.sock"

[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"
"#;

/// dockerd's daemon.json. `range` is the node's pod range and the bridge's MTU; without one docker gets no network of its own.
pub(super) fn daemon(settings: &Docker, range: Option<(Ipv4Net, u32)>) -> Value {
    let mut daemon = json!({
        "bridge": "none",
        "containerd": "/run/containerd/containerd.sock",
        "data-root": "/var/lib/docker",
        "default-ulimits": {
            "nofile": {
                "Name": "nofile",
                "Soft": settings.open_files,
                "Hard": settings.open_files,
            },
        },
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "exec-root": "/run/docker",
        // There is no group `docker` in the image, and nobody to be in it.
        "group": "0",
        "hosts": ["unix:///run/docker.sock"],
        "insecure-registries": settings.insecure_registries,
        "ip-forward": true,
        "ip-masq": false,
        "ip6tables": false,
        "iptables": false,
        "live-restore": true,
        "log-driver": "json-file",
        "log-opts": { "max-file": "5", "max-size": "10m" },
        // /var outlives the machine's sleep, a process number does not.
        "pidfile": "/run/docker.pid",
        "registry-mirrors": settings.mirrors,
        "storage-driver": "overlay2",
        // The proxy is for machines whose iptables docker may not touch and whose pods nobody maps; CNI's portmap does it here.
        "userland-proxy": false,
    });
    if let Some((range, mtu)) = range {
        daemon["bridge"] = json!("cbr0");
        daemon["fixed-cidr"] = json!(cni::shares(range).docker.to_string());
        daemon["mtu"] = json!(mtu);
    }
    daemon
}
