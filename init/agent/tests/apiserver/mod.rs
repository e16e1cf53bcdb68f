//! Speaks HTTP over TLS as an API server does: one certificate of an authority, and clients' certificates of the same.
use std::io::{BufRead as _, BufReader, Read as _, Result, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;

use kscratch_pki::{Authority, OffsetDateTime, Usage, Wanted};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

pub type Stream = StreamOwned<ServerConnection, TcpStream>;

/// Listens on a port of an address, which it gives. Each connection is `serve`d in a thread of its own.
pub fn listen(
    authority: &Authority,
    address: Ipv4Addr,
    serve: impl Fn(Stream) -> Result<()> + Send + Sync + 'static,
) -> u16 {
    listen_to(authority, authority, DefaultTimeProvider, address, serve)
}

/// The same, with an authority of the clients' own and by another clock.
pub fn listen_to(
    authority: &Authority,
    of_clients: &Authority,
    clock: impl TimeProvider + 'static,
    address: Ipv4Addr,
    serve: impl Fn(Stream) -> Result<()> + Send + Sync + 'static,
) -> u16 {
    let wanted = Wanted {
        usages: [Usage::Server].into(),
        addresses: vec![address.into()],
        ..Wanted::client("kube-apiserver", None)
    };
    let pair = authority.issue(&wanted, OffsetDateTime::now_utc()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(of_clients.certificate().der().to_vec())).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    // Who has none is nobody, and is answered as such.
    let clients = clients.allow_unauthenticated().build().unwrap();
    let config = ServerConfig::builder_with_details(provider, Arc::new(clock))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(pair.certificate_pem.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).unwrap(),
        )
        .unwrap();
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (config, serve) = (Arc::new(config), Arc::new(serve));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (config, serve) = (config.clone(), serve.clone());
            std::thread::spawn(move || {
                let connection = ServerConnection::new(config).unwrap();
                // A client that goes away is no fault of the server.
                let _ = serve(StreamOwned::new(connection, stream?));
                Result::Ok(())
            });
        }
    });
    port
}

/// What a client asks for.
pub struct Request {
    /// Method, path and version.
    pub line: String,
    /// Whether a token comes with it.
    pub token: bool,
    /// What comes behind the headers.
    pub body: Vec<u8>,
}

/// Reads the next request; `None` where there is none any more. Nobody may ask whether it serves, and nothing else; who has a token may ask for
/// certificate requests.
pub fn request(stream: &mut Stream) -> Result<Option<Request>> {
    while let Some(request) = next(stream)? {
        let open = request.line.starts_with("GET /readyz ")
            || request.token && request.line.contains("/certificatesigningrequests");
        if open || stream.conn.peer_certificates().is_some() {
            return Ok(Some(request));
        }
        answer(stream, 401, &status(401, "Unauthorized"))?;
    }
    Ok(None)
}

fn next(stream: &mut Stream) -> Result<Option<Request>> {
    let mut lines = BufReader::new(stream);
    let (mut first, mut length, mut token) = (String::new(), 0, false);
    lines.read_line(&mut first)?;
    let mut line = String::new();
    while lines.read_line(&mut line)? > 2 {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        token |= line.to_ascii_lowercase().starts_with("authorization: bearer ");
        line.clear();
    }
    let mut body = vec![0; length];
    lines.read_exact(&mut body)?;
    Ok((!first.is_empty()).then(|| Request { line: first.trim().to_owned(), token, body }))
}

/// Answers with a status and a JSON text.
pub fn answer(stream: &mut Stream, status: u16, body: &str) -> Result<()> {
    let length = body.len();
    write!(stream, "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")?;
    stream.flush()
}

/// A `Status` that says what is wrong.
pub fn status(code: u16, message: &str) -> String {
    // Clients go by these words where they know them.
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        _ => "X",
    };
    format!(
        r#"{{"kind":"Status","apiVersion":"v1","metadata":{{}},"status":"Failure","message":"{message}","reason":"{reason}","code":{code}}}"#
    )
}
