//! The shape of `[control_plane]`: what makes a machine of role master one of a cluster's, and the secrets that it holds for it.
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use crate::secret::{self, Secret};

/// The group of whoever comes with a token: masters bind the right to ask for a node's certificate to it, and approve requests of it alone.
pub const JOINERS: &str = "system:bootstrappers:kscratch:nodes";

/// A master's share of the control plane.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ControlPlane {
    /// Whether ordinary pods run here too: without the taint `node-role.kubernetes.io/control-plane:NoSchedule`. Default false; true for
    /// a master that makes its own cluster, where there may be no other node.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default)]
    pub schedule_pods: Option<bool>,
    /// Further names and IPv4 addresses for the API server's certificate.
    #[schemars(default)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// An IPv4 address that the masters share: at any time one that is alive has it on its link, beside its own. All masters are on one link
    /// and name the same one. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default, with = "Option<String>")]
    pub virtual_address: Option<Ipv4Addr>,
    /// The cluster's store.
    #[schemars(default)]
    pub etcd: Etcd,
    /// The cluster's identity. Without it the machine makes a cluster of its own at first boot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secrets: Option<ControlPlaneSecrets>,
}

/// The cluster's store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Etcd {
    /// Node names and addresses of the masters that begin the cluster, this one among them: 1, 3 or 5. With `join`, this one and any number
    /// of those that live. Default: this one alone, whose etcd keeps to the loopback address: no other can join it.
    #[schemars(default, with = "BTreeMap<String, String>")]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub members: BTreeMap<String, Ipv4Addr>,
    /// Whether this master joins a control plane that lives: it never begins a cluster, but waits until one of the other members takes it in.
    /// Default false.
    #[schemars(default)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub join: bool,
}

/// What only masters know. It may stand in the secrets file instead, as the same table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ControlPlaneSecrets {
    /// Private key of `cluster.ca`, PEM (PKCS#8).
    #[serde(serialize_with = "secret::expose")]
    #[schemars(with = "String")]
    pub ca_key: Secret,
    /// Certificate of etcd's CA, PEM.
    pub etcd_ca: String,
    /// Its private key.
    #[serde(serialize_with = "secret::expose")]
    #[schemars(with = "String")]
    pub etcd_ca_key: Secret,
    /// Certificate of the front proxy's CA (aggregated API servers), PEM.
    pub front_proxy_ca: String,
    /// Its private key.
    #[serde(serialize_with = "secret::expose")]
    #[schemars(with = "String")]
    pub front_proxy_ca_key: Secret,
    /// Private key that signs the tokens of service accounts, PEM (PKCS#8).
    #[serde(serialize_with = "secret::expose")]
    #[schemars(with = "String")]
    pub service_account_key: Secret,
    /// Public part of it, PEM (SubjectPublicKeyInfo).
    pub service_account_public_key: String,
    /// Key that Secrets are encrypted with in etcd: 32 bytes, base64.
    #[serde(serialize_with = "secret::expose")]
    #[schemars(with = "String")]
    pub encryption_key: Secret,
    /// Tokens with which machines may join.
    #[schemars(default)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<BootstrapToken>,
}

/// A token with which machines may join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct BootstrapToken {
    /// `[a-z0-9]{6}.[a-z0-9]{16}`.
    #[serde(serialize_with = "secret::expose")]
    #[schemars(with = "String", extend("pattern" = r"^[a-z0-9]{6}\.[a-z0-9]{16}$"))]
    pub token: Secret,
    /// When it ends, RFC 3339 in UTC, e.g. `2027-01-31T00:00:00Z`. Default: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub expires: Option<String>,
}

impl BootstrapToken {
    /// The Secret by which an API server knows the token, named by the token's first part.
    #[must_use]
    pub fn object(&self) -> Value {
        // https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/#bootstrap-token-secret-format
        let (id, secret) = self.token.expose().split_once('.').unwrap_or_default();
        let mut data = json!({
            "token-id": id,
            "token-secret": secret,
            "usage-bootstrap-authentication": "true",
            "usage-bootstrap-signing": "true",
            "auth-extra-groups": JOINERS,
        });
        if let Some(expires) = &self.expires {
            data["expiration"] = json!(expires);
        }
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": { "name": format!("bootstrap-token-{id}"), "namespace": "kube-system" },
            "type": "bootstrap.kubernetes.io/token",
            "stringData": data,
        })
    }
}
