//! Keeps the address that masters share on one that is alive: on whichever of them holds a Lease of the cluster.
mod arp;
mod link;
mod tenure;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::signal::unix::{SignalKind, signal};

use crate::connection::{Connection, within};
use crate::contract;
use crate::outage::Outage;
use crate::say;
use crate::steward::mark;
use link::Link;
use tenure::{LEASE, Ready, Seen, Tenure, Turn};

/// How often the lease is renewed, or looked at.
const EVERY: Duration = Duration::from_secs(3);

/// How long the API server may take to say whether it is ready.
const READY: Duration = Duration::from_secs(2);

/// How long it may take for another answer; for a holder, never longer than it may keep the address.
const ANSWER: Duration = Duration::from_secs(5);

/// How long giving the lease back may take while the machine goes down: an order to stop is followed within ten seconds.
const LEAVE: Duration = Duration::from_secs(3);

/// How many times neighbours are told at once: a frame may be lost.
const AT_ONCE: u32 = 3;

/// How long lies between these.
const APART: Duration = Duration::from_millis(200);

/// How often they are told while nothing changes.
const AGAIN: Duration = Duration::from_secs(15);

/// Runs until it is told to stop; then it gives back what it has.
///
/// # Errors
/// What was asked for cannot be done at all.
pub async fn run(wanted: contract::Address) -> Result<()> {
    let mut stop = signal(SignalKind::terminate()).context("waiting for the order to stop")?;
    let connection = Connection::new(&wanted.server, &wanted.authority, &wanted.certificate, &wanted.key)?;
    let mut keeper = Keeper {
        start: Instant::now(),
        connection,
        client: None,
        link: Link { name: wanted.link.clone(), address: wanted.address },
        tenure: Tenure::new(&wanted.node),
        lease: None,
        outage: Outage::new(format!("asking {} for the lease of {}", wanted.server, wanted.address), 0),
        kernel: Outage::new(format!("keeping {} on {}", wanted.address, wanted.link), 0),
        told: None,
        others: None,
        ready: false,
        wanted,
    };
    // One that ended without a word may have left it there, and somebody else may have it by now.
    if keeper.link.remove()? {
        say::line(format_args!("{} was left on {}: removed", keeper.link.address, keeper.link.name));
    }
    loop {
        tokio::select! {
            _ = stop.recv() => break,
            () = keeper.round() => {}
        }
    }
    keeper.leave().await
}

struct Keeper {
    wanted: contract::Address,
    start: Instant,
    connection: Connection,
    client: Option<Client>,
    link: Link,
    tenure: Tenure,
    /// The lease as it is known to be; `None` where it has to be read, or where there is none.
    lease: Option<Lease>,
    outage: Outage,
    kernel: Outage,
    /// When the neighbours were told last.
    told: Option<Instant>,
    /// Who else was said to have the address.
    others: Option<String>,
    ready: bool,
}

/// What became of a lease that was to be written.
enum Written {
    Done(Box<Lease>),
    /// Somebody was first.
    Conflict,
}

impl Keeper {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// One look, what follows from it, and the pause until the next.
    async fn round(&mut self) {
        let begun = self.now();
        let pause = match self.turn().await {
            Ok(pause) => {
                self.outage.well(self.now()).into_iter().for_each(say::line);
                self.first();
                pause
            }
            Err(error) => {
                self.client = None;
                self.lease = None;
                let failed = self.outage.failed(self.now(), &say::words(error.as_ref()));
                failed.line.into_iter().for_each(say::line);
                EVERY
            }
        };
        // Whatever was wrong, time goes on.
        if let Turn::Drop(why) = self.tenure.decide(Ready::Silent, self.now()) {
            self.drop(&why);
        }
        let next = begun + pause;
        let next = self.tenure.end().map_or(next, |end| end.min(next));
        tokio::time::sleep(next.saturating_sub(self.now())).await;
    }

    /// Gives the time from its beginning to the next one's.
    async fn turn(&mut self) -> Result<Duration> {
        let client = self.client()?;
        let ready = self.ask_ready(&client).await;
        let leases: Api<Lease> = Api::namespaced(client, &self.wanted.namespace);
        // A holder knows what the lease says, until a renewal of it is refused.
        if !self.tenure.holds() || self.lease.is_none() {
            let read =
                within(self.patience(), leases.get_opt(&self.wanted.lease)).await.context("reading it failed")?;
            self.tenure.observe(read.as_ref().map(seen), self.now());
            self.lease = read;
        }
        let asked = self.now();
        match self.tenure.decide(ready, asked) {
            Turn::Wait => self.tell_of_others(),
            Turn::Drop(why) => self.drop(&why),
            Turn::Take | Turn::Renew => match self.write(&leases).await? {
                Written::Done(lease) => {
                    if !self.tenure.holds() {
                        (self.told, self.others) = (None, None);
                        say::line(format_args!("{} is on this machine now", self.link.address));
                    }
                    self.tenure.renewed(seen(&lease).version, asked);
                    self.lease = Some(*lease);
                    self.hold().await;
                }
                Written::Conflict => {
                    self.lease = None;
                    // At once, to see who was first.
                    return Ok(self.now().saturating_sub(asked) + APART);
                }
            },
        }
        Ok(EVERY)
    }

    fn client(&mut self) -> Result<Client> {
        match &self.client {
            Some(client) if !self.connection.renewed() => Ok(client.clone()),
            _ => Ok(self.client.insert(self.connection.client()?).clone()),
        }
    }

    /// How long an answer is waited for.
    fn patience(&self) -> Duration {
        self.tenure.end().map_or(ANSWER, |end| end.saturating_sub(self.now()).min(ANSWER))
    }

    async fn ask_ready(&self, client: &Client) -> Ready {
        let Ok(request) = http::Request::get("/readyz").body(Vec::new()) else { return Ready::Silent };
        match within(READY.min(self.patience()), client.request_text(request)).await {
            Ok(_) => Ready::Yes,
            Err(error) => match error.downcast_ref() {
                Some(kube::Error::Api(_)) => Ready::No,
                _ => Ready::Silent,
            },
        }
    }

    /// Writes this machine into the lease, if it is still as it was read (`metadata.resourceVersion`).
    async fn write(&self, leases: &Api<Lease>) -> Result<Written> {
        let lease = renewed(self.lease.as_ref(), &self.wanted, Timestamp::now());
        let params = PostParams::default();
        let patience = self.patience();
        let written = match &self.lease {
            Some(_) => within(patience, leases.replace(&self.wanted.lease, &params, &lease)).await,
            None => within(patience, leases.create(&params, &lease)).await,
        };
        match written {
            Ok(lease) => Ok(Written::Done(Box::new(lease))),
            Err(error) => match error.downcast_ref() {
                // The second: it was deleted in between.
                Some(kube::Error::Api(status))
                    if status.code == 409 || (status.code == 404 && self.lease.is_some()) =>
                {
                    Ok(Written::Conflict)
                }
                _ => Err(error).context("writing it failed"),
            },
        }
    }

    /// Has the address on the link for as long as it may be there, and tells the neighbours when it is time to.
    async fn hold(&mut self) {
        let Some(left) = self.tenure.end().map(|end| end.saturating_sub(self.now())) else { return };
        let done = match self.link.put(left) {
            Ok(()) => self.tell_neighbours().await,
            Err(error) => Err(error),
        };
        let line = match done {
            Ok(()) => self.kernel.well(self.now()),
            Err(error) => self.kernel.failed(self.now(), &format!("{error:#}")).line,
        };
        line.into_iter().for_each(say::line);
    }

    async fn tell_neighbours(&mut self) -> Result<()> {
        let times = match self.told {
            None => AT_ONCE,
            Some(told) if told.elapsed() >= AGAIN => 1,
            Some(_) => return Ok(()),
        };
        for time in 0..times {
            if time > 0 {
                tokio::time::sleep(APART).await;
            }
            self.link.announce()?;
        }
        // Not before all of it: what was not sent is sent the next time.
        self.told = Some(Instant::now());
        Ok(())
    }

    fn drop(&mut self, why: &str) {
        self.tenure.dropped();
        say::line(format_args!("{} is not on this machine any more: {why}", self.link.address));
        if let Err(error) = self.link.remove() {
            // The kernel takes it away in a moment.
            self.kernel.failed(self.now(), &format!("{error:#}")).line.into_iter().for_each(say::line);
        }
    }

    /// Tells once who has the address.
    fn tell_of_others(&mut self) {
        let holder = self.tenure.holder().filter(|holder| !holder.is_empty() && *holder != self.wanted.node);
        if holder.is_some() && holder != self.others.as_deref() {
            self.others = holder.map(str::to_owned);
            say::line(format_args!("{} is kept by {}", self.link.address, holder.unwrap_or_default()));
        }
    }

    /// The first look is done.
    fn first(&mut self) {
        if self.ready {
            return;
        }
        match mark(&self.wanted.ready) {
            Ok(()) => self.ready = true,
            Err(error) => say::line(format_args!("{error:#}")),
        }
    }

    /// First the address, then the lease: whoever takes it then is alone.
    async fn leave(mut self) -> Result<()> {
        self.link.remove()?;
        let end = self.now() + LEAVE;
        let client = self.client()?;
        let leases: Api<Lease> = Api::namespaced(client, &self.wanted.namespace);
        let action = || format!("giving back the lease of {}", self.link.address);
        let read = within(LEAVE, leases.get_opt(&self.wanted.lease)).await.with_context(action)?;
        let Some(mut lease) = read.filter(|lease| seen(lease).holder == self.wanted.node) else { return Ok(()) };
        if let Some(spec) = &mut lease.spec {
            // As client-go gives one back (`release` in tools/leaderelection): the object stays.
            spec.holder_identity = Some(String::new());
            spec.renew_time = Some(MicroTime(Timestamp::now()));
        }
        let left = end.saturating_sub(self.now());
        within(left, leases.replace(&self.wanted.lease, &PostParams::default(), &lease)).await.with_context(action)?;
        say::line(format_args!("{} is free for another machine", self.link.address));
        Ok(())
    }
}

fn seen(lease: &Lease) -> Seen {
    let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone());
    Seen { holder: holder.unwrap_or_default(), version: lease.metadata.resource_version.clone().unwrap_or_default() }
}

/// The lease with this machine as its holder, from now on. The times are for people: nobody counts by them.
fn renewed(lease: Option<&Lease>, wanted: &contract::Address, now: Timestamp) -> Lease {
    let mut lease = lease.cloned().unwrap_or_else(|| Lease {
        metadata: ObjectMeta {
            name: Some(wanted.lease.clone()),
            namespace: Some(wanted.namespace.clone()),
            ..ObjectMeta::default()
        },
        spec: None,
    });
    let is_own = seen(&lease).holder == wanted.node;
    let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
    if !is_own {
        spec.lease_transitions = Some(spec.lease_transitions.map_or(0, |count| count.saturating_add(1)));
        spec.acquire_time = Some(MicroTime(now));
    }
    spec.holder_identity = Some(wanted.node.clone());
    spec.lease_duration_seconds = i32::try_from(LEASE.as_secs()).ok();
    spec.renew_time = Some(MicroTime(now));
    lease
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::coordination::v1::Lease;
    use k8s_openapi::jiff::Timestamp;
    use serde_json::{Value, json};

    use super::renewed;
    use crate::contract::Address;

    fn wanted(node: &str) -> Address {
        Address {
            server: "https://127.0.0.1:6443".into(),
            authority: "/a".into(),
            certificate: "/c".into(),
            key: "/k".into(),
            node: node.into(),
            namespace: "kube-system".into(),
            lease: "kscratch-endpoint".into(),
            link: "eth0".into(),
            address: "192.168.7.5".parse().unwrap(),
            ready: "/r".into(),
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    #[track_caller]
    fn is(lease: &Lease, want: &Value) {
        assert_eq!(&serde_json::to_value(lease).unwrap(), want);
    }

    #[test]
    fn a_lease_is_made_renewed_and_taken_over() {
        let first = renewed(None, &wanted("m1"), at(0));
        let mut want = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": { "name": "kscratch-endpoint", "namespace": "kube-system" },
            "spec": {
                "acquireTime": "2023-11-14T22:13:20.000000Z",
                "holderIdentity": "m1",
                "leaseDurationSeconds": 15,
                "leaseTransitions": 0,
                "renewTime": "2023-11-14T22:13:20.000000Z",
            },
        });
        is(&first, &want);
        let mut second = renewed(Some(&first), &wanted("m1"), at(3));
        want["spec"]["renewTime"] = json!("2023-11-14T22:13:23.000000Z");
        is(&second, &want);
        // The version goes along: the API server refuses what was read before somebody else wrote.
        second.metadata.resource_version = Some("7".into());
        let third = renewed(Some(&second), &wanted("m2"), at(30));
        want["metadata"]["resourceVersion"] = json!("7");
        want["spec"]["holderIdentity"] = json!("m2");
        want["spec"]["leaseTransitions"] = json!(1);
        want["spec"]["acquireTime"] = json!("2023-11-14T22:13:50.000000Z");
        want["spec"]["renewTime"] = json!("2023-11-14T22:13:50.000000Z");
        is(&third, &want);
    }
}
