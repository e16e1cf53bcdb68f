//! Remembers which cluster the kubelet's certificates are of, and puts those of another one aside.
use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};

use super::files;
use crate::plan::{PKI, REMEMBERED_CA};

/// Puts the certificates aside if they are to be left, and then remembers the CA: whatever there is of certificates is of the cluster that is
/// remembered, wherever the power goes. What was put aside before is gone then.
///
/// # Errors
/// What the kernel says. The CA is not remembered then.
pub fn remember(root: &Path, ca: &str, leaves: bool) -> Result<()> {
    if leaves {
        put_aside(root)?;
    }
    // It is the same at nearly every boot, and a wait for the disk is a long one.
    if fs::read(files::below(root, REMEMBERED_CA)).ok().as_deref() != Some(ca.as_bytes()) {
        files::file(root, REMEMBERED_CA, ca.as_bytes(), 0o644)?;
    }
    Ok(())
}

fn put_aside(root: &Path) -> Result<()> {
    let (from, to) = PKI;
    let (old, new) = (files::below(root, from), files::below(root, to));
    match fs::remove_dir_all(&new) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        done => done.with_context(|| format!("removing {to}"))?,
    }
    let folder = || fs::File::open(old.parent().ok_or(io::ErrorKind::InvalidInput)?)?.sync_all();
    fs::rename(&old, &new).and_then(|()| folder()).with_context(|| format!("renaming {from} to {to}"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::remember;

    /// The file that the kubelet finds, the one that is put aside, and the CA that is remembered.
    fn state(root: &Path) -> [Option<String>; 3] {
        ["kubelet/pki/client.pem", "kubelet/pki-of-another-cluster/client.pem", "kscratch/cluster-ca.crt"]
            .map(|path| fs::read_to_string(root.join("var/lib").join(path)).ok())
    }

    #[test]
    fn from_one_cluster_to_the_next() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let join = |certificate: &str| {
            let pki = root.join("var/lib/kubelet/pki");
            fs::create_dir_all(&pki).unwrap();
            fs::write(pki.join("client.pem"), certificate).unwrap();
        };
        let want = |all: [Option<&str>; 3]| all.map(|one| one.map(str::to_owned));
        remember(root, "A", false).unwrap();
        assert_eq!(state(root), want([None, None, Some("A")]));
        join("of A");
        remember(root, "A", false).unwrap();
        assert_eq!(state(root), want([Some("of A"), None, Some("A")]));
        remember(root, "B", true).unwrap();
        assert_eq!(state(root), want([None, Some("of A"), Some("B")]));
        join("of B");
        remember(root, "C", true).unwrap();
        assert_eq!(state(root), want([None, Some("of B"), Some("C")]));
        let error = format!("{:#}", remember(root, "D", true).unwrap_err());
        assert!(error.starts_with("renaming /var/lib/kubelet/pki to "), "{error}");
        assert_eq!(state(root)[2].as_deref(), Some("C"), "what could not be put aside is not D's");
    }
}
