//! Asks etcd who its members are, and changes that, through its JSON gateway (etcd API v3, `Cluster`).
use anyhow::{Context as _, Result};
use kube::Client;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::connection::{Connection, bounded};
use crate::contract::Member;

/// A member as it is listed; what is empty is left out there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Listed {
    /// A number, as text.
    #[serde(rename = "ID")]
    pub id: String,
    /// None until it is up for the first time.
    #[serde(default)]
    pub name: String,
    /// Where the others reach it.
    #[serde(default, rename = "peerURLs")]
    pub peer_urls: Vec<String>,
    /// Where it answers clients; none until it is up for the first time.
    #[serde(default, rename = "clientURLs")]
    pub client_urls: Vec<String>,
}

impl Listed {
    /// Whether the others reach it there.
    pub fn has(&self, peer_url: &str) -> bool {
        self.peer_urls.iter().any(|url| url == peer_url)
    }
}

#[derive(Deserialize)]
struct Answer {
    members: Vec<Listed>,
}

/// A client of an etcd of this cluster.
///
/// # Errors
/// The server's URL, the authority or the client's certificate is not sound.
pub fn client(server: &str, member: &Member) -> Result<Client> {
    Connection::new(server, &member.authority, &member.certificate, &member.key)?.client()
}

/// All members, as most of them know them: one that is alone, and may be behind, has no answer.
///
/// # Errors
/// There is no answer, or no majority.
pub async fn members(client: &Client) -> Result<Vec<Listed>> {
    listed(ask(client, "list", json!({ "linearizable": true })).await.context("asking etcd for its members")?)
}

/// Adds a member that the others will reach at this URL; gives all of them then.
///
/// # Errors
/// There is no answer, or etcd refuses: it keeps a majority of its members up.
pub async fn add(client: &Client, peer_url: &str) -> Result<Vec<Listed>> {
    listed(ask(client, "add", json!({ "peerURLs": [peer_url] })).await?)
}

/// Removes a member for good; gives those that are left.
///
/// # Errors
/// There is no answer, or etcd refuses: it keeps a majority of its members up.
pub async fn remove(client: &Client, id: &str) -> Result<Vec<Listed>> {
    listed(ask(client, "remove", json!({ "ID": id })).await?)
}

fn listed(answer: Value) -> Result<Vec<Listed>> {
    let answer: Answer = serde_json::from_value(answer).context("reading etcd's members")?;
    Ok(answer.members)
}

async fn ask(client: &Client, what: &str, question: Value) -> Result<Value> {
    let request = http::Request::post(format!("/v3/cluster/member/{what}"))
        .header("Content-Type", "application/json")
        .body(question.to_string().into_bytes())
        .context("making a request to etcd")?;
    let answer = bounded(client.request_text(request)).await.map_err(|error| match error.downcast() {
        // The API server's client is used for it, and would say that the API server is not there.
        Ok(kube::Error::Service(why)) => anyhow::Error::from_boxed(why).context("etcd cannot be reached"),
        Ok(other) => other.into(),
        Err(error) => error,
    })?;
    serde_json::from_str(&answer).context("reading etcd's answer")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Listed, listed};

    #[test]
    fn an_answer_of_etcd_is_read() {
        let answer = json!({ "header": { "member_id": "1" }, "members": [
            { "ID": "9372538179322589801", "name": "m1", "peerURLs": ["https://10.0.0.1:2380"], "clientURLs": ["https://10.0.0.1:2379"] },
            { "ID": "2", "peerURLs": ["https://10.0.0.3:2380"], "isLearner": false },
        ] });
        let member = |id: &str, name: &str, peer: &str, client: &[&str]| Listed {
            id: id.into(),
            name: name.into(),
            peer_urls: vec![peer.into()],
            client_urls: client.iter().map(|&url| url.to_owned()).collect(),
        };
        let want = [
            member("9372538179322589801", "m1", "https://10.0.0.1:2380", &["https://10.0.0.1:2379"]),
            member("2", "", "https://10.0.0.3:2380", &[]),
        ];
        assert_eq!(listed(answer).unwrap(), want);
        assert!(listed(json!({ "error": "x" })).is_err());
    }
}
