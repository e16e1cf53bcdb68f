//! One small server that stands in for the API server and for etcd: what it knows, what it answers.
use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::apiserver::{self, Stream};

/// The cluster, as the server knows it.
#[derive(Default)]
pub struct State {
    /// Whether there is an API server.
    pub serving: bool,
    pub nodes: Vec<Value>,
    /// What etcd lists; nothing where it has no majority.
    pub members: Vec<Value>,
    /// How often it still does; for ever, where nothing is said.
    pub lists: Option<usize>,
    /// What etcd says to whoever wants to remove a member, or to give one its vote.
    pub refusal: Option<&'static str>,
    /// What a member of etcd knows by itself, where there is no majority.
    pub known: Vec<Value>,
    /// Objects by their paths.
    pub objects: BTreeMap<String, Value>,
    /// The end of the path of an object that the API server cannot take: it asks a webhook for it, which does not answer.
    pub unwell: Option<&'static str>,
    /// The same of one to which the API server says nothing: its webhook is waited for.
    pub silent: Option<&'static str>,
    /// Every change of an object, by its path.
    pub written: Vec<String>,
    /// Certificate requests.
    pub requests: Vec<Value>,
    /// The answers to them that the API server took, by their names, and the one that it refuses.
    pub answers: BTreeMap<String, Value>,
    pub refused: &'static str,
}

#[derive(Clone)]
pub struct Cluster(Arc<Mutex<State>>);

impl Cluster {
    pub fn of(names: &[&str]) -> Self {
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
            ..State::default()
        })))
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub fn delete(&self, node: &str) {
        for one in self.state().nodes.iter_mut().filter(|one| one["metadata"]["name"] == node) {
            one["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
    }

    pub fn names(&self, nodes: bool) -> Vec<String> {
        let state = self.state();
        let name = |one: &Value| if nodes { one["metadata"]["name"].clone() } else { one["name"].clone() };
        let all = if nodes { &state.nodes } else { &state.members };
        all.iter().map(|one| name(one).as_str().unwrap_or_default().to_owned()).collect()
    }

    #[track_caller]
    pub fn waits_for(&self, what: &str, is: impl Fn(&State) -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !is(&self.state()) {
            assert!(Instant::now() < end, "{what} does not come: {:?}", self.state().nodes);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Answers until the client goes away.
    pub fn serve(&self, mut stream: Stream) -> std::io::Result<()> {
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
            let silent = self.state().silent;
            if method == "PATCH"
                && silent.is_some_and(|end| path.split('?').next().is_some_and(|path| path.ends_with(end)))
            {
                std::thread::sleep(Duration::from_secs(90));
                break;
            }
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
            ("GET", "/members") => (200, json!(state.known).to_string()),
            ("POST", path) if path.starts_with("/v3/cluster/member/") => {
                state.change_members(path.rsplit('/').next().unwrap_or_default(), question)
            }
            _ if !state.serving => (503, gateway("it is away")),
            (_, "/readyz") => (200, "ok".to_owned()),
            (_, "/apis/certificates.k8s.io/v1/certificatesigningrequests") => {
                (200, list("CertificateSigningRequestList", &state.requests))
            }
            ("PATCH", path) if path.ends_with("/approval") => state.take_answer(path, question),
            ("GET", "/api/v1/namespaces") => (200, list("PartialObjectMetadataList", &[])),
            ("GET", "/api/v1/nodes") => (200, list("NodeList", &state.nodes)),
            ("GET", path) if path.contains("/namespaces/") => match state.objects.get(path) {
                Some(object) => (200, object.to_string()),
                None => (404, apiserver::status(404, "not found")),
            },
            ("PATCH", path) if state.unwell.is_some_and(|end| path.ends_with(end)) => {
                (500, apiserver::status(500, "Internal error occurred: failed calling webhook"))
            }
            ("PATCH", path) if path.contains("/namespaces/") => (200, state.apply(path, question)),
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

impl State {
    /// What etcd's gateway answers. It takes one member without a vote at a time.
    fn change_members(&mut self, what: &str, question: &Value) -> (u16, String) {
        let learns = |member: &&mut Value| member["isLearner"] == true;
        match what {
            "list" => {
                assert_eq!(*question, json!({ "linearizable": true }), "a member that is behind must not answer");
                if self.members.is_empty() || self.lists == Some(0) {
                    return (503, gateway("etcdserver: no leader"));
                }
                self.lists = self.lists.map(|left| left - 1);
            }
            "remove" | "promote" if self.refusal.is_some() => {
                return (503, gateway(self.refusal.unwrap_or_default()));
            }
            "remove" => self.members.retain(|member| member["ID"] != question["ID"]),
            "add" => {
                assert_eq!(question["isLearner"], true, "a member that never comes up must not count");
                if self.members.iter_mut().any(|member| learns(&member)) {
                    return (400, gateway("etcdserver: too many learner members in cluster"));
                }
                let id = format!("88{}", self.members.len());
                self.members.push(json!({ "ID": id, "peerURLs": question["peerURLs"], "isLearner": true }));
            }
            "promote" => {
                let learner = self.members.iter_mut().find(|member| member["ID"] == question["ID"]);
                learner.filter(learns).expect("it has no vote")["isLearner"] = json!(false);
            }
            "update" => {
                let member = self.members.iter_mut().find(|member| member["ID"] == question["ID"]);
                member.expect("it is a member")["peerURLs"] = question["peerURLs"].clone();
            }
            other => panic!("etcd has no member/{other}"),
        }
        (200, json!({ "members": self.members }).to_string())
    }

    fn take_answer(&mut self, path: &str, question: &Value) -> (u16, String) {
        let name = path.rsplit('/').nth(1).unwrap_or_default();
        if name == self.refused {
            return (422, apiserver::status(422, "it is too long"));
        }
        self.answers.insert(name.to_owned(), question["status"]["conditions"][0].clone());
        let request = self.requests.iter().find(|request| request["metadata"]["name"] == name);
        (200, request.expect("it was asked for").to_string())
    }

    /// Server-side apply, as far as it goes for maps that several write to.
    fn apply(&mut self, path: &str, object: &Value) -> String {
        self.written.push(path.to_owned());
        let whole = self.objects.entry(path.to_owned()).or_insert_with(|| object.clone());
        if let (Some(data), Some(more)) = (whole["data"].as_object_mut(), object["data"].as_object()) {
            data.extend(more.clone());
        }
        whole.to_string()
    }
}

/// An error as etcd's gateway tells it.
fn gateway(message: &str) -> String {
    json!({ "code": 14, "message": message, "details": [] }).to_string()
}

pub fn is_held(node: &Value) -> bool {
    node["metadata"]["finalizers"].as_array().is_some_and(|all| all.contains(&json!("kscratch/etcd-member")))
}
