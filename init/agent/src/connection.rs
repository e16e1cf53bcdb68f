//! Turns the files of an authority, a client certificate and a key into a client of the API server, again when they change.
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use kube::{Client, Config};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);

/// How long the server may be silent within an answer. Watches end before that ([`WATCH_SECONDS`]).
const QUIET: Duration = Duration::from_secs(75);

/// After how long the server ends a watch, so that one whose connection died unnoticed is missed soon.
pub const WATCH_SECONDS: u32 = 60;

/// How long an answer may take altogether, where it is no watch.
const ANSWER: Duration = Duration::from_secs(30);

/// Waits for an answer, but not for ever.
///
/// # Errors
/// The answer is an error, or there is none in time.
pub async fn bounded<T>(answer: impl Future<Output = kube::Result<T>>) -> Result<T> {
    within(ANSWER, answer).await
}

/// Waits so long for an answer.
///
/// # Errors
/// The answer is an error, or there is none in time.
pub async fn within<T>(time: Duration, answer: impl Future<Output = kube::Result<T>>) -> Result<T> {
    match tokio::time::timeout(time, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Silence(time).into()),
    }
}

/// There was no answer in time.
#[derive(Debug)]
struct Silence(Duration);

impl std::fmt::Display for Silence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "there is no answer within {} s", self.0.as_secs_f32().ceil())
    }
}

impl std::error::Error for Silence {}

/// Whether the API server had nothing to say, to this at least: a webhook that it asks may be silent, for as long as 30 s.
pub fn is_silence(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Silence>().is_some()
}

/// Whether the object was deleted, or changed by somebody who was faster.
pub fn is_late(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<kube::Error>(), Some(kube::Error::Api(status)) if [404, 409].contains(&status.code))
}

/// Whether the API server answered, and said no to this one object. It says 401, 429 and 5xx to everything.
pub fn is_refusal(error: &anyhow::Error) -> bool {
    match error.downcast_ref() {
        Some(kube::Error::Api(status)) => (400..500).contains(&status.code) && ![401, 429].contains(&status.code),
        _ => false,
    }
}

/// Whether the API server answered that something went wrong inside: an admission webhook that does not answer, for one, which is asked for this object and
/// not for others.
pub fn is_internal(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<kube::Error>(), Some(kube::Error::Api(status)) if status.code == 500)
}

/// How to get at the API server.
#[derive(Debug)]
pub struct Connection {
    server: Uri,
    authority: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    used: Option<Material>,
}

/// What the files held.
#[derive(PartialEq, Eq)]
struct Material {
    authority: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Material")
    }
}

/// A client that proves itself by a bearer token.
///
/// # Errors
/// `server` is no https URL, or the authority's file is not sound.
pub fn with_token(server: &str, authority: &Path, token: &str) -> Result<Client> {
    let text = std::fs::read(authority).with_context(|| format!("reading {}", authority.display()))?;
    let mut config = config(https(server)?, authorities(authority, &text)?);
    config.auth_info.token = Some(token.to_owned().into());
    Client::try_from(config).with_context(|| format!("making a client of {server}"))
}

/// A client that nobody knows.
///
/// # Errors
/// `server` is no https URL, or the authorities' file is not sound.
pub fn without_identity(server: &str, authority: &Path) -> Result<Client> {
    let text = std::fs::read(authority).with_context(|| format!("reading {}", authority.display()))?;
    let config = config(https(server)?, authorities(authority, &text)?);
    Client::try_from(config).with_context(|| format!("making a client of {server}"))
}

/// A client of a server of this machine that speaks HTTP in clear.
///
/// # Errors
/// The URL cannot be read.
pub fn in_clear(server: &str) -> Result<Client> {
    let uri: Uri = server.parse().with_context(|| format!("reading the server's URL {server:?}"))?;
    Client::try_from(config(uri, Vec::new())).with_context(|| format!("making a client of {server}"))
}

fn https(server: &str) -> Result<Uri> {
    let uri: Uri = server.parse().with_context(|| format!("reading the server's URL {server:?}"))?;
    if uri.scheme_str() != Some("https") || uri.host().is_none() {
        bail!("the server's URL {server:?} is not of the form https://HOST:PORT");
    }
    Ok(uri)
}

fn config(server: Uri, authorities: Vec<Vec<u8>>) -> Config {
    let mut config = Config::new(server);
    config.root_cert = Some(authorities);
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(QUIET);
    config.write_timeout = Some(CONNECT);
    config.reset_reader_on_write = true;
    // Whoever asks has pauses of his own.
    config.default_retry = false;
    config
}

/// Certificates of a PEM text, which is what the file holds.
pub(crate) fn authorities(file: &Path, text: &[u8]) -> Result<Vec<Vec<u8>>> {
    let blocks = pem::parse_many(text).with_context(|| format!("reading {}", file.display()))?;
    let found: Vec<_> =
        blocks.into_iter().filter(|block| block.tag() == "CERTIFICATE").map(pem::Pem::into_contents).collect();
    if found.is_empty() {
        bail!("there is no certificate in {}", file.display());
    }
    Ok(found)
}

impl Connection {
    /// `certificate` and `key` may be one file that holds both, as the kubelet's does.
    ///
    /// # Errors
    /// `server` is no https URL.
    pub fn new(server: &str, authority: &Path, certificate: &Path, key: &Path) -> Result<Self> {
        Ok(Self {
            server: https(server)?,
            authority: authority.to_owned(),
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            used: None,
        })
    }

    /// A client made of what the files say now.
    ///
    /// # Errors
    /// A file is not there or not sound.
    pub fn client(&mut self) -> Result<Client> {
        let material = self.read()?;
        let mut config = config(self.server.clone(), authorities(&self.authority, &material.authority)?);
        config.auth_info.client_certificate_data =
            Some(self.blocks(&self.certificate, &material.certificate, false)?);
        config.auth_info.client_key_data = Some(self.blocks(&self.key, &material.key, true)?.into());
        let client = Client::try_from(config).with_context(|| format!("making a client of {}", self.server))?;
        self.used = Some(material);
        Ok(client)
    }

    /// Whether the files now say something else than the last client was made of. A file that is missing at the moment is not news.
    pub fn renewed(&self) -> bool {
        self.read().is_ok_and(|material| self.used.as_ref() != Some(&material))
    }

    fn read(&self) -> Result<Material> {
        let read = |path: &Path| std::fs::read(path).with_context(|| format!("reading {}", path.display()));
        Ok(Material { authority: read(&self.authority)?, certificate: read(&self.certificate)?, key: read(&self.key)? })
    }

    /// The keys of a PEM text, or its certificates, in the form that a kubeconfig has them.
    fn blocks(&self, path: &Path, text: &[u8], keys: bool) -> Result<String> {
        let blocks = pem::parse_many(text).with_context(|| format!("reading {}", path.display()))?;
        let wanted: Vec<_> = blocks
            .into_iter()
            .filter(|block| if keys { block.tag().ends_with("PRIVATE KEY") } else { block.tag() == "CERTIFICATE" })
            .collect();
        if wanted.is_empty() {
            bail!("there is no {} in {}", if keys { "key" } else { "certificate" }, path.display());
        }
        Ok(STANDARD.encode(pem::encode_many(&wanted)))
    }
}
