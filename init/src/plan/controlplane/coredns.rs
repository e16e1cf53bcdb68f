//! Renders the cluster's DNS (R24): CoreDNS as a Deployment behind the Service `kube-dns` at the cluster's DNS address.
use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::{Master, UPSTREAM_FOLDER};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "coredns";

/// All objects, in the order in which they need each other.
pub(super) fn objects(master: &Master<'_>) -> Vec<Value> {
    let [account, role, binding] = access();
    vec![account, role, binding, config(master), deployment(master), service(master)]
}

fn access() -> [Value; 3] {
    const RBAC: &str = "rbac.authorization.k8s.io";
    let watch = |group: &str, resources: &[&str]| json!({ "apiGroups": [group], "resources": resources, "verbs": ["list", "watch"] });
    [
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": NAME, "namespace": NAMESPACE } }),
        json!({
            "apiVersion": format!("{RBAC}/v1"),
            "kind": "ClusterRole",
            "metadata": { "name": "system:coredns" },
            "rules": [
                watch("", &["endpoints", "services", "pods", "namespaces"]),
                watch("discovery.k8s.io", &["endpointslices"]),
            ],
        }),
        json!({
            "apiVersion": format!("{RBAC}/v1"),
            "kind": "ClusterRoleBinding",
            "metadata": { "name": "system:coredns" },
            "roleRef": { "apiGroup": RBAC, "kind": "ClusterRole", "name": "system:coredns" },
            "subjects": [{ "kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE }],
        }),
    ]
}

/// The Corefile. Names of the cluster are not cached: a Service that was just made must be found. Who is asked for all others each machine says
/// itself ([`upstream`]): this is the same on all masters, whatever their leases say and whenever those come.
fn corefile(master: &Master<'_>) -> String {
    let domain = &master.cluster.dns_domain;
    format!(
        ".:53 {{
    errors
    health {{
        lameduck 5s
    }}
    ready
    kubernetes {domain} in-addr.arpa ip6.arpa {{
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
    }}
    prometheus :9153
    import {UPSTREAM_FOLDER}/*.conf
    cache 30 {{
        disable success {domain}
        disable denial {domain}
    }}
    loop
    reload
    loadbalance
}}
"
    )
}

/// What the Corefile has from the machine that CoreDNS runs on; `reload` looks at it, too. A pod's own resolv.conf would not do: it is written when the
/// pod is made, and stays.
pub(super) fn upstream(servers: &[Ipv4Addr]) -> String {
    // `forward` does not start without a server to forward to.
    if servers.is_empty() {
        return "# This machine has no name server: names outside of the cluster are not found.\n".to_owned();
    }
    let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
    format!("forward . {} {{\n    max_concurrent 1000\n}}\n", servers.join(" "))
}

fn config(master: &Master<'_>) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": NAME, "namespace": NAMESPACE },
        "data": { "Corefile": corefile(master) },
    })
}

fn deployment(master: &Master<'_>) -> Value {
    let selector = json!({ "matchLabels": { "k8s-app": "kube-dns" } });
    let port = |name: &str, number: u16, protocol: &str| json!({ "name": name, "containerPort": number, "protocol": protocol });
    let probe = |path: &str, port: &str, period: u32, failures: u32| {
        json!({
            "httpGet": { "path": path, "port": port, "scheme": "HTTP" },
            "periodSeconds": period,
            "timeoutSeconds": 5,
            "failureThreshold": failures,
        })
    };
    let container = json!({
        "name": NAME,
        "image": master.image(NAME),
        "imagePullPolicy": "IfNotPresent",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "ports": [
            port("dns", 53, "UDP"),
            port("dns-tcp", 53, "TCP"),
            port("metrics", 9153, "TCP"),
            port("health", 8080, "TCP"),
            port("ready", 8181, "TCP"),
        ],
        "livenessProbe": probe("/health", "health", 10, 5),
        "readinessProbe": probe("/ready", "ready", 2, 3),
        "startupProbe": probe("/health", "health", 2, 120),
        "resources": { "limits": { "memory": "170Mi" }, "requests": { "cpu": "100m", "memory": "70Mi" } },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "add": ["NET_BIND_SERVICE"], "drop": ["ALL"] },
            "readOnlyRootFilesystem": true,
        },
        "volumeMounts": [
            { "name": "config", "mountPath": "/etc/coredns", "readOnly": true },
            { "name": "upstream", "mountPath": UPSTREAM_FOLDER, "readOnly": true },
        ],
    });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": NAME, "namespace": NAMESPACE, "labels": { "k8s-app": "kube-dns" } },
        "spec": {
            "replicas": 2,
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1 } },
            "selector": selector,
            "template": {
                "metadata": { "labels": { "k8s-app": "kube-dns" } },
                "spec": {
                    // Masters' images have it, nodes' do not.
                    "nodeSelector": { "node-role.kubernetes.io/control-plane": "" },
                    "priorityClassName": "system-cluster-critical",
                    "serviceAccountName": NAME,
                    "securityContext": { "seccompProfile": { "type": "RuntimeDefault" } },
                    "affinity": { "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{
                        "weight": 100,
                        "podAffinityTerm": { "labelSelector": selector, "topologyKey": "kubernetes.io/hostname" },
                    }] } },
                    "tolerations": [
                        { "key": "CriticalAddonsOnly", "operator": "Exists" },
                        { "key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule" },
                    ],
                    "dnsPolicy": "Default",
                    "containers": [container],
                    "volumes": [
                        {
                            "name": "config",
                            "configMap": { "name": NAME, "items": [{ "key": "Corefile", "path": "Corefile" }] },
                        },
                        { "name": "upstream", "hostPath": { "path": UPSTREAM_FOLDER, "type": "Directory" } },
                    ],
                },
            },
        },
    })
}

fn service(master: &Master<'_>) -> Value {
    let port = |name: &str, number: u16, protocol: &str| json!({ "name": name, "port": number, "targetPort": number, "protocol": protocol });
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "kube-dns",
            "namespace": NAMESPACE,
            "labels": {
                "k8s-app": "kube-dns",
                "kubernetes.io/cluster-service": "true",
                "kubernetes.io/name": "CoreDNS",
            },
            "annotations": { "prometheus.io/port": "9153", "prometheus.io/scrape": "true" },
        },
        "spec": {
            "clusterIP": master.cluster.dns_address.to_string(),
            "selector": { "k8s-app": "kube-dns" },
            "ports": [port("dns", 53, "UDP"), port("dns-tcp", 53, "TCP"), port("metrics", 9153, "TCP")],
        },
    })
}
