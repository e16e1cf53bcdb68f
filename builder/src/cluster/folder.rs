//! A cluster's folder on this machine: where which file is, and how secrets are written so that nobody else reads them.
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

use super::settings::Settings;
use crate::console::Hint;

/// The settings.
pub const SETTINGS: &str = "cluster.toml";
/// The folder of secrets.
pub const SECRETS: &str = "secrets";
/// The administrator's kubeconfig.
pub const ADMIN: &str = "admin.kubeconfig";
/// The kubeconfig of the one whom nothing can refuse.
pub const SUPER_ADMIN: &str = "super-admin.kubeconfig";
/// The tokens with which machines may join.
pub const TOKENS: &str = "secrets/tokens.toml";
/// Private key that signs tokens of service accounts.
pub const SERVICE_ACCOUNT_KEY: &str = "secrets/service-account.key";
/// Public part of it.
pub const SERVICE_ACCOUNT_PUBLIC_KEY: &str = "secrets/service-account.pub";
/// Key that Secrets are encrypted with.
pub const ENCRYPTION_KEY: &str = "secrets/encryption.key";

/// A certificate authority of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthorityFiles {
    /// Common name, as kubeadm gives it.
    pub name: &'static str,
    /// The certificate's file.
    pub certificate: &'static str,
    /// The key's file.
    pub key: &'static str,
}

/// Signs for the API server, kubelets and people.
pub const CLUSTER_CA: AuthorityFiles =
    AuthorityFiles { name: "kubernetes", certificate: "secrets/ca.crt", key: "secrets/ca.key" };
/// Signs for etcd and its clients.
pub const ETCD_CA: AuthorityFiles =
    AuthorityFiles { name: "etcd-ca", certificate: "secrets/etcd-ca.crt", key: "secrets/etcd-ca.key" };
/// Signs for the API server towards aggregated ones.
pub const FRONT_PROXY_CA: AuthorityFiles = AuthorityFiles {
    name: "front-proxy-ca",
    certificate: "secrets/front-proxy-ca.crt",
    key: "secrets/front-proxy-ca.key",
};
/// All of them.
pub const AUTHORITIES: [AuthorityFiles; 3] = [CLUSTER_CA, ETCD_CA, FRONT_PROXY_CA];

/// A cluster's folder whose settings are sound.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    /// cluster.toml.
    pub settings: Settings,
}

impl Folder {
    /// Opens the folder of the cluster `name` in `parent`.
    ///
    /// # Errors
    /// There is none, or its settings are not sound.
    pub fn open(parent: &Path, name: &str) -> Result<Folder> {
        let path = place(parent, name);
        if !path.join(SETTINGS).exists() {
            let hint = format!(
                "kscratch-image cluster new {name} --endpoint HOST makes one; --folder DIR names the folder that holds it"
            );
            return Err(anyhow!("there is no cluster {name} here: {} is missing", path.join(SETTINGS).display())
                .context(Hint(hint)));
        }
        let settings = Settings::read(&path.join(SETTINGS))?;
        Ok(Folder { path, settings })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The text of a file in it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn text(&self, name: &str) -> Result<String> {
        let path = self.file(name);
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }

    /// Keeps other programs of this kind from changing the folder until what is returned is dropped.
    ///
    /// # Errors
    /// The folder cannot be opened or locked.
    pub fn lock(&self) -> Result<File> {
        let file = File::open(&self.path).with_context(|| format!("opening {}", self.path.display()))?;
        file.lock().with_context(|| format!("locking {}", self.path.display()))?;
        Ok(file)
    }
}

/// Where the folder of the cluster `name` is; as people write it, without `./`.
pub fn place(parent: &Path, name: &str) -> PathBuf {
    if parent == Path::new(".") { PathBuf::from(name) } else { parent.join(name) }
}

/// Writes a file that only its owner reads (0600), whole or not at all, in the place of one that may be there.
///
/// # Errors
/// It cannot be written.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    write(path, text, 0o600, None, true)
}

/// As [`write_private`], for this user and group, if any are given.
///
/// # Errors
/// It cannot be written, or given to them.
pub fn write_private_for(path: &Path, text: &str, owner: Option<(u32, u32)>) -> Result<()> {
    write(path, text, 0o600, owner, true)
}

/// As [`write_private`], but never in the place of anything.
///
/// # Errors
/// Something is there ([`std::io::ErrorKind::AlreadyExists`] is the cause), or it cannot be written.
pub fn write_private_new(path: &Path, text: &str) -> Result<()> {
    write(path, text, 0o600, None, false)
}

/// Writes a file that everyone may read (0644), whole or not at all.
///
/// # Errors
/// It cannot be written.
pub fn write_open(path: &Path, text: &str) -> Result<()> {
    write(path, text, 0o644, None, true)
}

fn write(path: &Path, text: &str, mode: u32, owner: Option<(u32, u32)>, replace: bool) -> Result<()> {
    let action = || format!("writing {}", path.display());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Made for its owner alone; others get in only when it is whole.
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(action)?;
    file.write_all(text.as_bytes()).with_context(action)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(mode)).with_context(action)?;
    let made = file.as_file().metadata().with_context(action)?;
    if let Some((user, group)) = owner
        && (made.uid(), made.gid()) != (user, group)
    {
        fchown(file.as_file(), Some(user), Some(group)).with_context(action)?;
    }
    file.as_file().sync_all().with_context(action)?;
    let kept = if replace { file.persist(path) } else { file.persist_noclobber(path) };
    kept.map_err(|error| error.error).with_context(action)?;
    File::open(folder).and_then(|folder| folder.sync_all()).with_context(action)
}
