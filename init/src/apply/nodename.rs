//! Gives the kubelet the client certificate of the node's name, and puts that of another name aside.
use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};

use super::files;
use crate::plan::{CLIENT, REMEMBERED_NAME, put_aside};

/// Has the certificate be one of `name`, or none. What is remembered is right after each of the three steps, wherever the power goes: the name
/// is that of the certificate whenever there is one.
///
/// # Errors
/// What the kernel says. Nothing further is done then.
pub fn take(root: &Path, name: &str, left: Option<&str>, returns: bool) -> Result<()> {
    if let Some(left) = left {
        rename(root, CLIENT, &put_aside(left))?;
    }
    let remembered = format!("{name}\n");
    // It is the same at nearly every boot, and a wait for the disk is a long one.
    if fs::read(files::below(root, REMEMBERED_NAME)).ok().as_deref() != Some(remembered.as_bytes()) {
        files::file(root, REMEMBERED_NAME, remembered.as_bytes(), 0o644)?;
    }
    if returns {
        rename(root, &put_aside(name), CLIENT)?;
    }
    Ok(())
}

fn rename(root: &Path, from: &str, to: &str) -> Result<()> {
    let (old, new) = (files::below(root, from), files::below(root, to));
    let folder = || fs::File::open(old.parent().ok_or(io::ErrorKind::InvalidInput)?)?.sync_all();
    fs::rename(&old, &new).and_then(|()| folder()).with_context(|| format!("renaming {from} to {to}"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::take;

    const PKI: &str = "var/lib/kubelet/pki";

    /// Has the kubelet have a certificate, as it does: a bundle, and a link to it.
    fn join(root: &Path, bundle: &str) {
        let pki = root.join(PKI);
        fs::create_dir_all(&pki).unwrap();
        fs::write(pki.join(bundle), bundle).unwrap();
        symlink(bundle, pki.join("kubelet-client-current.pem")).unwrap();
    }

    /// The bundle that the kubelet finds, the name that is remembered, and the names whose certificates are put aside.
    fn state(root: &Path) -> (Option<String>, String, Vec<String>) {
        let pki = root.join(PKI);
        let entries = fs::read_dir(&pki).into_iter().flatten();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut aside: Vec<String> =
            names.filter_map(|name| Some(name.strip_prefix("put-aside-")?.strip_suffix(".pem")?.to_owned())).collect();
        aside.sort();
        let current = fs::read_to_string(pki.join("kubelet-client-current.pem")).ok();
        (current, fs::read_to_string(root.join("var/lib/kscratch/node-name")).unwrap(), aside)
    }

    #[test]
    fn a_name_and_back() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let want = |current: Option<&str>, name: &str, aside: &[&str]| {
            (current.map(str::to_owned), format!("{name}\n"), aside.iter().map(|name| (*name).to_owned()).collect())
        };
        take(root, "n1", None, false).unwrap();
        assert_eq!(state(root), want(None, "n1", &[]));
        join(root, "one.pem");
        take(root, "n1", None, false).unwrap();
        assert_eq!(state(root), want(Some("one.pem"), "n1", &[]));
        take(root, "n2", Some("n1"), false).unwrap();
        assert_eq!(state(root), want(None, "n2", &["n1"]));
        join(root, "two.pem");
        take(root, "n1", Some("n2"), true).unwrap();
        assert_eq!(state(root), want(Some("one.pem"), "n1", &["n2"]));
        // A newer certificate of a name takes the place of the one that was put aside before.
        take(root, "n3", Some("n1"), false).unwrap();
        join(root, "three.pem");
        take(root, "n1", Some("n3"), true).unwrap();
        take(root, "n3", Some("n1"), true).unwrap();
        assert_eq!(state(root), want(Some("three.pem"), "n3", &["n1", "n2"]));
    }

    #[test]
    fn what_cannot_be_put_aside_is_not_taken_for_another_names() {
        let root = tempfile::tempdir().unwrap();
        take(root.path(), "n1", None, false).unwrap();
        let error = format!("{:#}", take(root.path(), "n2", Some("n1"), true).unwrap_err());
        assert!(
            error.starts_with("renaming /var/lib/kubelet/pki/kubelet-client-current.pem to /var/lib/kubelet/pki/put-aside-n1.pem: No such file"),
            "{error}"
        );
        assert_eq!(state(root.path()).1, "n1\n");
    }

    #[test]
    fn the_name_is_written_once() {
        let root = tempfile::tempdir().unwrap();
        let changed = || fs::metadata(root.path().join("var/lib/kscratch/node-name")).unwrap().modified().unwrap();
        take(root.path(), "n1", None, false).unwrap();
        let first = changed();
        std::thread::sleep(std::time::Duration::from_millis(20));
        take(root.path(), "n1", None, false).unwrap();
        assert_eq!(changed(), first);
    }
}
