//! Decides how this master's etcd begins: with others for the first time, as a member that is added, in the place of one that lost its data, or not at all.
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use kube::Client;
use serde_json::Value;
use tokio::task::JoinSet;

use super::etcd::{self, Listed};
use crate::contract::Member;
use crate::outage::Outage;
use crate::{place, say};

/// How long the others are asked before it is believed that this is the first boot of all: they are silent until most of them are up.
const SILENCE: Duration = Duration::from_secs(20);

/// How long the others are asked whether they know this member, where it has data: a boot of all masters at once must not wait for answers that nobody can give.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often they are asked that again, where they said no or where this master's API server does not serve.
pub const AGAIN: Duration = Duration::from_secs(30);

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
    match members.iter().find(|member| member.has(peer_url)) {
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
        stay_out_while_removed(member).await;
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

/// Takes etcd's pod away where the others do not know this member any more, and ends when they do again. etcd would be started for nothing: the others
/// do not speak with it.
///
/// # Errors
/// The pod cannot be taken away or placed.
pub async fn leave_if_removed(member: &Member) -> Result<()> {
    if member.data.exists() && known(member).await == Some(false) {
        match std::fs::remove_file(&member.place) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", member.place.display()));
            }
            _ => return settle(member).await,
        }
    }
    Ok(())
}

/// Silence means nothing: where nobody answers, etcd is started as it is. But once it was said that this member is none, only its being listed undoes that.
async fn stay_out_while_removed(member: &Member) {
    if known(member).await != Some(false) {
        return;
    }
    let name = &member.name;
    say::line(format_args!(
        "this master was removed from its cluster for good: etcd has members, and {name} is none of them any more"
    ));
    say::line(format_args!(
        "etcd is not started on {name}: switch this machine off, or write its image anew to its disk to let it join as a new member"
    ));
    while known(member).await != Some(true) {
        tokio::time::sleep(AGAIN).await;
    }
    say::line(format_args!("etcd's members know {name} again: etcd is started"));
}

/// Whether the others list this member; nothing where no majority of them answers at once.
async fn known(member: &Member) -> Option<bool> {
    let mut asked = JoinSet::new();
    for client in member.others.iter().filter_map(|server| etcd::client(server, member).ok()) {
        asked.spawn(async move { etcd::members(&client).await });
    }
    let first = async {
        while let Some(answer) = asked.join_next().await {
            if let Ok(Ok(members)) = answer {
                return Some(members);
            }
        }
        None
    };
    let members = tokio::time::timeout(PATIENCE, first).await.ok()??;
    Some(members.iter().any(|one| one.has(&member.peer_url)))
}

/// The first of the others that lists the members; none answers before most of them are up.
async fn members_of_others(member: &Member) -> Option<(Client, Vec<Listed>)> {
    for server in &member.others {
        let Ok(client) = etcd::client(server, member) else { continue };
        if let Ok(members) = etcd::members(&client).await {
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
            etcd::remove(client, &id).await.context("removing the member that lost its data")?;
        }
        Beginning::Add => {}
    }
    let members = etcd::add(client, &member.peer_url).await.context("adding this member")?;
    say::line(format_args!("{} is one of {} members of etcd now", member.name, members.len()));
    Ok(Some(members))
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

    use super::{Beginning, beginning, with_members};
    use crate::contract::Member;
    use crate::steward::etcd::Listed;

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
    fn the_pod_gets_the_members_that_there_are() {
        let own = Member {
            name: "m3".into(),
            peer_url: OWN.into(),
            data: "/d".into(),
            local: "https://127.0.0.1:2379".into(),
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
