//! Gets a client certificate for each of a node's programs from the cluster, asking as the kubelet does, and has it renewed in time.
use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kscratch_pki::{Certificate, OffsetDateTime, Verdict, Wanted, judge};
use kube::Api;
use kube::api::PostParams;

use crate::connection::Connection;
use crate::contract::{Identities, Identity};
use crate::outage::Outage;
use crate::{place, say};

mod answer;

use answer::Answer;

/// How often the kubelet's certificate is looked for, and an answer.
const LOOK: Duration = Duration::from_secs(1);
/// How often certificates are looked at once all are there.
const REST: Duration = Duration::from_secs(600);
/// How long an answer is waited for before it is asked anew: requests are removed after an hour (csrcleaner).
const PATIENCE: Duration = Duration::from_secs(30 * 60);
/// The first pause after a refusal; each further one is twice as long.
const REFUSED: Duration = Duration::from_secs(60);
/// No pause is longer.
const LONGEST: Duration = Duration::from_secs(30 * 60);

/// Keeps all of them in order, for ever.
///
/// # Errors
/// The file of what is wanted says what cannot be.
pub async fn run(wanted: Identities) -> Result<()> {
    let mut connection = Connection::new(&wanted.server, &wanted.authority, &wanted.kubelet, &wanted.kubelet)?;
    // Machines that were switched on together must not ask all at once for ever.
    let seed = wanted.node.bytes().fold(0_u32, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
    let mut outage = Outage::new("asking the cluster for certificates", seed);
    let mut refusals: BTreeMap<String, u32> = BTreeMap::new();
    let begun = Instant::now();
    let mut complete = false;
    loop {
        let missing: Vec<&Identity> = wanted.identities.iter().filter(|identity| lacks(identity, &wanted)).collect();
        if missing.is_empty() {
            if !complete {
                place::file(&wanted.ready, b"", 0o644, 0)?;
                complete = true;
            }
            tokio::time::sleep(REST).await;
            continue;
        }
        wait_for_kubelet(&wanted).await;
        let mut pause = Duration::ZERO;
        for identity in missing {
            match obtain(identity, &mut connection).await {
                Ok(Obtained::Refused(why)) => {
                    let times = refusals.entry(identity.name.clone()).or_default();
                    let wait = REFUSED.saturating_mul(1 << (*times).min(5)).min(LONGEST);
                    *times += 1;
                    say::line(format_args!(
                        "the cluster gives no certificate to {}: {why}; it is asked again in {} s",
                        identity.name,
                        wait.as_secs()
                    ));
                    pause = pause.max(wait);
                }
                Ok(Obtained::Written(until)) => {
                    refusals.remove(&identity.name);
                    if let Some(line) = outage.well(begun.elapsed()) {
                        say::line(line);
                    }
                    say::line(format_args!("certificate of {}: valid until {until}", identity.name));
                }
                Err(error) => {
                    let failed = outage.failed(begun.elapsed(), &say::words(error.as_ref()));
                    if let Some(line) = failed.line {
                        say::line(line);
                    }
                    pause = pause.max(failed.pause);
                }
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// Whether an identity has no certificate that is good for more than a third of its life.
fn lacks(identity: &Identity, all: &Identities) -> bool {
    let read = |path: &std::path::Path| fs::read_to_string(path).ok();
    let (Some(certificate), Some(key), Some(authorities)) =
        (read(&identity.certificate), read(&identity.key), read(&all.authority))
    else {
        return true;
    };
    let says = Wanted { organizations: identity.organizations.clone(), ..Wanted::client(&identity.common_name, None) };
    let now = OffsetDateTime::now_utc();
    let kept =
        |authority: &Certificate| matches!(judge(&certificate, &key, &says, authority, now), Verdict::Keep { .. });
    !Certificate::parse_all(&authorities).is_ok_and(|authorities| authorities.iter().any(kept))
}

/// The kubelet joins first; until it has there is nobody to ask as.
async fn wait_for_kubelet(wanted: &Identities) {
    if !wanted.kubelet.exists() {
        say::line("waiting until the kubelet has joined the cluster");
    }
    while !wanted.kubelet.exists() {
        tokio::time::sleep(LOOK).await;
    }
}

enum Obtained {
    /// Until when it is valid.
    Written(String),
    /// Why there is none.
    Refused(String),
}

/// Asks once and waits for the answer. A key that got no certificate is forgotten.
async fn obtain(identity: &Identity, connection: &mut Connection) -> Result<Obtained> {
    let requests: Api<CertificateSigningRequest> = Api::all(connection.client()?);
    let (request, key) = answer::request(identity)?;
    let made = requests.create(&PostParams::default(), &request).await.context("making a certificate request")?;
    let name = made.metadata.name.unwrap_or_default();
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        let Some(request) = requests.get_opt(&name).await.context("reading the answer to a certificate request")?
        else {
            return Ok(Obtained::Refused(format!("the request {name} is gone")));
        };
        match answer::read(&request) {
            Answer::None => tokio::time::sleep(LOOK).await,
            Answer::Refused(why) => return Ok(Obtained::Refused(why)),
            Answer::Signed(pem) => {
                let certificate = Certificate::parse(&pem).context("reading the certificate that the cluster gave")?;
                // The key first: a certificate without its key is seen at the next look.
                place::file(&identity.key, key.as_bytes(), 0o600, identity.owner)?;
                place::file(&identity.certificate, pem.as_bytes(), 0o644, identity.owner)?;
                return Ok(Obtained::Written(certificate.facts().not_after.date().to_string()));
            }
        }
    }
    Ok(Obtained::Refused(format!("nobody approved the request {name} in {} min", PATIENCE.as_secs() / 60)))
}
