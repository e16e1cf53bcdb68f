//! Wipes state where that was asked for: at the boot, before anything reads it, with the mark that asks for it as the last thing to go.
//!
//! A power cut on the way leaves the mark, and the next boot begins again. Files are removed one by one, so that what is kept is never anywhere else than in its place.
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::reserve::Place;
use crate::apply::files;
use crate::log;

/// The mark, on state itself.
const MARK: &str = "/var/lib/kscratch/reset";
/// What makes a node the one that it is to itself and to its cluster. All else is made anew of the metadata, or fetched again.
const IDENTITY: [&str; 3] = ["/var/lib/kscratch/machine-id", "/var/lib/kscratch/node-name", "/var/lib/kubelet/pki"];
/// Is the filesystem's own (e2fsck(8)).
const LOST: &str = "lost+found";

/// What goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// Everything: the machine is a new one.
    All,
    /// Everything but its identity: it is the same Node, with nothing on it.
    KeepIdentity,
}

impl Reset {
    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::KeepIdentity => "keep-identity",
        }
    }

    fn read(text: &str) -> Result<Self> {
        let known = [Self::All, Self::KeepIdentity].into_iter().find(|reset| reset.word() == text.trim_end());
        let Some(known) = known else { bail!("{:?} is no way to reset a machine", text.trim_end()) };
        Ok(known)
    }
}

/// Has the next boot wipe state.
///
/// # Errors
/// The mark cannot be written.
pub fn ask(root: &Path, reset: Reset) -> Result<()> {
    files::file(root, MARK, format!("{}\n", reset.word()).as_bytes(), 0o600)
        .context("asking the next boot to wipe state")
}

fn asked(root: &Path) -> Result<Option<Reset>> {
    match fs::read_to_string(files::below(root, MARK)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        text => Reset::read(&text?).map(Some),
    }
    .with_context(|| format!("reading {MARK}"))
}

/// Wipes what is mounted on `/var`, if that was asked for, but for the mark. To be called before anything there is read.
///
/// # Errors
/// What the kernel says; the next boot goes on with it.
pub fn begin(root: &Path) -> Result<()> {
    let Some(reset) = asked(root)? else { return Ok(()) };
    log::line(match reset {
        Reset::All => "state is wiped, as it was asked for: this is a new machine",
        Reset::KeepIdentity => "state is wiped, as it was asked for, but for the machine's identity",
    });
    let mut kept = vec![files::below(root, MARK), files::below(root, "/var").join(LOST)];
    if reset == Reset::KeepIdentity {
        kept.extend(IDENTITY.map(|path| files::below(root, path)));
    }
    wipe(&files::below(root, "/var"), &kept).context("wiping state")
}

/// Wipes the disks that the metadata name, which are mounted by now, and takes the mark away.
///
/// # Errors
/// What the kernel says; the next boot begins again.
pub fn finish(root: &Path, places: &[Place]) -> Result<()> {
    if asked(root)?.is_none() {
        return Ok(());
    }
    for place in places {
        let folder = files::below(root, place.mount);
        wipe(&folder, &[folder.join(LOST)]).with_context(|| format!("wiping {}", place.what))?;
    }
    let mark = files::below(root, MARK);
    rustix::fs::sync();
    fs::remove_file(&mark).with_context(|| format!("removing {MARK}"))
}

/// Removes what is in a folder, but for `kept` and the folders on the way there. No link is followed.
fn wipe(folder: &Path, kept: &[PathBuf]) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let is_folder = entry.file_type()?.is_dir();
        if kept.contains(&path) {
            continue;
        }
        if is_folder && kept.iter().any(|one| one.starts_with(&path)) {
            wipe(&path, kept)?;
        } else if is_folder {
            fs::remove_dir_all(&path)?;
        } else {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    use super::{MARK, Reset, ask, begin, finish};
    use crate::apply::disk::reserve::Place;

    /// A machine's state, and a disk for docker; files that are outside, and links to them.
    fn machine() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for file in [
            "etc/outside",
            "var/lib/kscratch/machine-id",
            "var/lib/kscratch/node-name",
            "var/lib/kscratch/pod-range",
            "var/lib/kubelet/pki/kubelet-client-current.pem",
            "var/lib/kubelet/pods/x/y",
            "var/lib/docker/image/z",
            "var/log/kscratch/kubelet.log",
            "var/lost+found/1",
            "disk/lost+found/1",
            "disk/overlay2/l/X",
        ] {
            fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            fs::write(root.join(file), "text").unwrap();
        }
        for link in ["var/link", "var/lib/docker/link", "disk/link"] {
            std::os::unix::fs::symlink(root.join("etc"), root.join(link)).unwrap();
        }
        folder
    }

    fn files(root: &Path) -> Vec<String> {
        let found = Command::new("find").arg(root).args(["-not", "-type", "d", "-printf", "%P\\n"]).output().unwrap();
        let mut files: Vec<String> = String::from_utf8(found.stdout).unwrap().lines().map(str::to_owned).collect();
        files.sort();
        files
    }

    const DOCKER: Place = Place { what: "docker's store", mount: "/disk", file: "/disk/reserve" };

    #[test]
    fn nothing_goes_that_was_not_asked_for() {
        let machine = machine();
        let before = files(machine.path());
        begin(machine.path()).unwrap();
        finish(machine.path(), &[DOCKER]).unwrap();
        assert_eq!(files(machine.path()), before);
        // A mark that says something else wipes nothing.
        fs::write(machine.path().join(&MARK[1..]), "al").unwrap();
        assert!(format!("{:#}", begin(machine.path()).unwrap_err()).contains("\"al\" is no way to reset a machine"));
        assert!(finish(machine.path(), &[DOCKER]).is_err());
        assert_eq!(files(machine.path()).len(), before.len() + 1);
    }

    #[test]
    fn what_is_asked_for_goes_and_the_mark_last() {
        const ALWAYS: [&str; 3] = ["disk/lost+found/1", "etc/outside", "var/lost+found/1"];
        const IDENTITY: [&str; 3] = [
            "var/lib/kscratch/machine-id",
            "var/lib/kscratch/node-name",
            "var/lib/kubelet/pki/kubelet-client-current.pem",
        ];
        for (reset, kept) in [(Reset::All, &[] as &[&str]), (Reset::KeepIdentity, &IDENTITY)] {
            let machine = machine();
            ask(machine.path(), reset).unwrap();
            begin(machine.path()).unwrap();
            assert!(files(machine.path()).contains(&MARK[1..].to_owned()), "a cut here is begun again");
            begin(machine.path()).unwrap();
            finish(machine.path(), &[DOCKER]).unwrap();
            let mut want: Vec<&str> = ALWAYS.iter().chain(kept).copied().collect();
            want.sort();
            assert_eq!(files(machine.path()), want, "{reset:?}");
            finish(machine.path(), &[DOCKER]).unwrap();
        }
    }
}
