//! Makes the identity of a cluster that one master begins on its own: its authorities, its keys and a token, in a folder on state.
use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use kscratch_pki::{Authority, Duration, Key, OffsetDateTime, encryption_key};

use crate::{place, say};

/// Authorities are valid from here on (2026-01-01): a machine without a battery does not know what day it is at its first boot, and what it
/// makes must be valid once it does.
const EPOCH: OffsetDateTime = OffsetDateTime::UNIX_EPOCH.saturating_add(Duration::seconds(1_767_225_600));
/// Years that an authority lasts, as kubeadm's do.
const YEARS: i64 = 10;
const DAYS_OF_A_YEAR: i64 = 365;

/// Makes `FOLDER/ca.crt` and `FOLDER/secrets.toml` (role metadata's `[control_plane.secrets]`), both or none.
///
/// # Errors
/// The folder is there already, or cannot be written.
pub fn make(folder: &Path) -> Result<()> {
    if folder.exists() {
        bail!("{} is there already; a cluster's identity is never made anew", folder.display());
    }
    let (ca, secrets) = identity(OffsetDateTime::now_utc())?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let fresh = folder.with_file_name(format!(".{name}.new"));
    let doing = || format!("making the folder {}", fresh.display());
    // What an earlier boot did not finish.
    if fresh.exists() {
        fs::remove_dir_all(&fresh).with_context(|| format!("removing {}", fresh.display()))?;
    }
    fs::create_dir_all(&fresh).with_context(doing)?;
    fs::set_permissions(&fresh, Permissions::from_mode(0o700)).with_context(doing)?;
    place::file(&fresh.join("ca.crt"), ca.as_bytes(), 0o644, 0)?;
    place::file(&fresh.join("secrets.toml"), secrets.as_bytes(), 0o600, 0)?;
    fs::rename(&fresh, folder).with_context(|| format!("naming {}", folder.display()))?;
    let parent = folder.parent().unwrap_or(Path::new("/"));
    File::open(parent).and_then(|parent| parent.sync_all()).with_context(|| format!("syncing {}", parent.display()))?;
    say::line(format_args!("{} holds the identity of a new cluster", folder.display()));
    Ok(())
}

/// The certificate of the cluster's authority, and all that only masters know.
fn identity(now: OffsetDateTime) -> Result<(String, String)> {
    let since = (now - EPOCH).whole_days().max(0);
    let years = u32::try_from(since / DAYS_OF_A_YEAR + YEARS + 1).context("reading the clock")?;
    let authority = |name: &str| Authority::new_with_pair(name, EPOCH, years).map(|(_, pair)| pair);
    let (cluster, etcd, front_proxy) = (authority("kubernetes")?, authority("etcd-ca")?, authority("front-proxy-ca")?);
    let service_accounts = Key::generate()?;
    let mut text = String::from("[control_plane.secrets]\n");
    for (field, value) in [
        ("ca_key", cluster.key_pem),
        ("etcd_ca", etcd.certificate_pem),
        ("etcd_ca_key", etcd.key_pem),
        ("front_proxy_ca", front_proxy.certificate_pem),
        ("front_proxy_ca_key", front_proxy.key_pem),
        ("service_account_key", service_accounts.pem()),
        ("service_account_public_key", service_accounts.public_pem()),
    ] {
        writeln!(text, "{field} = '''\n{value}'''")?;
    }
    writeln!(text, "encryption_key = \"{}\"", encryption_key()?)?;
    Ok((cluster.certificate_pem, text))
}

#[cfg(test)]
mod tests {
    use kscratch_pki::{Certificate, Duration, OffsetDateTime};

    use super::{EPOCH, identity, make};

    #[test]
    fn it_is_good_metadata_whatever_the_clock_says() {
        for now in [OffsetDateTime::UNIX_EPOCH, EPOCH, EPOCH + Duration::days(5000)] {
            let (ca, secrets) = identity(now).unwrap();
            let role = format!("version = 1\nrole = \"master\"\n[cluster]\nca = '''\n{ca}'''\n");
            let metadata = kscratch_metadata::parse_with_secrets(&role, &secrets).unwrap();
            // Nobody has one until somebody makes one.
            assert!(metadata.control_plane.unwrap().secrets.unwrap().tokens.is_empty());
            let ca = Certificate::parse(&ca).unwrap();
            assert!(ca.facts().valid_at(EPOCH) && ca.facts().valid_at(now.max(EPOCH) + Duration::days(3650)));
        }
    }

    #[test]
    fn it_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let cluster = folder.path().join("cluster");
        // Half of an earlier attempt.
        std::fs::create_dir(folder.path().join(".cluster.new")).unwrap();
        std::fs::write(folder.path().join(".cluster.new/ca.crt"), "").unwrap();
        make(&cluster).unwrap();
        let before = std::fs::read(cluster.join("secrets.toml")).unwrap();
        assert!(make(&cluster).unwrap_err().to_string().contains("is there already"));
        assert_eq!(std::fs::read(cluster.join("secrets.toml")).unwrap(), before);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
