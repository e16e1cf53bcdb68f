//! What the agent reads of a Node object: much less than a Node says, which with its images is tens of kilobytes.
use std::borrow::Cow;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::ClusterResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;

/// A Node, abridged.
#[derive(Debug, Clone, Deserialize)]
pub struct Node {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Spec {
    #[serde(default, rename = "podCIDRs")]
    pod_ranges: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Status {
    #[serde(default)]
    addresses: Vec<Address>,
    #[serde(default)]
    conditions: Vec<Condition>,
    #[serde(default, rename = "nodeInfo")]
    info: Info,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Info {
    #[serde(default, rename = "kubeletVersion")]
    kubelet: String,
    #[serde(default, rename = "osImage")]
    image: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Address {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

impl Node {
    /// Its name.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// When it was made, RFC 3339: text that sorts as time does.
    pub fn created(&self) -> String {
        self.metadata.creation_timestamp.as_ref().map(|time| time.0.to_string()).unwrap_or_default()
    }

    /// The ranges of its pods (`spec.podCIDRs`), without what is none.
    pub fn pod_ranges(&self) -> Vec<IpNet> {
        self.spec.pod_ranges.iter().filter_map(|range| range.parse().ok()).collect()
    }

    /// The text of its addresses of a kind: `InternalIP`, `ExternalIP`, `Hostname`, `InternalDNS`, `ExternalDNS`.
    pub fn names(&self, kind: &str) -> impl Iterator<Item = &str> {
        self.status.addresses.iter().filter(move |entry| entry.kind == kind).map(|entry| entry.address.as_str())
    }

    /// Its addresses of a kind, without what is none.
    pub fn addresses(&self, kind: &str) -> impl Iterator<Item = IpAddr> {
        self.names(kind).filter_map(|text| text.parse().ok())
    }

    /// Whether its kubelet was heard of lately, whatever it said: the control plane writes `Unknown` where it was not.
    pub fn alive(&self) -> bool {
        self.status.conditions.iter().find(|one| one.kind == "Ready").is_none_or(|ready| ready.status != "Unknown")
    }

    /// Its kubelet's version, such as `v1.37.2`; nothing before it has said so.
    pub fn version(&self) -> &str {
        &self.status.info.kubelet
    }

    /// What it runs, such as `kscratch 0.1.0` (os-release(5), `PRETTY_NAME`); nothing before its kubelet has said so.
    pub fn image(&self) -> &str {
        &self.status.info.image
    }

    /// What its deletion waits for.
    pub fn finalizers(&self) -> impl Iterator<Item = &str> {
        self.metadata.finalizers.iter().flatten().map(String::as_str)
    }

    /// Whether its deletion waits for this, or would.
    pub fn held_by(&self, finalizer: &str) -> bool {
        self.finalizers().any(|one| one == finalizer)
    }

    /// Whether somebody has deleted it; it is there as long as something holds it.
    pub fn deleted(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// What an annotation says.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// Whether it carries a label.
    pub fn labelled(&self, label: &str) -> bool {
        self.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(label))
    }
}

impl Resource for Node {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Node".into()
    }
    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }
    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }
    fn plural((): &()) -> Cow<'_, str> {
        "nodes".into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
