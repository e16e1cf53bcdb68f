//! Finds out that the cluster does not take this machine's certificates because they begin later: the clock of the master that signed them was ahead. Their
//! holders wait for that day, or for ever, as none of them looks at the first second of what it has.
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use kscratch_pki::{Certificate, OffsetDateTime, moment};
use kube::{Api, Client};

use super::joining;
use crate::connection::bounded;
use crate::contract::Identities;
use crate::node::Node;
use crate::say;

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(60);

/// What the kubelet serves with, beside its client certificate.
const SERVING: &str = "kubelet-server-current.pem";

/// See the module.
#[derive(Debug, Default)]
pub struct Early {
    looked: Option<Instant>,
    told: bool,
}

impl Early {
    /// Whether the kubelet's certificate begins later by this machine's clock, and it is time to look what the cluster makes of that.
    pub fn is_due(&mut self, kubelet: &Path) -> bool {
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
            return false;
        }
        self.looked = Some(Instant::now());
        begins_later(kubelet, OffsetDateTime::now_utc()).is_some()
    }

    /// Asks the cluster, which knows better where this machine's clock is behind. What it does not take is put aside where there is a token to join with
    /// again, which the kubelet does at its next start.
    ///
    /// # Errors
    /// There is no answer, or a file cannot be removed.
    pub async fn look(&mut self, wanted: &Identities, client: &Client) -> Result<()> {
        let now = OffsetDateTime::now_utc();
        let Some(begin) = begins_later(&wanted.kubelet, now) else { return Ok(()) };
        match bounded(Api::<Node>::all(client.clone()).get_metadata_opt(&wanted.node)).await {
            Err(error) if is_unknown(&error) => {}
            answer => return answer.map(drop),
        }
        let why = format!(
            "the cluster does not take this machine's certificate before {}, and the clock says {}: the clock of the master that signed it was ahead",
            moment(begin),
            moment(now)
        );
        // One that was given and has ended since would leave this machine without any.
        if !matches!(joining::requests(wanted).await, Ok(Some(_))) {
            if !std::mem::replace(&mut self.told, true) {
                say::line(format_args!(
                    "{why}; with a join token that the cluster knows in its role metadata, this machine joins again"
                ));
            }
            return Ok(());
        }
        for file in files(wanted).into_iter().filter(|file| begins_later(file, now).is_some()) {
            std::fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))?;
        }
        say::line(format_args!("{why}; it is put aside: restart this machine, and it joins again with its token"));
        Ok(())
    }
}

/// When a file's certificate begins, where that is later.
fn begins_later(file: &Path, now: OffsetDateTime) -> Option<OffsetDateTime> {
    let certificate = Certificate::parse(&std::fs::read_to_string(file).ok()?).ok()?;
    Some(certificate.facts().not_before).filter(|begin| *begin > now)
}

/// All that the cluster has signed for this machine.
fn files(wanted: &Identities) -> Vec<PathBuf> {
    let own = [wanted.kubelet.clone(), wanted.kubelet.with_file_name(SERVING)];
    own.into_iter().chain(wanted.identities.iter().map(|identity| identity.certificate.clone())).collect()
}

/// Whether the API server says that it does not know who asks.
fn is_unknown(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if status.code == 401)
}
