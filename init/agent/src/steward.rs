//! Keeps a cluster's objects as a folder says, its nodes' certificates coming, etcd's members as the masters are, and this master's own certificates young.
mod approval;
mod data;
mod etcd;
mod member;
mod newcomers;
mod objects;
mod pods;
mod removal;
mod requests;
mod standing;

use std::collections::BTreeSet;
use std::path::Path;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures_util::{FutureExt as _, StreamExt as _};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kscratch_pki::OffsetDateTime;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client};

use crate::certificates::{self, Kept};
use crate::connection::{Connection, WATCH_SECONDS, bounded};
use crate::contract;
use crate::outage::Outage;
use crate::{place, registration, say};
use approval::Policy;
use objects::Objects;
use pods::Pods;
use removal::Removal;
use requests::Requests;
use standing::Watch;

/// How often requests that wait are looked at again, and what else is due is done.
const LOOK: Duration = Duration::from_secs(5);

/// How often it is looked whether an object went missing.
const MISSING: Duration = Duration::from_secs(20);

/// How often all objects are applied, once the cluster took them all.
const APPLY: Duration = Duration::from_secs(60);

/// How long objects that the cluster does not take keep others on this machine waiting: what does not take them may be a webhook that is reached through
/// kube-proxy, which is one of those.
const TRIED: Duration = Duration::from_secs(60);

/// How often this machine's certificates are looked at.
const CERTIFICATES: Duration = Duration::from_secs(60 * 60);

/// The API server is on this machine: a pause is for its sake, not for the network's.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

struct Steward {
    wanted: contract::Steward,
    start: Instant,
    outage: Outage,
    pods: Pods,
    objects: Objects,
    requests: Requests,
    removal: Option<Removal>,
    watch: Option<Watch>,
    renewing: Outage,
    registering: Outage,
    /// When this machine's Node is tried again.
    register_next: Duration,
    /// When they were looked at last, by a clock that nobody sets and by one that can be set.
    renewed: Option<(Instant, OffsetDateTime)>,
    /// Since when the cluster is asked to take the objects.
    tried: Option<Instant>,
    ready: bool,
}

/// Runs for ever.
///
/// # Errors
/// What was asked for cannot be done at all.
pub async fn run(wanted: contract::Steward) -> Result<()> {
    if let Some(member) = &wanted.member {
        member::settle(member).await?;
    }
    let mut connection = Connection::new(&wanted.server, &wanted.authority, &wanted.certificate, &wanted.key)?;
    let mut steward = Steward {
        start: Instant::now(),
        outage: Outage::new(format!("working with {}", wanted.server), 0).at_most(LONGEST_PAUSE),
        pods: Pods::new(&wanted.etcd, &wanted.pods),
        objects: Objects::new(&wanted.objects, &wanted.release),
        requests: Requests::new(),
        removal: wanted.member.as_ref().map(Removal::new),
        watch: wanted.member.as_ref().map(Watch::new),
        renewing: Outage::new("renewing this machine's certificates", 0),
        registering: Outage::new("making this machine's Node with its range", 0),
        register_next: Duration::ZERO,
        renewed: None,
        tried: None,
        ready: false,
        wanted,
    };
    loop {
        // First, and without the API server: it may be the client's own certificate that has ended.
        steward.renew();
        if let Err(error) = steward.work(&mut connection).await {
            let failed = steward.outage.failed(steward.start.elapsed(), &say::words(error.as_ref()));
            failed.line.into_iter().for_each(say::line);
            // An API server whose etcd was removed from the others does not serve any more, and one whose etcd has no vote or cannot begin not yet.
            if let (Some(watch), Some(member)) = (&mut steward.watch, &steward.wanted.member)
                && watch.is_in_vain(steward.start.elapsed()).await
            {
                member::leave(member).await?;
            }
            tokio::time::sleep(failed.pause).await;
        }
    }
}

impl Steward {
    /// Sees to it that there is an API server, and works with it.
    async fn work(&mut self, connection: &mut Connection) -> Result<()> {
        self.pods.start_after_etcd().await?;
        self.serve(connection.client()?, connection).await
    }

    /// Works until something is wrong, or until the certificate's files change.
    async fn serve(&mut self, client: Client, connection: &Connection) -> Result<()> {
        ask_ready(&client).await?;
        self.pods.start_after_api_server()?;
        // Before all objects: its kubelet waits for it.
        self.register(&client).await?;
        let mut applied = Instant::now();
        let mut all = self.apply(&client).await?;
        self.outage.well(self.start.elapsed()).into_iter().for_each(say::line);
        let mut looked = Instant::now();
        self.requests.begin(self.policy()?);
        let config = watcher::Config::default().timeout(WATCH_SECONDS);
        let mut events = pin!(watcher(Api::<CertificateSigningRequest>::all(client.clone()), config));
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.next() => {
                    // Those that come at once are decided together, by one list of the nodes.
                    let mut next = Some(event);
                    while let Some(event) = next {
                        match event {
                            Some(Ok(event)) => self.requests.news(event, self.start.elapsed()),
                            Some(Err(watcher::Error::WatchError(status))) if status.code == 410 => return Ok(()),
                            Some(Err(error)) => return Err(error).context("watching certificate requests"),
                            None => anyhow::bail!("the watch of certificate requests ended"),
                        }
                        next = events.next().now_or_never();
                    }
                },
                _ = tick.tick() => {
                    self.renew();
                    if connection.renewed() {
                        return Ok(());
                    }
                    if !all || applied.elapsed() >= APPLY {
                        (applied, looked) = (Instant::now(), Instant::now());
                        all = self.apply(&client).await?;
                    } else if looked.elapsed() >= MISSING {
                        looked = Instant::now();
                        if self.objects.miss(&client).await? {
                            all = self.apply(&client).await?;
                        }
                    }
                    self.register(&client).await?;
                    self.requests.look();
                    if let Some(watch) = &mut self.watch {
                        watch.announce(self.start.elapsed()).await;
                    }
                    if let Some(removal) = &mut self.removal {
                        removal.look(&client, self.start.elapsed()).await?;
                    }
                }
            }
            self.requests.decide(&client, self.start.elapsed()).await?;
        }
    }

    /// Makes this machine's Node, where it is to have a range of its own choice. One that the cluster does not take is tried again, and keeps nobody waiting
    /// but its kubelet.
    async fn register(&mut self, client: &Client) -> Result<()> {
        let Some(node) = &self.wanted.register else { return Ok(()) };
        let now = self.start.elapsed();
        if now < self.register_next {
            return Ok(());
        }
        match registration::make(client, node).await {
            Ok(()) => {
                self.registering.well(now).into_iter().for_each(say::line);
                self.wanted.register = None;
            }
            Err(error) if objects::is_of_one(client, &error).await => {
                let failed = self.registering.failed(now, &say::words(error.as_ref()));
                failed.line.into_iter().for_each(say::line);
                self.register_next = self.start.elapsed() + failed.pause;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Says whether all objects are in the cluster.
    async fn apply(&mut self, client: &Client) -> Result<bool> {
        let since = *self.tried.get_or_insert_with(Instant::now);
        let all = self.objects.apply(client, self.start.elapsed()).await?;
        if !self.ready && (all || since.elapsed() >= TRIED) {
            mark(&self.wanted.ready)?;
            self.ready = true;
            say::line(if all {
                "the cluster's own objects are in place"
            } else {
                "the cluster does not take all of its own objects: they are tried again, and what waited for them goes on"
            });
        }
        Ok(all)
    }

    /// Looks at this machine's certificates when it is time to.
    fn renew(&mut self) {
        let pause = if self.renewing.lasts() { CERTIFICATES / 60 } else { CERTIFICATES };
        let clock = OffsetDateTime::now_utc();
        if self.renewed.is_some_and(|(at, then)| at.elapsed() < pause && !was_set(clock - then, at.elapsed())) {
            return;
        }
        self.renewed = Some((Instant::now(), clock));
        let done = contract::read(&self.wanted.certificates)
            .and_then(|wanted| certificates::keep(&wanted, clock, Kept::Untold));
        let now = self.start.elapsed();
        let line = match done {
            Ok(()) => self.renewing.well(now),
            Err(error) => self.renewing.failed(now, &format!("{error:#}")).line,
        };
        line.into_iter().for_each(say::line);
    }

    /// Where it is not known what is reserved, nothing is approved.
    fn policy(&self) -> Result<Policy> {
        let servers: contract::Certificates = contract::read(&self.wanted.certificates)?;
        Ok(policy(&self.wanted, &servers.certificates))
    }
}

/// Whether the clock went another way than time did: certificates may have ended by that, or not have begun yet.
fn was_set(clock: kscratch_pki::Duration, passed: Duration) -> bool {
    (clock - passed).abs() > kscratch_pki::Duration::MINUTE
}

/// What the servers of this master are called, and what all masters are, is nothing that a node may be called.
fn policy(wanted: &contract::Steward, servers: &[contract::Leaf]) -> Policy {
    let masters = &wanted.masters;
    let names = servers.iter().flat_map(|leaf| leaf.dns_names.clone());
    let addresses = servers.iter().flat_map(|leaf| leaf.addresses.clone());
    Policy {
        clients: wanted.approve.clone(),
        joiners: wanted.joiners.clone(),
        masters: masters.clone(),
        names: names.chain(masters.keys().cloned()).collect(),
        addresses: addresses.chain(masters.values().copied()).collect(),
        ranges: wanted.ranges.clone(),
        // Whoever decides asks for them.
        namespaces: BTreeSet::new(),
    }
}

/// Asks an API server whether it serves; one that is starting answers with what it still lacks.
async fn ask_ready(client: &Client) -> Result<()> {
    let request = http::Request::get("/readyz").body(Vec::new()).context("making the request for /readyz")?;
    let answer = bounded(client.request_text(request)).await.map(drop);
    if let Err(error) = &answer
        && let Some(kube::Error::Api(status)) = error.downcast_ref()
        && let Some(lacks) = lacking(&status.message)
    {
        anyhow::bail!("it is not ready: {lacks}");
    }
    answer.context("asking /readyz")
}

/// The checks that have not passed, of `/readyz`' lines `[+]NAME ok` and `[-]NAME failed: reason withheld`.
fn lacking(answer: &str) -> Option<String> {
    let failed = answer.lines().filter_map(|line| line.strip_prefix("[-]")?.split(' ').next());
    let names: Vec<_> = failed.collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// Writes an empty file that tells others to go on.
pub fn mark(path: &Path) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("making the directory {}", folder.display()))?;
    }
    place::file(path, b"", 0o644, rustix::process::geteuid().as_raw())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{lacking, policy, was_set};
    use crate::contract;

    #[test]
    fn what_masters_and_their_servers_are_called_is_reserved() {
        let wanted: contract::Steward = serde_json::from_value(json!({
            "server": "https://127.0.0.1:6443", "authority": "/a", "certificate": "/c", "key": "/k", "objects": "/o", "certificates": "/w",
            "approve": [{ "common_name": "system:kube-proxy" }], "joiners": "j", "masters": { "m1": "10.0.0.1", "m2": "10.0.0.2" },
            "etcd": "http://127.0.0.1:2381", "pods": [], "ready": "/r", "release": "1.37.2", "ranges": ["10.96.0.0/16"],
        }))
        .unwrap();
        let server: contract::Leaf = serde_json::from_value(json!({
            "certificate": "/c", "key": "/k", "authority": "cluster", "common_name": "kube-apiserver", "dns_names": ["kubernetes", "m1"],
            "addresses": ["10.96.0.1", "10.0.0.1"], "usages": ["server"], "days": 365, "owner": 901,
        }))
        .unwrap();
        let policy = policy(&wanted, &[server]);
        let names: Vec<_> = policy.names.iter().map(String::as_str).collect();
        assert_eq!(names, ["kubernetes", "m1", "m2"]);
        assert_eq!(policy.masters, wanted.masters);
        let addresses: Vec<_> = policy.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.0.0.1", "10.0.0.2", "10.96.0.1"]);
        assert_eq!((policy.joiners.as_str(), policy.clients.len(), policy.ranges.len()), ("j", 1, 1));
    }

    #[test]
    fn a_clock_that_was_set_is_told_from_one_that_goes() {
        for (clock, passed, want) in
            [(0, 0, false), (100, 100, false), (100, 50, false), (300, 100, true), (-300, 5, true), (86_400, 5, true)]
        {
            let (clock, passed) = (kscratch_pki::Duration::seconds(clock), std::time::Duration::from_secs(passed));
            assert_eq!(was_set(clock, passed), want, "{clock} in {passed:?}");
        }
    }

    #[test]
    fn what_an_api_server_lacks_is_named() {
        let answer = "[+]ping ok\n[-]etcd failed: reason withheld\n[-]poststarthook/rbac/bootstrap-roles failed: reason withheld\nreadyz check failed\n";
        assert_eq!(lacking(answer).as_deref(), Some("etcd, poststarthook/rbac/bootstrap-roles"));
        assert_eq!(lacking("etcd failed"), None);
    }
}
