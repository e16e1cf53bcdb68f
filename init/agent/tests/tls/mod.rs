//! Turns an authority into a server on a port of the loopback address that takes clients with certificates of that authority alone.
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use kscratch_pki::{Authority, OffsetDateTime, Usage, Wanted};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

pub type Stream = StreamOwned<ServerConnection, TcpStream>;

/// Serves every connection in a thread of its own, and gives the port.
pub fn listen(authority: &Authority, serve: impl Fn(Stream) + Clone + Send + 'static) -> u16 {
    let wanted = Wanted {
        usages: [Usage::Server].into(),
        addresses: vec!["127.0.0.1".parse().unwrap()],
        ..Wanted::client("kube-apiserver", None)
    };
    let pair = authority.issue(&wanted, OffsetDateTime::now_utc()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(authority.certificate().der().to_vec())).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(pair.certificate_pem.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).unwrap(),
        )
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (config, serve) = (config.clone(), serve.clone());
            std::thread::spawn(move || {
                let Ok(stream) = stream else { return };
                serve(StreamOwned::new(ServerConnection::new(config).unwrap(), stream));
            });
        }
    });
    port
}
