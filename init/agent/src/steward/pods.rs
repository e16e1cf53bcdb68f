//! Places the control plane's static pods one after the other: a program that begins before what it needs serves only ends, is started anew with longer
//! and longer pauses, and takes the processors from what it waits for.
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use super::ask_ready;
use crate::connection;
use crate::contract::{After, StaticPod};
use crate::{place, say};

/// How long etcd is asked again and again before that is a failure: it takes a second on a machine that is not emulated.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often.
const PAUSE: Duration = Duration::from_millis(250);

/// Those that are not placed yet.
pub struct Pods {
    etcd: String,
    waiting: Vec<StaticPod>,
}

impl Pods {
    /// What was placed since the machine is up stays there.
    pub fn new(etcd: &str, pods: &[StaticPod]) -> Self {
        let waiting = pods.iter().filter(|pod| !pod.place.exists()).cloned().collect();
        Self { etcd: etcd.to_owned(), waiting }
    }

    /// Places what waits for this machine's etcd, if anything does.
    ///
    /// # Errors
    /// It does not serve, or a pod cannot be read or placed.
    pub async fn start_after_etcd(&mut self) -> Result<()> {
        if !self.waits_for(After::Etcd) {
            return Ok(());
        }
        let client = connection::in_clear(&self.etcd)?;
        let begun = Instant::now();
        while let Err(error) = ask_ready(&client).await {
            if begun.elapsed() >= PATIENCE {
                // The words for it are those of an API server.
                let nobody = error.downcast_ref().is_some_and(|error| !matches!(error, kube::Error::Api(_)));
                let error = if nobody { anyhow!("nothing answers at {}", self.etcd) } else { error };
                return Err(error).context("etcd does not serve yet");
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.start(After::Etcd)
    }

    /// Places what waits for this machine's API server, which serves.
    ///
    /// # Errors
    /// A pod cannot be read or placed.
    pub fn start_after_api_server(&mut self) -> Result<()> {
        self.start(After::ApiServer)
    }

    fn waits_for(&self, what: After) -> bool {
        self.waiting.iter().any(|pod| pod.after == what)
    }

    fn start(&mut self, after: After) -> Result<()> {
        while let Some(next) = self.waiting.iter().position(|pod| pod.after == after) {
            let pod = &self.waiting[next];
            let planned = &pod.manifest;
            let text = std::fs::read(planned).with_context(|| format!("reading {}", planned.display()))?;
            place::file(&pod.place, &text, 0o600, rustix::process::geteuid().as_raw())?;
            say::line(format_args!("{} is started: {} serves", pod.name, serving(after)));
            self.waiting.swap_remove(next);
        }
        Ok(())
    }
}

fn serving(after: After) -> &'static str {
    match after {
        After::Etcd => "etcd",
        After::ApiServer => "the API server",
    }
}
