//! Gives a machine an order by annotations of its Node, and tells how far it is with it.
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use serde_json::{Value, json};

use super::{boot, is_ready, object, refusal, text};
use crate::console::{Console, Hint};
use crate::vmcluster::api::Api;

/// Says who gives the order; what he says of himself (the API server's audit log knows better).
const BY: &str = "kscratch/requested-by";
/// How often it is looked how far the machine is.
const EVERY: Duration = Duration::from_secs(2);

/// What a machine can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// To start anew.
    Reboot,
    /// To power off.
    Shutdown,
    /// To start anew with its state wiped.
    Reset {
        /// But for what it is to its cluster.
        keep_identity: bool,
    },
}

impl Order {
    /// One for each annotation.
    const ALL: [Self; 3] = [Self::Reboot, Self::Shutdown, Self::Reset { keep_identity: false }];

    fn annotation(self) -> &'static str {
        match self {
            Self::Reboot => "kscratch/reboot-requested",
            Self::Shutdown => "kscratch/shutdown-requested",
            Self::Reset { .. } => "kscratch/reset-requested",
        }
    }

    /// What the annotation says.
    fn value(self, boot: &str) -> String {
        match self {
            Self::Reset { keep_identity: true } => format!("{boot} keep-identity"),
            Self::Reboot | Self::Shutdown | Self::Reset { .. } => boot.to_owned(),
        }
    }
}

/// The annotations that give an order, and take back the others: the last one counts.
pub(super) fn annotations(order: Order, boot: &str, by: &str) -> Value {
    let mut all = json!({ BY: by });
    for other in Order::ALL {
        all[other.annotation()] = Value::Null;
    }
    all[order.annotation()] = order.value(boot).into();
    all
}

/// Says which Nodes are masters; no kubelet can give itself this label.
const MASTER: &str = "/metadata/labels/node-role.kubernetes.io~1control-plane";

/// All masters.
const MASTERS: &str = "/api/v1/nodes?labelSelector=node-role.kubernetes.io/control-plane";

/// Refuses a machine of which nobody could tell that it is off: a master, without which the others are too few for etcd and so for an API server; or the
/// very one that the kubeconfig leads to.
///
/// # Errors
/// It is one; or there is no such Node, or the API server does not answer or refuses.
pub fn outlived(api: &Api, node: &str) -> Result<()> {
    let known = object(api, node)?;
    if known.pointer(MASTER).is_none() {
        return Ok(());
    }
    let without = format!("kscratch-image node shutdown {node}, without --wait: its console says when it is off");
    let addresses = known.pointer("/status/addresses").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if api.host().is_some_and(|host| addresses.iter().any(|one| text(one, "/address") == host)) {
        let hint =
            Hint(format!("a kubeconfig with another master's address, or the one that they share; or {without}"));
        return Err(anyhow!("{node} is the very master that the kubeconfig leads to, and cannot tell that it is off")
            .context(hint));
    }
    let (status, body) = api.get(MASTERS)?;
    if status != 200 {
        return Err(refusal(status, &body).context("asking which masters there are"));
    }
    let list: Value = serde_json::from_slice(&body).context("reading the list of masters")?;
    let masters = list["items"].as_array().map_or(&[][..], Vec::as_slice);
    let others = masters.iter().filter(|master| text(master, "/metadata/name") != node && is_ready(master)).count();
    // etcd needs more than half of its members.
    if others * 2 > masters.len() {
        return Ok(());
    }
    Err(anyhow!("{node} is a master, and without it no API server is left that could tell that it is off")
        .context(Hint(without)))
}

/// Gives an order, for the boot that the Node tells of; gives that boot.
///
/// # Errors
/// There is no such Node, its kubelet has not told of a boot yet, or the API server refuses.
pub fn give(api: &Api, node: &str, order: Order, by: &str, console: &Console) -> Result<String> {
    let known = object(api, node)?;
    let boot = boot(&known).to_owned();
    if boot.is_empty() {
        let hint = Hint(format!("kscratch-image node status {node}"));
        return Err(anyhow!("{node} has not told of its boot yet, for which an order would be").context(hint));
    }
    if matches!(order, Order::Reset { .. }) && known.pointer(MASTER).is_some() {
        let hint = Hint(format!(
            "kubectl delete node {node} takes it out of etcd where there are other masters; then flash its disk anew"
        ));
        return Err(anyhow!("{node} is a master: its state is its share of etcd's data").context(hint));
    }
    if !is_ready(&known) {
        console.warn(format_args!("{node} is not Ready: it follows the order when it reaches the API server, if it has not started anew by then"));
    }
    let annotations = annotations(order, &boot, by);
    let (status, body) =
        api.merge(&format!("/api/v1/nodes/{node}"), &json!({ "metadata": { "annotations": annotations } }))?;
    if status != 200 {
        return Err(refusal(status, &body).context(format!("writing {} to the node {node}", order.annotation())));
    }
    Ok(boot)
}

/// How far a machine is with an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// It is as it was.
    Unmoved,
    /// Its pods end.
    Ends(String),
    /// It is not heard of.
    Away,
    /// It has started, and is not Ready yet.
    Starts,
    /// It is done.
    Done,
}

impl Wait {
    fn words(&self) -> String {
        match self {
            Self::Unmoved => "has not begun yet".to_owned(),
            Self::Ends(why) => format!("goes down: {why}"),
            Self::Away => "is away".to_owned(),
            Self::Starts => "has started, and is not Ready yet".to_owned(),
            Self::Done => "is done".to_owned(),
        }
    }
}

/// How far it is, by its Node and by whether its kubelet answers. `before` is the boot that the order was for. A machine that has not been `seen` since
/// may never have been told: that it is not heard of does not say that it is off. Nor does a kubelet that does not answer: it ends before the machine does.
pub(super) fn progress(order: Order, before: &str, node: Option<&Value>, answers: bool, seen: bool) -> Wait {
    let Some(node) = node else { return Wait::Away };
    let ready = super::condition(node, "Ready");
    let word = ready.map_or("", |ready| text(ready, "/status"));
    match (order, boot(node) == before, word, answers) {
        // The cluster has not heard of it for its `node-monitor-grace-period`.
        (Order::Shutdown, true, "Unknown", false) if seen => Wait::Done,
        (Order::Shutdown, false, ..) => Wait::Starts,
        (_, false, "True", _) => Wait::Done,
        (_, false, ..) => Wait::Starts,
        (_, true, "True", true) => Wait::Unmoved,
        (_, true, _, true) => Wait::Ends(ready.map_or("", |ready| text(ready, "/message")).to_owned()),
        (_, true, _, false) => Wait::Away,
    }
}

/// Waits until the machine is done, and tells each step once. An API server that is away meanwhile may be that machine's.
///
/// # Errors
/// It is not done in time.
pub fn wait(api: &Api, node: &str, order: Order, before: &str, within: Duration, console: &Console) -> Result<()> {
    let begun = Instant::now();
    let (mut told, mut seen) = (None, false);
    loop {
        let known = object(api, node).ok();
        let answers = known.is_some()
            && api.get(&format!("/api/v1/nodes/{node}/proxy/healthz")).is_ok_and(|(status, _)| status == 200);
        let step = progress(order, before, known.as_ref(), answers, seen);
        seen |= matches!(step, Wait::Unmoved | Wait::Ends(_));
        let took = begun.elapsed();
        if told.as_ref() != Some(&step) {
            console.say(format_args!("{node} {} ({:.0} s)", step.words(), took.as_secs_f64()));
            told = Some(step.clone());
        }
        if step == Wait::Done {
            return Ok(());
        }
        if took >= within {
            let hint = Hint(format!("kscratch-image node status {node}; its console says more"));
            return Err(anyhow!("{node} {} after {} s", step.words(), within.as_secs()).context(hint));
        }
        std::thread::sleep(EVERY);
    }
}
