//! A certificate request that lies with the cluster, and what the cluster says to it.
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest as Csr, CertificateSigningRequestSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kscratch_pki::Pending;
use kube::api::PostParams;
use kube::{Api, Client};

use crate::connection::bounded;
use crate::contract::Identity;

/// The first pause after a refusal; each further one is twice as long.
const FIRST: Duration = Duration::from_secs(60);

/// No pause is longer.
const LONGEST: Duration = Duration::from_secs(30 * 60);

/// Pauses after refusals: what was refused once will hardly be granted a second later.
#[derive(Debug, Default)]
pub struct Pauses(u32);

impl Pauses {
    /// The pause after one more.
    pub fn next(&mut self) -> Duration {
        let pause = FIRST.saturating_mul(1 << self.0.min(10)).min(LONGEST);
        self.0 = self.0.saturating_add(1);
        pause
    }
}

/// A request, whose key is here alone.
pub struct Asked {
    /// Name of the CertificateSigningRequest.
    pub name: String,
    /// When it was made.
    pub since: Instant,
    pending: Pending,
}

/// What the cluster says.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing yet.
    Waits,
    /// The certificate, PEM.
    Signed(String),
    /// No, in words.
    Refused(String),
}

impl Asked {
    /// Asks.
    ///
    /// # Errors
    /// The API server does not take the request.
    pub async fn ask(client: &Client, wanted: &Identity) -> Result<Self> {
        let pending = Pending::new(&wanted.common_name, &wanted.organizations)
            .with_context(|| format!("making a request for {}", wanted.name))?;
        let request = Csr {
            metadata: ObjectMeta { generate_name: Some("kscratch-".to_owned()), ..ObjectMeta::default() },
            spec: CertificateSigningRequestSpec {
                request: ByteString(pending.request_pem.clone().into_bytes()),
                signer_name: "kubernetes.io/kube-apiserver-client".to_owned(),
                usages: Some(vec!["digital signature".to_owned(), "client auth".to_owned()]),
                ..CertificateSigningRequestSpec::default()
            },
            ..Csr::default()
        };
        let made = bounded(Api::<Csr>::all(client.clone()).create(&PostParams::default(), &request))
            .await
            .with_context(|| format!("asking for a certificate of {}", wanted.name))?;
        let name = made.metadata.name.context("the API server gave the request no name")?;
        Ok(Self { name, since: Instant::now(), pending })
    }

    /// Looks for the answer.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn answer(&self, client: &Client) -> Result<Answer> {
        let found = bounded(Api::<Csr>::all(client.clone()).get_opt(&self.name))
            .await
            .with_context(|| format!("looking for the answer to {}", self.name))?;
        Ok(found.map_or_else(|| Answer::Refused(format!("the request {} was removed", self.name)), |csr| read(&csr)))
    }

    /// The private key, PEM.
    pub fn key_pem(&self) -> &str {
        &self.pending.key_pem
    }
}

/// What a request's status says. A certificate that was signed in spite of a denial counts for nothing.
pub fn read(request: &Csr) -> Answer {
    let Some(status) = &request.status else { return Answer::Waits };
    for condition in status.conditions.as_deref().unwrap_or_default() {
        let said = condition.message.as_deref().or(condition.reason.as_deref()).unwrap_or("without a reason");
        match condition.type_.as_str() {
            "Denied" => return Answer::Refused(format!("denied: {said}")),
            "Failed" => return Answer::Refused(format!("signing it failed: {said}")),
            _ => {}
        }
    }
    match &status.certificate {
        Some(certificate) if !certificate.0.is_empty() => match String::from_utf8(certificate.0.clone()) {
            Ok(text) => Answer::Signed(text),
            Err(_) => Answer::Refused("what the cluster signed is no PEM text".to_owned()),
        },
        _ => Answer::Waits,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Answer, Pauses, read};

    #[test]
    fn pauses_grow_from_a_minute_to_half_an_hour() {
        let mut pauses = Pauses::default();
        let minutes: Vec<_> = (0..8).map(|_| pauses.next().as_secs() / 60).collect();
        assert_eq!(minutes, [1, 2, 4, 8, 16, 30, 30, 30]);
    }

    #[test]
    fn answers() {
        let refused = |text: &str| Answer::Refused(text.to_owned());
        let rows = [
            (json!(null), Answer::Waits),
            (json!({}), Answer::Waits),
            (json!({"conditions": [{"type": "Approved", "status": "True"}]}), Answer::Waits),
            (
                json!({"conditions": [{"type": "Approved", "status": "True"}], "certificate": "UEVN"}),
                Answer::Signed("PEM".to_owned()),
            ),
            (
                json!({"conditions": [{"type": "Denied", "status": "True", "message": "no"}], "certificate": "UEVN"}),
                refused("denied: no"),
            ),
            (json!({"conditions": [{"type": "Denied", "status": "True"}]}), refused("denied: without a reason")),
            (
                json!({"conditions": [{"type": "Failed", "status": "True", "reason": "X"}]}),
                refused("signing it failed: X"),
            ),
            (json!({"certificate": "/w=="}), refused("what the cluster signed is no PEM text")),
        ];
        for (status, want) in rows {
            let request = json!({"metadata": {}, "spec": {"request": "", "signerName": "x"}, "status": status});
            assert_eq!(read(&serde_json::from_value(request).unwrap()), want, "{status}");
        }
    }
}
