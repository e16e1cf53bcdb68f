//! Makes the certificates of a master as PID 1 wants them: what is sound is kept, the rest is made from the cluster's authorities.
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use kscratch_pki::{Authority, Certificate, OffsetDateTime, Verdict, judge};

use crate::contract::{AuthorityFiles, CertificateFiles, Certificates};
use crate::{place, say};

/// Makes all of them and tells what became of each. One that cannot be made does not keep back the others.
///
/// # Errors
/// Every one that could not be made, in one text.
pub fn make_all(wanted: &Certificates) -> Result<()> {
    let mut faults = Vec::new();
    let now = OffsetDateTime::now_utc();
    for outcome in converge(wanted, now) {
        match outcome {
            Ok(Outcome::Kept(line) | Outcome::Made(line)) => say::line(line),
            Err(error) => faults.push(format!("{error:#}")),
        }
    }
    if faults.is_empty() { Ok(()) } else { bail!(faults.join("\n")) }
}

/// What became of a certificate, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was sound.
    Kept(String),
    /// It was made, or removed.
    Made(String),
}

/// Makes true what is wanted at a time.
pub fn converge(wanted: &Certificates, now: OffsetDateTime) -> Vec<Result<Outcome>> {
    let authorities: BTreeMap<&str, Result<Authority>> =
        wanted.authorities.iter().map(|(name, files)| (name.as_str(), authority(files))).collect();
    let mut outcomes: Vec<Result<Outcome>> =
        wanted.certificates.iter().map(|one| certificate(one, &authorities, now)).collect();
    outcomes.extend(wanted.discard_expired.iter().filter_map(|path| discard(path, now).transpose()));
    outcomes
}

fn authority(files: &AuthorityFiles) -> Result<Authority> {
    let (certificate, key) = (read(&files.certificate)?, read(&files.key)?);
    Authority::parse(&certificate, &key)
        .with_context(|| format!("reading the authority {}", files.certificate.display()))
}

fn certificate(
    one: &CertificateFiles,
    authorities: &BTreeMap<&str, Result<Authority>>,
    now: OffsetDateTime,
) -> Result<Outcome> {
    let path = one.certificate.display();
    let authority = match authorities.get(one.authority.as_str()) {
        Some(Ok(authority)) => authority,
        Some(Err(error)) => bail!("making {path}: {error:#}"),
        None => bail!("making {path}: there is no authority {:?}", one.authority),
    };
    let why = match (fs::read_to_string(&one.certificate), fs::read_to_string(&one.key)) {
        (Ok(certificate), Ok(key)) => match judge(&certificate, &key, &one.wanted, authority.certificate(), now) {
            Verdict::Keep { until } => {
                return Ok(Outcome::Kept(format!("{path} is kept, it is valid until {}", until.date())));
            }
            Verdict::Remake { why } => why,
        },
        (Err(error), _) | (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => "there was none".to_owned(),
        (Err(error), _) | (_, Err(error)) => error.to_string(),
    };
    let pair = authority.issue(&one.wanted, now).with_context(|| format!("making {path}"))?;
    // The key first: a certificate without its key is seen at the next look, and made anew with it.
    place::file(&one.key, pair.key_pem.as_bytes(), 0o600, one.owner)?;
    place::file(&one.certificate, pair.certificate_pem.as_bytes(), 0o644, one.owner)?;
    let until = Certificate::parse(&pair.certificate_pem).map(|made| made.facts().not_after.date().to_string());
    let until = until.with_context(|| format!("reading {path}, which was just made"))?;
    Ok(Outcome::Made(format!("{path} is made ({why}), it is valid until {until}")))
}

/// Removes a bundle whose certificate is of no use any more. One that cannot be read is none of it: its owner will complain.
fn discard(path: &Path, now: OffsetDateTime) -> Result<Option<Outcome>> {
    let Ok(text) = fs::read_to_string(path) else { return Ok(None) };
    match Certificate::parse(&text) {
        Ok(certificate) if now > certificate.facts().not_after => {
            fs::remove_file(path).with_context(|| format!("removing {}", path.display()))?;
            let until = certificate.facts().not_after.date();
            Ok(Some(Outcome::Made(format!("{} is removed, it was valid until {until}", path.display()))))
        }
        _ => Ok(None),
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::path::Path;

    use kscratch_pki::{Authority, Duration, OffsetDateTime};
    use serde_json::json;

    use super::{Outcome, converge};
    use crate::contract::Certificates;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH.saturating_add(Duration::days(20_000));

    fn wanted(folder: &Path, address: &str) -> Certificates {
        let path = |name: &str| folder.join(name);
        let owner = fs::metadata(folder).unwrap().uid();
        serde_json::from_value(json!({
            "authorities": { "cluster": { "certificate": path("ca.crt"), "key": path("ca.key") } },
            "certificates": [
                { "certificate": path("server.crt"), "key": path("server.key"), "authority": "cluster", "common_name": "kube-apiserver",
                  "organizations": [], "dns_names": ["kubernetes"], "addresses": [address], "usages": ["server"], "days": 365, "owner": owner },
                { "certificate": path("client.crt"), "key": path("client.key"), "authority": "cluster", "common_name": "system:node:m1",
                  "organizations": ["system:nodes"], "dns_names": [], "addresses": [], "usages": ["client"], "days": 365, "owner": owner },
            ],
            "discard_expired": [path("old.pem")],
        }))
        .unwrap()
    }

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let (_, pair) = Authority::new_with_pair("kubernetes", NOW, 10).unwrap();
        fs::write(folder.path().join("ca.crt"), pair.certificate_pem).unwrap();
        fs::write(folder.path().join("ca.key"), pair.key_pem).unwrap();
        folder
    }

    /// `k` for kept, `m` for made, `f` for failed.
    fn outcomes(wanted: &Certificates, now: OffsetDateTime) -> String {
        let letter = |outcome| match outcome {
            Ok(Outcome::Kept(_)) => 'k',
            Ok(Outcome::Made(_)) => 'm',
            Err(_) => 'f',
        };
        converge(wanted, now).into_iter().map(letter).collect()
    }

    #[test]
    fn what_is_sound_is_kept_and_the_rest_is_made() {
        let folder = folder();
        let first = wanted(folder.path(), "192.168.7.10");
        assert_eq!(outcomes(&first, NOW), "mm");
        assert_eq!(outcomes(&first, NOW), "kk");
        let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("server.key"), mode("server.crt")), (0o600, 0o644));
        // The address changed.
        assert_eq!(outcomes(&wanted(folder.path(), "192.168.7.11"), NOW), "mk");
        // Half a pair of a power cut.
        fs::remove_file(folder.path().join("client.crt")).unwrap();
        assert_eq!(outcomes(&first, NOW), "mm");
        fs::write(folder.path().join("client.key"), "").unwrap();
        assert_eq!(outcomes(&first, NOW), "km");
        // Two thirds of a year are over, then the clock is years behind.
        assert_eq!(outcomes(&first, NOW + Duration::days(240)), "kk");
        assert_eq!(outcomes(&first, NOW + Duration::days(250)), "mm");
        assert_eq!(outcomes(&first, OffsetDateTime::UNIX_EPOCH), "kk");
    }

    #[test]
    fn an_ended_bundle_is_removed_and_a_valid_one_is_not() {
        let folder = folder();
        let wanted = wanted(folder.path(), "192.168.7.10");
        outcomes(&wanted, NOW);
        let bundle = folder.path().join("old.pem");
        fs::copy(folder.path().join("client.crt"), &bundle).unwrap();
        assert_eq!(outcomes(&wanted, NOW), "kk");
        assert!(bundle.exists());
        assert_eq!(outcomes(&wanted, NOW + Duration::days(400)), "mmm");
        assert!(!bundle.exists());
    }

    #[test]
    fn a_broken_authority_is_named() {
        let folder = folder();
        let wanted = wanted(folder.path(), "192.168.7.10");
        fs::write(folder.path().join("ca.key"), "no key").unwrap();
        let error = format!("{:#}", converge(&wanted, NOW).remove(0).unwrap_err());
        assert!(error.contains("server.crt: reading the authority"), "{error}");
        assert!(!folder.path().join("server.crt").exists());
    }
}
