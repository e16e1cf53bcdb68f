//! Turns what a master's steward sees of etcd and of the API server into what it does to both: one small server stands in for them.
#[path = "../agentprocess/mod.rs"]
mod agentprocess;
#[path = "../apiserver/mod.rs"]
mod apiserver;
mod certificates;
mod cluster;
mod joining;
mod objects;
mod pods;
mod removal;
mod requests;
mod tokens;

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use agentprocess::{Agent, SOON};
use cluster::Cluster;
use kscratch_pki::{Authority, OffsetDateTime, Wanted};
use serde_json::{Value, json};

/// A steward; it ends with the test.
struct Steward {
    agent: Agent,
}

impl Steward {
    /// Of a master that is called m1, m2, …; the server is all others.
    fn start(folder: &Path, cluster: &Cluster, name: &str) -> Self {
        Self::with(folder, cluster, name, |_| ())
    }

    /// The same, its member of etcd in another way.
    fn with(folder: &Path, cluster: &Cluster, name: &str, change: impl FnOnce(&mut Value)) -> Self {
        Self::of(folder, cluster, name, |contract| change(&mut contract["member"]))
    }

    /// The same, all of it in another way.
    fn of(folder: &Path, cluster: &Cluster, name: &str, change: impl FnOnce(&mut Value)) -> Self {
        let (authority, pair) = Authority::new_with_pair("kubernetes", OffsetDateTime::now_utc(), 1).unwrap();
        let client = authority.issue(&Wanted::client("steward", None), OffsetDateTime::now_utc()).unwrap();
        let at = |name: &str| folder.join(name).display().to_string();
        let put = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
        let cluster = cluster.clone();
        let port = apiserver::listen(&authority, Ipv4Addr::LOCALHOST, move |stream| cluster.serve(stream));
        let server = format!("https://127.0.0.1:{port}");
        put("ca.crt", &pair.certificate_pem);
        put("client.crt", &client.certificate_pem);
        put("client.key", &client.key_pem);
        put("certificates.json", r#"{"authorities":{},"certificates":[]}"#);
        put("etcd.json", r#"{"spec":{"containers":[{"command":["etcd"]}]}}"#);
        std::fs::create_dir_all(folder.join("addons")).unwrap();
        std::fs::create_dir_all(folder.join("manifests")).unwrap();
        let mut contract = json!({
            "server": server, "authority": at("ca.crt"), "certificate": at("client.crt"), "key": at("client.key"), "objects": at("addons"),
            "certificates": at("certificates.json"), "approve": [], "joiners": "j", "release": "1.37.2", "ranges": [], "masters": { name: "10.0.0.1" }, "etcd": "http://127.0.0.1:2381", "pods": [],
            "ready": at("ready"),
            "member": {
                "name": name, "peer_url": format!("https://10.0.0.{}:2380", &name[1..]), "join": false, "data": at("data"), "local": server,
                "others": [{ "client": server, "peer": server }],
                "authority": at("ca.crt"), "certificate": at("client.crt"), "key": at("client.key"), "manifest": at("etcd.json"),
                "place": at("manifests/etcd.json"),
            },
        });
        change(&mut contract);
        Self { agent: Agent::start(folder, "steward", &contract.to_string()) }
    }

    fn log(&self) -> String {
        self.agent.log()
    }

    #[track_caller]
    fn says(&self, text: &str) {
        self.agent.says(text);
    }

    fn pod_is_placed(&self) -> bool {
        self.agent.folder.join("manifests/etcd.json").exists()
    }

    /// What etcd is started with.
    #[track_caller]
    fn etcd_is_started_with(&self, want: &[&str]) {
        let end = Instant::now() + SOON;
        while !self.pod_is_placed() {
            assert!(Instant::now() < end, "{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        let pod: Value =
            serde_json::from_slice(&std::fs::read(self.agent.folder.join("manifests/etcd.json")).unwrap()).unwrap();
        assert_eq!(pod["spec"]["containers"][0]["command"], json!(want), "{}", self.log());
    }
}

/// A folder of a machine whose etcd has data, which do not say whose they are.
fn with_data() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    folder
}

/// A folder of a machine whose etcd has data, and the id of the member that these make it.
fn with_data_of_a_member() -> (tempfile::TempDir, &'static str) {
    let folder = with_data();
    let log = folder.path().join("data/0000000000000000-0000000000000000.wal");
    std::fs::write(log, include_bytes!("../etcd.wal")).unwrap();
    (folder, "9372538179322589801")
}
