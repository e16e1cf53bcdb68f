//! Removes from etcd the masters whose Nodes were deleted, and has no deletion of such a Node go by unseen.
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, Resource as _};
use serde_json::json;

use super::approval::CONTROL_PLANE;
use super::etcd::{self, Listed};
use crate::connection::{bounded, is_late};
use crate::contract::Member;
use crate::node::Node;
use crate::outage::Outage;
use crate::say;

/// A Node that has this one is there, deleted or not, until a steward has removed its member and taken this one away.
const FINALIZER: &str = "kscratch/etcd-member";

/// How often the Nodes are looked at.
const LOOK: Duration = Duration::from_secs(10);

/// See the module.
pub struct Removal {
    own: Member,
    outage: Outage,
    looked: Option<Instant>,
}

/// What is to be done about a Node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step<'a> {
    /// Its deletion will have to wait for the removal of its member.
    Hold,
    /// This member goes, then the Node.
    Remove(&'a str),
    /// Nothing is left to do: the Node goes.
    Release,
}

impl Removal {
    /// Nothing was looked at yet.
    pub fn new(own: &Member) -> Self {
        let outage = Outage::new("keeping up etcd's members", 0);
        Self { own: own.clone(), outage, looked: None }
    }

    /// Looks at the masters' Nodes, if it is time to.
    ///
    /// # Errors
    /// The API server does not answer. What else goes wrong is told, and is tried again.
    pub async fn look(&mut self, client: &Client, now: Duration) -> Result<()> {
        if self.looked.is_some_and(|at| at.elapsed() < LOOK) {
            return Ok(());
        }
        self.looked = Some(Instant::now());
        let masters = ListParams::default().labels(CONTROL_PLANE);
        let nodes =
            bounded(Api::<Node>::all(client.clone()).list(&masters)).await.context("listing the masters")?.items;
        let line = match self.act(client, &nodes).await {
            Ok(()) => self.outage.well(now),
            Err(error) => self.outage.failed(now, &say::words(error.as_ref())).line,
        };
        line.into_iter().for_each(say::line);
        Ok(())
    }

    /// Does what can be done; the first thing that went wrong is the error.
    async fn act(&self, client: &Client, nodes: &[Node]) -> Result<()> {
        if nodes.iter().all(|node| node.held_by(FINALIZER) && !node.deleted()) {
            return Ok(());
        }
        let etcd = etcd::client(&self.own.local, &self.own)?;
        let members = etcd::members(&etcd).await?;
        let mut done = Ok(());
        for node in nodes {
            let Some(step) = step(node, &members, &self.own.name) else { continue };
            let result = match step {
                Step::Hold => hold(client, node).await,
                Step::Remove(id) => match remove(&etcd, id, node.name()).await {
                    Ok(()) => release(client, node).await,
                    error => error,
                },
                Step::Release => release(client, node).await,
            };
            done = done.and(result);
        }
        done
    }
}

/// Decides. A member is removed by the others alone: it could not tell anybody afterwards, and where no other steward is alive it is needed. The last
/// member is the cluster, and stays.
fn step<'a>(node: &Node, members: &'a [Listed], own: &str) -> Option<Step<'a>> {
    let member = member_of(node, members);
    match (node.deleted(), node.held_by(FINALIZER), member) {
        (false, false, Some(_)) => Some(Step::Hold),
        (false, _, _) | (true, false, _) => None,
        (true, true, Some(_)) if members.len() == 1 => Some(Step::Release),
        (true, true, Some(_)) if node.name() == own => None,
        (true, true, Some(member)) => Some(Step::Remove(&member.id)),
        (true, true, None) => Some(Step::Release),
    }
}

/// A master's member has its Node's name, and as long as it has not been up yet only its address.
fn member_of<'a>(node: &Node, members: &'a [Listed]) -> Option<&'a Listed> {
    members.iter().find(|member| match member.name.as_str() {
        "" => member.addresses().any(|of| node.addresses("InternalIP").any(|own| own == of)),
        name => name == node.name(),
    })
}

async fn remove(etcd: &Client, id: &str, name: &str) -> Result<()> {
    let left = match etcd::remove(etcd, id).await {
        Ok(left) => left,
        Err(error) => {
            // Another steward may have been faster.
            let left = etcd::members(etcd).await?;
            if left.iter().any(|member| member.id == id) {
                return Err(error.context(format!("removing {name}")));
            }
            left
        }
    };
    let left = left.len();
    say::line(format_args!("Node {name} was deleted: {name} is no member of etcd any more, which has {left} now"));
    Ok(())
}

async fn hold(client: &Client, node: &Node) -> Result<()> {
    let all: Vec<&str> = node.finalizers().chain([FINALIZER]).collect();
    write(client, node, &all).await
}

async fn release(client: &Client, node: &Node) -> Result<()> {
    let others: Vec<&str> = node.finalizers().filter(|one| *one != FINALIZER).collect();
    write(client, node, &others).await
}

/// Writes a Node's finalizers, unless the Node has changed meanwhile: then it is looked at again.
async fn write(client: &Client, node: &Node, finalizers: &[&str]) -> Result<()> {
    let patch = json!({ "metadata": { "resourceVersion": node.meta().resource_version, "finalizers": finalizers } });
    let nodes = Api::<Node>::all(client.clone());
    match bounded(nodes.patch_metadata(node.name(), &PatchParams::default(), &Patch::Merge(&patch))).await {
        Err(error) if !is_late(&error) => {
            Err(error.context(format!("changing the finalizers of Node {}", node.name())))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{FINALIZER, Step, step};
    use crate::node::Node;
    use crate::steward::etcd::Listed;

    fn node(name: &str, deleted: bool, held: bool) -> Node {
        let finalizers = if held { json!(["other/one", FINALIZER]) } else { json!(["other/one"]) };
        let mut node = json!({
            "metadata": { "name": name, "finalizers": finalizers },
            "status": { "addresses": [{ "type": "InternalIP", "address": format!("10.0.0.{}", &name[1..]) }] },
        });
        if deleted {
            node["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        serde_json::from_value(node).unwrap()
    }

    fn member(number: u8, name: &str) -> Listed {
        let peer_urls = vec![format!("https://10.0.0.{number}:2380")];
        Listed { id: format!("id{number}"), name: name.into(), peer_urls, client_urls: Vec::new(), learner: false }
    }

    #[test]
    fn a_member_goes_with_its_node() {
        const KEPT: (bool, bool) = (false, true);
        const NEW: (bool, bool) = (false, false);
        const DELETED: (bool, bool) = (true, true);
        const DELETED_UNSEEN: (bool, bool) = (true, false);
        let all = || vec![member(1, "m1"), member(2, "m2"), member(3, "m3")];
        let check = |name: &str, (deleted, held): (bool, bool), members: &[Listed], want: Option<Step<'_>>| {
            let got = step(&node(name, deleted, held), members, "m1");
            assert_eq!(got, want, "{name}, deleted {deleted}, held {held}, {members:?}");
        };
        // Masters that are members are held, this one too; others are not.
        check("m1", NEW, &all(), Some(Step::Hold));
        check("m2", NEW, &all(), Some(Step::Hold));
        check("m4", NEW, &all(), None);
        check("m2", KEPT, &all(), None);
        check("m4", KEPT, &all(), None);
        // A deleted one is removed, but not by itself.
        check("m2", DELETED, &all(), Some(Step::Remove("id2")));
        check("m1", DELETED, &all(), None);
        check("m2", DELETED_UNSEEN, &all(), None);
        // It was removed already, or never was a member.
        check("m4", DELETED, &all(), Some(Step::Release));
        check("m1", DELETED, &all()[1..], Some(Step::Release));
        check("m2", DELETED, &[], Some(Step::Release));
        // The last one stays a member.
        check("m1", DELETED, &all()[..1], Some(Step::Release));
        check("m2", DELETED, &all()[1..2], Some(Step::Release));
        // One that has not been up since it was added is known by its address; one with another name is another.
        let mut added = all();
        added[1].name.clear();
        check("m2", DELETED, &added, Some(Step::Remove("id2")));
        check("m2", NEW, &added, Some(Step::Hold));
        added[1].name = "renamed".into();
        check("m2", DELETED, &added, Some(Step::Release));
    }
}
