//! Decides how this master's etcd begins: with others for the first time, as a member that is added, or in the place of one that lost its data.
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use kube::Client;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::connection::{Connection, bounded};
use crate::contract::Member;
use crate::outage::Outage;
use crate::{place, say};

/// How long the others are asked before it is believed that this is the first boot of all: they are silent until most of them are up.
const SILENCE: Duration = Duration::from_secs(20);

/// A member as etcd's JSON gateway lists it (etcd API v3, `Cluster.MemberList`); what is empty is left out there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Listed {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default)]
    name: String,
    #[serde(default, rename = "peerURLs")]
    peer_urls: Vec<String>,
    #[serde(default, rename = "clientURLs")]
    client_urls: Vec<String>,
}

/// How it begins.
#[derive(Debug, PartialEq, Eq)]
enum Beginning {
    /// With the others, all of them for the first time.
    New,
    /// The others do not know it: it is added to them.
    Add,
    /// The others know it, and it has lost its data: that member goes, and it is added again.
    Replace(String),
    /// It was added, and has not been up since.
    Existing,
}

/// A cluster exists where somebody lists its members. One that has been up has told the addresses of its clients; one that was added
/// and was not up yet has no name.
fn beginning(members: &[Listed], peer_url: &str) -> Beginning {
    match members.iter().find(|member| member.peer_urls.iter().any(|url| url == peer_url)) {
        None => Beginning::Add,
        Some(own) if !own.client_urls.is_empty() => Beginning::Replace(own.id.clone()),
        Some(own) if own.name.is_empty() => Beginning::Existing,
        Some(_) => Beginning::New,
    }
}

/// Places etcd's static pod, once it is known how it begins.
///
/// # Errors
/// The pod cannot be read or placed.
pub async fn settle(member: &Member) -> Result<()> {
    if member.place.exists() {
        // It was placed since the machine is up; another one would only start etcd anew.
        return Ok(());
    }
    let text =
        std::fs::read_to_string(&member.manifest).with_context(|| format!("reading {}", member.manifest.display()))?;
    // Where there is data, etcd looks at nothing else.
    if member.data.exists() {
        return put(&member.place, &text);
    }
    let start = Instant::now();
    let mut outage = Outage::new("becoming a member of etcd", 0);
    let mut exists = false;
    loop {
        let pause = match members_of_others(member).await {
            Some((client, members)) => {
                exists = true;
                match join(&client, &members, member).await {
                    Ok(None) => return put(&member.place, &text),
                    Ok(Some(members)) => return put(&member.place, &with_members(&text, &members, member)?),
                    Err(error) => {
                        let failed = outage.failed(start.elapsed(), &say::words(error.as_ref()));
                        failed.line.into_iter().for_each(say::line);
                        failed.pause
                    }
                }
            }
            None if !exists && start.elapsed() >= SILENCE => {
                say::line("no other member of etcd answers: this is taken for the first boot of all of them");
                return put(&member.place, &text);
            }
            None => Duration::from_secs(1),
        };
        tokio::time::sleep(pause).await;
    }
}

/// The first of the others that lists the members; none answers before most of them are up.
async fn members_of_others(member: &Member) -> Option<(Client, Vec<Listed>)> {
    for server in &member.others {
        let client = Connection::new(server, &member.authority, &member.certificate, &member.key)
            .and_then(|mut new| new.client());
        let Ok(client) = client else { continue };
        if let Ok(answer) = ask(&client, "list", json!({})).await
            && let Ok(members) = serde_json::from_value(answer["members"].clone())
        {
            return Some((client, members));
        }
    }
    None
}

/// Makes this machine a member of those that are; gives all of them then, or nothing where all of them begin.
async fn join(client: &Client, members: &[Listed], member: &Member) -> Result<Option<Vec<Listed>>> {
    match beginning(members, &member.peer_url) {
        Beginning::New => return Ok(None),
        Beginning::Existing => return Ok(Some(members.to_vec())),
        Beginning::Replace(id) => {
            say::line(format_args!("etcd's member {} has lost its data: it is replaced", member.name));
            ask(client, "remove", json!({ "ID": id })).await.context("removing the member that lost its data")?;
        }
        Beginning::Add => {}
    }
    let answer = ask(client, "add", json!({ "peerURLs": [member.peer_url] })).await.context("adding this member")?;
    let members: Vec<Listed> = serde_json::from_value(answer["members"].clone()).context("reading etcd's members")?;
    say::line(format_args!("{} is one of {} members of etcd now", member.name, members.len()));
    Ok(Some(members))
}

/// `Cluster.Member...` of etcd's API v3 through its JSON gateway.
async fn ask(client: &Client, what: &str, question: Value) -> Result<Value> {
    let request = http::Request::post(format!("/v3/cluster/member/{what}"))
        .header("Content-Type", "application/json")
        .body(question.to_string().into_bytes())
        .context("making a request to etcd")?;
    let answer = bounded(client.request_text(request)).await?;
    serde_json::from_str(&answer).context("reading etcd's answer")
}

/// The pod with the members that there are in the place of those that the metadata names.
fn with_members(pod: &str, members: &[Listed], own: &Member) -> Result<String> {
    let mut pod: Value = serde_json::from_str(pod).context("reading etcd's pod")?;
    let command = pod["spec"]["containers"][0]["command"].as_array_mut().context("etcd's pod has no command")?;
    command.retain(|word| !word.as_str().is_some_and(|word| word.starts_with("--initial-cluster=")));
    let all = members.iter().flat_map(|member| {
        let is_own = member.peer_urls.contains(&own.peer_url);
        let name = if is_own { own.name.as_str() } else { member.name.as_str() };
        member.peer_urls.iter().map(move |url| format!("{name}={url}"))
    });
    command.push(format!("--initial-cluster={}", all.collect::<Vec<_>>().join(",")).into());
    command.push("--initial-cluster-state=existing".into());
    Ok(format!("{pod:#}\n"))
}

fn put(to: &Path, pod: &str) -> Result<()> {
    place::file(to, pod.as_bytes(), 0o600, rustix::process::geteuid().as_raw())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Beginning, Listed, beginning, with_members};
    use crate::contract::Member;

    const OWN: &str = "https://10.0.0.3:2380";

    fn listed(id: &str, name: &str, peer: &str, client: &[&str]) -> Listed {
        let strings = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        Listed { id: id.into(), name: name.into(), peer_urls: strings(&[peer]), client_urls: strings(client) }
    }

    #[test]
    fn what_the_others_know_decides() {
        let other = || listed("1", "m1", "https://10.0.0.1:2380", &["https://10.0.0.1:2379"]);
        let check = |own: Option<Listed>, want: Beginning| {
            let members: Vec<Listed> = [Some(other()), own].into_iter().flatten().collect();
            assert_eq!(beginning(&members, OWN), want);
        };
        check(None, Beginning::Add);
        check(Some(listed("3", "m3", OWN, &[])), Beginning::New);
        check(Some(listed("3", "", OWN, &[])), Beginning::Existing);
        check(Some(listed("3", "m3", OWN, &["https://10.0.0.3:2379"])), Beginning::Replace("3".into()));
    }

    #[test]
    fn an_answer_of_etcd_is_read() {
        let answer = json!({ "members": [
            { "ID": "9372538179322589801", "name": "m1", "peerURLs": ["https://10.0.0.1:2380"], "clientURLs": ["https://10.0.0.1:2379"] },
            { "ID": "2", "peerURLs": [OWN], "isLearner": false },
        ] });
        let members: Vec<Listed> = serde_json::from_value(answer["members"].clone()).unwrap();
        let first = listed("9372538179322589801", "m1", "https://10.0.0.1:2380", &["https://10.0.0.1:2379"]);
        assert_eq!(members, [first, listed("2", "", OWN, &[])]);
    }

    #[test]
    fn the_pod_gets_the_members_that_there_are() {
        let own = Member {
            name: "m3".into(),
            peer_url: OWN.into(),
            data: "/d".into(),
            others: Vec::new(),
            authority: "/a".into(),
            certificate: "/c".into(),
            key: "/k".into(),
            manifest: "/m".into(),
            place: "/p".into(),
        };
        let pod = json!({ "spec": { "containers": [{ "command": ["etcd", "--name=m3", "--initial-cluster=m3=x"] }] } });
        let members = [listed("1", "m1", "https://10.0.0.1:2380", &[]), listed("2", "", OWN, &[])];
        let pod: Value = serde_json::from_str(&with_members(&pod.to_string(), &members, &own).unwrap()).unwrap();
        let want = [
            "etcd",
            "--name=m3",
            "--initial-cluster=m1=https://10.0.0.1:2380,m3=https://10.0.0.3:2380",
            "--initial-cluster-state=existing",
        ];
        assert_eq!(pod["spec"]["containers"][0]["command"], json!(want));
    }
}
