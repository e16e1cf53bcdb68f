//! Gets client certificates for this node from the cluster, with the kubelet's own, and renews them.
mod asked;
mod early;
mod joining;
mod whose;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use kscratch_pki::{Certificate, OffsetDateTime, Verdict, Wanted};
use kube::Client;

use crate::certificates::{judge_files, own_pair};
use crate::connection::Connection;
use crate::contract::{Identities, Identity, Registration};
use crate::outage::Outage;
use crate::steward::mark;
use crate::{place, registration, say};
use asked::{Answer, Asked, Pauses};
use early::Early;

/// How often certificates that are sound are looked at.
const LOOK: Duration = Duration::from_secs(60);

/// How often an answer is looked for while a request is new, and later.
const SOON: Duration = Duration::from_secs(1);
const LATER: Duration = Duration::from_secs(10);

/// How long a request is new.
const NEW: Duration = Duration::from_secs(60);

/// An identity, and how far it is.
struct Member {
    wanted: Identity,
    stage: Stage,
    pauses: Pauses,
    told: bool,
}

enum Stage {
    /// Its files are to be looked at.
    Look,
    /// The cluster was asked.
    Asked(Box<Asked>),
    /// The cluster said no; it is not asked again before this.
    Rest(Instant),
    /// It was sound when it was looked at last.
    Sound,
}

/// Runs for ever.
///
/// # Errors
/// What was asked for cannot be done at all.
pub async fn run(wanted: Identities) -> Result<()> {
    let mut connection = Connection::new(&wanted.server, &wanted.authority, &wanted.kubelet, &wanted.kubelet)?;
    let start = Instant::now();
    let seed = wanted.node.bytes().fold(1, |sum: u32, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
    let mut outage = Outage::new(format!("asking {} for client certificates", wanted.server), seed);
    let member = |identity: &Identity| Member {
        wanted: identity.clone(),
        stage: Stage::Look,
        pauses: Pauses::default(),
        told: false,
    };
    let mut members: Vec<_> = wanted.identities.iter().map(member).collect();
    let mut client = None;
    let mut register = wanted.register.clone();
    let mut ready = false;
    let mut early = Early::default();
    loop {
        // Before the round, which then waits until the kubelet has another one.
        let looked = match early.is_due(&wanted.kubelet) {
            true => look_early(&mut early, &wanted, &mut connection, &mut client).await,
            false => Ok(()),
        };
        let mut done = match looked {
            Ok(()) => round(&wanted, &mut members, &mut connection, &mut client).await,
            error => error,
        };
        if done.is_ok() {
            done = make_node(&wanted, &mut register, &mut connection, &mut client).await;
        }
        let pause = match done {
            Ok(()) => {
                outage.well(start.elapsed()).into_iter().for_each(say::line);
                members.iter().map(pause).min().unwrap_or(LOOK)
            }
            Err(error) => {
                client = None;
                let failed = outage.failed(start.elapsed(), &say::words(error.as_ref()));
                failed.line.into_iter().for_each(say::line);
                failed.pause
            }
        };
        if !ready && members.iter().all(|member| matches!(member.stage, Stage::Sound)) {
            mark(&wanted.ready)?;
            ready = true;
        }
        tokio::time::sleep(pause).await;
    }
}

/// How long there is nothing to do for a member.
fn pause(member: &Member) -> Duration {
    match &member.stage {
        Stage::Look => Duration::ZERO,
        Stage::Asked(asked) if asked.since.elapsed() < NEW => SOON,
        Stage::Asked(_) => LATER,
        Stage::Rest(until) => until.saturating_duration_since(Instant::now()).min(LOOK),
        Stage::Sound => LOOK,
    }
}

/// Brings each member one step further.
async fn round(
    wanted: &Identities,
    members: &mut [Member],
    connection: &mut Connection,
    client: &mut Option<Client>,
) -> Result<()> {
    let authorities = std::fs::read_to_string(&wanted.authority)
        .with_context(|| format!("reading {}", wanted.authority.display()))?;
    let authorities =
        Certificate::parse_all(&authorities).with_context(|| format!("in {}", wanted.authority.display()))?;
    for member in members {
        match &member.stage {
            Stage::Asked(asked) => {
                let client = current(wanted, connection, client).await?;
                let answer = asked.answer(&client).await?;
                member.take(answer, &authorities)?;
            }
            Stage::Rest(until) if Instant::now() < *until => {}
            Stage::Look | Stage::Rest(_) | Stage::Sound => {
                if let Some(why) = member.look(&authorities) {
                    let client = current(wanted, connection, client).await?;
                    let asked = Asked::ask(&client, &member.wanted).await?;
                    say::line(format_args!(
                        "asked for a certificate of {} ({}): {why}",
                        member.wanted.name, asked.name
                    ));
                    member.stage = Stage::Asked(Box::new(asked));
                }
            }
        }
    }
    Ok(())
}

async fn look_early(
    early: &mut Early,
    wanted: &Identities,
    connection: &mut Connection,
    client: &mut Option<Client>,
) -> Result<()> {
    early.look(wanted, &current(wanted, connection, client).await?).await
}

/// Makes the Node where that is not the kubelet's to do; once, as the kubelet does at its start.
async fn make_node(
    wanted: &Identities,
    register: &mut Option<Registration>,
    connection: &mut Connection,
    client: &mut Option<Client>,
) -> Result<()> {
    if let Some(node) = register {
        registration::make(&current(wanted, connection, client).await?, node).await?;
        *register = None;
    }
    Ok(())
}

/// A client with what the kubelet has now; the kubelet renews its own certificate. While it has none yet, it is joining, which is waited for.
async fn current(wanted: &Identities, connection: &mut Connection, client: &mut Option<Client>) -> Result<Client> {
    joining::wait(wanted).await;
    whose::check(wanted)?;
    match client {
        Some(client) if !connection.renewed() => Ok(client.clone()),
        _ => Ok(client.insert(connection.client()?).clone()),
    }
}

/// A clock that is before the certificate's first second is behind: the cluster, which signed it, knew better, and would sign no older one.
fn now(certificate: &Path) -> OffsetDateTime {
    let text = std::fs::read_to_string(certificate).unwrap_or_default();
    let first = Certificate::parse(&text).map(|certificate| certificate.facts().not_before);
    let now = OffsetDateTime::now_utc();
    first.map_or(now, |first| first.max(now))
}

impl Member {
    fn wants(&self) -> Wanted {
        let organizations = self.wanted.organizations.clone();
        Wanted { organizations, ..Wanted::client(self.wanted.common_name.clone(), None) }
    }

    /// Looks at the files: sound, or why not. While a CA is replaced there are two, and both are good.
    fn look(&mut self, authorities: &[Certificate]) -> Option<String> {
        let (certificate, key) = (&self.wanted.certificate, &self.wanted.key);
        let judged = |authority| judge_files(certificate, key, &self.wants(), authority, now(certificate));
        let verdicts: Vec<Verdict> = authorities.iter().map(judged).collect();
        let kept = verdicts.iter().position(|verdict| matches!(verdict, Verdict::Keep { .. })).unwrap_or(0);
        match verdicts.into_iter().nth(kept)? {
            Verdict::Keep { until } => {
                if let Err(error) = own_pair(certificate, key, self.wanted.owner) {
                    return Some(format!("{error:#}"));
                }
                if !std::mem::replace(&mut self.told, true) {
                    say::line(format_args!("certificate of {} is good until {}", self.wanted.name, until.date()));
                }
                self.pauses = Pauses::default();
                self.stage = Stage::Sound;
                None
            }
            Verdict::Remake { why } => Some(why),
        }
    }

    /// Takes what the cluster says.
    fn take(&mut self, answer: Answer, authorities: &[Certificate]) -> Result<()> {
        let Stage::Asked(asked) = &self.stage else { return Ok(()) };
        let why = match answer {
            Answer::Waits => return Ok(()),
            Answer::Signed(certificate) => {
                place::file(&self.wanted.key, asked.key_pem().as_bytes(), 0o600, self.wanted.owner)?;
                place::file(&self.wanted.certificate, certificate.as_bytes(), 0o644, self.wanted.owner)?;
                self.told = false;
                match self.look(authorities) {
                    None => return Ok(()),
                    Some(why) => format!("what the cluster signed is of no use: {why}"),
                }
            }
            Answer::Refused(why) => why,
        };
        let pause = self.pauses.next();
        let name = &self.wanted.name;
        say::line(format_args!("no certificate of {name}: {why}; asking again in {} min", pause.as_secs() / 60));
        self.stage = Stage::Rest(Instant::now() + pause);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use kscratch_pki::{Authority, Certificate, OffsetDateTime, Wanted};
    use serde_json::json;

    use super::{Identity, Member, Pauses, Stage};

    #[test]
    fn while_a_ca_is_replaced_a_certificate_of_either_is_sound() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let now = OffsetDateTime::now_utc();
        let [(old, old_pair), (_, new_pair)] = [0, 1].map(|_| Authority::new_with_pair("kubernetes", now, 10).unwrap());
        let pair =
            old.issue(&Wanted { days: 365, ..Wanted::client("system:kube-proxy".to_owned(), None) }, now).unwrap();
        fs::write(at("proxy.crt"), pair.certificate_pem).unwrap();
        fs::write(at("proxy.key"), pair.key_pem).unwrap();
        let wanted: Identity = serde_json::from_value(json!({
            "name": "kube-proxy", "common_name": "system:kube-proxy", "certificate": at("proxy.crt"), "key": at("proxy.key"),
            "owner": std::os::unix::fs::MetadataExt::uid(&fs::metadata(folder.path()).unwrap()),
        }))
        .unwrap();
        let mut member = Member { wanted, stage: Stage::Look, pauses: Pauses::default(), told: false };
        let mut look = |authorities: &str| member.look(&Certificate::parse_all(authorities).unwrap());
        let (old, new) = (old_pair.certificate_pem, new_pair.certificate_pem);
        assert_eq!(look(&format!("{new}{old}")), None);
        assert_eq!(look(&format!("{old}{new}")), None);
        assert_eq!(look(&new).as_deref(), Some("it is not signed by kubernetes"), "the old one is gone");
    }
}
