//! A machine of a running cluster is asked how it is, for its logs, and to start anew or power off, by way of the API server.
//!
//! The API server leads to the kubelet's own pages (`/api/v1/nodes/NAME/proxy/...`) and keeps the annotations by which a machine is told something
//! (the agent's `orders.rs`): what somebody may do is his role's business, and nothing else listens on the machine.
mod follow;
mod logs;
mod order;
mod status;
#[cfg(test)]
mod tests;

use anyhow::{Context as _, Result, anyhow};
use serde_json::Value;

use crate::console::Hint;
use crate::vmcluster::api::Api;

pub use follow::follow;
pub use logs::{list, tail};
pub use order::{Order, Wait, give, outlived, wait};
pub use status::{Status, status};

/// A Node object.
///
/// # Errors
/// There is none of that name, or the API server does not answer or refuses.
pub fn object(api: &Api, name: &str) -> Result<Value> {
    let path = format!("/api/v1/nodes/{name}");
    let (status, body) = api.get(&path)?;
    match status {
        200 => serde_json::from_slice(&body).with_context(|| format!("reading the answer of {path}")),
        404 => {
            let hint = Hint("kubectl get nodes".into());
            Err(anyhow!("the cluster has no node {name}").context(hint))
        }
        _ => Err(refusal(status, &body).context(format!("asking for the node {name}"))),
    }
}

/// What a server says where it does not do what it was asked (`Status`, k8s.io/apimachinery).
fn refusal(status: u16, body: &[u8]) -> anyhow::Error {
    let said = serde_json::from_slice::<Value>(body).ok();
    let said = said.as_ref().and_then(|said| said["message"].as_str()).map(str::to_owned);
    let said = said.unwrap_or_else(|| String::from_utf8_lossy(body.get(..300).unwrap_or(body)).trim().to_owned());
    anyhow!("the server answers {status}: {said}")
}

/// The text at a place of an object; empty where there is none.
fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A condition of a Node.
fn condition<'v>(node: &'v Value, kind: &str) -> Option<&'v Value> {
    node.pointer("/status/conditions")?.as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// Whether a Node is Ready.
fn is_ready(node: &Value) -> bool {
    condition(node, "Ready").is_some_and(|ready| ready["status"] == "True")
}

/// The boot that a Node's kubelet told of last.
fn boot(node: &Value) -> &str {
    text(node, "/status/nodeInfo/bootID")
}
