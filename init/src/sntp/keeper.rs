//! Turns what time servers answered, round after round, into what is to be done about the clock, what is told, and when they are asked again.
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::majority::{Decision, Vote, decide};
use super::packet::Sample;
use super::words::{apart, moment, off};

/// The pauses between two questions to a server while all is well: they grow from the first to the last.
const SHORTEST: Duration = Duration::from_secs(64);
const LONGEST: Duration = Duration::from_secs(1024);
/// The first pause where nobody has answered yet: the network may just be coming up.
const SOON: Duration = Duration::from_secs(2);
/// When a time that the clock would have to be set to is asked for again, before that is done.
const AGAIN: Duration = Duration::from_secs(8);
/// A clock that is off by more is set when there is a time for the first time ...
const FIRST_STEP: i128 = 128_000_000;
/// ... and one that is off by more later. The kernel leads a clock to the true time by no more than that (`MAXPHASE`, linux/timex.h).
const LATER_STEP: i128 = 500_000_000;
/// A clock that was off by no more is one that goes well.
const STEADY: i128 = 10_000_000;
/// When it is told that nobody answers: at the first start, and later.
const NEVER: Duration = Duration::from_secs(300);
const LOST: Duration = Duration::from_secs(3600);

/// How long an address is left in peace that refuses. Whoever gets such a refusal sends no more there (RFC 5905, 7.4); but a server that was misconfigured
/// for an hour, or an address that is another server's by now, must not be lost to a machine that runs for years.
const REFUSED: Duration = Duration::from_secs(86_400);

const NANOS: i128 = 1_000_000_000;

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// As it is named in the list.
    pub server: String,
    /// Its time, or why there is none.
    pub time: Result<Sample, Failure>,
    /// Which of its addresses are not to be asked any more, and with what code they said so. Another one may have given the time.
    pub refused: Vec<(IpAddr, &'static str)>,
}

/// Why a server has given no time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// None of its addresses is to be asked any more.
    Denied(&'static str),
    /// It is asked too often.
    TooOften,
    /// It gave none, or one that cannot be; why, in words.
    Other(String),
}

/// What the clock cannot be before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    /// Seconds since 1970.
    pub seconds: i64,
    /// What it is, in words.
    pub what: &'static str,
}

/// What is to be done about the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adjust {
    /// Nanoseconds to add.
    pub offset: i128,
    /// At once, or little by little.
    pub at_once: bool,
    /// How far the clock may be off then.
    pub error: Duration,
    /// When the next one comes.
    pub next: Duration,
}

/// What comes of a round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What is to be done.
    pub adjust: Option<Adjust>,
    /// What is told.
    pub lines: Vec<String>,
    /// When to ask again.
    pub next: Duration,
}

/// What is known of one server.
#[derive(Debug, Default)]
struct Standing {
    /// It contradicted the others, and has not agreed since; that was told.
    wrong: bool,
    /// The last time that it said was before the floor; that was told.
    early: bool,
    /// That it refuses was told, and is not told again before this.
    denied: Option<Duration>,
    /// Not to be asked before this.
    rests: Option<Duration>,
    /// Why it gave no time the last time.
    trouble: Option<String>,
}

/// Keeps a clock. All times that are no clock's are of one that nobody sets.
#[derive(Debug)]
pub struct Keeper {
    floor: Floor,
    /// In the order of the list.
    names: Vec<String>,
    servers: BTreeMap<String, Standing>,
    /// Addresses that have refused: with what code, and until when they rest.
    refused: BTreeMap<IpAddr, (&'static str, Duration)>,
    /// Since when somebody could be asked.
    since: Duration,
    /// When there was a time last.
    good: Option<Duration>,
    /// The pause while all is well.
    pause: Duration,
    /// Rounds in a row without a time.
    fruitless: u32,
    /// The round before wanted the clock set.
    seen: bool,
    told_lost: bool,
    told_split: bool,
}

impl Keeper {
    /// One that asks nobody yet.
    #[must_use]
    pub fn new(floor: Floor) -> Self {
        Self {
            floor,
            names: Vec::new(),
            servers: BTreeMap::new(),
            refused: BTreeMap::new(),
            since: Duration::ZERO,
            good: None,
            pause: SHORTEST,
            fruitless: 0,
            seen: false,
            told_lost: false,
            told_split: false,
        }
    }

    /// Takes a list of servers in the place of the one before; what is known of those that stay is not forgotten.
    pub fn serve(&mut self, names: Vec<String>, now: Duration) {
        if self.names.is_empty() {
            self.since = now;
        }
        self.servers.retain(|name, _| names.contains(name));
        for name in &names {
            self.servers.entry(name.clone()).or_default();
        }
        (self.names, self.fruitless) = (names, 0);
    }

    /// Whom to ask now.
    #[must_use]
    pub fn due(&self, now: Duration) -> Vec<String> {
        let due =
            |name: &&String| self.servers.get(*name).is_some_and(|one| one.rests.is_none_or(|until| until <= now));
        self.names.iter().filter(due).cloned().collect()
    }

    /// The addresses that are not to be asked now, whatever name they have: they have refused, with these codes.
    #[must_use]
    pub fn resting(&self, now: Duration) -> BTreeMap<IpAddr, &'static str> {
        let resting = self.refused.iter().filter(|(_, (_, until))| *until > now);
        resting.map(|(address, (code, _))| (*address, *code)).collect()
    }

    /// There is nobody to ask now, or all of them rest. Gives what is told of that.
    pub fn idle(&mut self, now: Duration) -> Option<String> {
        self.lost(now)
    }

    /// Takes what those answered. `clock` is what this machine's clock says, in nanoseconds since 1970.
    pub fn take(&mut self, said: &[Said], clock: i128, now: Duration) -> Outcome {
        let mut lines = Vec::new();
        let mut votes: Vec<(&str, Vote)> = Vec::new();
        self.refused.retain(|_, (_, until)| *until > now);
        for Said { server, time, refused } in said {
            self.refused.extend(refused.iter().map(|(address, code)| (*address, (*code, now + REFUSED))));
            let Some(standing) = self.servers.get_mut(server) else { continue };
            lines.extend(standing.refuse(server, refused, now));
            match time {
                Ok(sample) => {
                    if let Some(vote) = standing.vote(server, sample, clock, self.floor, &mut lines) {
                        votes.push((server, vote));
                    }
                }
                Err(failure) => standing.fail(failure, now),
            }
        }
        let list: Vec<Vote> = votes.iter().map(|(_, vote)| *vote).collect();
        match decide(&list) {
            Decision::Agreed { best, agree, wrong } => {
                if let Some((server, vote)) = votes.get(best) {
                    self.judge(&votes, (&agree, &wrong), vote.offset, &mut lines);
                    let whose = if said.len() == 1 {
                        (*server).to_owned()
                    } else {
                        format!("{server} ({} of {} servers agree)", agree.len(), said.len())
                    };
                    return self.follow(*vote, &whose, clock, now, lines);
                }
            }
            Decision::Split if votes.len() > 1 && !std::mem::replace(&mut self.told_split, true) => {
                let each: Vec<String> =
                    votes.iter().map(|(server, vote)| format!("{server}: {}", off(vote.offset))).collect();
                lines.push(format!(
                    "the time servers do not agree how far this clock is off, and none has a majority: it is left alone ({})",
                    each.join(", ")
                ));
            }
            Decision::Split => {}
        }
        self.without(now, lines)
    }

    /// Notes who agrees and who does not; the latter is told once.
    fn judge(
        &mut self,
        votes: &[(&str, Vote)],
        (agree, wrong): (&[usize], &[usize]),
        true_offset: i128,
        lines: &mut Vec<String>,
    ) {
        for (index, (server, vote)) in votes.iter().enumerate() {
            let Some(standing) = self.servers.get_mut(*server) else { continue };
            if agree.contains(&index) {
                standing.wrong = false;
            } else if wrong.contains(&index) && !std::mem::replace(&mut standing.wrong, true) {
                lines.push(format!(
                    "the time server {server} says a time {} than most others: it is not believed",
                    apart(vote.offset - true_offset)
                ));
            }
        }
    }

    /// There is a time.
    fn follow(&mut self, vote: Vote, whose: &str, clock: i128, now: Duration, mut lines: Vec<String>) -> Outcome {
        let first = self.good.is_none();
        let at_once = vote.offset.abs() > if first { FIRST_STEP } else { LATER_STEP };
        if at_once && !first && !std::mem::replace(&mut self.seen, true) {
            // One answer that was under way for long is no reason to set a clock that was right.
            return Outcome { adjust: None, lines, next: AGAIN };
        }
        let was = if at_once {
            let (before, after) = (moment(clock), moment(clock + vote.offset));
            format!("it said {before}, {}, and was set to {after}", off(vote.offset))
        } else {
            format!("it was {}", off(vote.offset))
        };
        if first || self.told_lost {
            let again = if first { "" } else { " again" };
            lines.push(format!("the clock is synchronised{again} with {whose}: {was}"));
        } else if at_once {
            lines.push(format!("the clock was off by {whose}: {was}"));
        }
        let well = vote.offset.abs() <= STEADY && !first;
        self.pause = if well { (self.pause * 2).min(LONGEST) } else { SHORTEST };
        (self.good, self.fruitless, self.seen, self.told_lost, self.told_split) = (Some(now), 0, false, false, false);
        let error = Duration::from_nanos(u64::try_from(vote.distance).unwrap_or(u64::MAX));
        let adjust = Adjust { offset: vote.offset, at_once, error, next: self.pause };
        Outcome { adjust: Some(adjust), lines, next: self.pause }
    }

    /// There is none.
    fn without(&mut self, now: Duration, mut lines: Vec<String>) -> Outcome {
        let first = if self.good.is_none() { SOON } else { SHORTEST };
        let next = first.saturating_mul(1 << self.fruitless.min(16)).min(LONGEST);
        self.fruitless = self.fruitless.saturating_add(1);
        self.seen = false;
        lines.extend(self.lost(now));
        Outcome { adjust: None, lines, next }
    }

    /// What is told of there being no time for long; once.
    fn lost(&mut self, now: Duration) -> Option<String> {
        let silent = now.saturating_sub(self.good.unwrap_or(self.since));
        let patience = if self.good.is_none() { NEVER } else { LOST };
        if silent < patience || self.names.is_empty() || std::mem::replace(&mut self.told_lost, true) {
            return None;
        }
        let trouble = |name: &String| {
            let standing = self.servers.get(name)?;
            Some(format!("{name}: {}", standing.trouble.as_deref().unwrap_or("not believed")))
        };
        let each: Vec<String> = self.names.iter().filter_map(trouble).collect();
        Some(format!(
            "no server has given a time for {} min, and the clock goes on by itself ({})",
            silent.as_secs() / 60,
            each.join(", ")
        ))
    }
}

impl Standing {
    /// What a server's time counts for; nothing where it cannot be.
    fn vote(
        &mut self,
        server: &str,
        sample: &Sample,
        clock: i128,
        floor: Floor,
        lines: &mut Vec<String>,
    ) -> Option<Vote> {
        (self.trouble, self.rests) = (None, None);
        let says = clock + sample.offset;
        if says + sample.distance < i128::from(floor.seconds) * NANOS {
            if !std::mem::replace(&mut self.early, true) {
                let (says, floor, what) = (moment(says), moment(i128::from(floor.seconds) * NANOS), floor.what);
                lines.push(format!(
                    "the time server {server} says {says}, which is before {what}, {floor}: it is not believed"
                ));
            }
            return None;
        }
        // A router whose clock had begun in 1970 has the time now: who contradicted nobody is no liar.
        self.early = false;
        Some(Vote { offset: sample.offset, distance: sample.distance, suspect: self.wrong })
    }

    /// What is told of addresses that refuse: a line for a name, and none more for so long as they rest. Of a pool there may be many.
    fn refuse(&mut self, server: &str, refused: &[(IpAddr, &'static str)], now: Duration) -> Option<String> {
        let (address, code) = refused.first().filter(|_| self.denied.is_none_or(|until| until <= now))?;
        self.denied = Some(now + REFUSED);
        let (at, what) = match server.parse::<IpAddr>() {
            Ok(own) if own == *address => (String::new(), "it"),
            _ => (format!(" at {address}"), "that address"),
        };
        Some(format!(
            "the time server {server} refuses to serve this machine{at} ({code}): {what} is not asked for {} h",
            REFUSED.as_secs() / 3600
        ))
    }

    fn fail(&mut self, failure: &Failure, now: Duration) {
        self.trouble = Some(match failure {
            Failure::Denied(code) => format!("it refuses ({code})"),
            Failure::TooOften => {
                self.rests = Some(now + LONGEST);
                "it is asked too often".to_owned()
            }
            Failure::Other(why) => why.clone(),
        });
    }
}

#[cfg(test)]
mod tests;
