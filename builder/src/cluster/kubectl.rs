//! Finds a kubectl for a cluster and hands it the administrator's kubeconfig: the lock's own version, or the one that is installed.
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow};

use super::folder::ADMIN;
use crate::console::{Console, Hint};
use crate::kubernetes;
use crate::lock::Lock;
use crate::store::Store;
use crate::vmcluster::place::{KUBECONFIG, Place};

/// The name of the program, and of its artifact in a lock.
const KUBECTL: &str = "kubectl";

/// The program: of the lock's version where `lock` is there and names one (compiled if it has to be), else the first on `path`.
///
/// # Errors
/// There is neither, or the lock's cannot be made.
pub fn find(lock: &Path, path: Option<OsString>, store: &Store, console: &Console) -> Result<PathBuf> {
    if lock.exists() {
        let read = Lock::read(lock)?;
        if read.get(KUBECTL).is_some() {
            // It may have to be compiled first.
            let _alone = store.lock(console)?;
            // Where image.toml is, is not known here; a lock is kept with it.
            let folder = lock.parent().unwrap_or(Path::new(""));
            return kubernetes::kubectl(&read, folder, store, false, console);
        }
    }
    installed(path).ok_or_else(|| {
        anyhow!("{} names no kubectl, and none is installed", lock.display()).context(Hint(
            "kscratch-image lock --role master makes a lock that names one; or install kubectl".to_owned(),
        ))
    })
}

/// The first kubectl on `path` that can be started.
pub fn installed(path: Option<OsString>) -> Option<PathBuf> {
    let folders = path.as_deref().map(std::env::split_paths).into_iter().flatten();
    let program =
        |file: &PathBuf| file.metadata().is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0);
    folders.map(|folder| folder.join(KUBECTL)).find(program)
}

/// How kubectl is run for a cluster by this program, whether one is installed or not; its arguments come behind it.
pub fn command(parent: &Path, name: &str) -> String {
    let folder = if parent == Path::new(".") { String::new() } else { format!("--folder {} ", parent.display()) };
    format!("kscratch-image cluster kubectl {folder}{name}")
}

/// The line that shows a cluster's nodes: with the kubectl that is installed, else by this program.
pub fn nodes(parent: &Path, name: &str, kubeconfig: &Path, installed: bool) -> String {
    match installed {
        true => format!("{KUBECTL} --kubeconfig {} get nodes", kubeconfig.display()),
        false => format!("{} get nodes", command(parent, name)),
    }
}

/// The administrator's kubeconfig: of the machines in QEMU where there are any, else the cluster's own.
///
/// # Errors
/// There is none.
pub fn kubeconfig(parent: &Path, name: &str) -> Result<PathBuf> {
    let files = [Place::of(parent, name).file(KUBECONFIG), parent.join(name).join(ADMIN)];
    let found = files.iter().find(|file| file.exists()).cloned();
    found.ok_or_else(|| {
        anyhow!("there is no {}", files[1].display()).context(Hint(format!(
            "kscratch-image cluster new {name} makes a cluster's identity, cluster up {name} a whole cluster in QEMU"
        )))
    })
}

/// Becomes that program; comes back only with an error.
///
/// # Errors
/// It cannot be started.
pub fn become_it(program: &Path, kubeconfig: &Path, arguments: &[OsString]) -> Result<std::convert::Infallible> {
    let error = Command::new(program).env("KUBECONFIG", kubeconfig).args(arguments).exec();
    Err(error).with_context(|| format!("starting {}", program.display()))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::{find, kubeconfig, nodes};
    use crate::console::{Console, Verbosity};
    use crate::store::Store;

    #[test]
    fn what_is_installed_is_taken_where_no_lock_names_one() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("cache")).unwrap();
        let console = Console::stderr(Verbosity::Quiet, Some(false));
        let lock = folder.path().join("kscratch.lock");
        let path = |folder: &Path| Some(OsString::from(format!("/nowhere:{}", folder.display())));
        let error = format!("{:#}", find(&lock, path(folder.path()), &store, &console).unwrap_err());
        assert!(error.ends_with("kscratch.lock names no kubectl, and none is installed"), "{error}");
        let program = folder.path().join("kubectl");
        fs::write(&program, "").unwrap();
        // What nobody can start is none.
        assert!(find(&lock, path(folder.path()), &store, &console).is_err());
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let found = find(&lock, path(folder.path()), &store, &console).unwrap();
        assert_eq!(found, folder.path().join("kubectl"));
        assert!(find(&lock, None, &store, &console).is_err());
    }

    #[test]
    fn the_line_that_is_told_is_one_that_works_here() {
        let kubeconfig = Path::new("lab/machines/admin.kubeconfig");
        for (parent, installed, want) in [
            (".", true, "kubectl --kubeconfig lab/machines/admin.kubeconfig get nodes"),
            (".", false, "kscratch-image cluster kubectl lab get nodes"),
            ("/srv", false, "kscratch-image cluster kubectl --folder /srv lab get nodes"),
        ] {
            assert_eq!(nodes(Path::new(parent), "lab", kubeconfig, installed), want);
        }
    }

    #[test]
    fn machines_in_qemu_come_first() {
        let folder = tempfile::tempdir().unwrap();
        let error = format!("{:#}", kubeconfig(folder.path(), "lab").unwrap_err());
        assert!(error.contains("lab/admin.kubeconfig"), "{error}");
        let own = folder.path().join("lab/admin.kubeconfig");
        let machines = folder.path().join("lab/machines/admin.kubeconfig");
        fs::create_dir_all(machines.parent().unwrap()).unwrap();
        fs::write(&own, "").unwrap();
        assert_eq!(kubeconfig(folder.path(), "lab").unwrap(), own);
        fs::write(&machines, "").unwrap();
        assert_eq!(kubeconfig(folder.path(), "lab").unwrap(), machines);
    }
}
