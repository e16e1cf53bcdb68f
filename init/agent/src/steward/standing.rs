//! Holds this master's etcd to what the others know of it: it stays out where it was removed, gets its vote where it was added, and is told of where it is.
use std::time::{Duration, Instant};

use anyhow::Result;
use kube::Client;

use super::etcd::{self, Listed};
use crate::contract::Member;
use crate::outage::Outage;
use crate::say;

/// How long the others are asked whether they know this member, where it has data: a boot of all masters at once must not wait for answers that nobody can give.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often they are asked that again, where they said no or where this master's API server does not serve.
const AGAIN: Duration = Duration::from_secs(30);

/// How often, where this member has no vote yet: its API server can do nothing before.
const SOON: Duration = Duration::from_secs(3);

/// What this member is to the others.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// One of them.
    Member,
    /// One without a vote, by this id.
    Learner(String),
    /// None of them.
    Removed,
}

fn standing(members: &[Listed], peer_url: &str) -> Standing {
    match members.iter().find(|one| one.has(peer_url)) {
        Some(own) if own.learner => Standing::Learner(own.id.clone()),
        Some(_) => Standing::Member,
        None => Standing::Removed,
    }
}

/// The id of this member, where it is the only one and is listed under another address: it was alone on the loopback address, and its metadata names it now.
fn elsewhere<'a>(members: &'a [Listed], peer_url: &str) -> Option<&'a str> {
    match members {
        [own] if !own.has(peer_url) => Some(&own.id),
        _ => None,
    }
}

/// See the module.
pub struct Watch {
    member: Member,
    asked: Instant,
    pause: Duration,
    promoting: Outage,
    announcing: Outage,
    announced: bool,
}

impl Watch {
    /// etcd's pod has just been placed.
    pub fn new(member: &Member) -> Self {
        Self {
            member: member.clone(),
            asked: Instant::now(),
            pause: SOON,
            promoting: Outage::new("getting a vote in etcd", 0),
            announcing: Outage::new("telling etcd where this master is", 0),
            announced: false,
        }
    }

    /// Asks the others for this member, if it is time to, where its API server does not serve: its etcd may have no vote yet, and gets it here, or
    /// may have been removed, which this says.
    pub async fn is_removed(&mut self, now: Duration) -> bool {
        if self.asked.elapsed() < self.pause || !self.member.data.exists() {
            return false;
        }
        let asked = etcd::members_of_others(&self.member, PATIENCE).await;
        self.asked = Instant::now();
        self.pause = AGAIN;
        let Some((client, members)) = asked else { return false };
        match standing(&members, &self.member.peer_url) {
            Standing::Member => false,
            Standing::Removed => true,
            Standing::Learner(id) => {
                self.pause = SOON;
                self.promote(&client, &id, now).await;
                false
            }
        }
    }

    async fn promote(&mut self, client: &Client, id: &str, now: Duration) {
        let line = match etcd::promote(client, id).await {
            Ok(members) => {
                self.promoting.well(now).into_iter().for_each(say::line);
                Some(format!("{} is one of {} members of etcd now", self.member.name, members.len()))
            }
            Err(error) => self.promoting.failed(now, &say::words(error.as_ref())).line,
        };
        line.into_iter().for_each(say::line);
    }

    /// Tells etcd where this member is, once, where it was alone and out of reach before.
    pub async fn announce(&mut self, now: Duration) {
        if self.announced {
            return;
        }
        let line = match announce(&self.member).await {
            Ok(()) => {
                self.announced = true;
                self.announcing.well(now)
            }
            Err(error) => self.announcing.failed(now, &say::words(error.as_ref())).line,
        };
        line.into_iter().for_each(say::line);
    }
}

async fn announce(member: &Member) -> Result<()> {
    let client = etcd::client(&member.local, member)?;
    let members = etcd::members(&client).await?;
    if let Some(id) = elsewhere(&members, &member.peer_url) {
        etcd::update(&client, id, &member.peer_url).await?;
        say::line(format_args!("etcd's only member {} is at {} now: others can join it", member.name, member.peer_url));
    }
    Ok(())
}

/// Silence means nothing: where nobody answers, etcd is started as it is. But once it was said that this member is none, only its being listed undoes that.
pub async fn stay_out_while_removed(member: &Member) {
    if is_removed(member).await != Some(true) {
        return;
    }
    let name = &member.name;
    say::line(format_args!(
        "this master was removed from its cluster for good: etcd has members, and {name} is none of them any more"
    ));
    say::line(format_args!(
        "etcd is not started on {name}: switch this machine off, or write its image anew to its disk to let it join as a new member"
    ));
    while is_removed(member).await != Some(false) {
        tokio::time::sleep(AGAIN).await;
    }
    say::line(format_args!("etcd's members know {name} again: etcd is started"));
}

/// Nothing where no majority of the others answers at once.
async fn is_removed(member: &Member) -> Option<bool> {
    let (_, members) = etcd::members_of_others(member, PATIENCE).await?;
    Some(standing(&members, &member.peer_url) == Standing::Removed)
}

#[cfg(test)]
mod tests {
    use super::{Standing, elsewhere, standing};
    use crate::steward::etcd::Listed;

    const OWN: &str = "https://10.0.0.3:2380";

    fn listed(name: &str, peer: &str, learner: bool) -> Listed {
        Listed { id: "3".into(), name: name.into(), peer_urls: vec![peer.into()], client_urls: Vec::new(), learner }
    }

    #[test]
    fn what_a_member_is_to_the_others() {
        let other = || listed("m1", "https://10.0.0.1:2380", true);
        let check = |own: Option<Listed>, want: Standing| {
            let members: Vec<Listed> = [Some(other()), own].into_iter().flatten().collect();
            assert_eq!(standing(&members, OWN), want);
        };
        check(None, Standing::Removed);
        check(Some(listed("m3", OWN, false)), Standing::Member);
        check(Some(listed("", OWN, false)), Standing::Member);
        check(Some(listed("m3", OWN, true)), Standing::Learner("3".into()));
        check(Some(listed("", OWN, true)), Standing::Learner("3".into()));
    }

    #[test]
    fn only_one_that_is_alone_was_elsewhere() {
        let loopback = || listed("m3", "https://127.0.0.1:2380", false);
        let check = |members: &[Listed], want: Option<&str>| assert_eq!(elsewhere(members, OWN), want, "{members:?}");
        check(&[loopback()], Some("3"));
        check(&[listed("m3", OWN, false)], None);
        // By whatever name it began.
        check(&[listed("m1", "https://127.0.0.1:2380", false)], Some("3"));
        check(&[loopback(), listed("m1", "https://10.0.0.1:2380", false)], None);
        check(&[], None);
    }
}
