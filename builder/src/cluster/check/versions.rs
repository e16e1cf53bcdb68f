//! The rules of images and versions, one function each.
use anyhow::{Result, anyhow, bail};

use super::endpoint::Answer;
use super::rules::answer;
use super::skew::{against, among, minor};
use super::{Found, Subject};
use crate::cluster::folder::SETTINGS;

/// What was found of images; one that could not be read leaves a rule open that no other one breaks.
fn of_images(subject: &Subject<'_>, mut faults: Vec<String>, note: String) -> Result<Found> {
    match (faults.is_empty(), subject.unread.is_empty()) {
        (_, true) => {}
        (true, false) => bail!("{}", subject.unread.join("\n")),
        (false, false) => faults.extend(subject.unread.iter().cloned()),
    }
    Ok(Found { faults, note })
}

pub(super) fn closed(subject: &Subject<'_>) -> Result<Found> {
    let faults = subject.images.iter().flat_map(|image| image.faults.clone()).collect();
    let named: Vec<_> = subject.images.iter().map(|image| format!("{} names {}", image.file, image.named)).collect();
    of_images(subject, faults, named.join(", "))
}

pub(super) fn together(subject: &Subject<'_>) -> Result<Found> {
    let versions: Vec<_> = subject.images.iter().map(|image| format!("{} {}", image.file, image.version)).collect();
    of_images(subject, among(&subject.images)?, versions.join(", "))
}

/// The API server's version, or why it is not known.
fn runs<'a>(subject: &'a Subject<'_>) -> Result<&'a str> {
    match answer(subject)? {
        Answer::Proven { version, .. } => version.as_deref().map_err(|why| anyhow!(why.clone())),
        Answer::Refused(_) => Err(anyhow!("who does not prove itself is not asked")),
    }
}

pub(super) fn running(subject: &Subject<'_>) -> Result<Found> {
    let recorded = subject.folder.settings.kubernetes.as_deref();
    let version = match (runs(subject), recorded) {
        (Ok(version), _) => version,
        (Err(why), None) => return Err(why),
        // Better than nothing, but what runs may be newer.
        (Err(why), Some(recorded)) => {
            let faults = against(&subject.images, "the API server by cluster.toml", recorded)?;
            if faults.is_empty() {
                return Err(why);
            }
            return of_images(subject, faults, String::new());
        }
    };
    let mut faults = against(&subject.images, "the API server that runs", version)?;
    if let Some(recorded) = recorded
        && minor(recorded)? != minor(version)?
    {
        let right = version.trim_start_matches('v');
        faults.push(format!("{SETTINGS} says {recorded}, but {version} runs: write kubernetes = \"{right}\" there"));
    }
    of_images(subject, faults, format!("{version} runs"))
}
