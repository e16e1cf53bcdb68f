//! Asks a cluster's endpoint for its version over TLS, believing the cluster's own authority alone.
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use kscratch_pki::{Certificate, Key, OffsetDateTime};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use serde::Deserialize;
use time::format_description::well_known::Rfc2822;
use ureq::http::Response;
use ureq::tls::{ClientCert, PrivateKey, RootCerts, TlsConfig};
use ureq::{Agent, Body};

use crate::vmcluster::api::Access;

/// How long an endpoint may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What an endpoint that answers shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It proved itself.
    Proven {
        /// Its clock, where it tells it.
        clock: Option<OffsetDateTime>,
        /// Its version, e.g. `v1.37.2`, or why it does not tell it.
        version: Result<String, String>,
        /// When the certificate ends by which it did, or why that is not known.
        until: Result<OffsetDateTime, String>,
    },
    /// It answers, but what it shows proves nothing.
    Refused(String),
}

/// What is needed of `/version` (Kubernetes, `version.Info`).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    git_version: String,
}

/// Asks `https://HOST:PORT` as the administrator, where there is one: who has no name is not told the version.
///
/// # Errors
/// Nothing answers there.
pub fn ask(server: &str, authority: &str, administrator: Option<&Access>) -> Result<Answer> {
    let mut tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&certificates(authority)?));
    // Who the administrator is matters to the version alone.
    let identity = administrator.map(identity).transpose();
    if let Ok(Some(identity)) = &identity {
        tls = tls.client_cert(Some(identity.clone()));
    }
    let config = Agent::config_builder()
        .tls_config(tls.build())
        .http_status_as_error(false)
        .max_redirects(0)
        // The endpoint is asked itself, as nodes do.
        .proxy(None)
        .timeout_global(Some(PATIENCE))
        .build();
    // The agent, which would keep the connection, ends here.
    let answered = config.new_agent().get(&format!("{server}/version")).call();
    match answered {
        // Whatever it says: the handshake is over by then.
        Ok(response) => {
            let date = response.headers().get("date").and_then(|date| date.to_str().ok());
            // An HTTP date ends in `GMT`, which RFC 2822 knows as +0000 (RFC 9110, 5.6.7).
            let date = date.and_then(|date| OffsetDateTime::parse(&date.replace("GMT", "+0000"), &Rfc2822).ok());
            let version = identity.and_then(|_| version(response));
            let until = shown(server, authority).map(|certificate| certificate.facts().not_after);
            let words = |why: anyhow::Error| format!("{why:#}");
            Ok(Answer::Proven { clock: date, version: version.map_err(words), until: until.map_err(words) })
        }
        Err(error) => match refusal(&error) {
            Some(why) => Ok(Answer::Refused(why)),
            None => Err(anyhow!(error)).with_context(|| format!("asking {server}")),
        },
    }
}

/// The certificate by which `https://HOST:PORT` proves itself, in a handshake of its own: the HTTP library does not tell it.
fn shown(server: &str, authority: &str) -> Result<Certificate> {
    let place = server.trim_start_matches("https://");
    let host = place.rsplit_once(':').map_or(place, |(host, _)| host);
    let mut roots = RootCertStore::empty();
    for certificate in Certificate::parse_all(authority)? {
        roots.add(CertificateDer::from(certificate.der().to_vec()))?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut connection = ClientConnection::new(Arc::new(config), ServerName::try_from(host.to_owned())?)?;
    let addresses = place.to_socket_addrs().with_context(|| format!("looking for {host}"))?;
    let mut stream = connect(addresses).with_context(|| format!("connecting to {place}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream).with_context(|| format!("shaking hands with {place}"))?;
    }
    let first = connection.peer_certificates().and_then(|all| all.first()).context("it shows no certificate")?;
    Ok(Certificate::from_der(first.to_vec())?)
}

/// To the first that takes it.
fn connect(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "it has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A key that is not the certificate's, or is damaged, would end the connection.
fn identity(access: &Access) -> Result<ClientCert> {
    let key = Key::parse(&access.key).context("reading the administrator's key")?;
    let certificate = Certificate::parse(&access.certificate).context("reading the administrator's certificate")?;
    if !certificate.fits(&key) {
        return Err(anyhow!("the administrator's key is not that of the certificate"));
    }
    let key = PrivateKey::from_pem(access.key.as_bytes()).context("reading the administrator's key")?;
    Ok(ClientCert::new_with_certs(&certificates(&access.certificate)?, key))
}

fn certificates(text: &str) -> Result<Vec<ureq::tls::Certificate<'static>>> {
    let all = Certificate::parse_all(text)?;
    Ok(all.iter().map(|certificate| ureq::tls::Certificate::from_der(certificate.der()).to_owned()).collect())
}

fn version(mut response: Response<Body>) -> Result<String> {
    let status = response.status().as_u16();
    if status != 200 {
        return Err(anyhow!("it answers {status} to who asks for its version"));
    }
    let text = response.body_mut().read_to_string().context("reading its version")?;
    let version: Version = serde_json::from_str(&text).context("reading its version")?;
    Ok(version.git_version)
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
