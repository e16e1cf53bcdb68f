//! Wipes state where that was asked for: at the boot, before anything reads it, with the mark that asks for it as the last thing to go.
//!
//! A power cut on the way leaves the mark, and the next boot begins again. Files are removed one by one, so that what is kept is never anywhere else than in its place.
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use rustix::fs::{IFlags, OFlags, ioctl_getflags, ioctl_setflags};

use super::reserve::Place;
use crate::apply::files;
use crate::log;

/// The mark, on state itself.
const MARK: &str = "/var/lib/kscratch/reset";
/// What makes a node the one that it is to itself and to its cluster. All else is made anew of the metadata, or fetched again.
const IDENTITY: [&str; 3] = ["/var/lib/kscratch/machine-id", "/var/lib/kscratch/node-name", "/var/lib/kubelet/pki"];
/// Is the filesystem's own (e2fsck(8)), and stays, empty.
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
/// What the kernel says first; all else is wiped nevertheless. Nothing may run on what is left: the next boot goes on with it.
pub fn begin(root: &Path) -> Result<()> {
    let Some(reset) = asked(root)? else { return Ok(()) };
    log::line(match reset {
        Reset::All => "state is wiped, as it was asked for: this is a new machine",
        Reset::KeepIdentity => "state is wiped, as it was asked for, but for the machine's identity",
    });
    let mut kept = vec![files::below(root, MARK)];
    if reset == Reset::KeepIdentity {
        kept.extend(IDENTITY.map(|path| files::below(root, path)));
    }
    clear(&files::below(root, "/var"), kept).context("wiping state")
}

/// Wipes the disks that the metadata name, which are mounted by now, and takes the mark away. To be called where [`begin`] has wiped all.
///
/// # Errors
/// What the kernel says first; the next boot begins again, and nothing may run until then.
pub fn finish(root: &Path, places: &[Place]) -> Result<()> {
    if asked(root)?.is_none() {
        return Ok(());
    }
    let wipe = |place: &Place| {
        clear(&files::below(root, place.mount), Vec::new()).with_context(|| format!("wiping {}", place.what))
    };
    places.iter().map(wipe).fold(Ok(()), Result::and)?;
    let mark = files::below(root, MARK);
    rustix::fs::sync();
    fs::remove_file(&mark).with_context(|| format!("removing {MARK}"))
}

/// Removes what is on a filesystem, but for `kept` and the folders on the way there. What a check of the filesystem has found goes as well.
fn clear(folder: &Path, mut kept: Vec<PathBuf>) -> io::Result<()> {
    let lost = folder.join(LOST);
    let mut found = Ok(());
    if fs::symlink_metadata(&lost).is_ok_and(|lost| lost.is_dir()) {
        found = wipe(&lost, &[]);
        kept.push(lost);
    }
    found.and(wipe(folder, &kept))
}

/// Removes what is in a folder. No link is followed. Gives the first error, past which it goes on.
fn wipe(folder: &Path, kept: &[PathBuf]) -> io::Result<()> {
    let remove = |entry: fs::DirEntry| {
        let path = entry.path();
        if kept.contains(&path) {
            return Ok(());
        }
        if !entry.file_type()?.is_dir() {
            return insist(&[folder, &path], || fs::remove_file(&path));
        }
        if kept.iter().any(|one| one.starts_with(&path)) {
            return wipe(&path, kept);
        }
        let inside = flatten(&path);
        inside.and(insist(&[folder, &path], || fs::remove_dir(&path)))
    };
    fs::read_dir(folder)?.map(|entry| entry.and_then(remove)).fold(Ok(()), Result::and)
}

/// Empties a folder. The folders in its folders are brought up into itself first, level by level: a pod may have nested them deeper than any path is long.
fn flatten(folder: &Path) -> io::Result<()> {
    let mut number = 0_u64;
    loop {
        let mut brought = false;
        let mut bring = |from: &Path, below: &Path| {
            let mut to = folder.join(format!("wiped-{number}"));
            while fs::symlink_metadata(&to).is_ok() {
                number += 1;
                to.set_file_name(format!("wiped-{number}"));
            }
            number += 1;
            let done = insist(&[folder, below, from], || fs::rename(from, &to));
            brought |= done.is_ok();
            // Between folders with quotas of their own nothing is moved.
            done.or_else(|error| fs::remove_dir_all(from).map_err(|_| error))
        };
        let mut empty = |entry: fs::DirEntry| {
            let path = entry.path();
            if !entry.file_type()?.is_dir() {
                return insist(&[folder, &path], || fs::remove_file(&path));
            }
            let inside = fs::read_dir(&path)?.map(|below| {
                let below = below?;
                let from = below.path();
                if below.file_type()?.is_dir() {
                    bring(&from, &path)
                } else {
                    insist(&[&path, &from], || fs::remove_file(&from))
                }
            });
            let inside = inside.fold(Ok(()), Result::and);
            inside.and(insist(&[folder, &path], || fs::remove_dir(&path)))
        };
        let emptied = fs::read_dir(folder)?.map(|entry| entry.and_then(&mut empty)).fold(Ok(()), Result::and);
        if !brought {
            return emptied;
        }
    }
}

/// Does what an immutable or append-only flag may forbid (chattr(1)): such flags are taken off what it concerns then.
fn insist(concerned: &[&Path], act: impl Fn() -> io::Result<()>) -> io::Result<()> {
    let mut done = act();
    if done.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
        concerned.iter().for_each(|path| free(path).unwrap_or_default());
        done = act();
    }
    let path = concerned.last().copied().unwrap_or(Path::new("/"));
    done.map_err(|error| io::Error::new(error.kind(), format!("removing {}: {error}", path.display())))
}

/// Takes the flags off a file or a folder; other things have none.
fn free(path: &Path) -> io::Result<()> {
    let kind = fs::symlink_metadata(path)?.file_type();
    if !kind.is_dir() && !kind.is_file() {
        return Ok(());
    }
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let flags = ioctl_getflags(&file)?;
    let fewer = flags - (IFlags::IMMUTABLE | IFlags::APPEND);
    if fewer != flags {
        ioctl_setflags(&file, fewer)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

    use super::{MARK, Reset, ask, begin, clear, finish};
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
        const ALWAYS: [&str; 1] = ["etc/outside"];
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
            for lost in ["var/lost+found", "disk/lost+found"] {
                assert!(machine.path().join(lost).is_dir(), "{lost} is the filesystem's own");
            }
            finish(machine.path(), &[DOCKER]).unwrap();
        }
    }

    #[test]
    fn no_folder_is_too_deep() {
        let folder = tempfile::tempdir().unwrap();
        // A path of as many names is longer than the kernel takes, so it is made from its end.
        let at = |name: &str| folder.path().join("top").join(name);
        fs::create_dir_all(at("nest")).unwrap();
        for _ in 0..2500 {
            fs::create_dir(at("next")).unwrap();
            fs::rename(at("nest"), at("next").join("nest")).unwrap();
            fs::write(at("next").join("file"), "").unwrap();
            fs::rename(at("next"), at("nest")).unwrap();
        }
        fs::create_dir(at("wiped-0")).unwrap();
        fs::write(at("wiped-0").join("x"), "").unwrap();
        clear(folder.path(), Vec::new()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    /// Where this process may set flags they are taken off; where it may not, a folder that it may not write to stands for what cannot be removed.
    #[test]
    fn an_obstacle_goes_or_is_told_and_all_else_goes() {
        use std::os::unix::fs::PermissionsExt as _;
        let machine = machine();
        let fixed = machine.path().join("var/lib/kubelet/pods");
        let flag = |path: &Path, flag: IFlags| {
            let file = fs::File::open(path)?;
            ioctl_setflags(&file, ioctl_getflags(&file)? | flag)?;
            std::io::Result::Ok(())
        };
        let is_flagged = flag(&fixed.join("x/y"), IFlags::IMMUTABLE).is_ok();
        if is_flagged {
            flag(&fixed.join("x"), IFlags::APPEND).unwrap();
            flag(&fixed, IFlags::IMMUTABLE).unwrap();
        }
        fs::set_permissions(fixed.join("x"), fs::Permissions::from_mode(0o500)).unwrap_or_default();
        ask(machine.path(), Reset::All).unwrap();
        let begun = begin(machine.path());
        let left = files(&machine.path().join("var"));
        let is_root = rustix::process::geteuid().is_root();
        if is_flagged || is_root {
            begun.unwrap();
            assert_eq!(left, [&MARK["/var/".len()..]]);
        } else {
            assert!(format!("{:#}", begun.unwrap_err()).contains("removing "));
            assert_eq!(left, [&MARK["/var/".len()..], "lib/kubelet/pods/x/y"]);
            fs::set_permissions(fixed.join("x"), fs::Permissions::from_mode(0o700)).unwrap();
        }
    }

    #[test]
    fn what_stays_is_told() {
        // The kernel lets nobody remove these.
        let error = clear(Path::new("/proc/self/fdinfo"), Vec::new()).unwrap_err().to_string();
        assert!(error.starts_with("removing /proc/self/fdinfo/"), "{error}");
    }
}
