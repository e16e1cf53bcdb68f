//! Turns a Node object and what its kubelet says of the machine into lines for people.
use std::fmt::Write as _;

use anyhow::Result;
use serde_json::Value;

use super::{boot, condition, is_ready, object, text};
use crate::console::{counted, human_bytes, shown};
use crate::vmcluster::api::Api;

/// A machine as its cluster sees it.
pub struct Status {
    /// For people.
    pub text: String,
    /// For programs.
    pub json: Value,
    /// Whether its Node is Ready.
    pub ready: bool,
}

/// Asks for it.
///
/// # Errors
/// There is no such Node, or the API server does not answer or refuses. A kubelet that does not is part of the answer.
pub fn status(api: &Api, name: &str) -> Result<Status> {
    let node = object(api, name)?;
    let stats = match api.get(&format!("/api/v1/nodes/{name}/proxy/stats/summary")) {
        Ok((200, body)) => serde_json::from_slice(&body).map_err(|error| format!("cannot be understood: {error}")),
        Ok((code, body)) => Err(format!("does not answer: {:#}", super::refusal(code, &body))),
        Err(error) => Err(format!("does not answer: {error:#}")),
    };
    let json = serde_json::json!({ "node": node, "stats": stats.as_ref().ok().map(|stats: &Value| &stats["node"]) });
    Ok(Status { text: lines(&node, stats.as_ref().map_err(String::as_str)), json, ready: is_ready(&node) })
}

fn row(out: &mut String, name: &str, value: &str) {
    // Writing into a String does not fail.
    let _ = writeln!(out, "  {name:<10} {}", shown(value));
}

/// All that is told. `stats` is the kubelet's summary (k8s.io/kubelet, stats/v1alpha1), or why there is none.
pub(super) fn lines(node: &Value, stats: Result<&Value, &str>) -> String {
    let mut out = String::new();
    let ready = condition(node, "Ready");
    let word = match ready.and_then(|ready| ready["status"].as_str()) {
        Some("True") => "Ready",
        Some("Unknown") => "not heard of",
        _ => "not Ready",
    };
    let cordoned =
        if node.pointer("/spec/unschedulable").is_some_and(|cordon| cordon == true) { ", cordoned" } else { "" };
    let _ = writeln!(out, "{}: {word}{cordoned}", shown(text(node, "/metadata/name")));
    if let Some(ready) = ready {
        row(&mut out, "since", text(ready, "/lastTransitionTime"));
        if !is_ready(node) {
            row(&mut out, "why", &format!("{}: {}", text(ready, "/reason"), text(ready, "/message")));
        }
    }
    let addresses = node.pointer("/status/addresses").and_then(Value::as_array);
    let addresses: Vec<&str> = addresses
        .into_iter()
        .flatten()
        .filter(|address| address["type"] == "InternalIP")
        .map(|address| text(address, "/address"))
        .collect();
    row(&mut out, "address", &addresses.join(", "));
    let ranges = node.pointer("/spec/podCIDRs").and_then(Value::as_array);
    let ranges: Vec<&str> = ranges.into_iter().flatten().filter_map(Value::as_str).collect();
    row(&mut out, "pods", &ranges.join(", "));
    let info = |key: &str| text(node, &format!("/status/nodeInfo/{key}"));
    row(&mut out, "versions", &format!("kubelet {}, Linux {}", info("kubeletVersion"), info("kernelVersion")));
    row(&mut out, "machine", info("machineID"));
    row(&mut out, "boot", boot(node));
    for (kind, words) in [
        ("MemoryPressure", "memory runs short"),
        ("DiskPressure", "the disk runs full"),
        ("PIDPressure", "processes run out"),
        ("NetworkUnavailable", "pods have no network"),
    ] {
        if let Some(trouble) = condition(node, kind).filter(|condition| condition["status"] == "True") {
            row(&mut out, "trouble", &format!("{words}: {}", text(trouble, "/message")));
        }
    }
    match stats {
        Ok(stats) => usage(&mut out, stats),
        Err(why) => row(&mut out, "kubelet", why),
    }
    out
}

fn usage(out: &mut String, stats: &Value) {
    let number = |pointer: &str| stats.pointer(pointer).and_then(Value::as_u64);
    if let Some(nanos) = number("/node/cpu/usageNanoCores") {
        row(out, "processor", &format!("{}.{:02} in use", nanos / 1_000_000_000, nanos / 10_000_000 % 100));
    }
    if let (Some(used), Some(left)) = (number("/node/memory/workingSetBytes"), number("/node/memory/availableBytes")) {
        row(out, "memory", &format!("{} in use, {} left", human_bytes(used), human_bytes(left)));
    }
    if let (Some(left), Some(all)) = (number("/node/fs/availableBytes"), number("/node/fs/capacityBytes")) {
        row(out, "state", &format!("{} left of {}", human_bytes(left), human_bytes(all)));
    }
    if let Some(pods) = stats["pods"].as_array() {
        row(out, "running", &counted(pods.len(), "pod"));
    }
}
