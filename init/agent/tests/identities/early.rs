//! A machine whose certificates begin later, as the clock of the master that signed them was ahead.
use std::fs;
use std::io::Result;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use kscratch_pki::{Authority, OffsetDateTime, Wanted};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use serde_json::json;

use crate::agentprocess::{Agent, SOON};
use crate::apiserver::{self, Stream};

const DAY: Duration = Duration::from_secs(86_400);

/// A clock by which the certificates are good: an API server that knows better says so after the handshake.
#[derive(Debug)]
struct Ahead;

impl TimeProvider for Ahead {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs()) + 2 * DAY))
    }
}

/// Takes nobody's certificate, if it is to take none, and the token.
fn serve(mut stream: Stream, takes: bool) -> Result<()> {
    while let Some(request) = apiserver::request(&mut stream)? {
        assert!(request.body.is_empty(), "nothing is written: {}", request.line);
        let (status, answer) = match stream.conn.peer_certificates().is_some() {
            true if takes => (404, apiserver::status(404, "not found")),
            true => (401, apiserver::status(401, "Unauthorized")),
            false => {
                let list = json!({"kind": "CertificateSigningRequestList", "apiVersion": "certificates.k8s.io/v1", "metadata": {}, "items": []});
                (200, list.to_string())
            }
        };
        apiserver::answer(&mut stream, status, &answer)?;
    }
    Ok(())
}

/// The agent of a machine, which has a token or none, and a cluster that takes its certificate or does not.
fn start(folder: &Path, takes: bool, token: bool) -> Agent {
    let at = |name: &str| folder.join(name);
    let now = OffsetDateTime::now_utc();
    let (authority, pair) = Authority::new_with_pair("kubernetes", now, 10).unwrap();
    fs::write(at("ca.crt"), pair.certificate_pem).unwrap();
    let (later, _) = Authority::new_with_pair("kubernetes", now + DAY, 10).unwrap();
    let pair = later.issue(&Wanted::client("system:node:n1", Some("system:nodes")), now + DAY).unwrap();
    fs::write(at("kubelet.pem"), format!("{}{}", pair.certificate_pem, pair.key_pem)).unwrap();
    fs::copy(at("kubelet.pem"), at("kubelet-server-current.pem")).unwrap();
    fs::write(at("bootstrap.json"), r#"{"users": [{"name": "a", "user": {"token": "abcdef.0123456789abcdef"}}]}"#)
        .unwrap();
    let port = apiserver::listen_to(&authority, &later, Ahead, Ipv4Addr::LOCALHOST, move |stream| serve(stream, takes));
    let contract = json!({
        "server": format!("https://127.0.0.1:{port}"), "authority": at("ca.crt"), "kubelet": at("kubelet.pem"), "node": "n1",
        "bootstrap": token.then(|| at("bootstrap.json")), "remembered": at("node-name"), "identities": [], "ready": at("ready"),
    });
    Agent::start(folder, "identities", &contract.to_string())
}

#[test]
fn what_the_cluster_does_not_take_yet_is_put_aside() {
    let folder = tempfile::tempdir().unwrap();
    let agent = start(folder.path(), false, true);
    agent.says("the cluster does not take this machine's certificate before ");
    agent.says("the clock of the master that signed it was ahead; it is put aside: restart this machine");
    for file in ["kubelet.pem", "kubelet-server-current.pem"] {
        assert!(!folder.path().join(file).exists(), "{file}");
    }
}

#[test]
fn it_is_kept_where_there_is_no_other_way_back() {
    let folder = tempfile::tempdir().unwrap();
    let agent = start(folder.path(), false, false);
    agent.says("was ahead; with a join token that the cluster knows in its role metadata, this machine joins again");
    assert!(folder.path().join("kubelet.pem").exists());
}

/// It is this machine's clock that is behind.
#[test]
fn what_the_cluster_takes_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let agent = start(folder.path(), true, true);
    let end = std::time::Instant::now() + SOON;
    while !folder.path().join("ready").exists() {
        assert!(std::time::Instant::now() < end, "{}", agent.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(folder.path().join("kubelet.pem").exists());
    assert!(!agent.log().contains("ahead"), "{}", agent.log());
}
