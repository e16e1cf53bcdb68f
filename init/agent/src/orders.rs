//! Turns annotations of this machine's own Node into orders to PID 1: start anew, power off, or start anew with its state wiped.
//!
//! Who may change Nodes may give them: that is the cluster's RBAC, and nothing new listens. An order names the boot that it is for, as the Node's status tells
//! it (`status.nodeInfo.bootID`); a machine that has started since does not follow it again, however long it stands there.
use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::StreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};

use crate::connection::{Connection, WATCH_SECONDS};
use crate::contract::Orders;
use crate::node::Node;
use crate::outage::Outage;
use crate::{place, say};

/// Who gives the order, in words of his own.
const BY: &str = "kscratch/requested-by";
/// This boot (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// How often it is looked whether the certificate's files are there, or others than before.
const FILES: Duration = Duration::from_secs(5);

/// How many letters of a name are told.
const LONGEST_NAME: usize = 64;

/// What a reset leaves where its annotation says so behind the boot.
const KEEP: &str = "keep-identity";

/// What the machine is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Start anew, all of its state wiped.
    Reset,
    /// Start anew, all of its state wiped but for what it is to its cluster.
    ResetButIdentity,
    /// Start anew.
    Reboot,
    /// Power off.
    Shutdown,
}

impl Order {
    const ALL: [Self; 4] = [Self::Reset, Self::ResetButIdentity, Self::Reboot, Self::Shutdown];

    /// The annotation that gives it.
    pub fn annotation(self) -> &'static str {
        match self {
            Self::Reset | Self::ResetButIdentity => "kscratch/reset-requested",
            Self::Reboot => "kscratch/reboot-requested",
            Self::Shutdown => "kscratch/shutdown-requested",
        }
    }

    /// What the annotation says, where it is for this boot.
    fn value(self, boot: &str) -> String {
        match self {
            Self::ResetButIdentity => format!("{boot} {KEEP}"),
            Self::Reset | Self::Reboot | Self::Shutdown => boot.to_owned(),
        }
    }

    /// Whether state goes.
    fn wipes(self) -> bool {
        matches!(self, Self::Reset | Self::ResetButIdentity)
    }

    /// The words that PID 1 reads.
    pub fn words(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::ResetButIdentity => "reset keep-identity",
            Self::Reboot => "reboot",
            Self::Shutdown => "shutdown",
        }
    }
}

/// The orders that a Node has for this boot, in the order in which one goes before the next.
fn given(node: &Node, boot: &str) -> impl Iterator<Item = Order> {
    let given = move |order: &Order| node.annotation(order.annotation()) == Some(order.value(boot).as_str());
    Order::ALL.into_iter().filter(move |order| !boot.is_empty() && given(order))
}

/// The order to follow, and a reset that is not to be; where there are no `resets`, one keeps no other order back.
fn choose(node: &Node, boot: &str, resets: bool) -> (Option<Order>, Option<Order>) {
    let (refused, fit): (Vec<Order>, Vec<Order>) = given(node, boot).partition(|order| order.wipes() && !resets);
    (fit.first().copied(), refused.first().copied())
}

/// What has been told already.
#[derive(Debug, Default)]
struct Told {
    /// Handed to PID 1 last.
    followed: Option<Order>,
    /// That a reset is not followed.
    refused: bool,
}

/// Who gives it, fit for a line on the console. It is what he says of himself; the API server's audit log knows who it was.
fn by(node: &Node) -> String {
    let name: String = node.annotation(BY).unwrap_or_default().chars().take(LONGEST_NAME).collect();
    if name.trim().is_empty() { "somebody who may change Nodes".to_owned() } else { say::short(&name) }
}

/// Does a verb's work, and beside that follows orders, where there are any to be followed.
///
/// # Errors
/// Those of the work. Without an API server there are no orders, which the work tells of.
pub async fn beside(
    orders: Option<Orders>,
    connection: Result<Connection>,
    work: impl Future<Output = Result<()>>,
) -> Result<()> {
    let Some(orders) = orders else { return work.await };
    let connection = connection?;
    let boot = std::fs::read_to_string(BOOT_ID).with_context(|| format!("reading {BOOT_ID}"))?;
    tokio::select! {
        done = work => done,
        never = follow(&orders, connection, boot.trim()) => match never {},
    }
}

async fn follow(orders: &Orders, mut connection: Connection, boot: &str) -> Infallible {
    let mut outage = Outage::new(String::new(), 0);
    let start = std::time::Instant::now();
    let (mut told, mut said) = (Told::default(), false);
    loop {
        let Ok(client) = connection.client() else {
            tokio::time::sleep(FILES).await;
            continue;
        };
        if let Err(error) = watch(orders, client, &connection, boot, &mut told).await {
            let words = say::words(error.as_ref());
            // That the API server is away is told by the work beside this.
            if refused(&error) && !std::mem::replace(&mut said, true) {
                say::line(format_args!("this machine follows no orders: watching its Node: {words}"));
            }
            tokio::time::sleep(outage.failed(start.elapsed(), &words).pause.max(FILES)).await;
        } else {
            outage.well(start.elapsed());
        }
    }
}

/// Watches until something is wrong, or until the certificate's files change.
async fn watch(orders: &Orders, client: Client, connection: &Connection, boot: &str, told: &mut Told) -> Result<()> {
    // Its own is the only Node that a kubelet's identity may watch.
    let config = watcher::Config::default().timeout(WATCH_SECONDS).fields(&format!("metadata.name={}", orders.node));
    let mut events = pin!(watcher(Api::<Node>::all(client), config));
    let mut tick = tokio::time::interval(FILES);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    tick.reset();
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(Event::InitApply(node) | Event::Apply(node))) if node.name() == orders.node => {
                    take(&node, orders, boot, told)?;
                }
                Some(Ok(_)) => {}
                Some(Err(watcher::Error::WatchError(status))) if status.code == 410 => return Ok(()),
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(()),
            },
            _ = tick.tick() => if connection.renewed() {
                return Ok(());
            },
        }
    }
}

/// Follows what the Node says now, once.
fn take(node: &Node, orders: &Orders, boot: &str, told: &mut Told) -> Result<()> {
    let (order, refused) = choose(node, boot, orders.resets);
    let by = by(node);
    if let Some(refused) = refused
        && !std::mem::replace(&mut told.refused, true)
    {
        let annotation = refused.annotation();
        say::line(format_args!(
            "{by} asks for a reset of this master ({annotation}): it is not followed, for etcd's data are its state"
        ));
    }
    let Some(order) = order.filter(|order| told.followed != Some(*order)) else { return Ok(()) };
    let (words, annotation) = (order.words(), order.annotation());
    say::line(format_args!("{by} asks for a {words} of this machine ({annotation})"));
    place::file(&orders.place, format!("{words}\n").as_bytes(), 0o600, rustix::process::geteuid().as_raw())?;
    told.followed = Some(order);
    Ok(())
}

/// Whether the API server answered, and did not allow it.
fn refused(error: &anyhow::Error) -> bool {
    let status = match error.downcast_ref() {
        Some(watcher::Error::InitialListFailed(kube::Error::Api(status))) => status.code,
        Some(watcher::Error::WatchStartFailed(kube::Error::Api(status))) => status.code,
        Some(watcher::Error::WatchError(status)) => status.code,
        _ => return false,
    };
    status == 403
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{LONGEST_NAME, Order, by, choose};
    use crate::node::Node;

    fn node(annotations: serde_json::Value) -> Node {
        serde_json::from_value(json!({"metadata": {"name": "n1", "annotations": annotations}})).unwrap()
    }

    #[test]
    fn an_order_is_for_one_boot() {
        const BOOT: &str = "5f0c1c0e-4a3f-4f0e-9d8e-0123456789ab";
        for (annotations, want) in [
            (json!({}), None),
            (json!({"kscratch/reboot-requested": BOOT}), Some(Order::Reboot)),
            (json!({"kscratch/shutdown-requested": BOOT}), Some(Order::Shutdown)),
            (
                json!({"kscratch/reboot-requested": "another", "kscratch/shutdown-requested": BOOT}),
                Some(Order::Shutdown),
            ),
            (json!({"kscratch/reboot-requested": BOOT, "kscratch/shutdown-requested": BOOT}), Some(Order::Reboot)),
            (json!({"kscratch/reset-requested": BOOT, "kscratch/reboot-requested": BOOT}), Some(Order::Reset)),
            (json!({"kscratch/reset-requested": format!("{BOOT} keep-identity")}), Some(Order::ResetButIdentity)),
            (json!({"kscratch/reset-requested": format!("{BOOT} keep")}), None),
            (json!({"kscratch/reset-requested": "another keep-identity"}), None),
            (json!({"kscratch/reboot-requested": "another"}), None),
            (json!({"kscratch/reboot-requested": ""}), None),
            (json!({"kscratch/reboot-requested": format!("{BOOT} ")}), None),
        ] {
            assert_eq!(choose(&node(annotations.clone()), BOOT, true), (want, None), "{annotations}");
        }
        let unknown = choose(&node(json!({"kscratch/reboot-requested": ""})), "", true);
        assert_eq!(unknown, (None, None), "a boot that is not known");
    }

    #[test]
    fn a_reset_that_is_refused_keeps_nothing_back() {
        for (annotations, want) in [
            (json!({"kscratch/reset-requested": "b"}), (None, Some(Order::Reset))),
            (json!({"kscratch/reset-requested": "b keep-identity"}), (None, Some(Order::ResetButIdentity))),
            (
                json!({"kscratch/reset-requested": "b", "kscratch/shutdown-requested": "b"}),
                (Some(Order::Shutdown), Some(Order::Reset)),
            ),
            (json!({"kscratch/reset-requested": "a", "kscratch/reboot-requested": "b"}), (Some(Order::Reboot), None)),
        ] {
            assert_eq!(choose(&node(annotations.clone()), "b", false), want, "{annotations}");
        }
    }

    #[test]
    fn names_are_told_in_one_short_line() {
        for (name, want) in [
            (json!("kubernetes-admin"), "kubernetes-admin".to_owned()),
            (json!("a\nservice kubelet: ready"), "a service kubelet: ready".to_owned()),
            (json!("x".repeat(LONGEST_NAME + 1)), "x".repeat(LONGEST_NAME)),
            (json!(" "), "somebody who may change Nodes".to_owned()),
        ] {
            assert_eq!(by(&node(json!({"kscratch/requested-by": name}))), want);
        }
        assert_eq!(by(&node(json!({}))), "somebody who may change Nodes");
    }
}
