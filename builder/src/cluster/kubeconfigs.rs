//! The kubeconfigs of a cluster's administrators, signed by its authority for a year.
use std::path::Path;

use anyhow::{Context, Result};
use kscratch_pki::{Authority, Credentials, Kubeconfig, OffsetDateTime, Trust, Wanted};

use super::folder::{ADMIN, CLUSTER_CA, Folder, SUPER_ADMIN, write_private};
use super::settings::Settings;

/// File, user and group of each, as kubeadm names them.
pub const PEOPLE: [(&str, &str, &str); 2] =
    [(ADMIN, "kubernetes-admin", "kubeadm:cluster-admins"), (SUPER_ADMIN, "kubernetes-super-admin", "system:masters")];

/// Writes both into a folder, in the place of those that are there.
///
/// # Errors
/// The authority has ended, or they cannot be written.
pub fn write(folder: &Path, settings: &Settings, authority: &Authority, now: OffsetDateTime) -> Result<()> {
    for (file, user, group) in PEOPLE {
        let config = issue(&settings.name, &settings.server(), (user, group), authority, now)?;
        write_private(&folder.join(file), &config)?;
    }
    Ok(())
}

/// The kubeconfig of a user of a group, as YAML. `server` is `https://HOST:PORT`.
///
/// # Errors
/// The authority has ended.
pub fn issue(
    cluster: &str,
    server: &str,
    (user, group): (&str, &str),
    authority: &Authority,
    now: OffsetDateTime,
) -> Result<String> {
    let pair = authority
        .issue(&Wanted::client(user, Some(group)), now)
        .with_context(|| format!("making the certificate of {user}"))?;
    let config = Kubeconfig {
        cluster,
        server,
        user,
        trust: Trust::Embedded(&authority.certificate().pem()),
        credentials: Credentials::Embedded { certificate: &pair.certificate_pem, key: &pair.key_pem },
    };
    Ok(config.to_yaml())
}

/// Makes both anew.
///
/// # Errors
/// The authority cannot be read or has ended, or they cannot be written.
pub fn renew(folder: &Folder, now: OffsetDateTime) -> Result<()> {
    let authority = Authority::parse(&folder.text(CLUSTER_CA.certificate)?, &folder.text(CLUSTER_CA.key)?)
        .with_context(|| format!("reading the authority of {}", folder.settings.name))?;
    write(folder.path(), &folder.settings, &authority, now)
}
