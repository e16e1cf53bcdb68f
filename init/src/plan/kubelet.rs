//! Renders the configuration of the kubelet (R12, R9) and the credentials with which it joins a cluster (R8).
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kscratch_metadata::{Cluster, Effect, Role, RoleMetadata, Secret, Taint};
use serde_json::{Value, json};

/// Where the kubelet keeps the kubeconfig it got by joining. On state: it is the machine's identity.
pub(super) const KUBECONFIG: &str = "/etc/kubernetes/kubelet.conf";
/// The kubeconfig for the first contact, where there is a token.
pub(super) const BOOTSTRAP: &str = "/run/kscratch/bootstrap-kubelet.conf";
/// The cluster's CA, by which the kubelet knows the API server as its client.
pub(super) const CA: &str = "/run/kscratch/ca.crt";
/// The kubelet's configuration.
pub(super) const CONFIG: &str = "/run/kscratch/kubelet.json";

/// A KubeletConfiguration (kubelet.config.k8s.io/v1beta1), with the metadata's extra fields over it.
pub(super) fn config(metadata: &RoleMetadata) -> Value {
    let mut config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "cgroupfs",
        "containerLogMaxFiles": 5,
        // Negative: the kubelet does not rotate. docker does (max-size), and cannot be told to reopen a log.
        "containerLogMaxSize": "-1",
        "containerRuntimeEndpoint": "unix:///run/cri-dockerd.sock",
        "failSwapOn": true,
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": 10248,
        "protectKernelDefaults": true,
        "readOnlyPort": 0,
        "resolvConf": "/run/kscratch/resolv.conf",
        "staticPodPath": "/run/kscratch/manifests",
        "volumePluginDir": "/var/lib/kubelet/volumeplugins",
    });
    let access = match &metadata.cluster {
        Some(cluster) => clustered(cluster),
        None => standalone(),
    };
    let shutdown = &metadata.shutdown;
    if shutdown.grace_seconds > 0 {
        config["shutdownGracePeriod"] = format!("{}s", shutdown.grace_seconds).into();
        config["shutdownGracePeriodCriticalPods"] = format!("{}s", shutdown.critical_grace_seconds).into();
    }
    let taints = taints_as_objects(metadata);
    if has_own_range(metadata) {
        config["registerNode"] = false.into();
    } else if !taints.is_empty() {
        config["registerWithTaints"] = Value::Array(taints);
    }
    if let (Value::Object(config), Value::Object(access)) = (&mut config, access) {
        config.extend(access);
        // Fields of ours cannot be among them: the metadata's parser refuses those.
        config.extend(metadata.kubelet.clone());
    }
    config
}

/// Whether the cluster is told which range the node's pods have. A kubelet cannot tell it: then the agent makes the Node in its place.
fn has_own_range(metadata: &RoleMetadata) -> bool {
    metadata.cluster.is_some() && metadata.node.pod_range.is_some()
}

/// The Node that the agent makes in the kubelet's place, where it does.
pub(super) fn registration(metadata: &RoleMetadata, name: &str) -> Option<Value> {
    let range = metadata.node.pod_range.filter(|_| has_own_range(metadata))?;
    Some(json!({
        "node": name,
        "pod_range": range.to_string(),
        "labels": metadata.node.labels,
        "taints": taints_as_objects(metadata),
    }))
}

fn taints_as_objects(metadata: &RoleMetadata) -> Vec<Value> {
    let object = |taint: &Taint| json!({ "key": taint.key, "value": taint.value, "effect": taint.effect.to_string() });
    taints(metadata).iter().map(object).collect()
}

/// The metadata's taints; on a master that is not for ordinary pods, one more (R25).
fn taints(metadata: &RoleMetadata) -> Vec<Taint> {
    let mut taints = metadata.node.taints.clone();
    let schedule_pods = metadata.control_plane.as_ref().and_then(|control_plane| control_plane.schedule_pods);
    if metadata.role == Role::Master && schedule_pods != Some(true) {
        let key = "node-role.kubernetes.io/control-plane".to_owned();
        let taint = Taint { key, value: String::new(), effect: Effect::NoSchedule };
        if !taints.contains(&taint) {
            taints.push(taint);
        }
    }
    taints
}

/// With a cluster: clients prove themselves by certificate or token, and the API server says what they may do.
fn clustered(cluster: &Cluster) -> Value {
    json!({
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": CA },
        },
        "authorization": { "mode": "Webhook" },
        "clusterDNS": [cluster.dns_address.to_string()],
        "clusterDomain": cluster.dns_domain,
        "rotateCertificates": true,
        // Its serving certificate too is signed by the cluster, so that whoever asks it for logs knows whom they have before them.
        "serverTLSBootstrap": true,
    })
}

/// Alone there is nobody to ask about a client, and no CA by which one could prove itself: the server, which would turn everybody
/// away, stays shut (R3, R9). The health port is not part of it.
fn standalone() -> Value {
    json!({
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": false },
        },
        "authorization": { "mode": "AlwaysAllow" },
        "enableServer": false,
    })
}

/// The kubeconfig of the first contact: the token proves the machine to the cluster, the CA the cluster to the machine.
pub(super) fn bootstrap(cluster: &str, server: &str, ca: &str, token: &Secret) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": cluster,
            "cluster": {
                "server": server,
                "certificate-authority-data": STANDARD.encode(ca),
            },
        }],
        "users": [{ "name": "kubelet-bootstrap", "user": { "token": token.expose() } }],
        "contexts": [{
            "name": "bootstrap",
            "context": { "cluster": cluster, "user": "kubelet-bootstrap" },
        }],
        "current-context": "bootstrap",
    })
}
