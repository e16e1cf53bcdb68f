//! Gives the kubelet the certificates of this cluster, puts those of another one aside, and remembers beside them which cluster they are of.
use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::files;
use crate::plan::{CLUSTER_CA, Change, PKI, REMEMBERED_NODES, REMEMBERED_POD_RANGE};

/// Does it, and then remembers the CA. A folder and what it remembers move as one, so that it is right wherever the power goes; of those that are put
/// aside there is one, the last.
///
/// # Errors
/// What the kernel says. The CA is not remembered then.
pub fn remember(root: &Path, ca: &str, change: Change) -> Result<()> {
    if change != Change::None {
        // First: of the other cluster they are worth nothing, and of this one they come again.
        for path in [REMEMBERED_POD_RANGE, REMEMBERED_NODES] {
            gone(fs::remove_file(files::below(root, path))).with_context(|| format!("removing {path}"))?;
        }
    }
    let (own, aside) = PKI;
    match change {
        Change::None => {}
        Change::Leave => {
            gone(fs::remove_dir_all(files::below(root, aside))).with_context(|| format!("removing {aside}"))?;
            rename(root, own, aside, RenameFlags::empty())?;
        }
        Change::Return => {
            let both = files::below(root, own).exists();
            rename(root, aside, own, if both { RenameFlags::EXCHANGE } else { RenameFlags::empty() })?;
        }
    }
    let remembered = format!("{own}/{CLUSTER_CA}");
    // It is the same at nearly every boot, and a wait for the disk is a long one.
    if fs::read(files::below(root, &remembered)).ok().as_deref() != Some(ca.as_bytes()) {
        files::file(root, &remembered, ca.as_bytes(), 0o644)?;
    }
    Ok(())
}

/// What was not there need not be removed.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn rename(root: &Path, from: &str, to: &str, flags: RenameFlags) -> Result<()> {
    let (old, new) = (files::below(root, from), files::below(root, to));
    let folder = || fs::File::open(old.parent().ok_or(io::ErrorKind::InvalidInput)?)?.sync_all();
    let renamed = renameat_with(CWD, &old, CWD, &new, flags).map_err(io::Error::from);
    renamed.and_then(|()| folder()).with_context(|| format!("renaming {from} to {to}"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::remember;
    use crate::plan::Change;

    /// Of the folder that the kubelet has, and of the one that is put aside, the certificate and the CA.
    fn state(root: &Path) -> [Option<String>; 4] {
        let read = |path: &str| fs::read_to_string(root.join("var/lib/kubelet").join(path)).ok();
        [
            "pki/client.pem",
            "pki/kscratch-cluster-ca.crt",
            "pki-of-another-cluster/client.pem",
            "pki-of-another-cluster/kscratch-cluster-ca.crt",
        ]
        .map(read)
    }

    #[track_caller]
    fn check(root: &Path, ca: &str, change: Change, want: [Option<&str>; 4]) {
        remember(root, ca, change).unwrap();
        assert_eq!(state(root), want.map(|one| one.map(str::to_owned)));
    }

    #[test]
    fn from_one_cluster_to_the_next_and_back() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let join = |certificate: &str| {
            fs::write(root.join("var/lib/kubelet/pki/client.pem"), certificate).unwrap();
            fs::create_dir_all(root.join("var/lib/kscratch/routes")).unwrap();
            fs::write(root.join("var/lib/kscratch/pod-range"), certificate).unwrap();
            fs::write(root.join("var/lib/kscratch/routes/nodes.json"), certificate).unwrap();
        };
        let remembers = |path: &str| root.join("var/lib/kscratch").join(path).exists();
        check(root, "A", Change::None, [None, Some("A"), None, None]);
        join("of A");
        check(root, "A", Change::None, [Some("of A"), Some("A"), None, None]);
        assert!(remembers("pod-range") && remembers("routes/nodes.json"));
        check(root, "B", Change::Leave, [None, Some("B"), Some("of A"), Some("A")]);
        assert!(!remembers("pod-range") && !remembers("routes/nodes.json"));
        // It never joined that one.
        check(root, "A", Change::Return, [Some("of A"), Some("A"), None, Some("B")]);
        check(root, "B", Change::Leave, [None, Some("B"), Some("of A"), Some("A")]);
        join("of B");
        check(root, "A", Change::Return, [Some("of A"), Some("A"), Some("of B"), Some("B")]);
        check(root, "C", Change::Leave, [None, Some("C"), Some("of A"), Some("A")]);
        fs::remove_dir_all(root.join("var/lib/kubelet/pki")).unwrap();
        check(root, "A", Change::Return, [Some("of A"), Some("A"), None, None]);
        let error = format!("{:#}", remember(root, "D", Change::Return).unwrap_err());
        assert!(
            error.starts_with("renaming /var/lib/kubelet/pki-of-another-cluster to /var/lib/kubelet/pki: No such file"),
            "{error}"
        );
        assert_eq!(state(root)[1].as_deref(), Some("A"), "what could not be taken back is not D's");
    }
}
