//! The folder of a cluster's machines: where which file is, and who keeps them.
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

/// The cluster that `up` brings up where none is named.
pub const DEFAULT_NAME: &str = "lab";
/// The folder's name in the cluster's.
const MACHINES: &str = "machines";
/// The plan.
pub const PLAN: &str = "machines.json";
/// The keeper's socket.
pub const SOCKET: &str = "keeper.socket";
/// What the keeper complains about.
pub const LOG: &str = "keeper.log";
/// Held by the keeper.
const LOCK: &str = "keeper.lock";
/// The administrator's way through the gateway.
pub const KUBECONFIG: &str = "admin.kubeconfig";
/// A machine's role metadata, in its folder.
pub const ROLE: &str = "role.toml";
/// A machine's disk, in its folder.
pub const DISK: &str = "disk.qcow2";
/// What a machine said, in its folder.
pub const CONSOLE: &str = "console.log";

/// The folder of a cluster's machines, whether it is there or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The cluster's name.
    pub name: String,
    parent: PathBuf,
    path: PathBuf,
}

impl Place {
    /// The machines of the cluster `name` whose folder is in `parent`.
    pub fn of(parent: &Path, name: &str) -> Place {
        // `./NAME` would only be more to read.
        let parent = if parent == Path::new(".") { Path::new("") } else { parent };
        Place { name: name.to_owned(), parent: parent.to_owned(), path: parent.join(name).join(MACHINES) }
    }

    /// The cluster as an argument of a command that a person types: its name, behind the folder that has its folder, where that is another one.
    pub fn argument(&self) -> String {
        match self.parent.as_os_str().is_empty() {
            true => self.name.clone(),
            false => format!("--folder {} {}", self.parent.display(), self.name),
        }
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file of the cluster.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A file of a machine.
    pub fn machine_file(&self, machine: &str, name: &str) -> PathBuf {
        self.path.join(machine).join(name)
    }

    /// Makes a machine's folder and those above it, where they are missing. They hold secrets: nobody else gets in.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn make(&self, machine: &str) -> Result<()> {
        let folder = self.path.join(machine);
        let action = || format!("making the folder {}", folder.display());
        if let Some(cluster) = self.path.parent() {
            fs::create_dir_all(cluster).with_context(action)?;
        }
        DirBuilder::new().mode(0o700).recursive(true).create(&folder).with_context(action)
    }
}

/// Writes a file that only its owner reads, whole or not at all.
///
/// # Errors
/// It cannot be written.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    let action = || format!("writing {}", path.display());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // tempfile makes it 0600.
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(action)?;
    file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).with_context(action)?;
    file.persist(path).map_err(|error| error.error).with_context(action)?;
    Ok(())
}

/// Becomes the keeper of the machines in `folder`, as long as what is returned is not dropped; `None` where there is one.
///
/// # Errors
/// The lock's file cannot be made.
pub fn keep(folder: &Path) -> Result<Option<File>> {
    let path = folder.join(LOCK);
    let action = || format!("locking {}", path.display());
    let mut open = File::options();
    let file = open.create(true).truncate(false).write(true).mode(0o600).open(&path).with_context(action)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(anyhow!(error).context(action())),
    }
}
