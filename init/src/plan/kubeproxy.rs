//! Renders the configuration of kube-proxy, a process of the host (R15).
use kscratch_metadata::{Cluster, ProxyMode};
use serde_json::{Value, json};

/// kube-proxy's configuration.
pub(super) const CONFIG: &str = "/run/kscratch/kube-proxy.json";
/// Who it is to the API server.
pub(super) const KUBECONFIG: &str = "/run/kscratch/kube-proxy.kubeconfig";

/// A KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1).
pub(super) fn config(cluster: &Cluster, mode: ProxyMode, name: &str) -> Value {
    let mut config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": { "kubeconfig": KUBECONFIG },
        "clusterCIDR": cluster.pod_range.to_string(),
        "healthzBindAddress": "127.0.0.1:10256",
        "hostnameOverride": name,
        "metricsBindAddress": "127.0.0.1:10249",
        "mode": mode.word(),
    });
    if mode == ProxyMode::Iptables {
        // As in the other mode: node ports on the loopback address would need net.ipv4.conf.all.route_localnet, by which neighbours reach
        // what listens there.
        config["iptables"] = json!({ "localhostNodePorts": false });
    }
    config
}

#[cfg(test)]
mod tests {
    use kscratch_metadata::{Cluster, ProxyMode};
    use serde_json::{Value, json};

    use super::config;

    #[test]
    fn node_ports_are_on_the_loopback_address_in_no_mode() {
        for (mode, word, iptables) in [
            (ProxyMode::Nftables, "nftables", Value::Null),
            (ProxyMode::Iptables, "iptables", json!({ "localhostNodePorts": false })),
        ] {
            let config = config(&Cluster::default(), mode, "n1");
            assert_eq!((&config["mode"], &config["iptables"]), (&json!(word), &iptables));
        }
    }
}
