//! Makes this machine's Node with the range that its metadata says, in the kubelet's place: a Node without one is given another one at once, and for good.
use std::time::Duration;

use anyhow::{Context as _, Result};
use ipnet::{IpNet, Ipv4Net};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::connection::{bounded, is_late};
use crate::contract::Registration;
use crate::node::Node;
use crate::say;

/// How long after somebody else was faster it is looked again.
const AGAIN: Duration = Duration::from_secs(1);

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// There is no Node.
    Create,
    /// It has no range yet.
    Give,
    /// It has one, which nobody can change: init tells where it is another one.
    Leave,
}

fn step(node: Option<&Node>) -> Step {
    match node {
        None => Step::Create,
        Some(node) if node.pod_ranges().is_empty() => Step::Give,
        Some(_) => Step::Leave,
    }
}

/// Makes the Node, unless it is there. The API server lets a kubelet do that for its own Node alone, and only once: what it has then, stays.
///
/// # Errors
/// The API server does not answer, or refuses.
pub async fn make(client: &Client, wanted: &Registration) -> Result<()> {
    let (name, range) = (wanted.node.as_str(), wanted.pod_range);
    let nodes = Api::<Node>::all(client.clone());
    loop {
        let node = bounded(nodes.get_opt(name)).await.with_context(|| format!("looking for Node {name}"))?;
        let done = match step(node.as_ref()) {
            Step::Create => create(client, wanted).await,
            Step::Give => {
                let patch = json!({ "spec": spec(range) });
                bounded(nodes.patch_metadata(name, &PatchParams::default(), &Patch::Merge(&patch))).await.map(drop)
            }
            Step::Leave => {
                if node.is_some_and(|node| node.pod_ranges().contains(&IpNet::V4(range))) {
                    say::line(format_args!("the pods of Node {name} have {range}, as its metadata says"));
                }
                return Ok(());
            }
        };
        match done {
            // Somebody else made or deleted it meanwhile.
            Err(error) if is_late(&error) => tokio::time::sleep(AGAIN).await,
            done => done.with_context(|| format!("giving Node {name} the range {range}"))?,
        }
    }
}

async fn create(client: &Client, wanted: &Registration) -> Result<()> {
    let request = http::Request::post("/api/v1/nodes")
        .header("Content-Type", "application/json")
        .body(object(wanted).to_string().into_bytes())
        .context("making the request for a Node")?;
    bounded(client.request_text(request)).await.map(drop)
}

fn spec(range: Ipv4Net) -> Value {
    json!({ "podCIDR": range, "podCIDRs": [range] })
}

/// The Node as a kubelet makes it (`initialNode` in pkg/kubelet/kubelet_node_status.go), and its range.
fn object(wanted: &Registration) -> Value {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let mut labels = wanted.labels.clone();
    for (label, value) in [("arch", arch), ("hostname", &wanted.node), ("os", "linux")] {
        labels.insert(format!("kubernetes.io/{label}"), value.to_owned());
    }
    let mut spec = spec(wanted.pod_range);
    if !wanted.taints.is_empty() {
        spec["taints"] = Value::Array(wanted.taints.clone());
    }
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": wanted.node,
            "labels": labels,
            // The controller attaches volumes, not the kubelet: that is the kubelet's default (`enableControllerAttachDetach`).
            "annotations": { "volumes.kubernetes.io/controller-managed-attach-detach": "true" },
        },
        "spec": spec,
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1 as core;
    use serde_json::json;

    use super::{Step, object, step};
    use crate::contract::Registration;
    use crate::node::Node;

    #[test]
    fn a_range_is_given_once() {
        let node =
            |spec| serde_json::from_value::<Node>(json!({ "metadata": { "name": "n1" }, "spec": spec })).unwrap();
        assert_eq!(step(None), Step::Create);
        assert_eq!(step(Some(&node(json!({})))), Step::Give);
        assert_eq!(step(Some(&node(json!({ "podCIDRs": ["10.244.3.0/24"] })))), Step::Leave);
        assert_eq!(step(Some(&node(json!({ "podCIDRs": ["10.244.9.0/24"] })))), Step::Leave);
    }

    #[test]
    fn it_is_a_node_as_a_kubelet_makes_it() {
        let taint = json!({ "key": "dedicated", "value": "db", "effect": "NoSchedule" });
        let wanted = Registration {
            node: "n1".into(),
            pod_range: "10.244.3.0/24".parse().unwrap(),
            labels: [("rack".to_owned(), "r1".to_owned())].into(),
            taints: vec![taint.clone()],
        };
        let made = object(&wanted);
        let node: core::Node = serde_json::from_value(made.clone()).unwrap();
        assert_eq!(serde_json::to_value(&node).unwrap(), made, "a field is not Kubernetes'");
        assert_eq!(
            made["spec"],
            json!({ "podCIDR": "10.244.3.0/24", "podCIDRs": ["10.244.3.0/24"], "taints": [taint] })
        );
        let labels = node.metadata.labels.unwrap();
        let all: Vec<_> = labels.keys().map(String::as_str).collect();
        assert_eq!(all, ["kubernetes.io/arch", "kubernetes.io/hostname", "kubernetes.io/os", "rack"]);
        assert_eq!(labels["kubernetes.io/hostname"], "n1");
    }
}
