//! Keeps a cluster in order from one of its masters: its own objects are there, nodes get the certificates that are theirs, no certificate ends.
mod approve;
mod objects;
mod requests;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use http::Request;
use kscratch_pki::OffsetDateTime;
use kube::Client;

use crate::certificates::{self, Outcome};
use crate::connection::Connection;
use crate::contract::{self, Certificates, Steward};
use crate::outage::Outage;
use crate::{place, say};
use objects::Applied;

/// How often requests for certificates are looked at. A machine that joins waits for this.
const REQUESTS: Duration = Duration::from_secs(2);
/// How often all objects are applied again.
const OBJECTS: Duration = Duration::from_secs(60);
/// How often certificates are looked at.
const CERTIFICATES: Duration = Duration::from_secs(3600);

/// Runs for ever.
///
/// # Errors
/// What was asked for cannot be done at all.
pub async fn run(wanted: Steward) -> Result<()> {
    let mut connection = Connection::new(&wanted.server, &wanted.authority, &wanted.certificate, &wanted.key)?;
    let begun = Instant::now();
    let mut outage = Outage::new(format!("keeping the cluster in order at {}", wanted.server), std::process::id());
    let mut steward = Keeping { wanted, complete: false, told: BTreeMap::new(), renewed: Instant::now() };
    loop {
        let error = match connection.client() {
            Ok(client) => steward.keep(&client, &connection, &mut outage, begun).await,
            Err(error) => Err(error),
        };
        if let Err(error) = error {
            let failed = outage.failed(begun.elapsed(), &say::words(error.as_ref()));
            failed.line.into_iter().for_each(say::line);
            steward.renew();
            tokio::time::sleep(failed.pause).await;
        }
    }
}

struct Keeping {
    wanted: Steward,
    /// Whether all objects have been applied once.
    complete: bool,
    /// What was told of each object that is refused.
    told: BTreeMap<String, String>,
    renewed: Instant,
}

impl Keeping {
    /// Keeps order with one client, until its certificate's files change.
    async fn keep(
        &mut self,
        client: &Client,
        connection: &Connection,
        outage: &mut Outage,
        begun: Instant,
    ) -> Result<()> {
        ready(client).await?;
        outage.well(begun.elapsed()).into_iter().for_each(say::line);
        let mut applied: Option<Instant> = None;
        loop {
            if applied.is_none_or(|at| at.elapsed() >= OBJECTS) {
                self.apply(client).await?;
                applied = Some(Instant::now());
            }
            requests::answer_all(client, &self.wanted.approve).await?;
            self.renew();
            if connection.renewed() {
                return Ok(());
            }
            tokio::time::sleep(REQUESTS).await;
        }
    }

    /// Applies all objects. One that is refused does not keep back the others; it is told when it begins and when its reason changes.
    async fn apply(&mut self, client: &Client) -> Result<()> {
        let mut refused = 0;
        for object in objects::read(&self.wanted.objects, OffsetDateTime::now_utc())? {
            let name = object.describe();
            match object.apply(client).await? {
                Applied::Yes | Applied::Later => {
                    if self.told.remove(&name).is_some() {
                        say::line(format_args!("{name} is applied"));
                    }
                }
                Applied::Refused(why) => {
                    refused += 1;
                    if self.told.get(&name) != Some(&why) {
                        say::line(format_args!("{name} is refused by the API server: {why}"));
                        self.told.insert(name, why);
                    }
                }
            }
        }
        if refused == 0 && !self.complete {
            place::file(&self.wanted.ready, b"", 0o644, 0)?;
            say::line("the cluster's own objects are in place");
            self.complete = true;
        }
        Ok(())
    }

    /// Makes certificates anew whose time has come. Programs read them again by themselves.
    fn renew(&mut self) {
        if self.renewed.elapsed() < CERTIFICATES {
            return;
        }
        self.renewed = Instant::now();
        let outcomes = contract::read::<Certificates>(&self.wanted.certificates)
            .map(|wanted| certificates::converge(&wanted, OffsetDateTime::now_utc()));
        match outcomes {
            Ok(outcomes) => outcomes.into_iter().for_each(|outcome| match outcome {
                Ok(Outcome::Kept(_)) => {}
                Ok(Outcome::Made(line)) => say::line(line),
                Err(error) => say::line(format_args!("{error:#}")),
            }),
            Err(error) => say::line(format_args!("looking at the certificates: {error:#}")),
        }
    }
}

/// Whether the API server is ready; until then its answers are those of half a server.
async fn ready(client: &Client) -> Result<()> {
    let request = Request::get("/readyz").body(Vec::new()).context("asking whether the API server is ready")?;
    match client.request_text(request).await {
        Ok(text) if text.trim() == "ok" => Ok(()),
        Ok(text) => bail!("the API server is not ready: {}", text.lines().next().unwrap_or_default()),
        Err(kube::Error::Api(status)) => bail!("the API server is not ready: it answers {}", status.code),
        Err(error) => Err(error).context("asking whether the API server is ready"),
    }
}
