//! Renders the configuration of kube-proxy, a process of the host (R15).
use kscratch_metadata::Cluster;
use serde_json::{Value, json};

use super::kubelet;

/// A KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1). It speaks to the API server as the node does, so the cluster has to
/// bind the group `system:nodes` to the role `system:node-proxier`.
pub(super) fn config(cluster: &Cluster, name: &str) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": { "kubeconfig": kubelet::KUBECONFIG },
        "clusterCIDR": cluster.pod_range.to_string(),
        "healthzBindAddress": "127.0.0.1:10256",
        "hostnameOverride": name,
        "metricsBindAddress": "127.0.0.1:10249",
        "mode": "nftables",
    })
}
