//! A user's own kubeconfig on the disk: which files it is, and how one is changed while nobody else does.
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

use super::folder::write_private_for;
use super::merge::{self, Addition};
use crate::console::Hint;

/// The files that kubectl reads as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Users {
    /// The one that a new context is added to.
    pub file: PathBuf,
    /// The others.
    pub others: Vec<PathBuf>,
}

/// Finds what `$KUBECONFIG` names, else `~/.kube/config`. Of several files kubectl adds a new context to the first that is there, else to the last
/// (client-go, `PathOptions.GetDefaultFilename`).
///
/// # Errors
/// The environment names neither.
pub fn find(kubeconfig: Option<OsString>, home: Option<OsString>) -> Result<Users> {
    let named = kubeconfig.as_deref().map(std::env::split_paths).into_iter().flatten();
    let mut files: Vec<PathBuf> = named.filter(|path| !path.as_os_str().is_empty()).collect();
    if files.is_empty() {
        let home = home.filter(|home| !home.is_empty());
        files.extend(home.map(|home| PathBuf::from(home).join(".kube/config")));
    }
    let chosen = files.iter().position(|file| file.exists()).or_else(|| files.len().checked_sub(1));
    let file = files.remove(chosen.context("finding your kubeconfig: neither KUBECONFIG nor HOME is set")?);
    Ok(Users { file, others: files })
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

/// Puts the cluster of the kubeconfig `own` into the file for new contexts, which is made where there is none.
///
/// # Errors
/// An entry of that name is somebody else's, whichever file it is in, or the files cannot be read or written.
pub fn add(users: &Users, addition: Addition<'_>, own: &str) -> Result<()> {
    let chosen = refuse(&users.others, addition)?;
    change(&users.file, |before| Ok(Some((merge::merged(before, addition, own, chosen)?, ())))).map(drop)
}

/// Finds out whether [`add`] would be refused, and changes nothing.
///
/// # Errors
/// It would be, or a file cannot be read.
pub fn check(users: &Users, addition: Addition<'_>) -> Result<()> {
    refuse(std::iter::once(&users.file).chain(&users.others), addition).map(drop)
}

/// Says whether one of the files chooses a context.
fn refuse<'a>(files: impl IntoIterator<Item = &'a PathBuf>, addition: Addition<'_>) -> Result<bool> {
    let mut chosen = false;
    for file in files {
        let before = target(file).and_then(|target| read(&target));
        let refused = before.and_then(|before| merge::refuse(&before, addition));
        chosen |= refused.with_context(|| format!("adding {} to {}", addition.name, file.display()))?;
    }
    Ok(chosen)
}

/// Takes out what was put into any of the files for the cluster in `folder`; gives the contexts' names, by the file.
///
/// # Errors
/// A file cannot be read or written.
pub fn remove(users: &Users, folder: &str) -> Result<Vec<(PathBuf, Vec<String>)>> {
    let mut removed = Vec::new();
    for file in std::iter::once(&users.file).chain(&users.others).filter(|file| file.exists()) {
        // Nothing of it is locked where there is nothing to take out: it may be a file for all of a machine.
        let before = target(file).and_then(|target| read(&target));
        let found = before.and_then(|before| merge::without(&before, folder));
        if found.with_context(|| format!("looking into {}", file.display()))?.is_none() {
            continue;
        }
        let names = change(file, |before| merge::without(before, folder))?;
        removed.extend(names.map(|names| (file.clone(), names)));
    }
    Ok(removed)
}

/// Reads the file, and writes what `with` makes of it: whole, or not at all.
fn change<T>(file: &Path, with: impl FnOnce(&str) -> Result<Option<(String, T)>>) -> Result<Option<T>> {
    let action = || format!("changing {}", file.display());
    let target = target(file).with_context(action)?;
    if let Some(folder) = target.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().mode(0o700).recursive(true).create(folder).with_context(action)?;
    }
    let _alone = Lock::take(file).with_context(action)?;
    let Some((text, told)) = with(&read(&target).with_context(action)?).with_context(action)? else { return Ok(None) };
    // Where root does it for somebody, it stays that one's.
    let owner = fs::metadata(&target).ok().map(|before| (before.uid(), before.gid()));
    write_private_for(&target, &text, owner)?;
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

/// kubectl's own lock: a file beside the name, link or not, that is there as long as somebody writes (client-go, `clientcmd/loader.go`, `lockFile`).
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
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
    use std::path::Path;

    use super::{Users, add, check, find, remove};
    use crate::cluster::kubeconfigs::issue;
    use crate::cluster::merge::Addition;
    use kscratch_pki::{Authority, OffsetDateTime};

    const LAB: Addition<'_> = Addition { name: "lab", folder: "/home/me/lab" };

    fn own() -> String {
        let now = OffsetDateTime::now_utc();
        let authority = Authority::new("kubernetes", now, 10).unwrap();
        issue("lab", "https://192.168.7.10:6443", ("kubernetes-admin", "g"), &authority, now).unwrap()
    }

    fn alone(file: &Path) -> Users {
        Users { file: file.to_owned(), others: Vec::new() }
    }

    #[test]
    fn the_first_file_that_is_there_is_the_one_that_is_changed() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("there"), "").unwrap();
        fs::write(folder.path().join("too"), "").unwrap();
        let at = |name: &str| folder.path().join(name);
        let check = |kubeconfig: Option<&str>, home: Option<&str>, want: Option<(&str, &[&str])>| {
            let named = kubeconfig.map(|names| names.replace('@', folder.path().to_str().unwrap()));
            let found = find(named.map(OsString::from), home.map(|home| at(home).into()));
            let want = want
                .map(|(file, others)| Users { file: at(file), others: others.iter().map(|other| at(other)).collect() });
            assert_eq!(found.ok(), want, "{kubeconfig:?} {home:?}");
        };
        check(Some("@/a:@/b"), Some("me"), Some(("b", &["a"])));
        check(Some("@/a:@/there:@/too"), Some("me"), Some(("there", &["a", "too"])));
        check(Some(":@/a"), Some("me"), Some(("a", &[])));
        check(Some(""), Some("me"), Some(("me/.kube/config", &[])));
        check(None, Some("me"), Some(("me/.kube/config", &[])));
        check(None, None, None);
        assert!(find(None, Some("".into())).is_err());
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_cluster_goes_in_and_out() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("home/.kube/config");
        let users = alone(&file);
        assert!(remove(&users, LAB.folder).unwrap().is_empty() && !file.parent().unwrap().exists());
        let own = own();
        check(&users, LAB).unwrap();
        assert!(!file.exists());
        add(&users, LAB, &own).unwrap();
        assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
        let text = fs::read_to_string(&file).unwrap();
        let read = crate::vmcluster::api::Access::parse(&text).unwrap();
        assert_eq!((read.server.as_str(), read.user.as_str()), ("https://192.168.7.10:6443", "lab"));
        // It holds a key from now on, whoever could read it before.
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        add(&users, LAB, &own).unwrap();
        assert_eq!((mode(&file), fs::read_to_string(&file).unwrap()), (0o600, text));
        assert!(remove(&users, "/home/me/other").unwrap().is_empty());
        assert_eq!(remove(&users, LAB.folder).unwrap(), [(file.clone(), vec!["lab".to_owned()])]);
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
        assert!(format!("{:#}", add(&alone(&link), LAB, &own()).unwrap_err()).contains("following the link"));
        fs::write(&file, "").unwrap();
        // Whoever else goes by the link has locked its name.
        let lock = folder.path().join("config.lock");
        fs::write(&lock, "").unwrap();
        let error = format!("{:#}", add(&alone(&link), LAB, &own()).unwrap_err());
        assert!(error.contains("another program writes to it"), "{error}");
        fs::remove_file(&lock).unwrap();
        add(&alone(&link), LAB, &own()).unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert!(fs::read_to_string(&file).unwrap().contains("name: lab"));
    }

    #[test]
    fn it_stays_whose_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        fs::write(&file, "").unwrap();
        // Only root can do it for somebody else.
        let own = file.metadata().unwrap();
        let owner = if own.uid() == 0 { (12_345, 12_346) } else { (own.uid(), own.gid()) };
        chown(&file, Some(owner.0), Some(owner.1)).unwrap();
        add(&alone(&file), LAB, &self::own()).unwrap();
        let after = file.metadata().unwrap();
        assert_eq!((after.uid(), after.gid(), mode(&file)), (owner.0, owner.1, 0o600));
    }

    #[test]
    fn several_files_are_one() {
        let folder = tempfile::tempdir().unwrap();
        let (file, other) = (folder.path().join("config"), folder.path().join("other"));
        let users = Users { file: file.clone(), others: vec![folder.path().join("none"), other.clone()] };
        let foreign = "users: [{name: lab, user: {token: a}}]\n";
        fs::write(&other, foreign).unwrap();
        for refused in [check(&users, LAB), add(&users, LAB, &own())] {
            let error = format!("{:#}", refused.unwrap_err());
            assert!(error.starts_with(&format!("adding lab to {}: ", other.display())), "{error}");
            assert!(error.contains("it has a user lab already"), "{error}");
        }
        assert!(!file.exists());
        fs::write(&other, "current-context: work\n").unwrap();
        add(&users, LAB, &own()).unwrap();
        assert!(!fs::read_to_string(&file).unwrap().contains("current-context"));
        // One that was put into the other while that was alone goes with it.
        add(&alone(&other), LAB, &own()).unwrap();
        let lab = || vec!["lab".to_owned()];
        assert_eq!(remove(&users, LAB.folder).unwrap(), [(file, lab()), (other, lab())]);
    }

    #[test]
    fn what_cannot_be_changed_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        let foreign = "users: [{name: lab, user: {token: a}}]\n";
        fs::write(&file, foreign).unwrap();
        let users = alone(&file);
        let error = format!("{:#}", check(&users, LAB).unwrap_err());
        assert!(error.starts_with("adding lab to ") && error.contains("has a user lab already"), "{error}");
        let error = format!("{:#}", add(&users, LAB, &own()).unwrap_err());
        assert!(error.starts_with("changing ") && error.contains("has a user lab already"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), foreign);
        fs::write(&file, "").unwrap();
        let lock = folder.path().join("config.lock");
        fs::write(&lock, "").unwrap();
        let error = format!("{:#}", add(&users, LAB, &own()).unwrap_err());
        assert!(error.contains("another program writes to it"), "{error}");
        assert!(lock.exists() && fs::read_to_string(&file).unwrap().is_empty());
    }
}
