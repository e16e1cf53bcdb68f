//! Holds this master's etcd to what the others know of it: it stays out where it was removed, gets its vote where it was added, and is told of where it is.
use std::time::{Duration, Instant};

use anyhow::Result;
use kube::Client;

use super::etcd::{self, Listed};
use super::{data, member};
use crate::contract::Member;
use crate::outage::Outage;
use crate::say;

/// How long the others are asked whether they know this member, where it has data: a boot of all masters at once must not wait for answers that nobody can give.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often they are asked that again, where they said no or where this master's API server does not serve.
const AGAIN: Duration = Duration::from_secs(30);

/// How often, where this member has no data or no vote yet: its API server can do nothing before.
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

/// `id` is that of the member whose data are here, where it is known. A member that was removed and added again has the address of the one before, and
/// another id: with data of the one before nobody speaks.
fn standing(members: &[Listed], id: Option<&str>, peer_url: &str) -> Standing {
    let is_own = |one: &&Listed| id.map_or_else(|| one.has(peer_url), |id| one.id == id);
    match members.iter().find(is_own) {
        Some(own) if own.learner => Standing::Learner(own.id.clone()),
        Some(_) => Standing::Member,
        None => Standing::Removed,
    }
}

/// This member, where it is listed under another address than it has: it was alone on the loopback address, and its metadata names it now, or the
/// machine has another address. `id` is as above; where it is not known, only one that is alone is surely this one.
fn elsewhere<'a>(members: &'a [Listed], id: Option<&str>, peer_url: &str) -> Option<&'a Listed> {
    let own = match (id, members) {
        (Some(id), _) => members.iter().find(|one| one.id == id)?,
        (None, [own]) => own,
        (None, _) => return None,
    };
    (!own.has(peer_url)).then_some(own)
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

    /// Asks the others for this member, if it is time to, where its API server does not serve: its etcd may have no vote yet, and gets it here. Says
    /// whether etcd is started in vain: it was removed, or it is to begin in a way that the others do not go along with.
    pub async fn is_in_vain(&mut self, now: Duration) -> bool {
        if self.asked.elapsed() < self.pause {
            return false;
        }
        let asked = etcd::members_of_others(&self.member, PATIENCE).await;
        self.asked = Instant::now();
        // After the others: who is up for them has data by then. A disk that cannot be read has not lost them.
        let has_data = data::exist(&self.member.data).unwrap_or(true);
        self.pause = if has_data { AGAIN } else { SOON };
        let Some((client, members)) = asked else { return false };
        if !has_data {
            return !member::may_begin(&members, &self.member);
        }
        // By the others' word where this one's own does not count: they cannot reach it.
        let moved = moved(&client, &members, &self.member).await;
        self.tell_of_move(moved, now);
        match own_standing(&members, &self.member) {
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

    /// Tells etcd where this member is, once, where it was elsewhere before.
    pub async fn announce(&mut self, now: Duration) {
        if !self.announced {
            let done = announce(&self.member).await;
            self.announced = done.is_ok();
            self.tell_of_move(done, now);
        }
    }

    fn tell_of_move(&mut self, done: Result<()>, now: Duration) {
        let line = match done {
            Ok(()) => self.announcing.well(now),
            Err(error) => self.announcing.failed(now, &say::words(error.as_ref())).line,
        };
        line.into_iter().for_each(say::line);
    }
}

async fn announce(member: &Member) -> Result<()> {
    let client = etcd::client(&member.local, member)?;
    let members = etcd::members(&client).await?;
    moved(&client, &members, member).await
}

/// Has etcd know where this member is, if it does not.
async fn moved(client: &Client, members: &[Listed], member: &Member) -> Result<()> {
    let id = data::member(&member.data);
    let Some(own) = elsewhere(members, id.as_deref(), &member.peer_url) else { return Ok(()) };
    etcd::update(client, &own.id, &member.peer_url).await?;
    let (name, place) = (&member.name, &member.peer_url);
    match members {
        [_] => say::line(format_args!("etcd's only member {name} is at {place} now: others can join it")),
        _ => {
            say::line(format_args!("etcd's member {name} was at {} and is at {place} now", own.peer_urls.join(" and ")))
        }
    }
    Ok(())
}

/// Silence means nothing: where nobody answers, etcd is started as it is.
pub async fn stay_out_if_removed(member: &Member) {
    if is_removed(member).await == Some(true) {
        stay_out(member).await;
    }
}

/// Says that this member was removed, and waits. Once that was said, only its being listed undoes it.
pub async fn stay_out(member: &Member) {
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
    Some(own_standing(&members, member) == Standing::Removed)
}

/// Of a member that has data.
fn own_standing(members: &[Listed], member: &Member) -> Standing {
    standing(members, data::member(&member.data).as_deref(), &member.peer_url)
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
        let other = || Listed { id: "1".into(), ..listed("m1", "https://10.0.0.1:2380", true) };
        let check = |own: Option<Listed>, want: Standing| {
            let members: Vec<Listed> = [Some(other()), own].into_iter().flatten().collect();
            // By its address, where the data do not say whose they are, and by its id.
            assert_eq!(standing(&members, None, OWN), want);
            assert_eq!(standing(&members, Some("3"), OWN), want);
        };
        check(None, Standing::Removed);
        check(Some(listed("m3", OWN, false)), Standing::Member);
        check(Some(listed("", OWN, false)), Standing::Member);
        check(Some(listed("m3", OWN, true)), Standing::Learner("3".into()));
        check(Some(listed("", OWN, true)), Standing::Learner("3".into()));
        // An old disk: another member has the address now.
        assert_eq!(standing(&[listed("m3", OWN, false)], Some("5"), OWN), Standing::Removed);
        // The address may be told later.
        assert_eq!(standing(&[listed("m3", "https://127.0.0.1:2380", false)], Some("3"), OWN), Standing::Member);
    }

    #[test]
    fn one_that_is_alone_or_known_by_its_data_was_elsewhere() {
        let loopback = || listed("m3", "https://127.0.0.1:2380", false);
        let other = || Listed { id: "1".into(), ..listed("m1", "https://10.0.0.1:2380", false) };
        let check = |members: &[Listed], id: Option<&str>, want: Option<&str>| {
            let found = elsewhere(members, id, OWN).map(|own| own.id.as_str());
            assert_eq!(found, want, "{members:?}, {id:?}");
        };
        for id in [None, Some("3")] {
            check(&[loopback()], id, Some("3"));
            check(&[listed("m3", OWN, false)], id, None);
            // By whatever name it began.
            check(&[listed("m1", "https://127.0.0.1:2380", false)], id, Some("3"));
            check(&[], id, None);
            check(&[other(), listed("m3", OWN, false)], id, None);
        }
        check(&[other(), listed("m3", "https://10.0.0.9:2380", false)], Some("3"), Some("3"));
        // Nobody is told that another member is here.
        check(&[other(), listed("m3", "https://10.0.0.9:2380", false)], None, None);
        check(&[other()], Some("3"), None);
    }
}
