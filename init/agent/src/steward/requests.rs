//! Holds the certificate requests that nobody has decided yet, and decides those that can be decided.
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest as Csr;
use k8s_openapi::api::core::v1::Namespace;
use kscratch_pki::Request;
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::watcher::Event;
use kube::{Api, Client};
use serde_json::json;

use super::approval::{Asked, CLIENT, KUBELET, Policy, SERVING, Verdict, judge};
use super::newcomers::Newcomers;
use crate::connection::{bounded, is_late, is_refusal};
use crate::node::Node;
use crate::say;

/// How long a request may wait for what proves it.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// How long a machine has its node's name before it is that node, which takes seconds. Its kubelet may have been started anew meanwhile, and be the
/// one that waits: it asks with another key then.
const NEWCOMERS: Duration = Duration::from_secs(90);

/// See the module.
pub struct Requests {
    policy: Policy,
    pending: BTreeMap<String, Csr>,
    /// Stays when the list is made anew.
    seen: BTreeMap<String, Seen>,
    newcomers: Newcomers,
    /// Names of those to be decided next: one that waits is not looked at for each other one that comes, of which there may be thousands.
    due: BTreeSet<String>,
}

#[derive(Clone, Copy)]
struct Seen {
    /// When, by the clock that nobody sets.
    first: Duration,
    /// Whether it was told that it waits.
    told: bool,
}

impl Requests {
    /// None are known.
    pub fn new() -> Self {
        Self {
            policy: Policy::default(),
            pending: BTreeMap::new(),
            seen: BTreeMap::new(),
            newcomers: Newcomers::new(NEWCOMERS),
            due: BTreeSet::new(),
        }
    }

    /// A new watch begins.
    pub fn begin(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Takes what the watch says.
    pub fn news(&mut self, event: Event<Csr>, now: Duration) {
        match event {
            Event::Init => self.pending.clear(),
            // Decided when the list is whole.
            Event::InitApply(request) => drop(self.take(request, now)),
            Event::InitDone => {
                self.seen.retain(|name, _| self.pending.contains_key(name));
                self.look();
            }
            Event::Apply(request) => {
                let undecided = self.take(request, now);
                self.due.extend(undecided);
            }
            Event::Delete(request) => {
                let name = request.metadata.name.unwrap_or_default();
                self.forget(&name);
                self.newcomers.forget(&name);
            }
        }
    }

    /// Takes a request as it is now. Gives its name if nobody has decided it.
    fn take(&mut self, request: Csr, now: Duration) -> Option<String> {
        let name = request.metadata.name.clone().unwrap_or_default();
        if undecided(&request) {
            self.seen.entry(name.clone()).or_insert(Seen { first: now, told: false });
            self.pending.insert(name.clone(), request);
            return Some(name);
        }
        self.forget(&name);
        if is_approved(&request) {
            self.remember(&name, &request, now);
        }
        None
    }

    /// It is time to look again at those that wait.
    pub fn look(&mut self) {
        self.due = self.pending.keys().cloned().collect();
    }

    fn forget(&mut self, name: &str) {
        self.pending.remove(name);
        self.seen.remove(name);
    }

    /// Remembers a request that was approved, by whichever master, if it is a machine's that joins.
    fn remember(&mut self, name: &str, request: &Csr, now: Duration) {
        let joins = request.spec.groups.as_ref().is_some_and(|groups| groups.contains(&self.policy.joiners));
        if request.spec.signer_name == KUBELET
            && joins
            && let Ok(read) = read(request)
        {
            self.newcomers.approved(name, &read.names.common_name, &read.public, now);
        }
    }

    /// Decides what can be decided of those that there is news of, or that it is time to look at.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn decide(&mut self, client: &Client, now: Duration) -> Result<()> {
        if self.due.is_empty() {
            return Ok(());
        }
        let nodes = bounded(Api::<Node>::all(client.clone()).list(&ListParams::default())).await?.items;
        let namespaces = Api::<Namespace>::all(client.clone());
        let namespaces = bounded(namespaces.list_metadata(&ListParams::default())).await?;
        self.policy.namespaces = namespaces.items.into_iter().filter_map(|one| one.metadata.name).collect();
        for name in std::mem::take(&mut self.due) {
            let Some(request) = self.pending.get(&name).cloned() else { continue };
            let seen = self.seen.entry(name.clone()).or_insert(Seen { first: now, told: false });
            let waited = now.saturating_sub(seen.first);
            let verdict = match decide(&request, &nodes, &self.policy, &self.newcomers, now) {
                Verdict::Wait(why) if waited >= PATIENCE => Verdict::Deny(why),
                verdict => verdict,
            };
            let user = say::short(request.spec.username.as_deref().unwrap_or("nobody"));
            let (condition, why, line) = match verdict {
                Verdict::Pass => {
                    self.forget(&name);
                    continue;
                }
                Verdict::Wait(why) => {
                    if !std::mem::replace(&mut seen.told, true) {
                        say::line(format_args!("request {name} of {user} waits: {why}"));
                    }
                    continue;
                }
                Verdict::Approve(what) => {
                    ("Approved", "kscratch: it may have it".to_owned(), format!("approved {what}"))
                }
                Verdict::Deny(why) => {
                    let line = format!("denied request {name} of {user}: {why}");
                    ("Denied", format!("kscratch: {why}"), line)
                }
            };
            match answer(client, &request, condition, &why).await {
                Ok(()) => {
                    say::line(line);
                    if condition == "Approved" {
                        // Before the watch tells of it: the next request may be for the same name.
                        self.remember(&name, &request, now);
                    }
                }
                // Somebody was faster: the watch tells what he made of it.
                Err(error) if is_late(&error) => {}
                // The others must not wait for it: it would be refused again.
                Err(error) if is_refusal(&error) => say::line(format_args!(
                    "request {name} of {user} stays without an answer, which the API server refuses: {}",
                    say::short(&say::words(error.as_ref()))
                )),
                Err(error) => return Err(error.context(format!("answering certificate request {name}"))),
            }
            self.forget(&name);
        }
        Ok(())
    }
}

/// Whether it waits for somebody's approval, and could be ours to approve.
fn undecided(request: &Csr) -> bool {
    let decided = request.status.as_ref().is_some_and(|status| {
        status.certificate.is_some() || status.conditions.as_ref().is_some_and(|conditions| !conditions.is_empty())
    });
    !decided && [SERVING, CLIENT, KUBELET].contains(&request.spec.signer_name.as_str())
}

fn is_approved(request: &Csr) -> bool {
    let conditions = request.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|conditions| conditions.iter().any(|one| one.type_ == "Approved"))
}

fn read(request: &Csr) -> Result<Request, String> {
    let text = std::str::from_utf8(&request.spec.request.0).map_err(|_| "it is not text".to_owned())?;
    Request::parse(text).map_err(|error| error.to_string())
}

fn decide(request: &Csr, nodes: &[Node], policy: &Policy, newcomers: &Newcomers, now: Duration) -> Verdict {
    let spec = &request.spec;
    let read = read(request);
    let asked = Asked {
        signer: &spec.signer_name,
        user: spec.username.as_deref().unwrap_or_default(),
        groups: spec.groups.as_deref().unwrap_or_default(),
        usages: spec.usages.as_deref().unwrap_or_default(),
        names: read.as_ref().map(|request| &request.names).map_err(String::as_str),
        rival: read.as_ref().is_ok_and(|request| newcomers.rival(&request.names.common_name, &request.public, now)),
    };
    match judge(asked, nodes, policy) {
        Verdict::Approve(what) => Verdict::Approve(say::short(&what)),
        Verdict::Deny(why) => Verdict::Deny(say::short(&why)),
        Verdict::Wait(why) => Verdict::Wait(say::short(&why)),
        Verdict::Pass => Verdict::Pass,
    }
}

/// Writes the answer, unless the request has changed meanwhile.
async fn answer(client: &Client, request: &Csr, condition: &str, why: &str) -> Result<()> {
    let name = request.metadata.name.as_deref().unwrap_or_default();
    let patch = json!({
        "metadata": {"resourceVersion": request.metadata.resource_version},
        "status": {"conditions": [{"type": condition, "status": "True", "reason": "Kscratch", "message": why}]},
    });
    let requests = Api::<Csr>::all(client.clone());
    bounded(requests.patch_approval(name, &PatchParams::default(), &Patch::Merge(patch))).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::{Csr, Duration, Event, Requests};

    fn request(name: &str) -> Csr {
        serde_json::from_value(serde_json::json!({
            "metadata": { "name": name },
            "spec": { "signerName": "kubernetes.io/kubelet-serving", "usages": [], "request": "eA==" },
        }))
        .unwrap()
    }

    #[test]
    fn those_that_wait_are_not_looked_at_for_each_that_comes() {
        let mut requests = Requests::new();
        let due = |requests: &mut Requests| std::mem::take(&mut requests.due).into_iter().collect::<Vec<_>>().join(" ");
        requests.news(Event::Init, Duration::ZERO);
        for name in ["a", "b", "c"] {
            requests.news(Event::InitApply(request(name)), Duration::ZERO);
        }
        assert_eq!(due(&mut requests), "", "the list is not whole");
        requests.news(Event::InitDone, Duration::ZERO);
        assert_eq!(due(&mut requests), "a b c");
        requests.news(Event::Apply(request("d")), Duration::ZERO);
        assert_eq!(due(&mut requests), "d");
        requests.news(Event::Delete(request("b")), Duration::ZERO);
        assert_eq!(due(&mut requests), "");
        requests.look();
        assert_eq!(due(&mut requests), "a c d");
    }
}
