//! Renders the configuration of kube-proxy, a process of the host (R15).
use kscratch_metadata::Cluster;
use serde_json::{Value, json};

/// kube-proxy's configuration.
pub(super) const CONFIG: &str = "/run/kscratch/kube-proxy.json";
/// Who it is to the API server.
pub(super) const KUBECONFIG: &str = "/run/kscratch/kube-proxy.kubeconfig";

/// A KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1).
pub(super) fn config(cluster: &Cluster, name: &str) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": { "kubeconfig": KUBECONFIG },
        "clusterCIDR": cluster.pod_range.to_string(),
        "healthzBindAddress": "127.0.0.1:10256",
        "hostnameOverride": name,
        "metricsBindAddress": "127.0.0.1:10249",
        "mode": "nftables",
    })
}
