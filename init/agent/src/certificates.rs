//! Makes the certificates of this machine what a file wants them to be, from the authorities that it has.
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use kscratch_pki::{Authority, Certificate, Facts, OffsetDateTime, Verdict, Wanted, judge, moment};

use crate::contract::{AuthorityFiles, Certificates, Discard, Leaf};
use crate::{place, say};

/// What is told of a certificate that is as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// A line.
    Told,
    /// Nothing.
    Untold,
}

/// Makes all of it true, and tells a line for each certificate. One that cannot be made does not keep back the others.
///
/// # Errors
/// Names what could not be made.
pub fn keep(wanted: &Certificates, now: OffsetDateTime, kept: Kept) -> Result<()> {
    let authorities: BTreeMap<&str, Result<Authority>> =
        wanted.authorities.iter().map(|(name, files)| (name.as_str(), authority(files))).collect();
    let mut faults = Vec::new();
    for leaf in &wanted.certificates {
        let done = match authorities.get(leaf.authority.as_str()) {
            Some(Ok(authority)) => keep_one(leaf, authority, now, kept),
            Some(Err(error)) => Err(anyhow::anyhow!("{error:#}")),
            None => Err(anyhow::anyhow!("there is no authority {:?}", leaf.authority)),
        };
        if let Err(error) = done {
            faults.push(format!("certificate {}: {error:#}", leaf.certificate.display()));
        }
    }
    for unwanted in &wanted.discard {
        let signer = wanted.authorities.get(&unwanted.authority).map(|files| &*files.certificate);
        if let Err(error) = discard(unwanted, signer, now) {
            faults.push(format!("{error:#}"));
        }
    }
    if !faults.is_empty() {
        bail!("{}", faults.join("; "));
    }
    Ok(())
}

fn authority(files: &AuthorityFiles) -> Result<Authority> {
    let name = files.certificate.display();
    Authority::parse(&text(&files.certificate)?, &text(&files.key)?).with_context(|| format!("authority {name}"))
}

fn text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

fn keep_one(leaf: &Leaf, authority: &Authority, now: OffsetDateTime, kept: Kept) -> Result<()> {
    let name = leaf.certificate.display();
    let wanted = Wanted {
        common_name: leaf.common_name.clone(),
        organizations: leaf.organizations.clone(),
        dns_names: leaf.dns_names.clone(),
        addresses: leaf.addresses.clone(),
        usages: leaf.usages.clone(),
        days: leaf.days,
    };
    let why = match judge_files(&leaf.certificate, &leaf.key, &wanted, authority.certificate(), now) {
        Verdict::Keep { until } => {
            own_pair(&leaf.certificate, &leaf.key, leaf.owner)?;
            if kept == Kept::Told {
                say::line(format_args!("kept certificate {name} until {}", until.date()));
            }
            return Ok(());
        }
        Verdict::Remake { why } => why,
    };
    let pair = authority.issue(&wanted, now).with_context(|| format!("making it anew, because {why}"))?;
    let until = Certificate::parse(&pair.certificate_pem)?.facts().not_after.date();
    put_pair(leaf, &pair.certificate_pem, &pair.key_pem)?;
    say::line(format_args!("made certificate {name} until {until}: {why}"));
    Ok(())
}

fn put_pair(leaf: &Leaf, certificate: &str, key: &str) -> Result<()> {
    // A power cut between the two leaves a key that does not fit, which the next start sees.
    place::file(&leaf.key, key.as_bytes(), 0o600, leaf.owner)?;
    place::file(&leaf.certificate, certificate.as_bytes(), 0o644, leaf.owner)
}

/// Holds the files of a certificate and its key against what is wanted.
pub fn judge_files(
    certificate: &Path,
    key: &Path,
    wanted: &Wanted,
    authority: &Certificate,
    now: OffsetDateTime,
) -> Verdict {
    let read = |path: &Path| match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err("there was none".to_owned()),
        other => other.map_err(|error| format!("reading {}: {error}", path.display())),
    };
    match (read(certificate), read(key)) {
        (Ok(certificate), Ok(key)) => judge(&certificate, &key, wanted, authority, now),
        (Err(why), _) | (_, Err(why)) => Verdict::Remake { why },
    }
}

/// Gives both files the modes and the owner that they were made with, should they have others: an earlier version had them belong to root.
///
/// # Errors
/// What the kernel says.
pub fn own_pair(certificate: &Path, key: &Path, owner: u32) -> Result<()> {
    own(certificate, 0o644, owner)?;
    own(key, 0o600, owner)
}

/// Gives a file the mode and the owner that it was made with, should it have others.
fn own(path: &Path, mode: u32, owner: u32) -> Result<()> {
    let fix = || -> io::Result<()> {
        let is = std::fs::metadata(path)?;
        if is.mode() & 0o7777 != mode {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        }
        if (is.uid(), is.gid()) != (owner, owner) {
            chown(path, Some(owner), Some(owner))?;
        }
        Ok(())
    };
    fix().with_context(|| format!("setting mode and owner of {}", path.display()))
}

/// Removes a file whose certificate is not valid now, cannot be read, is for another name, or is signed by none of the authorities in `signer`'s file: its
/// reader would not get up from it.
fn discard(unwanted: &Discard, signer: Option<&Path>, now: OffsetDateTime) -> Result<()> {
    let path = &unwanted.file;
    let text = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        text => text.with_context(|| format!("reading {}", path.display()))?,
    };
    let why = match Certificate::parse(&String::from_utf8_lossy(&text)) {
        Ok(certificate) => match useless(certificate.facts(), &unwanted.common_name, now) {
            Some(why) => why,
            None if signed_by_any(&certificate, signer)? => return Ok(()),
            None => format!("its certificate is not signed by the authority {} of now", unwanted.authority),
        },
        Err(error) => error.to_string(),
    };
    std::fs::remove_file(path).with_context(|| format!("removing {}", path.display()))?;
    say::line(format_args!("removed {}: {why}", path.display()));
    Ok(())
}

/// While an authority is replaced its file has both, and both are good.
fn signed_by_any(certificate: &Certificate, signer: Option<&Path>) -> Result<bool> {
    let Some(signer) = signer else { return Ok(true) };
    let all = Certificate::parse_all(&text(signer)?).with_context(|| format!("in {}", signer.display()))?;
    Ok(all.iter().any(|authority| certificate.signed_by(authority)))
}

/// Why a certificate is of no use to who is to be `common_name` now. One that was signed while a clock was ahead is used by a kubelet all the same, and
/// believed by nobody before its time comes.
fn useless(facts: &Facts, common_name: &str, now: OffsetDateTime) -> Option<String> {
    let is = &facts.names.common_name;
    if is != common_name {
        return Some(format!("its certificate is for {is}, and {common_name} is wanted now"));
    }
    if facts.not_before > now {
        let (first, now) = (moment(facts.not_before), moment(now));
        return Some(format!("its certificate begins on {first}, and the clock says {now}"));
    }
    let (last, clock) = (moment(facts.not_after), moment(now));
    (facts.not_after < now).then(|| format!("its certificate has ended on {last}, and the clock says {clock}"))
}

#[cfg(test)]
mod tests;
