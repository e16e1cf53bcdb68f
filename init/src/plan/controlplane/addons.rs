//! Lists the objects that every kscratch cluster has (R8, R24): who may join and what it may do then, tokens, the masters' labels, DNS.
use kscratch_metadata::{BootstrapToken, JOINERS};
use serde_json::{Value, json};

use super::{LEASE, Master, coredns};
use crate::plan::cluster::{ADDRESS_GROUP, ROUTES_GROUP};

const RBAC: &str = "rbac.authorization.k8s.io";

/// The objects, in files whose names order them.
pub(super) fn objects(master: &Master<'_>) -> Vec<(&'static str, Value)> {
    vec![
        ("10-access", list(access(master))),
        ("20-tokens", list(master.secrets.tokens.iter().map(BootstrapToken::object).collect())),
        ("30-coredns", list(coredns::objects(master))),
        ("40-node", list(vec![node(master)])),
    ]
}

fn list(items: Vec<Value>) -> Value {
    json!({ "apiVersion": "v1", "kind": "List", "items": items })
}

fn access(master: &Master<'_>) -> Vec<Value> {
    let group = |name: &str| json!({ "apiGroup": RBAC, "kind": "Group", "name": name });
    let user = |name: &str| json!({ "apiGroup": RBAC, "kind": "User", "name": name });
    const REQUESTS: &str = "system:certificates.k8s.io:certificatesigningrequests";
    let mut objects = vec![
        binding("kscratch:join", "system:node-bootstrapper", group(JOINERS)),
        binding("kscratch:nodes:renew", &format!("{REQUESTS}:selfnodeclient"), group("system:nodes")),
        binding("kscratch:admins", "cluster-admin", group("kubeadm:cluster-admins")),
        // By this the API server may ask kubelets for logs and have them execute something; nothing else.
        binding("kscratch:kubelets", "system:kubelet-api-admin", user("kube-apiserver-kubelet-client")),
        json!({
            "apiVersion": format!("{RBAC}/v1"),
            "kind": "ClusterRole",
            "metadata": { "name": ROUTES_GROUP },
            "rules": [{ "apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"] }],
        }),
        binding(ROUTES_GROUP, ROUTES_GROUP, group(ROUTES_GROUP)),
    ];
    if master.control_plane.virtual_address.is_some() {
        objects.extend(lease_access(group(ADDRESS_GROUP)));
    }
    objects
}

/// Who keeps the address that masters share may make leases of this namespace, and read and write that of the address.
fn lease_access(subject: Value) -> [Value; 2] {
    let (namespace, lease) = LEASE;
    let metadata = json!({ "name": ADDRESS_GROUP, "namespace": namespace });
    let (group, resource) = (json!(["coordination.k8s.io"]), json!(["leases"]));
    [
        json!({
            "apiVersion": format!("{RBAC}/v1"),
            "kind": "Role",
            "metadata": metadata,
            "rules": [
                // No rule can name what does not exist yet.
                { "apiGroups": group, "resources": resource, "verbs": ["create"] },
                { "apiGroups": group, "resources": resource, "resourceNames": [lease], "verbs": ["get", "update"] },
            ],
        }),
        json!({
            "apiVersion": format!("{RBAC}/v1"),
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": { "apiGroup": RBAC, "kind": "Role", "name": ADDRESS_GROUP },
            "subjects": [subject],
        }),
    ]
}

fn binding(name: &str, role: &str, subject: Value) -> Value {
    json!({
        "apiVersion": format!("{RBAC}/v1"),
        "kind": "ClusterRoleBinding",
        "metadata": { "name": name },
        "roleRef": { "apiGroup": RBAC, "kind": "ClusterRole", "name": role },
        "subjects": [subject],
    })
}

/// A kubelet may not give itself this label (R25). The taint it registers with.
fn node(master: &Master<'_>) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": master.name, "labels": { "node-role.kubernetes.io/control-plane": "" } },
    })
}
