//! Decides how this master's etcd begins: with others for the first time, as a member that is added, in the place of one that lost its data, or not at all.
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use kube::Client;
use serde_json::Value;

use super::etcd::{self, Listed};
use super::standing::{stay_out, stay_out_if_removed};
use super::{ask_ready, data};
use crate::connection;
use crate::contract::{Endpoint, Member};
use crate::outage::{Outage, span};
use crate::{place, say};

/// How long the others are asked before it is believed that this is the first boot of all. An etcd that is started somewhere, and has lived, is
/// known at once to have done so.
const SILENCE: Duration = Duration::from_secs(20);

/// How often they are asked, where nothing is wrong yet, and where something is.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long an answer may take: most of the members have to agree on it.
const ANSWER: Duration = Duration::from_secs(10);

/// How long the cluster's endpoint may take to say that it serves.
const SERVES_WITHIN: Duration = Duration::from_secs(3);

/// How long all others may be up without a majority before it is believed that there is none any more. They find a leader in seconds.
const ELECTION: Duration = Duration::from_secs(60);

/// How long another machine that was added, and has no vote yet, has its turn. It takes seconds from when it is up.
const TURN: Duration = Duration::from_secs(10 * 60);

/// How it begins.
#[derive(Debug, PartialEq, Eq)]
enum Beginning {
    /// The others do not know it: it is added to them.
    Add,
    /// The others know it, and it has lost its data: that member goes, and it is added again.
    Replace(String),
    /// The others know one of its name elsewhere: this machine, which has lost its data and has another address, or another machine.
    Moved(Listed),
    /// It is one of them, since it was added or since all of them began, and has not been up: it has the list that they have, whatever its metadata says.
    Existing,
}

/// A cluster exists where somebody lists its members. One that has been up has told the addresses of its clients. An etcd that began by itself with another
/// list than the others have would be of another cluster for ever: etcd makes a cluster's number of that list, and compares it with nobody's.
fn beginning(members: &[Listed], member: &Member) -> Beginning {
    match members.iter().find(|one| one.has(&member.peer_url)) {
        None => match members.iter().find(|one| one.name == member.name) {
            Some(namesake) => Beginning::Moved(namesake.clone()),
            None => Beginning::Add,
        },
        Some(own) if !own.client_urls.is_empty() => Beginning::Replace(own.id.clone()),
        Some(_) => Beginning::Existing,
    }
}

/// Whether an etcd that was started, and has no data yet, can still begin: it does as one of them that has not been up. Else it ends as soon as it has asked them, whenever it is started.
pub fn may_begin(members: &[Listed], member: &Member) -> bool {
    beginning(members, member) == Beginning::Existing
}

/// What it means that no majority of etcd's members answers.
#[derive(Debug, PartialEq, Eq)]
enum Silence {
    /// It is too early to tell.
    Early,
    /// There is no cluster yet: this is the first boot of all.
    First,
    /// There is one, or has to be: why this master waits for it.
    Wait(&'static str),
}

/// What is known of a cluster that was up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lived {
    /// Nothing.
    Unknown,
    /// One of etcd's members remembers it.
    Remembered,
    /// The same, and all that the metadata names have been up for long: whose data would make a majority is not among them.
    Lost,
    /// Its endpoint served since this master asks, and none of the members that the metadata names answers: they are others, or keep their etcd to themselves.
    Served,
}

fn silence(member: &Member, lived: Lived, since: Duration) -> Silence {
    match (lived, member.join) {
        (Lived::Remembered, _) => {
            Silence::Wait("etcd's members were up before, and now most of them are not: this master waits for them")
        }
        (Lived::Lost, _) => Silence::Wait(
            "all other members of etcd that the metadata name are up, and are no majority of those that it has: too many have lost their data; etcd goes on once one of them has its old disk back, and where none has, the cluster is to be made anew",
        ),
        (_, true) => Silence::Wait(
            "no member of etcd answers: this master joins those that live and begins no cluster; one that was always alone answers only if its own metadata names it as a member",
        ),
        (Lived::Served, false) => Silence::Wait(
            "this cluster's API server answered at its endpoint, but no member of etcd does here: this master begins no cluster beside it; one that was always alone can be joined once its own metadata names it as a member",
        ),
        (Lived::Unknown, false) if member.others.is_empty() || since >= SILENCE => Silence::First,
        (Lived::Unknown, false) => Silence::Early,
    }
}

/// Places etcd's static pod, once it is known how it begins.
///
/// # Errors
/// The pod cannot be read or placed, or the disk does not say whether there are data.
pub async fn settle(member: &Member) -> Result<()> {
    if member.place.exists() {
        // It was placed since the machine is up; another one would only start etcd anew.
        return Ok(());
    }
    // Where there is data, etcd looks at nothing else.
    if data::exist(&member.data)? {
        stay_out_if_removed(member).await;
        return put(&member.place, &manifest(member)?);
    }
    begin(member, Lived::Unknown).await
}

/// Places the pod of an etcd without data. `lived` is what is known of a cluster before anybody is asked.
async fn begin(member: &Member, lived: Lived) -> Result<()> {
    let text = manifest(member)?;
    match find(member, lived).await {
        Some(members) => put(&member.place, &with_members(&text, &members, member)?),
        None => put(&member.place, &text),
    }
}

/// Takes away the pod of an etcd that is started in vain, and ends when it is placed again: one with data was removed by the others, and has to be
/// known to them first; one without begins in another way.
///
/// # Errors
/// The pod cannot be taken away or placed, or the disk does not say whether there are data.
pub async fn leave(member: &Member) -> Result<()> {
    match std::fs::remove_file(&member.place) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("removing {}", member.place.display()));
        }
        _ => {}
    }
    // The others have said so: that nobody answers when they are asked anew does not undo it.
    if data::exist(&member.data)? {
        stay_out(member).await;
        return settle(member).await;
    }
    begin(member, Lived::Remembered).await
}

fn manifest(member: &Member) -> Result<String> {
    std::fs::read_to_string(&member.manifest).with_context(|| format!("reading {}", member.manifest.display()))
}

/// Waits until it is known how an etcd without data begins; gives the members that it belongs to, or nothing where all of them begin.
async fn find(member: &Member, mut lived: Lived) -> Option<Vec<Listed>> {
    let start = Instant::now();
    let mut outage = Outage::new("becoming a member of etcd", 0).at_most(LONGEST_PAUSE);
    let mut turn = Turn::default();
    let mut all_up: Option<Instant> = None;
    loop {
        let failed = if let Some((client, members)) = etcd::members_of_others(member, ANSWER).await {
            (lived, all_up) = (Lived::Remembered, None);
            match join(&client, &members, member, &mut turn, start.elapsed()).await {
                Ok(members) => return Some(members),
                Err(error) => Some(say::words(error.as_ref())),
            }
        } else {
            // What was seen once stays so: the only one that serves may be restarting.
            if matches!(lived, Lived::Remembered | Lived::Lost) {
                let since = etcd::all_answer(member, ANSWER).await.then(|| all_up.unwrap_or_else(Instant::now));
                all_up = since;
                lived = if since.is_some_and(|since| since.elapsed() >= ELECTION) {
                    Lived::Lost
                } else {
                    Lived::Remembered
                };
            } else if etcd::someone_lived(member, ANSWER).await {
                lived = Lived::Remembered;
            } else if lived == Lived::Unknown && !member.join && serves(member.endpoint.as_ref()).await {
                lived = Lived::Served;
            }
            match silence(member, lived, start.elapsed()) {
                Silence::Early => None,
                Silence::Wait(why) => Some(why.to_owned()),
                Silence::First => {
                    if !member.others.is_empty() {
                        say::line("no other member of etcd answers: this is taken for the first boot of all of them");
                    }
                    return None;
                }
            }
        };
        let failed = failed.map(|why| outage.failed(start.elapsed(), &why));
        let pause = failed.map_or(PAUSE, |failed| {
            failed.line.into_iter().for_each(say::line);
            failed.pause
        });
        tokio::time::sleep(pause).await;
    }
}

/// Whether an API server of the cluster serves at the endpoint. At the first boot of all none does, wherever that leads: there is no etcd yet.
async fn serves(endpoint: Option<&Endpoint>) -> bool {
    let Some(endpoint) = endpoint else { return false };
    let Ok(client) = connection::without_identity(&endpoint.server, &endpoint.authority) else { return false };
    matches!(tokio::time::timeout(SERVES_WITHIN, ask_ready(&client)).await, Ok(Ok(())))
}

/// Makes this machine a member of those that are; gives all of them then.
async fn join(
    client: &Client,
    members: &[Listed],
    member: &Member,
    turn: &mut Turn,
    now: Duration,
) -> Result<Vec<Listed>> {
    if let Some(other) = members.iter().find(|other| keeps_to_itself(other)) {
        bail!(
            "{} keeps its etcd to itself, on the loopback address: it has to boot with metadata that names it as a member",
            called(other)
        );
    }
    match beginning(members, member) {
        Beginning::Existing => return Ok(members.to_vec()),
        Beginning::Replace(id) => {
            say::line(format_args!("etcd's member {} has lost its data: it is replaced", member.name));
            etcd::remove(client, &id).await.context("removing the member that lost its data")?;
        }
        Beginning::Moved(namesake) => {
            let (name, place) = (&member.name, namesake.peer_urls.join(" and "));
            if etcd::answers(&namesake, member, ANSWER).await {
                bail!(
                    "etcd has a member {name} at {place}, which is up: two machines have one name; give one of them another"
                );
            }
            say::line(format_args!(
                "etcd's member {name} was at {place}, where nobody is now, and has lost its data: it is replaced"
            ));
            etcd::remove(client, &namesake.id).await.context("removing the member that lost its data")?;
        }
        Beginning::Add => {}
    }
    match turn.of(members, &member.peer_url, now) {
        Whose::Own => {}
        Whose::Other(other) => bail!("{} comes first, and has no vote yet", called(other)),
        Whose::Absent(other) => bail!(
            "{} comes first: it was up, and has no vote yet; where it does not come back, delete its Node to make room",
            called(other)
        ),
        Whose::Nobodys(other) => {
            say::line(format_args!(
                "{} was added to etcd, and has not come for {}: it goes",
                called(other),
                span(TURN)
            ));
            etcd::remove(client, &other.id).await.context("removing a member that never came")?;
        }
    }
    let members = etcd::add(client, &member.peer_url).await.context("adding this member")?;
    say::line(format_args!(
        "{} is added to etcd, which has {} members with it; it gets its vote once it has their data",
        member.name,
        members.len()
    ));
    Ok(members)
}

/// Whether nobody else reaches it. It lists its members where the others ask as soon as its metadata names it, and moves a little later.
fn keeps_to_itself(member: &Listed) -> bool {
    member.addresses().any(|address| address.is_loopback())
}

/// A member by its name, or while it has none by its address.
fn called(member: &Listed) -> &str {
    if member.name.is_empty() { member.peer_urls.first().map_or("a member", String::as_str) } else { &member.name }
}

/// Etcd takes one new member after the other: who has been before this one, and since when.
#[derive(Debug, Default)]
struct Turn(Option<(String, Duration)>);

#[derive(Debug, PartialEq, Eq)]
enum Whose<'a> {
    Own,
    Other(&'a Listed),
    /// It has data: who took its place would take those from it.
    Absent(&'a Listed),
    Nobodys(&'a Listed),
}

impl Turn {
    fn of<'a>(&mut self, members: &'a [Listed], peer_url: &str, now: Duration) -> Whose<'a> {
        let Some(other) = members.iter().find(|one| one.learner && !one.has(peer_url)) else {
            self.0 = None;
            return Whose::Own;
        };
        let since = match &self.0 {
            Some((id, since)) if *id == other.id => *since,
            _ => now,
        };
        self.0 = Some((other.id.clone(), since));
        match now.saturating_sub(since) < TURN {
            true => Whose::Other(other),
            false if other.client_urls.is_empty() => Whose::Nobodys(other),
            false => Whose::Absent(other),
        }
    }
}

/// The pod with the members that there are in the place of those that the metadata names.
fn with_members(pod: &str, members: &[Listed], own: &Member) -> Result<String> {
    let mut pod: Value = serde_json::from_str(pod).context("reading etcd's pod")?;
    let command = pod["spec"]["containers"][0]["command"].as_array_mut().context("etcd's pod has no command")?;
    command.retain(|word| {
        !word.as_str().is_some_and(|word| {
            ["--initial-cluster=", "--initial-cluster-state="].iter().any(|flag| word.starts_with(flag))
        })
    });
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
mod tests;
