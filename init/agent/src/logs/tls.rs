//! Makes TLS of a connection to a server of logs: it proves itself to this machine and, where it asks for that, this machine to it.
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, CertificateError, ClientConfig, ProtocolVersion, RootCertStore, SignatureScheme};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::wanted::Identity;
use crate::connection;
use crate::say;

/// How long a server may take to judge this machine's certificate, where nothing says that it has.
const JUDGED: Duration = Duration::from_secs(2);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(50);

/// One connection's side of TLS.
pub struct Client {
    config: ClientConfig,
    shown: Arc<Shown>,
}

impl Client {
    /// Reads the files, as they are now.
    ///
    /// # Errors
    /// One of them is not sound.
    pub fn read(authorities: &Path, identity: Option<&Identity>) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let own = identity.map(|identity| own(identity, &provider)).transpose()?;
        let shown = Arc::new(Shown { own: own.map(Arc::new), asked: AtomicBool::new(false) });
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.context("choosing versions of TLS")?.with_root_certificates(trusted(authorities)?);
        let config = builder.with_client_cert_resolver(Arc::<Shown>::clone(&shown));
        Ok(Self { config, shown })
    }

    /// Shakes hands with the server `host`.
    ///
    /// # Errors
    /// It does not prove itself, or does not take what this machine proves itself by.
    pub async fn connect(self, host: &str, stream: TcpStream) -> Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned()).with_context(|| format!("{host} is no server's name"))?;
        let mut stream = TlsConnector::from(Arc::new(self.config)).connect(name, stream).await?;
        if self.shown.asked.load(Ordering::Relaxed) {
            judged(&mut stream).await?;
        }
        Ok(stream)
    }
}

/// Waits until a server that asked has judged. By TLS 1.3 the handshake is over for this side before that (RFC 8446, 2), and lines that are sent into a
/// connection that is refused are lost. Most servers say that they are content by a ticket; others are silent.
async fn judged(stream: &mut TlsStream<TcpStream>) -> Result<()> {
    let end = Instant::now() + JUDGED;
    let open = |stream: &TlsStream<TcpStream>| {
        let (_, session) = stream.get_ref();
        session.protocol_version() == Some(ProtocolVersion::TLSv1_3) && session.tls13_tickets_received() == 0
    };
    while open(stream) && Instant::now() < end {
        match tokio::time::timeout(LOOK, stream.read(&mut [0; 512])).await {
            Ok(Ok(0)) => bail!("the server has closed the connection"),
            // What it has to say is nothing to us.
            Ok(Ok(_)) | Err(_) => {}
            Ok(Err(error)) => return Err(error.into()),
        }
    }
    Ok(())
}

/// What is shown to a server that asks, and whether it has.
#[derive(Debug)]
struct Shown {
    own: Option<Arc<CertifiedKey>>,
    asked: AtomicBool,
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _authorities: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        self.own.clone()
    }

    fn has_certs(&self) -> bool {
        self.own.is_some()
    }
}

/// This machine's certificate with its key.
fn own(identity: &Identity, provider: &CryptoProvider) -> Result<CertifiedKey> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("reading {}", path.display()));
    let chain = connection::authorities(&identity.certificate, &read(&identity.certificate)?)?;
    let key = PrivateKeyDer::from_pem_slice(&read(&identity.key)?);
    let key = key.with_context(|| format!("reading {}", identity.key.display()))?;
    match CertifiedKey::from_der(chain.into_iter().map(CertificateDer::from).collect(), key, provider) {
        Err(rustls::Error::InconsistentKeys(_)) => {
            bail!("logs.key of the metadata is not the key of logs.certificate: give both of one pair")
        }
        other => other.context("using logs.certificate and logs.key of the metadata"),
    }
}

/// Who may prove himself: by one of these authorities.
fn trusted(file: &Path) -> Result<RootCertStore> {
    let text = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let mut roots = RootCertStore::empty();
    let found = connection::authorities(file, &text)?.into_iter().map(CertificateDer::from);
    if roots.add_parsable_certificates(found).0 == 0 {
        bail!("there is no certificate of an authority in {}", file.display());
    }
    Ok(roots)
}

/// What a fault means; `identity` is whether this machine has something to prove itself by.
pub fn words(fault: &rustls::Error, identity: bool) -> String {
    match fault {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "its certificate is of no authority that it is trusted by (logs.ca of the metadata, else the public ones)"
                .to_owned()
        }
        rustls::Error::InvalidMessage(_) => "what answers there does not speak TLS".to_owned(),
        rustls::Error::AlertReceived(alert) if is_of_certificates(*alert) && identity => {
            format!("it refuses this machine's certificate (logs.certificate of the metadata): {alert:?}")
        }
        rustls::Error::AlertReceived(alert) if is_of_certificates(*alert) => {
            "it wants a certificate of this machine (logs.certificate and logs.key of the metadata)".to_owned()
        }
        other => say::words(other),
    }
}

/// Whether an alert is about a certificate: to a client, about its own (RFC 8446, 6.2).
fn is_of_certificates(alert: AlertDescription) -> bool {
    use AlertDescription as Alert;
    matches!(
        alert,
        Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::CertificateRequired
    )
}
