//! Renders what the API server reads besides its flags (R9): who may ask without a name, what is encrypted in etcd, what is audited.
use kscratch_metadata::Secret;
use serde_json::{Value, json};

/// AuthenticationConfiguration: whoever has no name may ask whether the server is well, and nothing else. The kubelet's probes have none.
pub(super) fn authentication() -> Value {
    json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthenticationConfiguration",
        "anonymous": {
            "enabled": true,
            "conditions": [{ "path": "/livez" }, { "path": "/readyz" }, { "path": "/healthz" }],
        },
    })
}

/// EncryptionConfiguration: Secrets are sealed with XSalsa20-Poly1305. `identity` at the end reads what was written without.
pub(super) fn encryption(key: &Secret) -> Value {
    json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{
            "resources": ["secrets"],
            "providers": [
                { "secretbox": { "keys": [{ "name": "key1", "secret": key.expose() }] } },
                { "identity": {} },
            ],
        }],
    })
}

/// Audit policy: who did what to which object, never the object itself (it may hold a secret). What the machines say all the time
/// without changing anything that a person cares for is left out.
pub(super) fn audit() -> Value {
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            { "level": "None", "nonResourceURLs": ["/livez*", "/readyz*", "/healthz*", "/version"] },
            { "level": "None", "resources": [
                { "group": "", "resources": ["events"] },
                { "group": "events.k8s.io", "resources": ["events"] },
                { "group": "coordination.k8s.io", "resources": ["leases"] },
            ] },
            { "level": "None", "userGroups": ["system:nodes"], "verbs": ["get", "list", "watch"] },
            { "level": "None", "verbs": ["get", "list", "watch"], "users": [
                "system:kube-controller-manager", "system:kube-scheduler", "system:kube-proxy", "system:apiserver",
            ] },
            { "level": "Metadata" },
        ],
    })
}
