//! The rules of a good cluster, one function each.
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kscratch_pki::{Authority, Certificate, Key, OffsetDateTime, Verdict, Wanted, judge, moment};

use super::endpoint::{Answer, ask};
use super::{Found, Subject};
use crate::cluster::folder::{
    ADMIN, AUTHORITIES, CLUSTER_CA, ENCRYPTION_KEY, Folder, SECRETS, SERVICE_ACCOUNT_KEY, SERVICE_ACCOUNT_PUBLIC_KEY,
    TOKENS,
};
use crate::cluster::kubeconfigs::PEOPLE;
use crate::cluster::settings::Settings;
use crate::cluster::token;
use crate::vmcluster::api::Access;
use crate::vmcluster::place::{KUBECONFIG, Place};

/// Days that an authority needs to last, so that certificates of a year can be made of it.
const AUTHORITY_DAYS: i64 = 366;

/// Seconds that two clocks may differ without anyone noticing.
const SKEW: i64 = 60;

fn days_left(until: OffsetDateTime, now: OffsetDateTime) -> i64 {
    (until - now).whole_days()
}

pub(super) fn settings(subject: &Subject<'_>) -> Result<Found> {
    // Read when the folder was opened; again for who calls this with others.
    let faults = match subject.folder.settings.clone().checked("") {
        Ok(_) => Vec::new(),
        Err(error) => format!("{error:#}").lines().map(str::to_owned).collect(),
    };
    Ok(Found { faults, note: subject.folder.settings.summary() })
}

pub(super) fn private(subject: &Subject<'_>) -> Result<Found> {
    let folder = subject.folder;
    let mut faults = Vec::new();
    let keys = AUTHORITIES.map(|files| files.key);
    let others = [SECRETS, TOKENS, SERVICE_ACCOUNT_KEY, ENCRYPTION_KEY];
    for name in keys.into_iter().chain(others).chain(PEOPLE.map(|(file, _, _)| file)) {
        let path = folder.file(name);
        let metadata = fs::metadata(&path).with_context(|| format!("looking at {}", path.display()))?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            faults.push(format!("{} has mode {mode:o}: chmod go= {}", path.display(), path.display()));
        }
    }
    Ok(Found { faults, note: String::new() })
}

pub(super) fn pairs(subject: &Subject<'_>) -> Result<Found> {
    let folder = subject.folder;
    let mut faults = Vec::new();
    for files in AUTHORITIES {
        let (certificate, key) = (folder.text(files.certificate)?, folder.text(files.key)?);
        if let Err(error) = Authority::parse(&certificate, &key) {
            faults.push(format!("{}, {}: {error}", files.certificate, files.key));
        }
    }
    Ok(Found { faults, note: String::new() })
}

pub(super) fn authorities(subject: &Subject<'_>) -> Result<Found> {
    let (mut faults, mut note) = (Vec::new(), Vec::new());
    for files in AUTHORITIES {
        let text = subject.folder.text(files.certificate)?;
        let certificate = Certificate::parse(&text).with_context(|| format!("reading {}", files.certificate))?;
        let facts = certificate.facts();
        let left = days_left(facts.not_after, subject.now);
        if facts.not_before > subject.now {
            faults.push(format!(
                "{} begins only on {}: is this machine's clock right?",
                files.name,
                moment(facts.not_before)
            ));
        } else if left < AUTHORITY_DAYS {
            faults.push(format!("{} ends in {left} days, on {}", files.name, moment(facts.not_after)));
        }
        note.push(format!("{} {left} days", files.name));
    }
    Ok(Found { faults, note: note.join(", ") })
}

pub(super) fn keys(subject: &Subject<'_>) -> Result<Found> {
    let folder = subject.folder;
    let mut faults = Vec::new();
    match Key::parse(&folder.text(SERVICE_ACCOUNT_KEY)?) {
        Ok(key) if key.public_pem().trim() != folder.text(SERVICE_ACCOUNT_PUBLIC_KEY)?.trim() => {
            faults.push(format!("{SERVICE_ACCOUNT_PUBLIC_KEY} is not the public part of {SERVICE_ACCOUNT_KEY}"));
        }
        Ok(_) => {}
        Err(error) => faults.push(format!("{SERVICE_ACCOUNT_KEY}: {error}")),
    }
    let key = STANDARD.decode(folder.text(ENCRYPTION_KEY)?.trim_end());
    if !key.is_ok_and(|key| key.len() == 32) {
        faults.push(format!("{ENCRYPTION_KEY} is not 32 bytes in base64"));
    }
    Ok(Found { faults, note: String::new() })
}

pub(super) fn kubeconfigs(subject: &Subject<'_>) -> Result<Found> {
    let folder = subject.folder;
    let authority = Certificate::parse(&folder.text(CLUSTER_CA.certificate)?)?;
    let (mut faults, mut note) = (Vec::new(), Vec::new());
    for (file, user, group) in PEOPLE {
        let text = folder.text(file)?;
        let wanted = Wanted::client(user, Some(group));
        match kubeconfig(&text, &folder.settings, &wanted, &authority, subject.now) {
            Ok(until) => note.push(format!("{file} {} days", days_left(until, subject.now))),
            Err(error) => faults.push(format!(
                "{file}: {error:#}; `kscratch-image cluster kubeconfig {}` makes it anew",
                folder.settings.name
            )),
        }
    }
    Ok(Found { faults, note: note.join(", ") })
}

/// Until when a kubeconfig is good.
fn kubeconfig(
    text: &str,
    settings: &Settings,
    wanted: &Wanted,
    authority: &Certificate,
    now: OffsetDateTime,
) -> Result<OffsetDateTime> {
    let config: serde_json::Value = serde_saphyr::from_str(text).context("it is no YAML")?;
    let server = config.pointer("/clusters/0/cluster/server").and_then(|server| server.as_str());
    if server != Some(&settings.server()) {
        return Err(anyhow!("it names {}, not {}", server.unwrap_or("no server"), settings.server()));
    }
    let data = |place: &str| {
        let text =
            config.pointer(place).and_then(|data| data.as_str()).with_context(|| format!("it has no {place}"))?;
        let bytes = STANDARD.decode(text).with_context(|| format!("{place} is no base64"))?;
        String::from_utf8(bytes).with_context(|| format!("{place} is no text"))
    };
    let trusted = Certificate::parse_all(&data("/clusters/0/cluster/certificate-authority-data")?)?;
    if !trusted.contains(authority) {
        return Err(anyhow!("it believes another authority"));
    }
    let certificate = data("/users/0/user/client-certificate-data")?;
    let key = data("/users/0/user/client-key-data")?;
    match judge(&certificate, &key, wanted, authority, now) {
        Verdict::Keep { until } => Ok(until),
        Verdict::Remake { why } => Err(anyhow!(why)),
    }
}

pub(super) fn tokens(subject: &Subject<'_>) -> Result<Found> {
    let tokens = token::read(subject.folder)?;
    let Some(kept) = token::longest(&tokens, subject.now) else {
        let hint = format!("`kscratch-image cluster token create {}` makes one", subject.folder.settings.name);
        return Ok(Found {
            faults: vec![format!("of {} tokens none is good any more: {hint}", tokens.len())],
            note: String::new(),
        });
    };
    let note = match kept.expires {
        Some(end) => format!("{} until {}", kept.token.id(), moment(end)),
        None => format!("{} has no end", kept.token.id()),
    };
    Ok(Found { faults: Vec::new(), note })
}

/// Where people reach the API server: of machines in QEMU through their gateway, else at the endpoint.
fn server(folder: &Folder) -> String {
    let place = Place::of(folder.path().parent().unwrap_or(Path::new("")), &folder.settings.name);
    let machines = fs::read_to_string(place.file(KUBECONFIG)).ok().and_then(|text| Access::parse(&text).ok());
    machines.map_or_else(|| folder.settings.server(), |access| access.server)
}

pub(super) fn answer<'a>(subject: &'a Subject<'_>) -> Result<&'a Answer> {
    let answer = subject.answer.get_or_init(|| {
        let folder = subject.folder;
        // A kubeconfig that is not good is another rule's business.
        let administrator = folder.text(ADMIN).ok().and_then(|text| Access::parse(&text).ok());
        let asked = folder.text(CLUSTER_CA.certificate);
        asked
            .and_then(|authority| ask(&server(folder), &authority, administrator.as_ref()))
            .map_err(|error| format!("{error:#}"))
    });
    answer.as_ref().map_err(|why| anyhow!(why.clone()))
}

pub(super) fn endpoint(subject: &Subject<'_>) -> Result<Found> {
    let server = server(subject.folder);
    Ok(match answer(subject)? {
        Answer::Proven { until, .. } => {
            let until = match until {
                Ok(until) => format!("its certificate {} days", days_left(*until, subject.now)),
                Err(why) => format!("when its certificate ends is not known: {why}"),
            };
            Found { faults: Vec::new(), note: format!("{server}, {until}") }
        }
        Answer::Refused(why) => Found { faults: vec![format!("{server}: {why}")], note: String::new() },
    })
}

pub(super) fn clock(subject: &Subject<'_>) -> Result<Found> {
    let time = match answer(subject)? {
        Answer::Proven { clock, .. } => clock.context("it does not tell the time")?,
        Answer::Refused(_) => return Err(anyhow!("who does not prove itself is not asked")),
    };
    let skew = (time - subject.now).whole_seconds();
    let side = if skew < 0 { "behind" } else { "ahead" };
    let note = format!("{} s {side}", skew.abs());
    let faults = if skew.abs() > SKEW { vec![format!("it is {note} of this machine's")] } else { Vec::new() };
    Ok(Found { faults, note })
}
