//! A user's own kubeconfig on the disk: which file it is, and how it is changed while nobody else does.
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

use super::folder::write_private;
use super::merge::{self, Addition};
use crate::console::Hint;

/// The file that kubectl would add a new context to: the first that `$KUBECONFIG` names, else `~/.kube/config`.
///
/// # Errors
/// The environment names neither.
pub fn path(kubeconfig: Option<OsString>, home: Option<OsString>) -> Result<PathBuf> {
    let named = kubeconfig.as_deref().map(std::env::split_paths).into_iter().flatten();
    let first = named.into_iter().find(|path| !path.as_os_str().is_empty());
    let home = home.filter(|home| !home.is_empty()).map(|home| PathBuf::from(home).join(".kube/config"));
    first.or(home).context("finding your kubeconfig: neither KUBECONFIG nor HOME is set")
}

/// A cluster's folder as entries are marked with it.
///
/// # Errors
/// It is not there, or its path is no text.
pub fn folder(path: &Path) -> Result<String> {
    let action = || format!("looking for the folder {}", path.display());
    let whole = path.canonicalize().with_context(action)?;
    whole.into_os_string().into_string().map_err(|_| anyhow!("its path is no text")).with_context(action)
}

/// Puts the cluster of the kubeconfig `own` into the file, which is made where there is none.
///
/// # Errors
/// An entry of that name is somebody else's, or the file cannot be read or written.
pub fn add(file: &Path, addition: Addition<'_>, own: &str) -> Result<()> {
    change(file, |before| Ok(Some((merge::merged(before, addition, own)?, ())))).map(drop)
}

/// Finds out whether [`add`] would be refused, and changes nothing.
///
/// # Errors
/// It would be, or the file cannot be read.
pub fn check(file: &Path, addition: Addition<'_>) -> Result<()> {
    let action = || format!("adding {} to {}", addition.name, file.display());
    merge::refuse(&read(&target(file).with_context(action)?).with_context(action)?, addition).with_context(action)
}

/// Takes out what was put there for the cluster in `folder`, and gives the contexts' names.
///
/// # Errors
/// The file cannot be read or written.
pub fn remove(file: &Path, folder: &str) -> Result<Vec<String>> {
    if !file.exists() {
        return Ok(Vec::new());
    }
    Ok(change(file, |before| merge::without(before, folder))?.unwrap_or_default())
}

/// Reads the file, and writes what `with` makes of it: whole, or not at all.
fn change<T>(file: &Path, with: impl FnOnce(&str) -> Result<Option<(String, T)>>) -> Result<Option<T>> {
    let action = || format!("changing {}", file.display());
    let target = target(file).with_context(action)?;
    if let Some(folder) = target.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().mode(0o700).recursive(true).create(folder).with_context(action)?;
    }
    let _alone = Lock::take(&target).with_context(action)?;
    let Some((text, told)) = with(&read(&target).with_context(action)?).with_context(action)? else { return Ok(None) };
    write_private(&target, &text)?;
    Ok(Some(told))
}

/// The file itself where the name is a link: the link stays one.
fn target(file: &Path) -> Result<PathBuf> {
    match fs::symlink_metadata(file) {
        Ok(facts) if facts.is_symlink() => fs::canonicalize(file).context("following the link"),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(file.to_owned()),
    }
}

/// The text; none where there is no file.
fn read(file: &Path) -> Result<String> {
    match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        text => Ok(text?),
    }
}

/// kubectl's own lock: a file beside it that is there as long as somebody writes (client-go, `clientcmd/loader.go`, `lockFile`).
struct Lock(PathBuf);

impl Lock {
    fn take(file: &Path) -> Result<Lock> {
        let mut name = file.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        match File::options().write(true).create_new(true).mode(0o000).open(&path) {
            Ok(_) => Ok(Lock(path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(anyhow!("another program writes to it: {} is there", path.display())
                    .context(Hint("try again; where that program has ended, remove its .lock file".to_owned())))
            }
            Err(error) => Err(anyhow!(error).context(format!("making {}", path.display()))),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Nothing is left to do about one that stays: the next one is told of it.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::{Path, PathBuf};

    use super::{add, check, path, remove};
    use crate::cluster::kubeconfigs::issue;
    use crate::cluster::merge::Addition;
    use kscratch_pki::{Authority, OffsetDateTime};

    const LAB: Addition<'_> = Addition { name: "lab", folder: "/home/me/lab" };

    fn own() -> String {
        let now = OffsetDateTime::now_utc();
        let authority = Authority::new("kubernetes", now, 10).unwrap();
        issue("lab", "https://192.168.7.10:6443", ("kubernetes-admin", "g"), &authority, now).unwrap()
    }

    #[track_caller]
    fn named(kubeconfig: Option<&str>, home: Option<&str>, want: Option<&str>) {
        let found = path(kubeconfig.map(OsString::from), home.map(OsString::from));
        assert_eq!(found.ok(), want.map(PathBuf::from));
    }

    #[test]
    fn the_first_file_that_is_named_is_the_users() {
        named(Some("/a/b:/c"), Some("/home/me"), Some("/a/b"));
        named(Some(":/c"), Some("/home/me"), Some("/c"));
        named(Some(""), Some("/home/me"), Some("/home/me/.kube/config"));
        named(None, Some("/home/me"), Some("/home/me/.kube/config"));
        named(None, Some(""), None);
        named(None, None, None);
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_cluster_goes_in_and_out() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("home/.kube/config");
        assert!(remove(&file, LAB.folder).unwrap().is_empty() && !file.parent().unwrap().exists());
        let own = own();
        check(&file, LAB).unwrap();
        assert!(!file.exists());
        add(&file, LAB, &own).unwrap();
        assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
        let text = fs::read_to_string(&file).unwrap();
        let read = crate::vmcluster::api::Access::parse(&text).unwrap();
        assert_eq!((read.server.as_str(), read.user.as_str()), ("https://192.168.7.10:6443", "lab"));
        // It holds a key from now on, whoever could read it before.
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        add(&file, LAB, &own).unwrap();
        assert_eq!((mode(&file), fs::read_to_string(&file).unwrap()), (0o600, text));
        assert!(remove(&file, "/home/me/other").unwrap().is_empty());
        assert_eq!(remove(&file, LAB.folder).unwrap(), ["lab"]);
        assert!(!fs::read_to_string(&file).unwrap().contains("lab"));
        let left: Vec<_> =
            fs::read_dir(file.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["config"]);
    }

    #[test]
    fn a_link_stays_and_leads_to_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let (link, file) = (folder.path().join("config"), folder.path().join("dotfiles/kube"));
        fs::create_dir(file.parent().unwrap()).unwrap();
        symlink("dotfiles/kube", &link).unwrap();
        // One that leads nowhere is not made up.
        assert!(format!("{:#}", add(&link, LAB, &own()).unwrap_err()).contains("following the link"));
        fs::write(&file, "").unwrap();
        add(&link, LAB, &own()).unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert!(fs::read_to_string(&file).unwrap().contains("name: lab"));
    }

    #[test]
    fn what_cannot_be_changed_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        let foreign = "users: [{name: lab, user: {token: a}}]\n";
        fs::write(&file, foreign).unwrap();
        let error = format!("{:#}", check(&file, LAB).unwrap_err());
        assert!(error.starts_with("adding lab to ") && error.contains("has a user lab already"), "{error}");
        let error = format!("{:#}", add(&file, LAB, &own()).unwrap_err());
        assert!(error.starts_with("changing ") && error.contains("has a user lab already"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), foreign);
        fs::write(&file, "").unwrap();
        let lock = folder.path().join("config.lock");
        fs::write(&lock, "").unwrap();
        let error = format!("{:#}", add(&file, LAB, &own()).unwrap_err());
        assert!(error.contains("another program writes to it"), "{error}");
        assert!(lock.exists() && fs::read_to_string(&file).unwrap().is_empty());
    }
}
