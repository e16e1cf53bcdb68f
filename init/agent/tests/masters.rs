//! Turns Nodes that are deleted into members of etcd that go, and a member that went into words on its own machine: one small server stands in for the
//! API server and for etcd.
mod apiserver;

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use apiserver::Stream;
use kscratch_pki::{Authority, OffsetDateTime, Wanted};
use serde_json::{Value, json};

/// The cluster, as the server knows it.
#[derive(Default)]
struct State {
    /// Whether there is an API server.
    serving: bool,
    nodes: Vec<Value>,
    /// What etcd lists; nothing where it has no majority.
    members: Vec<Value>,
    /// What etcd says to whoever wants to remove a member.
    refusal: Option<&'static str>,
}

#[derive(Clone)]
struct Cluster(Arc<Mutex<State>>);

impl Cluster {
    fn of(names: &[&str]) -> Self {
        let member = |name: &&str| {
            let url = |port: u16| format!("https://10.0.0.{}:{port}", &name[1..]);
            json!({ "ID": format!("77{}", &name[1..]), "name": name, "peerURLs": [url(2380)], "clientURLs": [url(2379)] })
        };
        let node = |name: &&str| {
            json!({ "metadata": {
                "name": name, "resourceVersion": "1", "labels": { "node-role.kubernetes.io/control-plane": "" }, "finalizers": ["other/one"],
            } })
        };
        Self(Arc::new(Mutex::new(State {
            serving: true,
            nodes: names.iter().map(node).collect(),
            members: names.iter().map(member).collect(),
            refusal: None,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn delete(&self, node: &str) {
        for one in self.state().nodes.iter_mut().filter(|one| one["metadata"]["name"] == node) {
            one["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
    }

    fn names(&self, nodes: bool) -> Vec<String> {
        let state = self.state();
        let name = |one: &Value| if nodes { one["metadata"]["name"].clone() } else { one["name"].clone() };
        let all = if nodes { &state.nodes } else { &state.members };
        all.iter().map(|one| name(one).as_str().unwrap_or_default().to_owned()).collect()
    }

    #[track_caller]
    fn waits_for(&self, what: &str, is: impl Fn(&State) -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !is(&self.state()) {
            assert!(Instant::now() < end, "{what} does not come: {:?}", self.state().nodes);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Answers until the client goes away.
    fn serve(&self, mut stream: Stream) -> std::io::Result<()> {
        while let Some(request) = apiserver::request(&mut stream)? {
            let mut words = request.line.split(' ');
            let (Some(method), Some(path)) = (words.next(), words.next()) else { break };
            if path.contains("watch=true") {
                write!(
                    stream,
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
                )?;
                stream.flush()?;
                std::thread::sleep(Duration::from_secs(90));
                break;
            }
            let question = serde_json::from_slice(&request.body).unwrap_or_default();
            let (status, answer) = self.answer(method, path, &question);
            apiserver::answer(&mut stream, status, &answer)?;
        }
        Ok(())
    }

    fn answer(&self, method: &str, path: &str, question: &Value) -> (u16, String) {
        let mut state = self.state();
        let list = |kind: &str, items: &[Value]| {
            json!({ "kind": kind, "apiVersion": "v1", "metadata": { "resourceVersion": "7" }, "items": items })
                .to_string()
        };
        match (method, path.split('?').next().unwrap_or_default()) {
            ("POST", "/v3/cluster/member/list") => {
                assert_eq!(*question, json!({ "linearizable": true }), "a member that is behind must not answer");
                match state.members.is_empty() {
                    true => (503, gateway("etcdserver: no leader")),
                    false => (200, json!({ "members": state.members }).to_string()),
                }
            }
            ("POST", "/v3/cluster/member/remove") => {
                if let Some(refusal) = state.refusal {
                    return (503, gateway(refusal));
                }
                state.members.retain(|member| member["ID"] != question["ID"]);
                (200, json!({ "members": state.members }).to_string())
            }
            _ if !state.serving => (503, gateway("it is away")),
            (_, "/readyz") => (200, "ok".to_owned()),
            (_, "/apis/certificates.k8s.io/v1/certificatesigningrequests") => {
                (200, list("CertificateSigningRequestList", &[]))
            }
            ("GET", "/api/v1/nodes") => (200, list("NodeList", &state.nodes)),
            ("PATCH", path) => {
                let name = path.rsplit('/').next().unwrap_or_default();
                let Some(at) = state.nodes.iter().position(|node| node["metadata"]["name"] == name) else {
                    return (404, apiserver::status(404, "not found"));
                };
                let node = &mut state.nodes[at];
                assert_eq!(question["metadata"]["resourceVersion"], node["metadata"]["resourceVersion"]);
                node["metadata"]["finalizers"] = question["metadata"]["finalizers"].clone();
                let answer = node.to_string();
                // Whoever else holds it lets go at once.
                if node["metadata"]["deletionTimestamp"].is_string() && !is_held(node) {
                    state.nodes.remove(at);
                }
                (200, answer)
            }
            other => (404, gateway(&format!("{other:?}"))),
        }
    }
}

/// An error as etcd's gateway tells it.
fn gateway(message: &str) -> String {
    json!({ "code": 14, "message": message, "details": [] }).to_string()
}

fn is_held(node: &Value) -> bool {
    node["metadata"]["finalizers"].as_array().is_some_and(|all| all.contains(&json!("kscratch/etcd-member")))
}

/// A steward with its files. It ends with the test.
struct Steward {
    child: Child,
    folder: PathBuf,
}

impl Steward {
    fn start(folder: &Path, cluster: &Cluster, name: &str) -> Self {
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
        let contract = json!({
            "server": server, "authority": at("ca.crt"), "certificate": at("client.crt"), "key": at("client.key"), "objects": at("addons"),
            "certificates": at("certificates.json"), "approve": [], "joiners": "j", "ready": at("ready"),
            "member": {
                "name": name, "peer_url": format!("https://10.0.0.{}:2380", &name[1..]), "data": at("data"), "local": server, "others": [server],
                "authority": at("ca.crt"), "certificate": at("client.crt"), "key": at("client.key"), "manifest": at("etcd.json"),
                "place": at("manifests/etcd.json"),
            },
        });
        put("steward.json", &contract.to_string());
        let child = Command::new(env!("CARGO_BIN_EXE_kscratch-agent"))
            .args(["steward", &at("steward.json")])
            .stdout(std::fs::File::create(at("log")).unwrap())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Self { child, folder: folder.to_owned() }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap()
    }

    #[track_caller]
    fn says(&self, text: &str) {
        let end = Instant::now() + Duration::from_secs(60);
        while !self.log().contains(text) {
            assert!(Instant::now() < end, "the steward does not say {text:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn pod_is_placed(&self) -> bool {
        self.folder.join("manifests/etcd.json").exists()
    }
}

impl Drop for Steward {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder of a machine whose etcd has data.
fn with_data() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    folder
}

#[test]
fn a_deleted_master_is_removed_from_etcd_before_its_node_is_gone() {
    let (folder, cluster) = (with_data(), Cluster::of(&["m1", "m2", "m3"]));
    let steward = Steward::start(folder.path(), &cluster, "m1");
    cluster.waits_for("every master's finalizer", |state| state.nodes.iter().all(is_held));
    assert!(steward.pod_is_placed());
    cluster.state().refusal = Some("etcdserver: unhealthy cluster");
    cluster.delete("m2");
    steward.says("failed: removing m2: etcdserver: unhealthy cluster");
    assert_eq!(cluster.names(true), ["m1", "m2", "m3"]);
    cluster.state().refusal = None;
    cluster.waits_for("the end of Node m2", |state| state.nodes.len() == 2);
    steward.says("Node m2 was deleted: m2 is no member of etcd any more, which has 2 now");
    assert_eq!(
        (cluster.names(true), cluster.names(false)),
        (vec!["m1".into(), "m3".into()], vec!["m1".into(), "m3".into()])
    );
    // Its own deletion is for the others to see.
    cluster.delete("m1");
    std::thread::sleep(Duration::from_secs(25));
    assert_eq!(cluster.names(false), ["m1", "m3"]);
    assert_eq!(cluster.names(true), ["m1", "m3"]);
    // They did.
    cluster.state().members.remove(0);
    cluster.waits_for("the end of Node m1", |state| state.nodes.len() == 1);
    assert_eq!(cluster.names(false), ["m3"]);
}

#[test]
fn a_master_that_was_removed_says_so_and_starts_no_etcd_until_it_is_known_again() {
    let (folder, cluster) = (with_data(), Cluster::of(&["m1", "m2"]));
    cluster.state().serving = false;
    let steward = Steward::start(folder.path(), &cluster, "m3");
    steward.says("this master was removed from its cluster for good");
    steward.says("write its image anew to its disk");
    // Who has no majority, says nothing.
    let members = std::mem::take(&mut cluster.state().members);
    std::thread::sleep(Duration::from_secs(35));
    assert!(!steward.pod_is_placed(), "{}", steward.log());
    cluster.state().members = [members, Cluster::of(&["m3"]).state().members.clone()].concat();
    steward.says("etcd's members know m3 again");
    let end = Instant::now() + Duration::from_secs(10);
    while !steward.pod_is_placed() {
        assert!(Instant::now() < end, "{}", steward.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(steward.log().matches("for good").count(), 1, "{}", steward.log());
}

#[test]
fn a_master_that_is_removed_while_it_runs_takes_its_etcd_away() {
    let (folder, cluster) = (with_data(), Cluster::of(&["m1", "m2", "m3"]));
    let steward = Steward::start(folder.path(), &cluster, "m3");
    cluster.waits_for("every master's finalizer", |state| state.nodes.iter().all(is_held));
    assert!(steward.pod_is_placed());
    cluster.state().members.pop();
    // Its own API server goes with its etcd.
    cluster.state().serving = false;
    steward.says("this master was removed from its cluster for good");
    assert!(!steward.pod_is_placed(), "{}", steward.log());
}

#[test]
fn a_master_starts_etcd_where_nobody_says_anything() {
    let (folder, cluster) = (with_data(), Cluster::of(&[]));
    let steward = Steward::start(folder.path(), &cluster, "m3");
    steward.says("the cluster's own objects are in place");
    assert!(steward.pod_is_placed());
    assert!(!steward.log().contains("for good"), "{}", steward.log());
}
