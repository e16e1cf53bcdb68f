//! Asks a cluster's API server, with the certificate out of a kubeconfig: which nodes are Ready, and whatever else is at a path of its.
use std::io::Read;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use ureq::http::{Response, Uri};
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use crate::console::Hint;

/// How long one answer may take; the server is emulated.
const PATIENCE: Duration = Duration::from_secs(15);
/// Some hundred nodes; a Node has about 10 KB.
const LONGEST: u64 = 16 << 20;

/// A way to an API server.
#[derive(Debug)]
pub struct Api {
    server: String,
    agent: Agent,
}

/// How a kubelet puts it that there is no CNI network yet, which is so for a while at every first boot.
const NO_NETWORK: &str = "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:docker: network plugin is not ready: cni config uninitialized";

/// Which bytes of something are asked for (RFC 9110, section 14).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// So many at its end.
    Last(u64),
    /// All from there on.
    From(u64),
}

/// What was answered to a question for a [`Part`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// 206, or 200 where all of it was given; 416 where there are no such bytes.
    pub status: u16,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// How many bytes there are altogether.
    pub length: u64,
}

/// A node as the API server knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeState {
    /// Its name.
    pub name: String,
    /// Its condition Ready.
    pub ready: bool,
    /// Why it is not, in the kubelet's words.
    pub why: String,
}

/// What is needed of a kubeconfig (`kind: Config`, v1) with everything inside.
#[derive(Deserialize)]
struct Kubeconfig {
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default, rename = "current-context")]
    current: String,
}

#[derive(Deserialize)]
struct NamedCluster {
    #[serde(default)]
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Chosen,
}

#[derive(Deserialize)]
struct Chosen {
    cluster: String,
    user: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    #[serde(default)]
    certificate_authority_data: String,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    #[serde(default)]
    client_certificate_data: String,
    #[serde(default)]
    client_key_data: String,
}

/// A kubeconfig's texts: PEM, decoded.
#[derive(Clone)]
pub struct Access {
    /// `https://HOST:PORT`.
    pub server: String,
    /// Name of the user.
    pub user: String,
    /// Certificate of the authority.
    pub authority: String,
    /// Certificate of the user.
    pub certificate: String,
    /// Key of the user.
    pub key: String,
}

impl Access {
    /// Reads a kubeconfig.
    ///
    /// # Errors
    /// It is no YAML, or lacks a part.
    pub fn parse(text: &str) -> Result<Access> {
        let config: Kubeconfig = serde_saphyr::from_str(text).context("reading the kubeconfig")?;
        let chosen = config.contexts.into_iter().find(|context| context.name == config.current);
        let chosen = chosen.map(|context| context.context);
        // Without a current context it has one of each, as those have that are made here.
        let is = |name: &str, wanted: Option<&String>| wanted.is_none_or(|wanted| wanted == name);
        let of = |name: &str| is(name, chosen.as_ref().map(|context| &context.cluster));
        let as_user = |name: &str| is(name, chosen.as_ref().map(|context| &context.user));
        let cluster = config.clusters.into_iter().find(|cluster| of(&cluster.name));
        let user = config.users.into_iter().find(|user| as_user(&user.name));
        let (Some(cluster), Some(user)) = (cluster, user) else {
            bail!("the kubeconfig names no cluster or no user");
        };
        let decode = |what: &str, text: &str| -> Result<String> {
            if text.is_empty() {
                let hint = "with files in the place of data: `kubectl config view --flatten --minify`; users with tokens are not known here";
                return Err(anyhow!("the kubeconfig has no {what}").context(Hint(hint.into())));
            }
            let bytes = STANDARD.decode(text).with_context(|| format!("reading {what} of the kubeconfig"))?;
            String::from_utf8(bytes).with_context(|| format!("reading {what} of the kubeconfig"))
        };
        Ok(Access {
            authority: decode("certificate-authority-data", &cluster.cluster.certificate_authority_data)?,
            certificate: decode("client-certificate-data", &user.user.client_certificate_data)?,
            key: decode("client-key-data", &user.user.client_key_data)?,
            server: cluster.cluster.server,
            user: user.name,
        })
    }
}

impl Api {
    /// The server that a kubeconfig leads to.
    ///
    /// # Errors
    /// A certificate or key is not PEM.
    pub fn of(access: &Access) -> Result<Api> {
        let certificates = |text: &str| -> Result<Vec<Certificate<'static>>> {
            let mut found = Vec::new();
            for item in parse_pem(text.as_bytes()) {
                if let PemItem::Certificate(certificate) = item? {
                    found.push(certificate);
                }
            }
            Ok(found)
        };
        let authorities = certificates(&access.authority).context("reading the authority's certificate")?;
        let own = certificates(&access.certificate).context("reading the administrator's certificate")?;
        let key = PrivateKey::from_pem(access.key.as_bytes()).context("reading the administrator's key")?;
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&authorities))
            .client_cert(Some(ClientCert::new_with_certs(&own, key)))
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            // A port of this machine: no proxy is between.
            .proxy(None)
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .build();
        Ok(Api { server: access.server.clone(), agent: config.new_agent() })
    }

    /// Where the server is: a name, or an address without brackets.
    pub fn host(&self) -> Option<String> {
        let server: Uri = self.server.parse().ok()?;
        Some(server.host()?.trim_matches(['[', ']']).to_owned())
    }

    /// All nodes, by name.
    ///
    /// # Errors
    /// The server does not answer, is not the cluster's, or refuses.
    pub fn nodes(&self) -> Result<Vec<NodeState>> {
        const PATH: &str = "/api/v1/nodes";
        let (status, bytes) = self.get(PATH)?;
        let url = format!("{}{PATH}", self.server);
        if status != 200 {
            let said = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
            return Err(anyhow!("the server answers {status}: {said}").context(format!("asking {url}")));
        }
        nodes(&bytes).with_context(|| format!("reading the answer of {url}"))
    }

    /// What the server answers to a GET: status and body.
    ///
    /// # Errors
    /// It does not answer, or is not the cluster's.
    pub fn get(&self, path: &str) -> Result<(u16, Vec<u8>)> {
        let url = format!("{}{path}", self.server);
        answer(self.agent.get(&url).call()).with_context(|| format!("asking {url}"))
    }

    /// A part of what is at a path.
    ///
    /// # Errors
    /// As for [`Api::get`].
    pub fn part(&self, path: &str, part: Part) -> Result<Piece> {
        let url = format!("{}{path}", self.server);
        let range = match part {
            Part::Last(count) => format!("bytes=-{count}"),
            Part::From(start) => format!("bytes={start}-"),
        };
        let answered = || -> Result<Piece> {
            let response = self.agent.get(&url).header("Range", range).call()?;
            let told = response.headers().get("content-range").and_then(|value| value.to_str().ok());
            let told = told.and_then(|value| value.rsplit_once('/')?.1.parse().ok());
            let (status, bytes) = answer(Ok(response))?;
            let length = told.unwrap_or(bytes.len() as u64);
            Ok(Piece { status, bytes, length })
        };
        answered().with_context(|| format!("asking {url}"))
    }

    /// What the server answers where an object is to get some fields more (RFC 7396): status and body.
    ///
    /// # Errors
    /// As for [`Api::get`].
    pub fn merge(&self, path: &str, fields: &serde_json::Value) -> Result<(u16, Vec<u8>)> {
        let url = format!("{}{path}", self.server);
        let request = self.agent.patch(&url).content_type("application/merge-patch+json");
        answer(request.send(&fields.to_string())).with_context(|| format!("changing {url}"))
    }

    /// A server that speaks HTTP in clear, for tests.
    #[cfg(test)]
    pub(crate) fn in_clear(server: String) -> Api {
        let config = Agent::config_builder().proxy(None).http_status_as_error(false).timeout_global(Some(PATIENCE));
        Api { server, agent: config.build().new_agent() }
    }

    /// What the server answers to a POST of an object: status and body.
    ///
    /// # Errors
    /// As for [`Api::get`].
    pub fn post(&self, path: &str, object: &serde_json::Value) -> Result<(u16, Vec<u8>)> {
        let url = format!("{}{path}", self.server);
        let request = self.agent.post(&url).content_type("application/json");
        answer(request.send(&object.to_string())).with_context(|| format!("posting to {url}"))
    }
}

/// Status and body of an answer.
fn answer(response: Result<Response<Body>, ureq::Error>) -> Result<(u16, Vec<u8>)> {
    let (head, body) = response?.into_parts();
    let mut bytes = Vec::new();
    body.into_reader().take(LONGEST).read_to_end(&mut bytes)?;
    Ok((head.status.as_u16(), bytes))
}

/// Reads a NodeList (`k8s.io/api/core/v1`).
fn nodes(bytes: &[u8]) -> Result<Vec<NodeState>> {
    let list: NodeList = serde_json::from_slice(bytes)?;
    let state = |node: Node| {
        let conditions = node.status.conditions;
        let condition = conditions.into_iter().find(|condition| condition.kind == "Ready");
        let (ready, why) = match condition {
            Some(condition) => {
                (condition.status == "True", condition.message.replace(NO_NETWORK, "its pods have no network yet"))
            }
            None => (false, "it has not said anything yet".to_owned()),
        };
        NodeState { name: node.metadata.name, ready, why: if ready { String::new() } else { why } }
    };
    let mut nodes: Vec<_> = list.items.into_iter().map(state).collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(nodes)
}

#[derive(Deserialize)]
struct NodeList {
    items: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    metadata: Metadata,
    #[serde(default)]
    status: NodeStatus,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Default, Deserialize)]
struct NodeStatus {
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    #[serde(default)]
    message: String,
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
    use std::thread;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_of_nodes_is_read() {
        let text = br#"{"kind":"NodeList","items":[
            {"metadata":{"name":"n1"},"status":{"conditions":[
                {"type":"DiskPressure","status":"False","message":"fine"},
                {"type":"Ready","status":"False","message":"container runtime network not ready"}]}},
            {"metadata":{"name":"m1"},"status":{"conditions":[{"type":"Ready","status":"True","message":"ok"}]}},
            {"metadata":{"name":"n2"}}]}"#;
        let said: Vec<_> = nodes(text).unwrap().into_iter().map(|node| (node.name, node.ready, node.why)).collect();
        let want = [
            ("m1", true, ""),
            ("n1", false, "container runtime network not ready"),
            ("n2", false, "it has not said anything yet"),
        ];
        assert_eq!(said, want.map(|(name, ready, why)| (name.to_owned(), ready, why.to_owned())));
        assert!(nodes(b"{}").is_err() && nodes(b"").is_err());
    }

    #[test]
    fn an_object_is_posted_and_the_answer_read_whatever_its_status() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let asked = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            let mut buffer = [0; 4096];
            while !asked.ends_with(b"}") {
                let length = stream.read(&mut buffer).unwrap();
                assert!(length > 0, "the request broke off: {}", String::from_utf8_lossy(&asked));
                asked.extend_from_slice(&buffer[..length]);
            }
            stream.write_all(b"HTTP/1.1 409 Conflict\r\nContent-Length: 4\r\nConnection: close\r\n\r\nhere").unwrap();
            String::from_utf8(asked).unwrap()
        });
        let api = Api::in_clear(server);
        assert_eq!(api.post("/api/v1/pods", &json!({ "kind": "Pod" })).unwrap(), (409, b"here".to_vec()));
        let asked = asked.join().unwrap();
        assert!(
            asked.starts_with("POST /api/v1/pods HTTP/1.1\r\n") && asked.ends_with("{\"kind\":\"Pod\"}"),
            "{asked}"
        );
        assert!(asked.to_lowercase().contains("content-type: application/json\r\n"), "{asked}");
    }

    #[test]
    fn a_kubeconfig_lacks_nothing() {
        let text = "apiVersion: v1\nkind: Config\nclusters:\n- name: c\n  cluster:\n    server: https://127.0.0.1:6443\n    \
                    certificate-authority-data: YQ==\nusers:\n- name: admin\n  user:\n    client-certificate-data: Yg==\n    \
                    client-key-data: Yw==\n";
        let access = Access::parse(text).unwrap();
        assert_eq!((access.server.as_str(), access.user.as_str()), ("https://127.0.0.1:6443", "admin"));
        assert_eq!((access.authority.as_str(), access.certificate.as_str(), access.key.as_str()), ("a", "b", "c"));
        assert!(Access::parse("clusters: []\nusers: []\n").is_err());
        // Of several the current context's count.
        let two = "clusters:\n- name: other\n  cluster: {server: 'https://o'}\n- name: c\n  cluster: {server: 'https://c', certificate-authority-data: YQ==}\n\
                   users:\n- name: other\n  user: {token: x}\n- name: admin\n  user: {client-certificate-data: Yg==, client-key-data: Yw==}\n\
                   contexts:\n- name: x\n  context: {cluster: c, user: admin}\n- name: y\n  context: {cluster: c, user: other}\n";
        let access = Access::parse(&format!("{two}current-context: x\n")).unwrap();
        assert_eq!((access.server.as_str(), access.user.as_str(), access.key.as_str()), ("https://c", "admin", "c"));
        let error = Access::parse(&format!("{two}current-context: y\n")).err().unwrap();
        assert!(format!("{error:#}").contains("the kubeconfig has no client-certificate-data"), "{error:#}");
        assert!(Access::parse(&text.replace("YQ==", "a")).is_err());
    }
}
