//! Asks etcd who its members are, and changes that, through its JSON gateway (etcd API v3, `Cluster`) and the port of its peers.
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use kube::Client;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;

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
    /// Whether it has no vote yet: it gets the data first.
    #[serde(default, rename = "isLearner")]
    pub learner: bool,
}

impl Listed {
    /// Whether the others reach it there.
    pub fn has(&self, peer_url: &str) -> bool {
        self.peer_urls.iter().any(|url| url == peer_url)
    }

    /// The addresses where the others reach it.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let host = |url: &String| url.parse::<http::Uri>().ok()?.host()?.trim_matches(['[', ']']).parse().ok();
        self.peer_urls.iter().filter_map(host)
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

/// The members as the first of the others says, all of them asked at once. None answers before most of them are up.
pub async fn members_of_others(member: &Member, patience: Duration) -> Option<(Client, Vec<Listed>)> {
    let asked = member.others.iter().filter_map(|other| client(&other.client, member).ok());
    let asked = asked.map(|client| async move { members(&client).await.map(|members| (client, members)) });
    first(asked, patience).await
}

/// Whether one of the others knows of a cluster that was up, though most of its members may be down: at its port for peers etcd answers as soon as
/// it is started, and at the first boot of all no member is known that has told the addresses of its clients.
pub async fn someone_lived(member: &Member, patience: Duration) -> bool {
    let asked = member.others.iter().filter_map(|other| client(&other.peer, member).ok());
    first(asked.map(|peer| async move { lived(&peer).await?.then_some(()).context("none was up yet") }), patience)
        .await
        .is_some()
}

/// Whether a member is up where it is listed, by its port for peers.
pub async fn answers(listed: &Listed, member: &Member, patience: Duration) -> bool {
    let asked = listed.peer_urls.iter().filter_map(|url| client(url, member).ok());
    first(asked.map(|peer| async move { lived(&peer).await }), patience).await.is_some()
}

/// Whether all of the others are up, of which there are some.
pub async fn all_answer(member: &Member, patience: Duration) -> bool {
    let mut asked = JoinSet::new();
    for other in &member.others {
        let Ok(peer) = client(&other.peer, member) else { return false };
        asked.spawn(async move { tokio::time::timeout(patience, lived(&peer)).await });
    }
    let some = !asked.is_empty();
    some && asked.join_all().await.iter().all(|answer| matches!(answer, Ok(Ok(_))))
}

async fn lived(peer: &Client) -> Result<bool> {
    #[derive(Deserialize)]
    struct Known {
        #[serde(default, rename = "clientURLs")]
        client_urls: Vec<String>,
    }
    let request = http::Request::get("/members").body(Vec::new()).context("making a request to a peer of etcd's")?;
    let answer = bounded(peer.request_text(request)).await?;
    let known: Vec<Known> = serde_json::from_str(&answer).context("reading what a peer of etcd's knows")?;
    Ok(known.iter().any(|member| !member.client_urls.is_empty()))
}

/// The first answer that is no error, if it comes in time.
async fn first<T: Send + 'static>(
    asked: impl Iterator<Item = impl Future<Output = Result<T>> + Send + 'static>,
    patience: Duration,
) -> Option<T> {
    let mut asked: JoinSet<Result<T>> = asked.collect();
    let first = async {
        while let Some(answer) = asked.join_next().await {
            if let Ok(Ok(answer)) = answer {
                return Some(answer);
            }
        }
        None
    };
    tokio::time::timeout(patience, first).await.ok()?
}

/// Adds a member that the others will reach at this URL; gives all of them then. It has no vote before it is [promoted](promote): one that never
/// comes up takes no majority away from the others.
///
/// # Errors
/// There is no answer, or etcd refuses: it takes one such member after the other.
pub async fn add(client: &Client, peer_url: &str) -> Result<Vec<Listed>> {
    listed(ask(client, "add", json!({ "peerURLs": [peer_url], "isLearner": true })).await?)
}

/// Gives a member its vote; gives all members.
///
/// # Errors
/// There is no answer, or etcd refuses: the member does not have the data yet.
pub async fn promote(client: &Client, id: &str) -> Result<Vec<Listed>> {
    listed(ask(client, "promote", json!({ "ID": id })).await?)
}

/// Tells where the others reach a member from now on.
///
/// # Errors
/// There is no answer, or etcd refuses.
pub async fn update(client: &Client, id: &str, peer_url: &str) -> Result<()> {
    ask(client, "update", json!({ "ID": id, "peerURLs": [peer_url] })).await.map(drop)
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
            { "ID": "2", "peerURLs": ["https://10.0.0.3:2380"], "isLearner": true },
        ] });
        let member = |id: &str, name: &str, peer: &str, client: &[&str]| Listed {
            id: id.into(),
            name: name.into(),
            peer_urls: vec![peer.into()],
            client_urls: client.iter().map(|&url| url.to_owned()).collect(),
            learner: name.is_empty(),
        };
        let want = [
            member("9372538179322589801", "m1", "https://10.0.0.1:2380", &["https://10.0.0.1:2379"]),
            member("2", "", "https://10.0.0.3:2380", &[]),
        ];
        assert_eq!(listed(answer).unwrap(), want);
        assert!(listed(json!({ "error": "x" })).is_err());
    }
}
