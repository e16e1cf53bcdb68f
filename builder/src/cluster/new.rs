//! Makes a cluster's folder: settings, authorities, keys, the first token and kubeconfigs, all of it or nothing.
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use kscratch_pki::{Authority, Duration, Key, OffsetDateTime, encryption_key};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::folder::{
    AUTHORITIES, CLUSTER_CA, ENCRYPTION_KEY, Folder, SECRETS, SERVICE_ACCOUNT_KEY, SERVICE_ACCOUNT_PUBLIC_KEY,
    SETTINGS, TOKENS, place, write_open, write_private,
};
use super::kubeconfigs;
use super::settings::Settings;
use super::token::{self, Kept, Lapse};
use crate::console::Hint;

/// Years that authorities last, as kubeadm's do.
const YEARS: u32 = 10;

/// How long before now authorities begin: hardware clocks that are kept in local time are up to 14 hours behind, and a machine believes no
/// authority that begins in its future.
const BEFORE: Duration = Duration::days(1);

/// Makes the folder `parent/NAME`. It appears under its name when all of it is written.
///
/// # Errors
/// It is there already, or cannot be made.
pub fn new(parent: &Path, settings: &Settings, lapse: Lapse, now: OffsetDateTime) -> Result<Folder> {
    let target = place(parent, &settings.name);
    let action = || format!("making the cluster {} in {}", settings.name, parent.display());
    refuse_existing(parent, &settings.name)?;
    let making =
        tempfile::Builder::new().prefix(&format!(".{}-", settings.name)).tempdir_in(parent).with_context(action)?;
    fill(making.path(), settings, lapse, now).with_context(action)?;
    match rename(making.path(), &target) {
        Ok(()) => drop(making.keep()),
        // Somebody else's came first.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => refuse_existing(parent, &settings.name)?,
        Err(error) => return Err(error).with_context(|| format!("naming the folder {}", target.display())),
    }
    File::open(parent).and_then(|parent| parent.sync_all()).with_context(action)?;
    Folder::open(parent, &settings.name)
}

fn refuse_existing(parent: &Path, name: &str) -> Result<()> {
    let path = place(parent, name);
    if fs::symlink_metadata(&path).is_err() {
        return Ok(());
    }
    if !path.join(SETTINGS).exists() {
        let what = format!("{} is there already, and it is no cluster's folder: it has no {SETTINGS}", path.display());
        return Err(anyhow!(what).context(Hint("take another name, or another folder with --folder DIR".into())));
    }
    let held = Folder::open(parent, name)?.settings.summary();
    Err(anyhow!("the cluster {name} is there already, in {}: {held}", path.display()).context(Hint(format!(
        "kscratch-image cluster check {name} tells how it stands; for another cluster take another name"
    ))))
}

/// Never onto anything, not even an empty folder.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Filesystems that cannot tell (some of FUSE and NFS).
        Err(Errno::INVAL) if fs::symlink_metadata(to).is_err() => fs::rename(from, to),
        Err(Errno::INVAL) => Err(Errno::EXIST.into()),
        other => Ok(other?),
    }
}

fn fill(folder: &Path, settings: &Settings, lapse: Lapse, now: OffsetDateTime) -> Result<()> {
    let head = "# What all machines of this cluster are told alike, as `kscratch-image cluster new` wrote it. No secret stands here.\n";
    write_open(&folder.join(SETTINGS), &format!("{head}{}", toml::to_string_pretty(settings)?))?;
    let secrets = folder.join(SECRETS);
    DirBuilder::new().mode(0o700).create(&secrets).with_context(|| format!("making {}", secrets.display()))?;
    let begin = now.checked_sub(BEFORE).context("this machine's clock is before the year -9999")?;
    for files in AUTHORITIES {
        let (authority, pair) =
            Authority::new_with_pair(files.name, begin, YEARS).with_context(|| format!("making {}", files.name))?;
        write_open(&folder.join(files.certificate), &pair.certificate_pem)?;
        write_private(&folder.join(files.key), &pair.key_pem)?;
        if files == CLUSTER_CA {
            kubeconfigs::write(folder, settings, &authority, now)?;
        }
    }
    let key = Key::generate()?;
    write_private(&folder.join(SERVICE_ACCOUNT_KEY), &key.pem())?;
    write_open(&folder.join(SERVICE_ACCOUNT_PUBLIC_KEY), &key.public_pem())?;
    write_private(&folder.join(ENCRYPTION_KEY), &format!("{}\n", encryption_key()?))?;
    write_private(&folder.join(TOKENS), &token::write(&[Kept::new(lapse, now)?])?)
}
