//! Turns what an API server says into how far a boot is: nothing counts that is of an earlier one.
use std::time::Duration;

use kscratch_image::vmcluster::api::Api;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::machines::Boot;

/// Pods of the control plane: etcd, API server, controller manager, scheduler.
const CONTROL_PLANE: usize = 4;
/// Pods of the cluster's DNS.
const DNS: usize = 2;

/// What the API server said.
#[derive(Debug, Default)]
pub struct State {
    ready: bool,
    nodes: Vec<Value>,
    pods: Vec<Value>,
}

/// What is waited for: whose time it is that counts, its name, and whether it is reached.
pub type Mark = (usize, &'static str, fn(&State, &[Boot; 2]) -> bool);

/// The marks of the master (0) and of the node (1).
pub const MARKS: [Mark; 7] = [
    (0, "the API server's /readyz says yes", |state, _| state.ready),
    (0, "the master is Ready", |state, boots| state.node(&boots[0])),
    (0, "the pods of the control plane are Ready", |state, boots| state.on(&boots[0], "tier") == CONTROL_PLANE),
    (0, "the pods of the cluster's DNS are Ready", |state, boots| state.dns(boots)),
    (1, "the node is Ready", |state, boots| state.node(&boots[1])),
    (1, "the node's own pod is Ready", |state, boots| state.on(&boots[1], "app.kubernetes.io/name") == 1),
    (0, "all pods of the system are Ready, the node's too", |state, boots| state.all(boots)),
];

impl State {
    /// Asks an API server, which may not be there yet.
    pub fn of(api: &Api) -> State {
        let ready = api.get("/readyz").is_ok_and(|(status, _)| status == 200);
        if !ready {
            return State::default();
        }
        let pods = items(api, "/api/v1/namespaces/kube-system/pods");
        // What has ended, or is to end, is nothing to wait for.
        let over = |pod: &Value| {
            pod["metadata"]["deletionTimestamp"].is_string()
                || ["Succeeded", "Failed"].iter().any(|phase| pod["status"]["phase"] == *phase)
        };
        let pods = pods.into_iter().filter(|pod| !over(pod)).collect();
        State { ready, nodes: items(api, "/api/v1/nodes"), pods }
    }

    /// Whether a machine's kubelet has said in this boot that it is Ready.
    fn node(&self, boot: &Boot) -> bool {
        let node = self.nodes.iter().find(|node| node["metadata"]["name"] == boot.name);
        let ready = node.and_then(|node| condition(node, "Ready"));
        ready.is_some_and(|ready| ready["status"] == "True" && after(&ready["lastHeartbeatTime"], boot).is_some())
    }

    /// How many pods of a machine with this label are Ready.
    fn on(&self, boot: &Boot, label: &str) -> usize {
        let here = self.pods.iter().filter(|pod| pod["spec"]["nodeName"] == boot.name);
        here.filter(|pod| pod["metadata"]["labels"][label].is_string() && pod_ready(pod, boot)).count()
    }

    fn dns(&self, boots: &[Boot; 2]) -> bool {
        let dns = self.pods.iter().filter(|pod| pod["metadata"]["labels"]["k8s-app"] == "kube-dns");
        dns.filter(|pod| pod_ready_somewhere(pod, boots)).count() == DNS
    }

    fn all(&self, boots: &[Boot; 2]) -> bool {
        // The node's own one is the last.
        self.pods.len() > CONTROL_PLANE + DNS && self.pods.iter().all(|pod| pod_ready_somewhere(pod, boots))
    }

    /// What happened to a machine's Node and pods in this boot, and when, since QEMU's start: by the guest's clock, in whole seconds.
    pub fn happened(&self, boot: &Boot) -> Vec<(Duration, String)> {
        let mut told = Vec::new();
        let mut tell = |date: &Value, what: String| {
            if let Some(since) = after(date, boot) {
                told.push((since, what));
            }
        };
        for node in self.nodes.iter().filter(|node| node["metadata"]["name"] == boot.name) {
            tell(&node["metadata"]["creationTimestamp"], "    Node: registered ~".into());
            tell(&condition(node, "Ready").unwrap_or(&Value::Null)["lastTransitionTime"], "    Node: Ready ~".into());
        }
        for pod in self.pods.iter().filter(|pod| pod["spec"]["nodeName"] == boot.name) {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            for container in containers(pod) {
                tell(&container["state"]["running"]["startedAt"], format!("    pod {name}: its container started ~"));
            }
            let ready = condition(pod, "Ready").unwrap_or(&Value::Null);
            tell(&ready["lastTransitionTime"], format!("    pod {name}: Ready ~"));
        }
        told
    }
}

fn items(api: &Api, path: &str) -> Vec<Value> {
    let answer = api.get(path).ok().filter(|(status, _)| *status == 200);
    let list: Value = answer.and_then(|(_, text)| serde_json::from_slice(&text).ok()).unwrap_or_default();
    list["items"].as_array().cloned().unwrap_or_default()
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    pod["status"]["containerStatuses"].as_array().into_iter().flatten()
}

/// Whether a pod is Ready with containers of this boot: until the kubelet looks at it again, its status is that of the last one.
fn pod_ready(pod: &Value, boot: &Boot) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready["status"] == "True")
        && containers(pod).all(|container| after(&container["state"]["running"]["startedAt"], boot).is_some())
}

fn pod_ready_somewhere(pod: &Value, boots: &[Boot; 2]) -> bool {
    boots.iter().any(|boot| pod["spec"]["nodeName"] == boot.name && pod_ready(pod, boot))
}

/// How long after QEMU's start a date of the API is; none for one of an earlier boot, or for none.
fn after(date: &Value, boot: &Boot) -> Option<Duration> {
    let date = OffsetDateTime::parse(date.as_str()?, &Rfc3339).ok()?;
    Duration::try_from(date - boot.date).ok()
}
