//! Fetches texts over TLS from a real server, `openssl s_server`, which sends whole answers as they stand in files.
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use kscratch_agent::fetch;
use kscratch_pki::{Authority, OffsetDateTime, Usage, Wanted};

struct Server {
    process: Child,
    port: String,
}

impl Server {
    /// Serves the folder; its certificate is for 127.0.0.1 alone.
    fn start(folder: &Path, authority: &Authority) -> Self {
        let wanted = Wanted {
            usages: [Usage::Server].into(),
            addresses: vec!["127.0.0.1".parse().unwrap()],
            ..Wanted::client("metadata", None)
        };
        let pair = authority.issue(&wanted, OffsetDateTime::now_utc()).unwrap();
        fs::write(folder.join("server.crt"), pair.certificate_pem).unwrap();
        fs::write(folder.join("server.key"), &*pair.key_pem).unwrap();
        let mut process = Command::new("openssl")
            .args(["s_server", "-HTTP", "-accept", "127.0.0.1:0", "-cert", "server.crt", "-key", "server.key"])
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let accept = lines.map_while(Result::ok).find_map(|line| Some(line.strip_prefix("ACCEPT ")?.to_owned()));
        let port = accept.and_then(|line| Some(line.rsplit_once(':')?.1.to_owned())).expect("openssl accepts nothing");
        Self { process, port }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn a_text_comes_only_from_a_server_that_proves_itself() {
    let folder = tempfile::tempdir().unwrap();
    let new = |name: &str| Authority::new_with_pair(name, OffsetDateTime::now_utc(), 1).unwrap();
    let ((authority, own), (_, other)) = (new("own"), new("other"));
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("own.pem", &own.certificate_pem);
    write("other.pem", &other.certificate_pem);
    write("role.toml", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nversion = 1\n");
    write("gone", "HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\nnothing here");
    write("moved", "HTTP/1.1 302 Found\r\nLocation: https://other.example/role.toml\r\nConnection: close\r\n\r\n");
    write("large", &format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}", "#".repeat(1 << 21)));
    let server = Server::start(folder.path(), &authority);
    let ask = async |host: &str, name: &str, authorities: &str| {
        let url = format!("https://{host}:{}/{name}", server.port);
        let got = fetch::text(&url, &folder.path().join(authorities)).await;
        got.map(|text| String::from_utf8(text).unwrap()).map_err(|error| format!("{error:#}"))
    };
    assert_eq!(ask("127.0.0.1", "role.toml", "own.pem").await.unwrap(), "version = 1\n");
    let refused = async |host: &str, name: &str, authorities: &str, want: &str| {
        let error = ask(host, name, authorities).await.unwrap_err();
        assert!(error.contains(want), "{error}");
        assert!(!error.contains("API server"), "{error}");
    };
    refused("127.0.0.1", "gone", "own.pem", "/gone: the server answers 404 Not Found").await;
    refused("127.0.0.1", "moved", "own.pem", "302 Found, and names https://other.example/role.toml").await;
    refused("127.0.0.1", "large", "own.pem", "(4 attempts): reading the answer: length limit exceeded").await;
    refused("127.0.0.1", "role.toml", "other.pem", "invalid peer certificate: UnknownIssuer").await;
    refused("localhost", "role.toml", "own.pem", "certificate not valid for name \"localhost\"").await;
}

#[tokio::test]
async fn only_https_is_spoken() {
    for url in ["http://127.0.0.1/role.toml", "/role.toml", "https:///role.toml"] {
        assert!(fetch::text(url, Path::new("/")).await.is_err(), "{url}");
    }
}
