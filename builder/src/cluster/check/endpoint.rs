//! Asks a cluster's endpoint for its version over TLS, believing the cluster's own authority alone.
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use kscratch_pki::{Certificate, OffsetDateTime};
use time::format_description::well_known::Rfc2822;
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};

/// How long an endpoint may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What an endpoint that answers shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It proved itself; with its clock, where it tells it.
    Proven(Option<OffsetDateTime>),
    /// It answers, but what it shows proves nothing.
    Refused(String),
}

/// Asks `https://HOST:PORT`.
///
/// # Errors
/// Nothing answers there.
pub fn ask(server: &str, authority: &str) -> Result<Answer> {
    let roots: Vec<_> = Certificate::parse_all(authority)?
        .iter()
        .map(|certificate| ureq::tls::Certificate::from_der(certificate.der()).to_owned())
        .collect();
    let config = Agent::config_builder()
        .tls_config(TlsConfig::builder().root_certs(RootCerts::new_with_certs(&roots)).build())
        .http_status_as_error(false)
        .max_redirects(0)
        // The endpoint is asked itself, as nodes do.
        .proxy(None)
        .timeout_global(Some(PATIENCE))
        .build();
    match config.new_agent().get(&format!("{server}/version")).call() {
        // Whatever it says (anonymous people are refused): the handshake is over by then.
        Ok(response) => {
            let date = response.headers().get("date").and_then(|date| date.to_str().ok());
            // An HTTP date ends in `GMT`, which RFC 2822 knows as +0000 (RFC 9110, 5.6.7).
            let date = date.and_then(|date| OffsetDateTime::parse(&date.replace("GMT", "+0000"), &Rfc2822).ok());
            Ok(Answer::Proven(date))
        }
        Err(error) => match refusal(&error) {
            Some(why) => Ok(Answer::Refused(why)),
            None => Err(anyhow!(error)).with_context(|| format!("asking {server}")),
        },
    }
}

/// What the TLS library has against the certificate, if that is what went wrong.
fn refusal(error: &ureq::Error) -> Option<String> {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        let text = error.to_string();
        if let Some((_, why)) = text.split_once("invalid peer certificate: ") {
            return Some(why.to_owned());
        }
        cause = error.source();
    }
    match error {
        ureq::Error::Io(error) => error.get_ref().and_then(|inner| inner.source()).map(ToString::to_string),
        _ => None,
    }
}
